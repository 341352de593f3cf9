"""Dropout: elements set to zero at random, so that no unit can rely on another."""

from __future__ import annotations

from minidl import backend
from minidl.backend import Generator
from minidl.kernels.dropout import dropout_mask
from minidl.kernels.elementwise import pass_where
from minidl.tensor import Tensor, record


def dropout(x: Tensor, rate: float, generator: Generator) -> Tensor:
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate) [1].

    Args:
        x: any shape.
        rate: share to drop, 0 <= rate < 1.
        generator: where the randomness comes from.

    [1] N. Srivastava et al.: Dropout: a simple way to prevent neural networks from overfitting,
        2014; scaled in training, so that nothing changes at prediction.
    """
    kept, scale = dropout_mask(x.shape, rate, backend.of(x.data), generator)
    return record(pass_where(x.data, kept, scale), (x, lambda g: pass_where(g, kept, scale)))
