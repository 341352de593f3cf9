"""Convolution with filters of 3 x 3 in fewer multiplications: all places of a 2 x 2 tile at once.

The four places see 4 x 4 pixels, and 36 products of a pixel and a weight for each pair of channels
go into them. Winograd's algorithm F(2 x 2, 3 x 3) does with 16 [1]: pixels and weights are added up
in 16 ways each, the products of these sums are made, one for each way, and added up again to what
is found at the places. The sums are products with small constant matrices. They cost as much for
one filter as for many, so that this pays if there are many channels and many filters.

Every step is a product of matrices, and so is its gradient, with one of them transposed: the same
steps the other way round are the gradients, in as few multiplications.

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
from minidl.kernels.im2col import Memory, as_runs, in_order, padded_images
from minidl.kernels.window import Pair, Window

SIZE, TILE = (3, 3), (2, 2)
WAYS = 16

# Channels and filters from which on the products that are saved take longer than the sums, and more
# filters for the gradients, by measurement.
FEWEST = 32
FEWEST_FILTERS_BACK = 48


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


def fits(window: Window, pool: Pair, channels: int, filters: int, back: bool = False) -> bool:
    """Whether a convolution, or its way back to images, can be computed so, and is quicker then."""
    plain = window.size == SIZE and window.strides == window.dilation == (1, 1)
    many = min(channels, filters) >= FEWEST and (not back or filters >= FEWEST_FILTERS_BACK)
    return plain and pool == TILE and many


def to_matrices(weight: Array) -> Array:
    """The sums of filters (3, 3, C, F): (16, C, F)."""
    added: Array = sums(weight.dtype).weights @ weight.reshape(SIZE[0] * SIZE[1], -1)
    return added.reshape(WAYS, *weight.shape[2:])


def to_filters(d: Array) -> Array:
    """Gradient of `to_matrices`: from that of the sums, (16, C, F), to that of the filters."""
    added: Array = sums(d.dtype).weights.T @ d.reshape(WAYS, -1)
    return added.reshape(*SIZE, *d.shape[1:])


class Turn(NamedTuple):
    """A few images, and what is to be found in them.

    Attributes:
        dtype: of the images.
        step: the largest number of them.
        image: rows and columns of each, (H, W).
        window: where the filters are placed.
        tiles: rows and columns of tiles; places left over at the bottom and to the right are not
            visited.
        channels: C.
        filters: F.
    """

    dtype: np.dtype[Any]
    step: int
    image: Pair
    window: Window
    tiles: Pair
    channels: int
    filters: int

    def padded_images(self) -> tuple[Array, Array]:
        """Memory for the images, as `im2col.padded_images` returns it."""
        image = *self.image, self.channels
        return padded_images(CPU, self.dtype, self.step, image, self.window)


class Tiles:
    """The tiles of a few images, in memory that serves for one turn after the other.

    Args:
        turn: what they are.
        memory: where to get uninitialised memory, by the numbers 0, 3 and 4.

    Attributes:
        nbytes: what it takes besides `memory`.
    """

    def __init__(self, turn: Turn, memory: Memory) -> None:
        rows = turn.step * turn.tiles[0] * turn.tiles[1]
        self._turn, self._sums = turn, sums(turn.dtype)
        padded, self._room = turn.padded_images()
        self.nbytes = padded.nbytes
        seen = turn.window.covering(TILE).patches(padded, turn.tiles)[0, 0]
        self._seen = as_runs(seen.transpose(3, 4, 0, 1, 2, 5), 1)  # (4, 4, step, *tiles)
        self._pixels = memory(0, (WAYS, rows, turn.channels), turn.dtype)
        self._added = memory(3, (WAYS, rows, turn.channels), turn.dtype)
        self._products = memory(4, (WAYS, rows, turn.filters), turn.dtype)

    def find(self, images: Array, matrices: Array, out: Array) -> None:
        """Write what the filters see at all places of the tiles.

        Args:
            images: (n, H, W, C), at most `step`.
            matrices: the filters, from `to_matrices`.
            out: (4, n * tiles, F).
        """
        products = self._products[:, : out.shape[1]]
        blas.multiply(self.add_pixels(images), matrices, out=products)
        _add_up(self._sums.products, products, out)

    def add_pixels(self, images: Array) -> Array:
        """The sums of the pixels that the tiles see, (16, n * tiles, C)."""
        count, (down, across) = len(images), self._turn.tiles
        rows = count * down * across
        pixels, added = self._pixels[:, :rows], self._added[:, :rows]
        self._room[:count] = images
        as_runs(self._by_place(pixels), 1)[...] = self._seen[:, :, :count]
        _add_up(self._sums.pixels, pixels, added)
        return added

    def _by_place(self, pixels: Array) -> Array:
        """A view (4, 4, n, *tiles, C) of the pixels of tiles, (16, n * tiles, C)."""
        return pixels.reshape(4, 4, -1, *self._turn.tiles, self._turn.channels)


class TilesBack(Tiles):
    """The way back: gradients of the steps of `Tiles`, from the last to the first.

    What each tile passes on to its pixels is added up where tiles overlap. That is done with every
    second row and every second column in an array of its own, where neighbours lie end to end.
    """

    def __init__(self, turn: Turn, memory: Memory) -> None:
        super().__init__(turn, memory)
        down, across = turn.tiles[0] + 1, turn.tiles[1] + 1
        self._planes = np.empty((2, 2, turn.step, down, across, turn.channels), turn.dtype)
        padded, self._of_images = turn.padded_images()
        self._reached = in_order(padded, (down, across), TILE)
        self.nbytes += self._planes.nbytes + padded.nbytes

    def of_products(self, found: Array) -> Array:
        """From the gradient of what was found, (4, n * tiles, F), to that of the products."""
        slopes = self._products[:, : found.shape[1]]
        _add_up(self._sums.products.T, found, slopes)
        return slopes

    def pass_on(self, slopes: Array, matrices: Array, out: Array) -> None:
        """Write the gradient of the images.

        Args:
            slopes: from `of_products`. The sums of pixels are overwritten.
            matrices: the filters, from `to_matrices`, each transposed: (16, F, C).
            out: (n, H, W, C).
        """
        count, rows = len(out), slopes.shape[1]
        added, pixels = self._added[:, :rows], self._pixels[:, :rows]
        blas.multiply(slopes, matrices, out=added)
        _add_up(self._sums.pixels.T, added, pixels)
        self._put_together(pixels, self._planes[:, :, :count])
        self._reached[:, :, :count] = as_runs(self._planes[:, :, :count], 1)
        out[...] = self._of_images[:count]

    def _put_together(self, pixels: Array, planes: Array) -> None:
        """Add up the tiles (16, n * tiles, C) where they overlap."""
        (down, across), by_place = self._turn.tiles, self._by_place(pixels)
        planes.fill(0)
        for row in range(2):
            for column in range(2):
                quarter = by_place[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                there = planes[:, :, :, row : row + down, column : column + across]
                there += quarter


def _add_up(how: Array, numbers: Array, out: Array) -> None:
    """Write sums of numbers to `out`: (16 or 4, n, C), from as many or others."""
    np.matmul(how, numbers.reshape(len(numbers), -1), out=out.reshape(len(out), -1))
