"""How a window slides over an image: the geometry that convolution and pooling share.

Everything here counts pixels along height and width; batch and channels do not appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import index
from typing import NamedTuple, TypeAlias

import numpy as np

from minidl.backend import Array, array_module

Pair: TypeAlias = tuple[int, int]
Sides: TypeAlias = tuple[Pair, Pair]  # ((top, bottom), (left, right))
Padding: TypeAlias = str | int | Sequence[int] | Sequence[Sequence[int]]


class Window(NamedTuple):
    """A window of `size` taps, `dilation` pixels apart, moved by `strides` over a padded image."""

    size: Pair
    strides: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def extent(self) -> Pair:
        """Pixels from the first tap of the window to its last, along height and width."""
        return (self.size[0] - 1) * self.dilation[0], (self.size[1] - 1) * self.dilation[1]

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return self.padding != ((0, 0), (0, 0))

    def positions(self, image: Pair) -> Pair:
        """How many places the window takes on an image, (OH, OW); below one if it does not fit."""
        (top, bottom), (left, right) = self.padding
        height = image[0] + top + bottom - self.extent[0] - 1
        width = image[1] + left + right - self.extent[1] - 1
        return height // self.strides[0] + 1, width // self.strides[1] + 1

    def tap(self, padded: Array, row: int, column: int, places: Pair) -> Array:
        """What one tap sees from every place: a view (N, OH, OW, C) of a padded batch."""
        top, left = row * self.dilation[0], column * self.dilation[1]
        bottom = top + self.strides[0] * (places[0] - 1) + 1
        right = left + self.strides[1] * (places[1] - 1) + 1
        return padded[:, top : bottom : self.strides[0], left : right : self.strides[1]]

    def patches(self, padded: Array, places: Pair, pool: Pair = (1, 1)) -> Array:
        """What the window sees from every place: a view (*pool, N, OH, OW, KH, KW, C).

        Args:
            padded: the batch with its padding.
            places: (OH, OW), how many groups of places to visit.
            pool: rows and columns of places that make a group.
        """
        batch, height, width, channel = padded.strides
        down, right = height * self.strides[0], width * self.strides[1]
        shape = *pool, len(padded), *places, *self.size, padded.shape[3]
        strides = (
            down,
            right,
            batch,
            down * pool[0],
            right * pool[1],
            height * self.dilation[0],
            width * self.dilation[1],
            channel,
        )
        if type(padded) is np.ndarray and padded.flags.c_contiguous:
            return np.ndarray(shape, padded.dtype, padded, strides=strides)  # a third of the time
        return array_module(padded).lib.stride_tricks.as_strided(padded, shape, strides)

    def covering(self, pool: Pair) -> Window:
        """The window that sees, from each of its places, what a group of places sees.

        Without dilation only.
        """
        (height, width), (down, right) = self.size, self.strides
        size = height + (pool[0] - 1) * down, width + (pool[1] - 1) * right
        return Window(size, (down * pool[0], right * pool[1]), self.padding)

    def mirrored(self) -> Window | None:
        """The window from every pixel to the places that see it; None where there is no such one.

        A convolution with it and with turned filters is the gradient with respect to the images.
        """
        padding = [
            (extent - before, extent - after)
            for extent, (before, after) in zip(self.extent, self.padding, strict=True)
        ]
        if self.strides != (1, 1) or min(min(sides) for sides in padding) < 0:
            return None
        return self._replace(padding=(padding[0], padding[1]))


def pair(value: int | Sequence[int], name: str, least: int = 1) -> Pair:
    """One number for both directions, or one for each.

    Raises ValueError, naming the argument, unless the result is two integers of at least `least`.
    """
    try:
        numbers = [
            index(n) for n in ((value, value) if isinstance(value, (int, np.integer)) else value)
        ]
    except TypeError:
        numbers = []
    if len(numbers) != 2 or min(numbers) < least:
        raise ValueError(f"{name} must be an integer >= {least} or two of them, got {value!r}")
    return numbers[0], numbers[1]


def same_padding(image: Pair, size: Pair, strides: Pair, dilation: Pair) -> Sides:
    """Zeros on each side for an output of ceil(image / strides), placed as Keras does.

    Where the number is odd, the extra row or column goes to the bottom and to the right.
    """
    sides = []
    for pixels, taps, stride, gap in zip(image, size, strides, dilation, strict=True):
        places = -(-pixels // stride)
        total = max((places - 1) * stride + (taps - 1) * gap + 1 - pixels, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def check_padding(padding: Padding) -> str | Sides:
    """Bring a padding argument into one form: "valid", "same", or ((top, bottom), (left, right)).

    Accepts those, one integer for all four sides, or (rows, columns) for top and bottom, and left
    and right. Raises ValueError for anything else.
    """
    try:
        if isinstance(padding, str):
            return {"valid": "valid", "same": "same"}[padding]
        if isinstance(padding, (int, np.integer)):
            rows, columns = pair(padding, "", 0)
            return (rows, rows), (columns, columns)
        vertical, horizontal = padding
        return pair(vertical, "", 0), pair(horizontal, "", 0)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            'padding must be "valid", "same", an integer >= 0, (rows, columns) or '
            f"((top, bottom), (left, right)), got {padding!r}"
        ) from None


@lru_cache(maxsize=1024)
def place_window(
    image: Pair, size: Pair, strides: Pair, padding: str | Sides, dilation: Pair = (1, 1)
) -> Window:
    """The window for images of one size, its padding turned into numbers.

    Raises ValueError if the window does not fit on the padded image even once.
    """
    if padding == "same":
        sides = same_padding(image, size, strides, dilation)
    elif padding == "valid":
        sides = (0, 0), (0, 0)
    else:
        assert not isinstance(padding, str)  # noqa: S101  check_padding left nothing else
        sides = padding
    window = Window(size, strides, sides, dilation)
    if min(window.positions(image)) < 1:
        rows, columns = window.extent[0] + 1, window.extent[1] + 1
        (top, bottom), (left, right) = sides
        raise ValueError(
            f"a window that spans {rows}x{columns} pixels does not fit on images of "
            f"{image[0]}x{image[1]} padded to {image[0] + top + bottom}x{image[1] + left + right}; "
            'use a smaller window or padding="same"'
        )
    return window
