"""What a model takes images for, how surely, and whether that is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minidl.backend import Array
from minidl.layers.module import positive
from minidl.losses import ROUNDING
from minidl.ops.operands import tensor
from minidl.tensor import Tensor, TensorLike
from minidl.training.metrics import classes_of
from minidl.training.plots.figure import TEXT_SIZE, new_figure, panel_grid, text_width
from minidl.training.plots.images import draw_image, pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG, UNKNOWN, OTHER = "#1f5fbf", "#c8102e", "#222222", "#b5b5b5"


def plot_predictions(
    images: TensorLike,
    probabilities: TensorLike,
    labels: Any,
    class_names: Sequence[str],
    columns: int = 6,
) -> Figure:
    """Draw images in a grid, each with what the model takes it for, how surely, and what it is.

    Titles read "predicted 87% (true)", in blue where the prediction is right and red where not;
    without labels "predicted 87%", in black.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3), as for `plot_images`.
        probabilities: (N, C).
        labels: class numbers (N,) or (N, 1), or one row (N, C) of probabilities for each; None if
            unknown.
        class_names: C names.
        columns: images in a row of the grid.

    Raises:
        ValueError, TypeError: if there is no image, the numbers of images, predictions, labels and
            names do not agree, or the predictions are no probabilities.
    """
    drawn = pixels(images, "plot_predictions")
    predictions = _predictions(
        "plot_predictions", len(drawn), probabilities, labels, len(class_names)
    )
    titles = [prediction.title(class_names) for prediction in predictions]
    figure, panels = panel_grid(titles, columns)
    for panel, image, prediction in zip(panels, drawn, predictions, strict=True):
        draw_image(panel, image)
        panel.title.set_color(prediction.color)
    return figure


def plot_probabilities(
    images: TensorLike,
    probabilities: TensorLike,
    class_names: Sequence[str],
    labels: Any = None,
    columns: int = 3,
) -> Figure:
    """Draw images, each with a bar for the probability of every class beside it.

    The true class has a blue bar, and a predicted class that is not the true one a red bar; without
    labels, the predicted class has a black bar. Titles are those of `plot_predictions`.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3), as for `plot_images`; or one image without
            the first axis, with its probabilities (C,) and its class number.
        probabilities: (N, C).
        class_names: C names.
        labels: as for `plot_predictions`.
        columns: images in a row of the grid.

    Raises:
        ValueError, TypeError: as `plot_predictions`.
    """
    name = "plot_probabilities"
    images, probabilities = tensor(images).numpy(), tensor(probabilities).numpy()
    if probabilities.ndim == 1:
        images, probabilities = images[None], probabilities[None]
        labels = None if labels is None else tensor(labels).numpy()[None]
    drawn = pixels(images, name)
    predictions = _predictions(name, len(drawn), probabilities, labels, len(class_names))
    titles = [prediction.title(class_names) for prediction in predictions]

    columns = min(positive(columns, "columns"), len(drawn))
    rows = -(-len(drawn) // columns)
    bars = max(1.6, 0.15 * len(class_names))
    width = max(1.6 + bars, *(text_width(title) + 0.2 for title in titles))
    height = 1.8 + max(text_width(class_name) for class_name in class_names)
    figure = new_figure(width * columns, height * rows)
    parts = figure.subfigures(rows, columns, squeeze=False).flat
    for part, title, image, prediction in zip(parts, titles, drawn, predictions, strict=False):
        part.suptitle(title, fontsize=TEXT_SIZE, color=prediction.color, parse_math=False)
        left, right = part.subplots(1, 2, width_ratios=[1.6, bars])
        left.set_axis_off()
        left.set_anchor("N")
        draw_image(left, image)
        _draw_bars(right, prediction, class_names)
    return figure


def _draw_bars(axes: Axes, prediction: _Prediction, class_names: Sequence[str]) -> None:
    """Draw the probability of each class."""
    colors = [OTHER] * len(class_names)
    colors[prediction.guess] = prediction.color
    if prediction.label is not None:
        colors[prediction.label] = RIGHT
    classes = len(class_names)
    axes.bar(range(classes), prediction.shares, color=colors)
    axes.set_xticks(range(classes), class_names, rotation=90, fontsize=TEXT_SIZE, parse_math=False)
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"], fontsize=TEXT_SIZE)
    axes.set_xlim(-0.6, classes - 0.4)
    axes.set_ylim(0, 1)


class _Prediction(NamedTuple):
    """What a model says of one image, and what is true if that is known."""

    shares: Array
    guess: int
    label: int | None

    def title(self, class_names: Sequence[str]) -> str:
        """In words: predicted 87% (true)."""
        said = f"{class_names[self.guess]} {self.shares[self.guess]:.0%}"
        return said if self.label is None else f"{said} ({class_names[self.label]})"

    @property
    def color(self) -> str:
        """Whether it is right."""
        if self.label is None:
            return UNKNOWN
        return RIGHT if self.guess == self.label else WRONG


def _predictions(
    name: str, count: int, probabilities: TensorLike, labels: Any, classes: int
) -> list[_Prediction]:
    """The prediction for each of `count` images. Raises as `plot_predictions`, with this name."""
    shares = tensor(probabilities).numpy()
    if not shares.size or shares.shape != (count, classes):
        raise ValueError(
            f"{name} expects probabilities ({count}, {classes}), for {count} images and {classes} "
            f"class names, got shape {shares.shape}"
        )
    if not (shares.min() >= 0 and shares.max() <= 1 + ROUNDING):  # nan is refused too
        raise ValueError(
            f"{name} expects probabilities from 0 to 1, got numbers from {shares.min()} to "
            f"{shares.max()}; softmax() makes probabilities of a model's outputs"
        )
    guesses = shares.argmax(axis=1).tolist()
    truth: list[Any] = [None] * count
    if labels is not None:
        outputs = Tensor(shares.astype(np.float32))
        truth = classes_of(tensor(labels).numpy(), outputs).tolist()
    return list(map(_Prediction, shares, guesses, truth))
