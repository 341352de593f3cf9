"""Means over a data set of what is measured batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.distributed import World
from minidl.tensor import Tensor

# From outputs and labels to a single number, the mean over the samples.
Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Means:
    """Means over samples of the loss and the metrics.

    A metric takes as long for many batches as for one, and on a GPU nobody should wait for numbers
    in every step. So outputs are collected, and measured some batches at a time.

    Attributes:
        not_finite: number of the first batch whose loss was nan or infinite, counted from 0; None
            as long as none is known.
    """

    MOST_BATCHES = 64
    MOST_BYTES = 1 << 20

    def __init__(self, metrics: Mapping[str, Measure]) -> None:
        self.metrics = metrics
        self.samples = 0
        self.sums: dict[str, float] = {}
        self.waiting: list[tuple[Array, Array, Array]] = []
        self.bytes = 0
        self.measured = 0
        self.not_finite: int | None = None

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add one batch: its mean loss, outputs (N, ...) and labels (N, ...)."""
        self.waiting.append((loss.data.reshape(()), outputs.data, labels.data))
        self.bytes += outputs.data.nbytes
        if len(self.waiting) >= self.MOST_BATCHES or self.bytes >= self.MOST_BYTES:
            self._measure()

    def add_up(self, world: World) -> None:
        """Add to what this rank has measured what all others have; nothing is added afterwards."""
        if world.size == 1:
            return
        self._measure()
        names = "loss", *self.metrics
        totals = np.array([self.samples, *(self.sums.get(name, 0.0) for name in names)])
        world.allreduce(totals)
        self.samples = int(totals[0])
        self.sums = dict(zip(names, totals[1:].tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What has been added so far, what is waiting among it."""
        names = "loss", "outputs", "labels"
        waiting = [
            dict(zip(names, map(backend.on_host, batch), strict=True)) for batch in self.waiting
        ]
        return {
            "samples": self.samples,
            "sums": self.sums,
            "measured": self.measured,
            "waiting": waiting,
        }

    def load_state_dict(self, state: Mapping[str, Any], like: Array) -> None:
        """Go on from there, on the device of an array.

        Raises ValueError or another error if what waits cannot be measured.
        """
        here = backend.of(like)
        self.samples, self.sums = state["samples"], dict(state["sums"])
        self.measured = state["measured"]
        self.waiting = []
        for batch in state["waiting"]:
            loss, outputs, labels = (
                here.asarray(batch[name]) for name in ("loss", "outputs", "labels")
            )
            self.waiting.append((loss, outputs, labels))
        self.bytes = sum(outputs.nbytes for _, outputs, _ in self.waiting)
        self.values()

    def values(self) -> dict[str, float]:
        """The means so far. Asking changes nothing: what waits is measured with what follows."""
        samples, sums = self._with_waiting()
        return {name: total / samples for name, total in sums.items()}

    def _measure(self) -> None:
        """Measure what is waiting."""
        self.samples, self.sums = self._with_waiting()
        self.measured += len(self.waiting)
        self.waiting, self.bytes = [], 0

    def _with_waiting(self) -> tuple[int, dict[str, float]]:
        """The number of samples and the sums, with those of what is waiting added."""
        sums = dict(self.sums)
        if not self.waiting:
            return self.samples, sums
        losses, outputs, labels = zip(*self.waiting, strict=True)
        xp = backend.of(outputs[0]).xp
        sizes = np.array([len(part) for part in labels])
        # Sums are float64: thousands of batches add up, and float32 would show it.
        on_host = backend.on_host(xp.stack(losses)).astype(np.float64)
        finite = np.isfinite(on_host)
        if self.not_finite is None and not finite.all():
            self.not_finite = self.measured + int(finite.argmin())
        totals = {"loss": on_host @ sizes}
        if self.metrics:
            joined = Tensor(xp.concatenate(outputs)), Tensor(xp.concatenate(labels))
            for name, metric in self.metrics.items():
                measured = metric(*joined)
                if getattr(measured, "size", 1) != 1:
                    raise ValueError(
                        f"metric {name!r} must return a single number, got {measured.shape}"
                    )
                totals[name] = float(measured) * sizes.sum()
        for name, total in totals.items():
            sums[name] = sums.get(name, 0.0) + float(total)
        return self.samples + int(sizes.sum()), sums
