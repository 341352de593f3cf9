"""Pictures of a training: its curves, and what the model says of some images.

Figures are made without matplotlib's interactive side, so that no window or display is needed and
the user's own figures are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.training.history import History

RIGHT, WRONG = "#1f5fbf", "#c8102e"


def plot_history(history: History, path: str | os.PathLike[str]) -> None:
    """Draw each measure of a training over its epochs, with its validation beside it.

    Args:
        history: what `Trainer.fit` returned.
        path: the picture to write; its ending decides the format, such as .png or .svg.

    Raises:
        ValueError: if the history has no epoch.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not len(history):
        raise ValueError("plot_history expects at least one epoch, got an empty history")
    names = [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(4.5 * len(names), 3.4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    epochs = range(1, len(history) + 1)
    for axis, name in zip(axes, names, strict=True):
        axis.plot(epochs, history[name], marker="o", markersize=4, label="training")
        if f"val_{name}" in history:
            validation = history[f"val_{name}"]
            axis.plot(epochs, validation, marker="s", markersize=4, label="validation")
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=150)


def plot_predictions(
    images: Array,
    probabilities: Array,
    labels: Array,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    columns: int = 6,
) -> None:
    """Draw images in a grid, each with what the model takes it for, how surely, and what it is.

    Titles read "predicted 87% (true)", in blue where the prediction is right and red where not.

    Args:
        images: (N, H, W) or (N, H, W, 1) in grey, or (N, H, W, 3) in colour.
        probabilities: (N, C).
        labels: class numbers (N,).
        class_names: C names.
        path: the picture to write; its ending decides the format.
        columns: images in a row of the grid.

    Raises:
        ValueError: if there is no image, or the numbers of images, predictions, labels and names
            do not agree.
    """
    from matplotlib.figure import Figure

    count = len(images)
    if not count or len(probabilities) != count or len(labels) != count:
        raise ValueError(
            "plot_predictions expects one prediction and one label for each of at least one image, "
            f"got {count} images, {len(probabilities)} predictions, {len(labels)} labels"
        )
    if probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"plot_predictions got {probabilities.shape[1]} classes and {len(class_names)} names"
        )
    rows = -(-count // columns)
    figure = Figure(figsize=(2.1 * columns, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, scores, label in zip(axes[:count], images, probabilities, labels, strict=True):
        _draw(axis, image)
        guess = int(np.argmax(scores))
        title = f"{class_names[guess]} {scores[guess]:.0%} ({class_names[int(label)]})"
        color = RIGHT if guess == label else WRONG
        axis.set_title(title, fontsize=8, color=color)
    figure.savefig(path, dpi=150)


def _draw(axis: Any, image: Array) -> None:
    """Show one image, dark on light where it is grey."""
    grey = image.ndim == 2 or image.shape[-1] == 1
    axis.imshow(image.squeeze(-1) if grey and image.ndim == 3 else image, cmap="binary")
