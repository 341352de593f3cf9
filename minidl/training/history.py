"""What training measured, epoch by epoch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from minidl.data.files import replacing


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

    def state_dict(self) -> dict[str, Any]:
        """All that is recorded."""
        return {"history": self.history, "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.history = {name: list(values) for name, values in state["history"].items()}
        self.seconds = list(state["seconds"])

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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all measures and seconds to a file; an older one is replaced.

        Args:
            path: of the file. If it ends in .csv, it gets a line for each epoch, with the epoch,
                counted from 1, in the first column; if in .json, a list for each measure.

        Raises:
            ValueError: for any other ending.
            OSError: if the file cannot be written.
        """
        path = Path(path)
        columns = {**self.history, "seconds": self.seconds}
        if path.suffix == ".json":
            text = json.dumps(columns, indent=2) + "\n"
        elif path.suffix == ".csv":
            buffer = io.StringIO()
            writer = csv.writer(buffer, lineterminator="\n")
            writer.writerow(["epoch", *columns])
            writer.writerows(zip(range(1, len(self) + 1), *columns.values(), strict=True))
            text = buffer.getvalue()
        else:
            raise ValueError(f"{path}: a history is saved as .csv or .json, got {path.suffix!r}")
        with replacing(path) as file:
            file.write(text.encode())

    def __repr__(self) -> str:
        return f"History({len(self)} epochs of {', '.join(self.history) or 'nothing'})"
