"""What training shows while it runs: nothing, a line an epoch, or a bar with the time left.

The numbers are asked for only when they are shown, so that a GPU need not wait for them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from rich.progress import Progress

Measures: TypeAlias = Mapping[str, float]


class Silent:
    """Shows nothing."""

    def __init__(self, epochs: int, batches: int) -> None:
        self.epochs = epochs
        self.batches = batches

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was, also after an error."""

    def start(self, epoch: int, done: int = 0) -> None:
        """An epoch begins, counted from 1, of which so many batches are done already."""

    def advance(self, measures: Callable[[], Measures]) -> None:
        """A batch is done; `measures` computes the means so far."""

    def finish(self, epoch: int, measures: Measures, seconds: float) -> None:
        """An epoch is done."""


class Lines(Silent):
    """Prints one line an epoch, as a log file wants it."""

    def finish(self, epoch: int, measures: Measures, seconds: float) -> None:
        """Print the epoch's line."""
        self._print(f"Epoch {epoch}/{self.epochs} - {_duration(seconds)} - {_numbers(measures)}")

    def _print(self, line: str) -> None:
        print(line, flush=True)


class Bar(Lines):
    """Shows the epoch under way as a bar, which its line then takes the place of."""

    # How often the bar moves and the numbers beside it are fetched, in seconds.
    EVERY = 0.5

    def __enter__(self) -> Self:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}", markup=False),
            transient=True,
            expand=True,
            auto_refresh=False,  # drawing ten times a second would take time from the training
        )
        self._shown = 0.0
        self._done = 0  # batches that the bar does not show yet
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._progress.stop()

    def start(self, epoch: int, done: int = 0) -> None:
        """Begin a bar."""
        self._done = 0
        self._task = self._progress.add_task(
            f"Epoch {epoch}/{self.epochs}", total=self.batches, completed=done, numbers=""
        )

    def advance(self, measures: Callable[[], Measures]) -> None:
        """Now and then, move the bar and fetch the numbers."""
        self._done += 1
        now = self._progress.get_time()
        if now - self._shown >= self.EVERY:
            self._shown = now
            self._progress.update(
                self._task, advance=self._done, numbers=_numbers(measures()), refresh=True
            )
            self._done = 0

    def finish(self, epoch: int, measures: Measures, seconds: float) -> None:
        """Put the epoch's line in the place of the bar."""
        self._progress.remove_task(self._task)
        super().finish(epoch, measures, seconds)

    def _print(self, line: str) -> None:
        # The console would otherwise break the line at the width of the terminal, and read markup
        # into the names of metrics.
        self._progress.console.print(
            line, soft_wrap=True, highlight=False, markup=False, emoji=False
        )


def progress(verbose: int | str, epochs: int, batches: int, rank: int = 0) -> Silent:
    """What shows a training of so many epochs and batches an epoch.

    Args:
        verbose: 0 for nothing, 1 for a bar, 2 for a line an epoch; "auto" for 1 on a terminal and
            2 elsewhere.
        epochs: how many there will be.
        batches: how many an epoch has.
        rank: of the process; all but rank 0 are silent.

    Raises:
        ValueError: for any other `verbose`.
    """
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    kinds: dict[int | str, type[Silent]] = {0: Silent, 1: Bar, 2: Lines}
    if verbose not in kinds:
        raise ValueError(f'verbose must be 0, 1, 2 or "auto", got {verbose!r}')
    kind = Silent if rank else kinds[verbose]
    return kind(epochs, batches)


def _numbers(measures: Measures) -> str:
    return " - ".join(f"{name}: {value:.4f}" for name, value in measures.items())


def _duration(seconds: float) -> str:
    """Seconds as people say them: 4.2s, 1m 05s."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds) // 60}m {int(seconds) % 60:02d}s"
