"""Activation functions, as layers and as the `activation` argument of other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from minidl.layers.module import Layer
from minidl.ops import elementwise, probability
from minidl.tensor import Tensor

Function: TypeAlias = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Function] = {
    "relu": elementwise.relu,
    "leaky_relu": elementwise.leaky_relu,
    "sigmoid": elementwise.sigmoid,
    "tanh": elementwise.tanh,
    "softmax": probability.softmax,
    "log_softmax": probability.log_softmax,
}


def activation_function(activation: str | Function | None) -> Function | None:
    """Look an activation up by name; a function is returned as it is, None and "linear" as None.

    Raises ValueError, listing the names, for an unknown one; TypeError for a class.
    """
    if activation is None or activation == "linear":
        return None
    if isinstance(activation, type):
        raise TypeError(
            f"activation={activation.__name__} is a class; write {activation.__name__}()"
        )
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]


class ReLU(Layer):
    """max(x, 0) for each element; any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        return elementwise.relu(x)


class LeakyReLU(Layer):
    """x where it is positive, slope * x elsewhere; any shape."""

    def __init__(self, slope: float = 0.01, *, name: str | None = None) -> None:
        super().__init__(name)
        self.slope = float(slope)

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        return elementwise.leaky_relu(x, self.slope)


class Sigmoid(Layer):
    """1 / (1 + exp(-x)) for each element; any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        return elementwise.sigmoid(x)


class Tanh(Layer):
    """The hyperbolic tangent of each element; any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        return elementwise.tanh(x)


class Softmax(Layer):
    """exp(x) / sum(exp(x)) along an axis, so that outputs are probabilities; any shape.

    A model trains as well, and more exactly, without it: `cross_entropy` takes the values before.
    """

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        return probability.softmax(x, self.axis)
