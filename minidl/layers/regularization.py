"""The dropout layer."""

from __future__ import annotations

from minidl.backend import Generator, default_generator
from minidl.layers.module import Layer
from minidl.ops import regularization
from minidl.tensor import Tensor


class Dropout(Layer):
    """In training, zero each element with probability `rate` and scale the rest by 1 / (1 - rate).

    In evaluation everything passes unchanged. Any shape.

    Args:
        rate: share to drop, 0 <= rate < 1.
        generator: where the randomness comes from; the default generator, see `seed`, if None.
        name: see `Layer`.

    Raises:
        ValueError: if rate is out of range.
    """

    def __init__(
        self, rate: float, *, generator: Generator | None = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout expects a rate from 0 to 1, 1 excluded; got {rate}")
        self.rate = float(rate)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        if not self.training or not self.rate:
            return x
        return regularization.dropout(x, self.rate, self.generator or default_generator)
