"""Empty figures, grids of panels in them, and how much room a text takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidl.layers.module import positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT_SIZE = 8  # points
DPI = 150  # pixels an inch, in the files that savefig writes too


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, which places its own panels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.08)  # inches: titles keep off the row above them
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def panel_grid(titles: Sequence[str], columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels for images, as wide as their titles need.

    Args:
        titles: one for each panel, at least one.
        columns: panels in a row; no more than there are titles.

    Returns:
        The figure, and its panels row by row.

    Raises:
        ValueError: if columns is no integer of at least one.
    """
    columns = min(positive(columns, "columns"), len(titles))
    rows = -(-len(titles) // columns)
    width = max(1.4, *(text_width(title) + 0.2 for title in titles))
    height = 1.7 if any(titles) else 1.4
    figure = new_figure(width * columns, height * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for panel in panels:
        panel.set_axis_off()
    del panels[len(titles) :]
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=TEXT_SIZE, parse_math=False)
    return figure, panels


def text_width(text: str) -> float:
    """The width in inches of one line of text of our size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=TEXT_SIZE)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width / 72
