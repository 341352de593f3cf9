"""Images of a data set, and how an image is drawn wherever there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.backend import Array
from minidl.ops.operands import tensor
from minidl.tensor import Tensor, TensorLike
from minidl.training.metrics import classes_of
from minidl.training.plots.figure import panel_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_images(
    images: TensorLike,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    columns: int = 6,
) -> Figure:
    """Draw images in a grid, each under the name of its class.

    Args:
        images: (N, H, W) or (N, H, W, 1) in grey, drawn dark on light, or (N, H, W, 3) in colour.
            Pixels go from 0 to 1, those of uint8 to 255; where some lie beyond, from the smallest
            to the largest of all.
        labels: class numbers (N,) or (N, 1), or with names one row (N, C) of probabilities for
            each; None for images alone.
        class_names: C names; None for the class numbers themselves.
        columns: images in a row of the grid.

    Raises:
        ValueError, TypeError: if there is no image, images have another shape, or labels do not
            agree with them or with the names.
    """
    drawn = pixels(images, "plot_images")
    figure, panels = panel_grid(_titles(labels, class_names, len(drawn)), columns)
    for panel, image in zip(panels, drawn, strict=True):
        draw_image(panel, image)
    return figure


def _titles(labels: Any, class_names: Sequence[str] | None, count: int) -> list[str]:
    """The class of each image in words, or nothing."""
    if labels is None:
        return [""] * count
    array = tensor(labels).numpy()
    if class_names is not None:
        outputs = Tensor(np.empty((count, len(class_names)), np.float32))  # for its shape
        return [class_names[number] for number in classes_of(array, outputs)]
    if array.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"plot_images expects a class number for each of {count} images, got labels of shape "
            f"{array.shape}"
        )
    return [str(number) for number in array.ravel()]


def pixels(images: TensorLike, name: str) -> Array:
    """Images as `plot_images` takes them, ready to be drawn: from 0 to 1, on the host.

    Returns:
        (N, H, W) in grey or (N, H, W, 3) in colour, float32.

    Raises:
        ValueError: for another shape or no image, naming the function that was called.
    """
    array = tensor(images).numpy()
    grey = array.ndim == 3 or array.shape[3:] == (1,)
    if not array.size or not (grey or array.shape[3:] == (3,)):
        raise ValueError(
            f"{name} expects at least one image (N, H, W), (N, H, W, 1) or (N, H, W, 3), got shape "
            f"{array.shape}"
        )
    low = min(0.0, float(array.min()))
    high = max(255.0 if array.dtype == np.uint8 else 1.0, float(array.max()))
    scaled = (array.astype(np.float32) - low) / (high - low)
    return scaled.reshape(scaled.shape[:3]) if grey else scaled


def draw_image(axes: Axes, image: Array) -> None:
    """Draw one of the images that `pixels` gives."""
    axes.imshow(image, cmap="binary", vmin=0, vmax=1)  # in colour, matplotlib ignores all three
