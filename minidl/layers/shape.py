"""Layers that change the shape alone."""

from __future__ import annotations

from minidl.layers.module import Layer
from minidl.ops import shapes
from minidl.tensor import Tensor


class Flatten(Layer):
    """All axes but the first made into one: (N, ...) to (N, product of the rest)."""

    def forward(self, x: Tensor) -> Tensor:
        """The output (N, features)."""
        return shapes.flatten(x)
