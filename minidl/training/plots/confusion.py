"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minidl.ops.operands import tensor
from minidl.tensor import TensorLike
from minidl.training.plots.figure import TEXT_SIZE, new_figure, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_confusion_matrix(
    matrix: TensorLike, class_names: Sequence[str], normalize: bool = False
) -> Figure:
    """Draw a confusion matrix with its numbers: a row for each true class.

    Args:
        matrix: counts (C, C), as from `confusion_matrix`.
        class_names: C names.
        normalize: whether to show the share of each true class instead of counts; a class without
            samples then has empty cells.

    Raises:
        ValueError: if the matrix is not square, or has another size than there are names.
    """
    counts = tensor(matrix).numpy()
    classes = len(class_names)
    if not classes or counts.shape != (classes, classes):
        raise ValueError(
            f"plot_confusion_matrix expects a matrix ({classes}, {classes}) for {classes} class "
            f"names, at least one, got shape {counts.shape}"
        )
    values, texts = counts, counts.astype(str)
    if normalize:
        with np.errstate(invalid="ignore"):  # no sample: 0 / 0
            values = counts / counts.sum(axis=1, keepdims=True)
        texts = np.array([["" if np.isnan(v) else f"{v:.0%}" for v in row] for row in values])

    cell = max(0.4, *(text_width(text) + 0.15 for text in texts.flat))
    margin = 0.6 + max(text_width(name) for name in class_names)
    figure = new_figure(cell * classes + margin, cell * classes + margin)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1 if normalize else max(1, counts.max()))
    for (row, column), text in np.ndenumerate(texts):
        red, green, blue, _ = image.cmap(image.norm(values[row, column]))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45  # luminance of ITU-R BT.709
        axes.text(
            column,
            row,
            text,
            color="black" if light else "white",
            fontsize=TEXT_SIZE,
            horizontalalignment="center",
            verticalalignment="center",
        )
    axes.tick_params(labelsize=TEXT_SIZE)
    axes.set_xticks(range(classes), class_names, parse_math=False, rotation=45, ha="right")
    axes.set_yticks(range(classes), class_names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure
