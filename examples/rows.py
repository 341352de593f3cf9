"""The rows that `reproduce.py` keeps in a results file, shows and writes into the README."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import best
import classical
from outcomes import markdown_table, write
from rich.console import Console
from rich.table import Table
from systems import SYSTEMS, Entry, System

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- {}: from here -->", "<!-- to here -->"
TRAINED: dict[str, System] = {**SYSTEMS, best.NAME: best.system()}
ENTRIES: dict[str, Entry] = {**TRAINED, classical.NAME: classical.ENTRY}
COLUMNS = ("python examples/", "published", "minidl", "epochs", "seconds an epoch")

Row = dict[str, Any]


def load(path: Path) -> list[Row]:
    """All rows of a results file; none if there is none. Raises ValueError if it holds others."""
    try:
        rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
        unknown = {row["system"] for row in rows} - ENTRIES.keys()
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: expected rows that reproduce.py has written: {error}") from error
    if unknown:
        raise ValueError(f"{path}: rows of unknown systems: {', '.join(sorted(unknown))}")
    return rows


def record(rows: Sequence[Row], path: Path) -> None:
    """Add rows to a results file, in the place of earlier ones of the same runs."""
    kept = {_key(row): row for row in [*load(path), *rows]}
    names = list(ENTRIES)
    ordered = sorted(kept.values(), key=lambda row: (names.index(row["system"]), *_key(row)[1:]))
    write(path, json.dumps({"rows": ordered}, indent=2) + "\n")


def _key(row: Row) -> tuple[str, str, int]:
    return row["system"], row["device"], row["seed"]


def table(rows: Iterable[Row]) -> list[list[str]]:
    """A line of text for each system and device: the mean of its seeds, the least and the most."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["system"], row["device"]].append(row)
    lines = []
    for (name, device), group in groups.items():
        seeds = " ".join(str(row["seed"]) for row in group)
        seconds = statistics.median(row["seconds_an_epoch"] for row in group)
        command = f"reproduce.py {name} --seeds {seeds}"
        lines.append(
            [
                command if device == "cpu" else f"{command} --device {device}",
                published(ENTRIES[name]),
                ", ".join(measured(label, group) for label in group[0]["figures"]),
                str(group[0]["epochs"]),
                f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}",
            ]
        )
    return lines


def measured(label: str, rows: Sequence[Row]) -> str:
    """A figure as the mean over seeds, with the least and the most."""
    values = [row["figures"][label] for row in rows if row["figures"][label] is not None]
    if not values:
        return f"{label}: not reached"
    text = f"{label} {statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ({min(values):.4f}-{max(values):.4f})"


def published(entry: Entry) -> str:
    """What was published, and what one has to know of it."""
    known = [f"{f.label} {f.published:.4f}" for f in entry.figures if f.published is not None]
    return "; ".join(part for part in (", ".join(known), entry.remark) if part)


def show_table(rows: Iterable[Row]) -> None:
    """Print the rows of a few runs."""
    shown = Table()
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")
    for line in table(rows):
        shown.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 180).print(shown)


def show_list() -> None:
    """Print the systems and what they are."""
    shown = Table("system", "model and training", "epochs", "published")
    for name, entry in ENTRIES.items():
        shown.add_row(name, entry.recipe, str(entry.epochs), published(entry))
    Console(width=None if sys.stdout.isatty() else 180).print(shown)


def markdown(rows: Sequence[Row]) -> str:
    """The table for the README, with the machines that the rows come from."""
    heads = [COLUMNS[0], "model and training", *COLUMNS[1:]]
    lines = []
    for name, entry in ENTRIES.items():
        ran = table(row for row in rows if row["system"] == name)
        missing = [f"reproduce.py {name}", published(entry), "not run on real data"]
        for command, *cells in ran or [[*missing, str(entry.epochs), ""]]:
            lines.append([f"`{command}`", entry.recipe, *cells])
    machines = dict.fromkeys(_machine(row["run"]) for row in rows)
    return f"{markdown_table(heads, lines)}\n\nMeasured on {'; '.join(machines)}."


def _machine(run: Row) -> str:
    """The machine and the versions of a run, in a line."""
    kernels = ", ".join(dict.fromkeys(str(blas["kernels"]) for blas in run["threads"]["blas"]))
    return (
        f"{run['cores']} cores of {run['processor']}, Python {run['python']}, "
        f"NumPy {run['numpy']}, {run['blas']} ({kernels} kernels)"
    )


def write_readme(rows: Sequence[Row], path: Path = README) -> None:
    """Put the tables into the README, between their marks.

    Raises ValueError if there are no such marks.
    """
    text = path.read_text()
    for program, table in (("reproduce.py", markdown(rows)), ("best.py", best.markdown())):
        mark = START.format(program)
        before, start, rest = text.partition(mark)
        _, end, after = rest.partition(END)
        if not (start and end):
            raise ValueError(f"{path}: expected the marks {mark!r} and {END!r}")
        text = f"{before}{mark}\n\n{table}\n\n{END}{after}"
    write(path, text)
