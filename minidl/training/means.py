"""Means over a data set of what is measured batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.tensor import Tensor

# From outputs and labels to a single number, the mean over the samples.
Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Means:
    """Means over samples of the loss and the metrics.

    A metric takes as long for many batches as for one, and on a GPU nobody should wait for numbers
    in every step. So outputs are collected, and measured some batches at a time.
    """

    MOST_BATCHES = 64
    MOST_BYTES = 1 << 20

    def __init__(self, metrics: Mapping[str, Measure]) -> None:
        self.metrics = metrics
        self.samples = 0
        self.sums: dict[str, float] = {}
        self.waiting: list[tuple[Array, Array, Array]] = []
        self.bytes = 0

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add one batch: its mean loss, outputs (N, ...) and labels (N, ...)."""
        self.waiting.append((loss.data, outputs.data, labels.data))
        self.bytes += outputs.data.nbytes
        if len(self.waiting) >= self.MOST_BATCHES or self.bytes >= self.MOST_BYTES:
            self._measure()

    def values(self) -> dict[str, float]:
        """The means so far."""
        self._measure()
        return {name: total / self.samples for name, total in self.sums.items()}

    def _measure(self) -> None:
        """Add what is waiting to the sums."""
        if not self.waiting:
            return
        losses, outputs, labels = zip(*self.waiting, strict=True)
        xp = backend.of(outputs[0]).xp
        sizes = np.array([len(part) for part in labels])
        # Sums are float64: thousands of batches add up, and float32 would show it.
        mean = backend.on_host(xp.stack(losses)).astype(np.float64)
        self._add("loss", float(mean @ sizes))
        if self.metrics:
            joined = Tensor(xp.concatenate(outputs)), Tensor(xp.concatenate(labels))
            for name, metric in self.metrics.items():
                self._add(name, float(metric(*joined)) * int(sizes.sum()))
        self.samples += int(sizes.sum())
        self.waiting, self.bytes = [], 0

    def _add(self, name: str, amount: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + amount
