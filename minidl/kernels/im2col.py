"""Patches of images as rows of a matrix, a few images at a time, and the way back.

All arrays are channels-last: images (N, H, W, C). NumPy copies a long run of numbers faster when it
takes the run for one element, so runs of pixels are copied as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from minidl.backend import Array, Backend
from minidl.kernels.window import Pair, Window

# A function of a number, a shape and a dtype that returns uninitialised memory, the same for the
# same number.
Memory: TypeAlias = Callable[[int, tuple[int, ...], Any], Array]


def turns(images: slice, step: int) -> Iterator[slice]:
    """Walk over a range of images, `step` at a time."""
    for start in range(images.start, images.stop, step):
        yield slice(start, min(start + step, images.stop))


def as_runs(array: Array, axes: int) -> Array:
    """The array with its last axes, which must lie end to end, taken for one element on the CPU."""
    shape = array.shape
    length = math.prod(shape[-axes:])
    if not isinstance(array, np.ndarray) or not length:
        return array
    run = _run(length * array.itemsize)
    return array.reshape(*shape[:-axes], length).view(run)[..., 0]


@lru_cache(maxsize=1024)
def _run(size: int) -> np.dtype[Any]:
    return np.dtype((np.void, size))


def in_order(grid: Array, groups: Pair, group: Pair) -> Array:
    """Pixels by their place in groups that lie side by side, from the top and from the left.

    Args:
        grid: (n, H, W, C).
        groups: rows and columns of groups.
        group: rows and columns of pixels in each.

    Returns:
        A view (*group, n, *groups), each element a run of C, or with C as the last axis.
    """
    (rows, columns), (down, right) = groups, group
    reached = grid[:, : rows * down, : columns * right]
    by_group = reached.reshape(len(grid), rows, down, columns, right, grid.shape[3])
    return as_runs(by_group.transpose(2, 4, 0, 1, 3, 5), 1)


def padded_images(
    backend: Backend, dtype: Any, step: int, shape: tuple[int, int, int], window: Window
) -> tuple[Array, Array]:
    """So many images of zeros with the padding of a window, and the images without it, a view."""
    height, width, channels = shape
    (top, bottom), (left, right) = window.padding
    padded_shape = step, height + top + bottom, width + left + right, channels
    padded = backend.xp.zeros(padded_shape, dtype=dtype)
    return padded, padded[:, top : top + height, left : left + width]


class im2col:  # noqa: N801  it reads as what it does
    """Writes patches of a few images out as rows of a matrix.

    Args:
        backend: where the images are.
        dtype: their dtype.
        step: the largest number of images.
        shape: (H, W, C) of the images.
        window: the places to take patches from.
        pool: rows and columns of places that belong together; those that are left over at the
            bottom and to the right are not visited.
        memory: where to get the memory for the patches, by the number 0.

    Attributes:
        room: where up to `step` images can be written, (step, H, W, C), all zeros at first.
        nbytes: what it takes besides `memory`.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: Any,
        step: int,
        shape: tuple[int, int, int],
        window: Window,
        pool: Pair,
        memory: Memory,
    ) -> None:
        height, width, channels = shape
        rows, columns = window.positions((height, width))
        places = rows // pool[0], columns // pool[1]
        self._window, self._pool = window, pool
        self._patch = math.prod(window.size) * channels
        self._pixels = window.size == window.strides == (1, 1) == pool  # they are the patches
        self._padded, self.room = padded_images(backend, dtype, step, shape, window)
        self.nbytes = self._padded.nbytes
        self._taps = pool[0] * pool[1]
        self._places, self._shape = math.prod(places), (*places, *window.size, channels)
        self._axes = 2 if window.dilation[1] == 1 else 1  # of a patch that lie end to end
        size = 0 if self._pixels else step * self._taps * self._places * self._patch
        self._columns = memory(0, (size,), dtype)
        if not self._pixels:
            self._seen = as_runs(window.patches(self._padded, places, pool), self._axes)
            self._all = self._matrix(self._columns, step)

    def of(self, images: Array) -> Array:
        """The patches of images (n, H, W, C), as `of_room` returns them."""
        if self._pixels and not self._window.padded:
            return images.reshape(1, -1, self._patch)
        self.room[: len(images)] = images
        return self.of_room(len(images))

    def of_room(self, count: int) -> Array:
        """The patches of the first images in `room`, in memory that the next call overwrites.

        Returns:
            (T, n * OH * OW, KH * KW * C): the T places that belong together lie in different
            matrices.
        """
        if self._pixels:
            return self._padded[:count].reshape(1, -1, self._patch)
        if count == len(self.room):
            seen, (rows, target) = self._seen, self._all
        else:
            seen, (rows, target) = self._seen[:, :, :count], self._matrix(self._columns, count)
        target[...] = seen
        return rows

    def write(self, images: Array, to: Array) -> None:
        """Write the patches of images (n, H, W, C) to memory of their own.

        Args:
            images: at most `step`.
            to: C-contiguous, as large as what `of_room` returns. Patches are more than a pixel.
        """
        self.room[: len(images)] = images
        _, target = self._matrix(to.reshape(-1), len(images))
        target[...] = self._seen[:, :, : len(images)]

    def _matrix(self, memory: Array, count: int) -> tuple[Array, Array]:
        """Memory for patches of some images: as `of_room` returns it, and as it is written to."""
        rows = self._taps, count * self._places, self._patch
        matrix = memory[: math.prod(rows)].reshape(rows)
        return matrix, as_runs(matrix.reshape(*self._pool, count, *self._shape), self._axes)


class col2im:  # noqa: N801  it reads as what it does
    """Adds patches back to where they lay, for a few images at a time.

    Args:
        backend, dtype, step, shape: as `im2col`.
        window: the places that the patches were taken from.

    Attributes:
        nbytes: the memory it takes.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: Any,
        step: int,
        shape: tuple[int, int, int],
        window: Window,
    ) -> None:
        self._window, self._places = window, window.positions(shape[:2])
        self._padded, self._inside = padded_images(backend, dtype, step, shape, window)
        self.nbytes = self._padded.nbytes

    def add_up(self, columns: Array, images: Array) -> None:
        """Write the sums of patches (n * OH * OW, KH * KW * C) to images (n, H, W, C)."""
        count, window = len(images), self._window
        patches = columns.reshape(count, *self._places, *window.size, images.shape[3])
        padded = self._padded[:count]
        padded.fill(0)
        for row in range(window.size[0]):
            for column in range(window.size[1]):
                seen = window.tap(padded, row, column, self._places)
                seen += patches[:, :, :, row, column]
        images[...] = self._inside[:count]
