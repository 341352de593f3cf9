"""How the benchmarks show what they measured: tables on the terminal, and bar charts."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

COLOURS = ("#1f5fbf", "#e08a2c", "#5a9e4b")


def spread(values: Sequence[float], digits: int) -> str:
    """The median, with the least and the most."""
    shown = (statistics.median(values), min(values), max(values))
    return "{:,.{d}f} ({:,.{d}f} - {:,.{d}f})".format(*shown, d=digits)


def show(table: Table) -> None:
    """Print a table; wide enough for all columns where there is no terminal to fit it into."""
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def progress(what: str) -> None:
    """Say what is measured now, for those who wait; nothing that would take time meanwhile."""
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


def draw_bars(
    path: Path,
    label: str,
    series: Mapping[str, Mapping[str, Sequence[float]]],
    line: float | None = None,
) -> None:
    """Draw medians as horizontal bars, with a thin line from the least to the most.

    Args:
        path: of the picture.
        label: what the bars' lengths mean.
        series: for each series its name, and for each row its name and the values of the rounds.
            A row may lack in some series.
        line: where to draw a line to compare with, if anywhere.
    """
    rows = list(dict.fromkeys(name for values in series.values() for name in values))
    height = 0.8 / len(series)
    size = 7.5, 0.9 + len(rows) * max(0.4, 0.2 * len(series))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    for i, ((name, values), colour) in enumerate(zip(series.items(), COLOURS, strict=False)):
        places = [rows.index(row) + (i - (len(series) - 1) / 2) * height for row in values]
        medians = [statistics.median(rounds) for rounds in values.values()]
        axis.barh(places, medians, height * 0.9, color=colour, label=name)
        for place, rounds in zip(places, values.values(), strict=True):
            axis.plot([min(rounds), max(rounds)], [place, place], color="black", linewidth=1)
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel(label)
    if line is not None:
        axis.axvline(line, color="black", linewidth=1, linestyle="--")
    figure.legend(loc="outside upper center", ncols=len(series), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
