"""The layers that have been read from an ONNX graph, and how what they give lies in the graph.

There channels come first, here last. So the order of the axes there, and of the features that
Flatten makes of images, is kept in mind from one operator to the next.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from minidl.backend import Array
from minidl.interop.channels_first import flattened_order
from minidl.interop.onnx.tensors import GivenTensors
from minidl.layers import AvgPool, Conv2D, Dense, Layer, Sequential
from minidl.layers.activation import ACTIVATIONS

Shape: TypeAlias = tuple[int, ...]  # of one sample, without the batch


class Chain:
    """The layers of a graph, as far as it has been read.

    Attributes:
        given: the tensors that the graph gives.
        batch: the number of samples, 0 if it is left open.
        shape: of what the layers give for one sample.
        channels_first: whether the graph has the channels of that first.
        flattened: the shape of the images whose features are in the order of channels first, from
            Flatten until a Dense has taken them.
        whole_pool: the last layer, or an earlier one, that pools all of an image.
    """

    def __init__(
        self, given: GivenTensors, weight_type: int, batch: int, shape: Shape, channels_first: bool
    ) -> None:
        self.given = given
        self.batch = batch
        self.shape = shape
        self.channels_first = channels_first
        self.flattened: Shape | None = None
        self.whole_pool: AvgPool | None = None
        self._weight_type = weight_type
        self._input_shape = shape
        self._layers: list[Layer] = []

    @property
    def last(self) -> Layer | None:
        """The last layer so far."""
        return self._layers[-1] if self._layers else None

    def add(self, layer: Layer, shape: Shape) -> None:
        """Add a layer that gives samples of this shape."""
        layer.built = True
        layer.output_shape = (None, *shape)
        self._layers.append(layer)
        self.shape = shape

    def replace(self, layer: Layer, shape: Shape) -> None:
        """Let a layer take the place of the last one."""
        self._layers.pop()
        self.add(layer, shape)

    def activate(self, name: str) -> bool:
        """Give the last layer an activation if it can have one; whether it could."""
        layer = self.last
        if not isinstance(layer, (Conv2D, Dense)) or layer.activation is not None:
            return False
        layer.activation = ACTIVATIONS[name]
        return True

    def model(self) -> Sequential:
        """The model of all layers."""
        if self.flattened is not None:
            raise ValueError(
                "returns what Flatten makes of images, which is in another order where channels "
                "come last; let a Gemm follow"
            )
        model = Sequential(self._layers)
        model.input_shape = self._input_shape
        model.output_shape = (None, *self.shape)
        return model

    # Weights

    def weight(self, name: str) -> Array:
        """The values of a weight: an array of its own, in the dtype of the graph."""
        return self.given.values(name, self._weight_type)

    def vector(self, name: str, length: int) -> Array:
        """A weight with a number for each channel."""
        values = self.weight(name)
        if values.shape != (length,):
            raise ValueError(f"{name!r} must be of shape {(length,)}, got {values.shape}")
        return values

    def in_our_order(self, weight: Array) -> Array:
        """A weight with an entry or a row for each feature, in the order of the features here."""
        if self.flattened is None:
            return weight
        ordered = np.empty_like(weight)
        ordered[flattened_order((1, *self.flattened))] = weight
        return ordered

    # What comes in

    def check_images(self) -> None:
        """Raise ValueError unless what comes in are images, with channels first."""
        if len(self.shape) != 3 or not self.channels_first:
            raise ValueError(f"expects images (N, C, H, W), not {self.described()}")

    def check_last(self) -> None:
        """Raise ValueError if the channels of what comes in are not the last axis."""
        if self.channels_first:
            raise ValueError(f"works on the last axis, but takes {self.described()}")

    def described(self) -> str:
        """What comes in, in words."""
        where = "first" if self.channels_first else "last"
        return f"samples that are {self.shape} here and have channels {where} in the graph"
