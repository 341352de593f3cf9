"""The random masks of dropout, made from 16 random bits an element."""

from __future__ import annotations

import math

from minidl.backend import Array, Backend, Generator

LEVELS = 1 << 16


def dropout_mask(
    shape: tuple[int, ...], rate: float, backend: Backend, generator: Generator
) -> tuple[Array, float]:
    """Which elements stay, and what they are multiplied with to keep the expected sum.

    Args:
        shape: of the array to drop from.
        rate: share to drop, 0 <= rate < 1; it is rounded to a multiple of 1/65536.
        backend: the device of the mask.
        generator: where the bits come from.

    Returns:
        A boolean array of that shape, true with probability 1 - rate, and 1 / (1 - rate) for the
        rounded rate, so that the expectation is exact.
    """
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    bits = generator.random_bits(backend, math.prod(shape))
    return (bits >= dropped).reshape(shape), LEVELS / (LEVELS - dropped)
