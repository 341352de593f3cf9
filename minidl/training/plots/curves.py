"""The curves of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl.training.history import History
from minidl.training.plots.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: History) -> Figure:
    """Draw each measure of a training over its epochs, with its validation beside it.

    Args:
        history: what `Trainer.fit` returned.

    Returns:
        A figure with a panel for the loss and one for each metric.

    Raises:
        ValueError: if the history has no epoch.
    """
    from matplotlib.ticker import MaxNLocator

    if not len(history):
        raise ValueError("plot_history expects at least one epoch, got an empty history")
    names = [name for name in history if not name.startswith("val_")]
    figure = new_figure(4.5 * len(names), 3.4)
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    epochs = range(1, len(history) + 1)
    for axis, name in zip(axes, names, strict=True):
        axis.plot(epochs, history[name], marker="o", markersize=4, label="training")
        if f"val_{name}" in history:
            validation = history[f"val_{name}"]
            axis.plot(epochs, validation, marker="s", markersize=4, label="validation")
        axis.set_xlim(0.5, len(history) + 0.5)
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        axis.legend()
    return figure
