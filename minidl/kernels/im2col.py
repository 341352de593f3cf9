"""Patches of images as rows of a matrix, a few images at a time, and the way back.

All arrays are channels-last: images (N, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from minidl.backend import Array, of
from minidl.kernels import scratch
from minidl.kernels.window import Pair, Window

Columns: TypeAlias = Callable[[Array], Array]


def turns(images: slice, step: int) -> Iterator[slice]:
    """Walk over a range of images, `step` at a time."""
    for start in range(images.start, images.stop, step):
        yield slice(start, min(start + step, images.stop))


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

    Yields:
        A function from images (n, H, W, C) to their patches (T, n * OH * OW, KH * KW * C), where
        the T places that belong together lie in different matrices. The next call overwrites them.
    """
    height, width, channels = shape
    if window == Window((1, 1)) and pool == (1, 1):  # the pixels are the patches
        yield lambda images: images.reshape(1, -1, channels)
        return
    rows, columns = window.positions((height, width))
    places = rows // pool[0], columns // pool[1]
    patch = *window.size, channels
    (top, bottom), (left, right) = window.padding
    padded_shape = step, height + top + bottom, width + left + right, channels
    with (
        scratch.borrow(of(like), (step, *pool, *places, *patch), like.dtype) as memory,
        scratch.borrow(of(like), padded_shape if window.padded else (0,), like.dtype) as padded,
    ):
        padded.fill(0)

        def written_out(images: Array) -> Array:
            if window.padded:
                padded[: len(images), top : top + height, left : left + width] = images
                images = padded[: len(images)]
            patches = window.patches(images, places, pool)
            matrix = memory.reshape(-1)[: patches.size].reshape(patches.shape)
            matrix[...] = patches
            return matrix.reshape(pool[0] * pool[1], -1, math.prod(patch))

        yield written_out


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
