"""What training measured, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


class History:
    """The record that `Trainer.fit` returns.

    Attributes:
        history: a list for each measure, one number an epoch: "loss" and "accuracy" over the
            training batches as they were seen, "val_loss" and "val_accuracy" after the epoch.
        seconds: how long each epoch took, validation included.

    `history["loss"]` is short for `history.history["loss"]`.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.seconds: list[float] = []

    def append(self, measures: Mapping[str, float], seconds: float) -> None:
        """Add an epoch."""
        for name, value in measures.items():
            self.history.setdefault(name, []).append(value)
        self.seconds.append(seconds)

    def __getitem__(self, name: str) -> list[float]:
        return self.history[name]

    def __contains__(self, name: object) -> bool:
        return name in self.history

    def __iter__(self) -> Iterator[str]:
        return iter(self.history)

    def keys(self) -> Iterable[str]:
        """The names of the measures, so that `dict(history)` works."""
        return self.history.keys()

    def __len__(self) -> int:
        return len(self.seconds)

    def __repr__(self) -> str:
        return f"History({len(self)} epochs of {', '.join(self.history) or 'nothing'})"
