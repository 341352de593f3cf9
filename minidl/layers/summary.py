"""The table of a model's layers, as Keras's users know it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from minidl.tensor import Tensor


class Row(NamedTuple):
    """One layer: its name and class, the shape of its output, its parameters and buffers."""

    name: str
    kind: str
    shape: tuple[int | None, ...]
    tensors: Sequence[Tensor]


def print_summary(title: str, rows: Iterable[Row], tensors: Sequence[Tensor]) -> None:
    """Print each layer with output shape and number of parameters, then the totals.

    Args:
        title: how the model is called.
        rows: its layers.
        tensors: all its parameters and buffers, each once.
    """
    table = Table(title=f"Model: {title}", title_justify="left", title_style="bold")
    table.add_column("Layer (type)")
    table.add_column("Output Shape")
    table.add_column("Param #", justify="right")
    for row in rows:
        count = sum(t.size for t in row.tensors)
        table.add_row(f"{row.name} ({row.kind})", str(row.shape), f"{count:,}")
    console = Console()
    console.print(table)
    trainable = [t for t in tensors if t.requires_grad]
    fixed = [t for t in tensors if not t.requires_grad]
    for name, counted in (
        ("Total", tensors),
        ("Trainable", trainable),
        ("Non-trainable", fixed),
    ):
        console.print(f" {name} params: {_numbers(counted)}", highlight=False)


def _numbers(tensors: Sequence[Tensor]) -> str:
    """How many elements, and how much memory: 390,410 (1.49 MB)."""
    size = float(sum(t.data.nbytes for t in tensors))
    unit = "B"
    for larger in ("KB", "MB", "GB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{sum(t.size for t in tensors):,} ({size:.2f} {unit})"
