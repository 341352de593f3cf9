"""Patches of images as rows of a matrix, a few images at a time, and the way back.

All arrays are channels-last: images (N, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Self

from minidl.backend import Array, of
from minidl.kernels import scratch
from minidl.kernels.window import Pair, Window


def turns(images: slice, step: int) -> Iterator[slice]:
    """Walk over a range of images, `step` at a time."""
    for start in range(images.start, images.stop, step):
        yield slice(start, min(start + step, images.stop))


class im2col:  # noqa: N801  it reads as what it does
    """Borrow the memory to write patches out as rows, for a few images at a time.

    Args:
        like: an array of the device and the dtype of the images.
        step: the largest number of images.
        shape: (H, W, C) of the images.
        window: the places to take patches from.
        pool: rows and columns of places that belong together; those that are left over at the
            bottom and to the right are not visited.

    Attributes:
        room: inside the `with` block, where up to `step` images can be written, (step, H, W, C).
    """

    def __init__(
        self,
        like: Array,
        step: int,
        shape: tuple[int, int, int],
        window: Window,
        pool: Pair = (1, 1),
    ) -> None:
        self._window, self._pool = window, pool
        self._places, padded_shape, elements, self._inside = _layout(step, shape, window, pool)
        self._lent_padded = scratch.borrow(of(like), padded_shape, like.dtype)
        self._lent_columns = scratch.borrow(of(like), (elements,), like.dtype)

    def __enter__(self) -> Self:
        self._padded = self._lent_padded.__enter__()
        self._columns = self._lent_columns.__enter__()
        self.room = self._padded[self._inside]
        if self._window.padded:
            self._padded.fill(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._lent_columns.__exit__()
        self._lent_padded.__exit__()

    def of(self, images: Array) -> Array:
        """The patches of images (n, H, W, C), as `of_room` returns them."""
        if not self._window.padded:
            return self._rows(images)
        self.room[: len(images)] = images
        return self.of_room(len(images))

    def of_room(self, count: int) -> Array:
        """The patches of the first images in `room`, in memory that the next call overwrites.

        Returns:
            (T, n * OH * OW, KH * KW * C): the T places that belong together lie in different
            matrices.
        """
        return self._rows(self._padded[:count])

    def _rows(self, padded: Array) -> Array:
        size, pool = self._window.size, self._pool
        patch = size[0] * size[1] * padded.shape[3]
        if size == self._window.strides == (1, 1) == pool:
            return padded.reshape(1, -1, patch)  # the pixels are the patches
        patches = self._window.patches(padded, self._places, pool)
        matrix = self._columns[: patches.size].reshape(patches.shape)
        matrix[...] = patches
        return matrix.reshape(pool[0] * pool[1], -1, patch)


@lru_cache(maxsize=1024)
def _layout(
    step: int, shape: tuple[int, int, int], window: Window, pool: Pair
) -> tuple[Pair, tuple[int, ...], int, tuple[slice, ...]]:
    """Groups of places, shape of the padded images, elements of the columns, where images lie."""
    height, width, channels = shape
    rows, columns = window.positions((height, width))
    places = rows // pool[0], columns // pool[1]
    (top, bottom), (left, right) = window.padding
    padded_shape = step, height + top + bottom, width + left + right, channels
    elements = step * math.prod((*pool, *places, *window.size, channels))
    inside = slice(None), slice(top, top + height), slice(left, left + width)
    return places, padded_shape, elements, inside


@contextmanager
def col2im(
    like: Array, step: int, shape: tuple[int, int, int], window: Window
) -> Iterator[Callable[[Array, Array], None]]:
    """Borrow the memory to add patches back to where they lay, for up to `step` images at a time.

    Args:
        like: as `im2col`.
        step: as `im2col`.
        shape: (H, W, C) of the images.
        window: the places that the patches were taken from.

    Yields:
        A function of patches (n * OH * OW, KH * KW * C) and of images (n, H, W, C) to write to.
    """
    height, width, channels = shape
    places = window.positions((height, width))
    (top, bottom), (left, right) = window.padding
    padded_shape = step, height + top + bottom, width + left + right, channels
    with scratch.borrow(of(like), padded_shape, like.dtype) as padded:

        def add_up(columns: Array, images: Array) -> None:
            n = len(images)
            patches = columns.reshape(n, *places, *window.size, channels)
            padded.fill(0)
            for row in range(window.size[0]):
                for column in range(window.size[1]):
                    seen = window.tap(padded[:n], row, column, places)
                    seen += patches[:, :, :, row, column]
            images[...] = padded[:n, top : top + height, left : left + width]

        yield add_up
