"""Convolution with filters of 3 x 3 in fewer multiplications: all places of a 2 x 2 tile at once.

The four places see 4 x 4 pixels, and 36 products of a pixel and a weight for each pair of channels
go into them. Winograd's algorithm F(2 x 2, 3 x 3) does with 16 [1]: pixels and weights are added up
in 16 ways each, the products of these sums are made, one for each way, and added up again to what
is found at the places. The sums are products with small constant matrices. They cost as much for
one filter as for many, so that this pays if there are many channels and many filters.

Every sum is rounded, so that the error of a place depends on the largest pixel that its tile sees,
not on those that the place itself sees. (And an infinite one gives nan to the tile, for infinity
less infinity is no number.)

[1] A. Lavin, S. Gray: Fast algorithms for convolutional neural networks, 2016, section 4.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import CPU, Array
from minidl.kernels import blas
from minidl.kernels.im2col import Memory, as_runs, padded_images
from minidl.kernels.window import Pair, Window

SIZE, TILE = (3, 3), (2, 2)
WAYS = 16

# Channels and filters from which on the products that are saved take longer than the sums.
FEWEST = 32


class Sums(NamedTuple):
    """The matrices that add up.

    Attributes:
        pixels: the 4 x 4 pixels in 16 ways, (16, 16).
        weights: the 3 x 3 weights, (16, 9).
        products: the 16 products to what is found at the places, (4, 16).
    """

    pixels: Array
    weights: Array
    products: Array


@lru_cache(maxsize=8)
def sums(dtype: np.dtype[Any]) -> Sums:
    """The matrices in a dtype: those for a line, taken along both axes."""
    pixels: Any = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
    weights: Any = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    products: Any = [[1, 1, 1, 0], [0, 1, -1, -1]]
    return Sums(*[np.kron(line, line).astype(dtype) for line in (pixels, weights, products)])


def fits(window: Window, pool: Pair, channels: int, filters: int) -> bool:
    """Whether a convolution can be computed so, and is quicker then."""
    plain = window.size == SIZE and window.strides == window.dilation == (1, 1)
    return plain and pool == TILE and min(channels, filters) >= FEWEST


def to_matrices(weight: Array) -> Array:
    """The sums of filters (3, 3, C, F): (16, C, F)."""
    added: Array = sums(weight.dtype).weights @ weight.reshape(SIZE[0] * SIZE[1], -1)
    return added.reshape(WAYS, *weight.shape[2:])


class Tiles:
    """The tiles of a few images, in memory that serves for one turn after the other.

    Args:
        dtype: of the images.
        step: the largest number of images.
        shape: (H, W, C) of the images.
        window: where the filters are placed.
        tiles: rows and columns of tiles; places left over at the bottom and to the right are not
            visited.
        filters: F.
        memory: where to get uninitialised memory, by the numbers 0, 2 and 3.

    Attributes:
        nbytes: what it takes besides `memory`.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        step: int,
        shape: tuple[int, int, int],
        window: Window,
        tiles: Pair,
        filters: int,
        memory: Memory,
    ) -> None:
        channels, rows = shape[2], step * tiles[0] * tiles[1]
        self._tiles, self._sums = tiles, sums(dtype)
        self._padded, self._room = padded_images(CPU, dtype, step, shape, window)
        self.nbytes = self._padded.nbytes
        self._seen = self._in_order(window.covering(TILE))
        self._pixels = memory(0, (WAYS, rows, channels), dtype)
        self._added = memory(2, (WAYS, rows, channels), dtype)
        self._products = memory(3, (WAYS, rows, filters), dtype)

    def find(self, images: Array, matrices: Array, out: Array) -> None:
        """Write what the filters see at all places of the tiles.

        Args:
            images: (n, H, W, C), at most `step`.
            matrices: the filters, from `to_matrices`.
            out: (4, n * tiles, F).
        """
        products = self._products[:, : out.shape[1]]
        blas.multiply(self._add_pixels(images), matrices, out=products)
        _add_up(self._sums.products, products, out)

    def _in_order(self, window: Window) -> Array:
        """The pixels that the tiles see, a view (4, 4, step, *tiles), each a run of C."""
        seen = window.patches(self._padded, self._tiles)[0, 0]
        return as_runs(seen.transpose(3, 4, 0, 1, 2, 5), 1)

    def _add_pixels(self, images: Array) -> Array:
        """The sums of the pixels that the tiles see, (16, n * tiles, C)."""
        count = len(images)
        rows = count * self._tiles[0] * self._tiles[1]
        pixels, added = self._pixels[:, :rows], self._added[:, :rows]
        self._room[:count] = images
        in_order = pixels.reshape(4, 4, count, *self._tiles, pixels.shape[2])
        as_runs(in_order, 1)[...] = self._seen[:, :, :count]
        _add_up(self._sums.pixels, pixels, added)
        return added


def _add_up(how: Array, numbers: Array, out: Array) -> None:
    """Write sums of numbers to `out`: (16 or 4, n, C), from as many or others."""
    np.matmul(how, numbers.reshape(len(numbers), -1), out=out.reshape(len(out), -1))
