"""The table of a model's layers, as Keras's users know it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from minidl.layers.module import Module, Parameter
from minidl.tensor import Tensor


def print_summary(model: Module) -> None:
    """Print each layer with output shape and number of parameters, then the totals.

    Raises RuntimeError if a layer has no parameters or output shape yet.
    """
    table = Table(title=f"Model: {model.label}", title_justify="left", title_style="bold")
    table.add_column("Layer (type)")
    table.add_column("Output Shape")
    table.add_column("Param #", justify="right")
    for name, module in _rows(model):
        if module.output_shape is None:
            raise RuntimeError(
                f"{module.label} has no output shape yet; give Sequential an input_shape, or pass "
                "one batch through the model first"
            )
        shape = str(module.output_shape)
        table.add_row(f"{name} ({type(module).__name__})", shape, f"{_count(module):,}")
    console = Console()
    console.print(table)
    tensors: list[tuple[str, Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    trainable: list[Tensor] = [t for _, t in tensors if isinstance(t, Parameter)]
    fixed: list[Tensor] = [t for _, t in tensors if not isinstance(t, Parameter)]
    for title, counted in (
        ("Total", trainable + fixed),
        ("Trainable", trainable),
        ("Non-trainable", fixed),
    ):
        console.print(f" {title} params: {_numbers(counted)}", highlight=False)


def _rows(model: Module) -> list[tuple[str, Module]]:
    """The modules directly inside a model; the model itself if there are none."""
    inside = [(name, member) for name, member in model.members() if isinstance(member, Module)]
    return inside or [(model.name or type(model).__name__.lower(), model)]


def _count(module: Module) -> int:
    return sum(t.size for _, t in (*module.named_parameters(), *module.named_buffers()))


def _numbers(tensors: list[Tensor]) -> str:
    """How many elements, and how much memory: 390,410 (1.49 MB)."""
    size = float(sum(t.data.nbytes for t in tensors))
    unit = "B"
    for larger in ("KB", "MB", "GB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{sum(t.size for t in tensors):,} ({size:.2f} {unit})"
