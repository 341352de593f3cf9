"""The weights of a model as libraries that keep channels first hold them.

Images are (N, H, W, C) here and (N, C, H, W) there. Filters and dense weights have their axes in
another order there. And Flatten makes the same features of an image, but in another order, so that
all that is learned for one feature each is in another order too: the rows of the dense weight that
follows, and what a batch normalisation between the two holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.interop.in_line import check_unshared, named_weights, placed_layers
from minidl.layers import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.tensor import Tensor

WITHOUT_WEIGHTS = (
    AvgPool,
    Dropout,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)


class Weight(NamedTuple):
    """A parameter or buffer, and how it lies where channels come first.

    Attributes:
        tensor: as it lies here.
        axes: its axes in the order that they have there.
        order: for each index along its first axis there, before the axes change places, the index
            here; None where they are the same.
    """

    tensor: Tensor
    axes: tuple[int, ...]
    order: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape it has there."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)

    def channels_first(self) -> Array:
        """Its values as a NumPy array that lies as there, contiguous and not shared."""
        values = self.tensor.numpy()
        if self.order is not None:
            values = values[self.order]
        return np.array(values.transpose(self.axes), order="C")

    def assign(self, values: Array) -> None:
        """Copy values in that lie as there, a NumPy array of `shape`."""
        values = values.transpose(np.argsort(self.axes))
        if self.order is not None:
            values = values[np.argsort(self.order)]
        data = self.tensor.data
        data[...] = backend.of(data).asarray(values.astype(data.dtype))


class LayerWeights(NamedTuple):
    """A layer with weights, and these by their names."""

    layer: Conv2D | Dense | BatchNorm
    weights: Mapping[str, Weight]


def layer_weights(model: Sequential) -> list[LayerWeights]:
    """The layers of a model that have weights, in the order in which they compute.

    A layer of the user's own is taken to treat all features alike if it has no weights and keeps
    the shape.

    Raises:
        RuntimeError: if the model has not seen the shape of its input yet.
        ValueError: naming the layer, if one would not compute the same where channels come first,
            if that cannot be known, or if two share weights.
    """
    order = None
    found = []
    for layer, before, after in placed_layers(model):
        if isinstance(layer, Flatten):
            order = flattened_order(before) if len(before) == 4 else order
        elif isinstance(layer, (Conv2D, Dense, BatchNorm)):
            _check_axes(layer, len(before))
            found.append(LayerWeights(layer, _weights(layer, order)))
            order = order if isinstance(layer, BatchNorm) else None
        elif not isinstance(layer, WITHOUT_WEIGHTS):
            _check_own(layer, before, after, order)
    if not found:
        return []
    if order is not None:
        raise ValueError(
            f"{model.label} returns what Flatten makes of images, which is in another order where "
            "channels come first; let a Dense follow"
        )
    check_unshared(model, (w.tensor for _, weights in found for w in weights.values()))
    return found


def flattened_order(shape: tuple[int, ...]) -> Array | None:
    """For each feature that Flatten makes where channels come first, its index where they are last.

    Args:
        shape: of the images here, (N, H, W, C).

    Returns:
        (H * W * C,) integers; None where both orders are the same.
    """
    indices = np.arange(math.prod(shape[1:])).reshape(shape[1:])
    order = indices.transpose(2, 0, 1).reshape(-1)
    return None if np.array_equal(order, indices.reshape(-1)) else order


def _weights(layer: Conv2D | Dense | BatchNorm, order: Array | None) -> dict[str, Weight]:
    """The weights of a layer, whose features come in here in an order of their own.

    Raises ValueError if it has others than its class has.
    """
    if isinstance(layer, Conv2D):
        axes = {"weight": (3, 2, 0, 1), "bias": (0,)}
    elif isinstance(layer, Dense):
        axes = {"weight": (1, 0), "bias": (0,)}
    else:
        axes = dict.fromkeys(("gamma", "beta", "running_mean", "running_variance"), (0,))
    return {
        name: Weight(tensor, axes[name], None if name == "bias" else order)
        for name, tensor in named_weights(layer, axes).items()
    }


def _check_axes(layer: Conv2D | Dense | BatchNorm, rank: int) -> None:
    """Raise ValueError if the axis that a layer works on lies elsewhere in the other library."""
    if isinstance(layer, Dense) and rank == 4:
        raise ValueError(
            f"{layer.label} works on the channels of images, which are not the last axis where "
            f"channels come first; Conv2D({layer.units}, 1) computes the same and can be converted"
        )
    if isinstance(layer, BatchNorm) and rank not in (2, 4):
        raise ValueError(
            f"{layer.label} works on the last of {rank} axes, but where channels come first on the "
            "second; only (N, C) and images can be converted"
        )


def _check_own(
    layer: Module, before: tuple[int, ...], after: tuple[int, ...], order: Array | None
) -> None:
    """Raise ValueError if a layer of the user's own has weights or may move features around."""
    named_weights(layer)
    if len(before) != len(after) or (order is not None and before != after):
        raise ValueError(
            f"{layer.label} makes {after} of {before}; where channels come first, the order of "
            "what it returns is unknown"
        )
