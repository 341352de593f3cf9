"""Patches of images as rows of a matrix, a few images at a time, and the way back.

All arrays are channels-last: images (N, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minidl.backend import Array, of
from minidl.kernels import scratch
from minidl.kernels.window import Pair, Window


def turns(images: slice, step: int) -> Iterator[slice]:
    """Walk over a range of images, `step` at a time."""
    for start in range(images.start, images.stop, step):
        yield slice(start, min(start + step, images.stop))


class Columns:
    """Memory for the patches of a few images; made by `im2col`.

    Attributes:
        room: where up to `step` images can be written, (step, H, W, C).
    """

    def __init__(
        self, window: Window, pool: Pair, places: Pair, padded: Array, room: Array, memory: Array
    ) -> None:
        self.room = room
        self._window, self._pool, self._places = window, pool, places
        self._padded, self._memory = padded, memory

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
        taps, patch = math.prod(self._pool), math.prod(self._window.size) * padded.shape[3]
        if self._window.size == self._window.strides == (1, 1) == self._pool:
            return padded.reshape(1, -1, patch)  # the pixels are the patches
        patches = self._window.patches(padded, self._places, self._pool)
        matrix = self._memory[: patches.size].reshape(patches.shape)
        matrix[...] = patches
        return matrix.reshape(taps, -1, patch)


@contextmanager
def im2col(
    like: Array, step: int, shape: tuple[int, int, int], window: Window, pool: Pair = (1, 1)
) -> Iterator[Columns]:
    """Borrow the memory to write patches out as rows, for up to `step` images at a time.

    Args:
        like: an array of the device and the dtype of the images.
        step: the largest number of images.
        shape: (H, W, C) of the images.
        window: the places to take patches from.
        pool: rows and columns of places that belong together; those that are left over at the
            bottom and to the right are not visited.
    """
    height, width, channels = shape
    rows, columns = window.positions((height, width))
    places = rows // pool[0], columns // pool[1]
    elements = step * math.prod(pool) * math.prod(places) * math.prod(window.size) * channels
    (top, bottom), (left, right) = window.padding
    padded_shape = step, height + top + bottom, width + left + right, channels
    with (
        scratch.borrow(of(like), (elements,), like.dtype) as memory,
        scratch.borrow(of(like), padded_shape, like.dtype) as padded,
    ):
        room = padded[:, top : top + height, left : left + width]
        if window.padded:
            padded.fill(0)
        yield Columns(window, pool, places, padded, room, memory)


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
