"""How a convolution goes about a batch: in which pieces and turns, and by which way.

A plan follows from shapes, dtype and device alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import CPU, Array, Backend
from minidl.kernels import blas, scratch, winograd
from minidl.kernels.threads import PIECE_BYTES, cut, pieces_of
from minidl.kernels.window import Pair, Window

# Patches whose rows are shorter than this take longer to copy than to multiply.
SHORT_ROW = 16

# Bytes up to which covering patches of a whole batch are kept for the gradients. More of them would
# have left the cache by then, and take more room than time.
MOST_KEPT = 1 << 20


class Convolution(NamedTuple):
    """A convolution and what follows it on the spot.

    Attributes:
        window: where the filters are placed.
        relu: whether max(x, 0) follows.
        pool: size and stride of the max pooling that follows; (1, 1) for none.
    """

    window: Window
    relu: bool = False
    pool: Pair = (1, 1)

    @property
    def taps(self) -> int:
        """How many places each pooled value is chosen from."""
        return self.pool[0] * self.pool[1]

    def places(self, image: Pair) -> Pair:
        """Rows and columns of the output for images of (H, W)."""
        rows, columns = self.window.positions(image)
        return rows // self.pool[0], columns // self.pool[1]


class Remembered(NamedTuple):
    """What the gradients need to know of the forward pass.

    Attributes:
        passed: booleans (T, N, OH, OW, C_out), a byte for each place of the pooling window: first
            whether the output is above 0, or True without max(x, 0), then what `choose_largest`
            tells. None if neither pooling nor max(x, 0) followed.
        patches: (N, OH * OW, KH * KW * C_in) if they were kept.
    """

    passed: Array | None = None
    patches: Array | None = None


class Plan:
    """How the work on a batch is laid out.

    With few channels it is copying the patches that takes time. All places of a pooling window then
    read one patch that covers what they see, four times fewer to copy, and for each place there is
    a matrix of its own, in which the filters are padded with zeros to the size of that patch. (An
    infinite pixel then gives nan to the whole pooling window, for 0 times infinity is no number.)
    So few patches of a small batch are kept until the gradients are wanted, not written out again.

    With many channels and filters tiles take the place of patches, if `winograd` fits.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: np.dtype[Any],
        images: tuple[int, ...],
        weight: tuple[int, ...],
        how: Convolution,
        input_gradient: bool,
        most_bytes: int,
    ) -> None:
        self.backend, self.dtype = backend, dtype
        self.multiply = blas.multiply if backend is CPU else backend.xp.matmul
        count, *image, self.channels = images
        self.image = image[0], image[1]
        self.filters = weight[3]
        self.taps, self.pooled = how.taps, how.taps > 1
        self.how = how
        self.places = how.places(self.image)
        self.grid = how.window.positions(self.image)  # the places before pooling
        self.mirrored = how.window.mirrored()
        self.input_gradient = input_gradient
        self.seen = how.window.size[0] * how.window.size[1] * self.filters
        self.window, self.pool = how.window, how.pool
        self.covering = (
            1 < self.taps <= 4
            and how.window.size[1] * self.channels < SHORT_ROW
            and how.window.dilation == (1, 1)
        )
        if self.covering:
            self.window, self.pool = how.window.covering(how.pool), (1, 1)
        self.tiled = (
            backend is CPU
            and not self.covering
            and winograd.fits(how.window, how.pool, self.channels, self.filters, input_gradient)
        )
        self.patch = self.window.size[0] * self.window.size[1] * self.channels
        self.matrices = self.taps if self.covering else 1, self.patch, self.filters

        rows = self.places[0] * self.places[1]
        kept = count, rows, self.patch
        keeps = self.covering and math.prod(kept) * dtype.itemsize <= MOST_KEPT
        self.kept_patches = kept if keeps else None

        # What one image needs of scratch memory: for its patches, and for what is found with them.
        patches = rows * self.patch * self.pool[0] * self.pool[1]
        if input_gradient:
            patches = max(patches, self.image[0] * self.image[1] * self.seen)
        found = rows * self.taps * self.filters
        work = count * (patches + found) * dtype.itemsize
        self.pieces = cut(count, pieces_of(work, PIECE_BYTES) if backend is CPU else 1)
        longest = max(piece.stop - piece.start for piece in self.pieces)
        if self.tiled:  # pixels, their sums, and products
            patches = rows * winograd.WAYS * (2 * self.channels + self.filters)
        # What is found is read again, by what follows, and should still be in the cache.
        turns = -(-longest * max(patches, 2 * found) * dtype.itemsize // most_bytes)
        self.step = max(1, -(-longest // max(turns, 1)))
        self.rows_of_a_turn = self.step * rows
        self.turn = winograd.Turn(
            dtype, self.step, self.image, self.window, self.places, self.channels, self.filters
        )
        product = math.prod(self.matrices)
        bytes_of_a_turn = (self.step * (patches + found) + product) * dtype.itemsize
        self.keeps_desks = backend is CPU and bytes_of_a_turn <= scratch.LARGEST_KEPT
