"""How a convolution goes about a batch: its pieces and turns, and where each is computed.

A plan follows from shapes, dtype and device alone. A desk is what one thread works with on one turn
after the other: memory, and views of it, which it finds again in the next step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minidl.backend import CPU, Array, Backend
from minidl.kernels import blas, scratch, winograd
from minidl.kernels.im2col import Memory, as_runs, col2im, im2col
from minidl.kernels.pooling import Round, tournament
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

    With many channels and filters the output is found by tiles instead, if `winograd` fits.
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
            and winograd.fits(how.window, how.pool, self.channels, self.filters)
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
        if self.tiled and not input_gradient:
            # Pixels, and what is found, are written and read again on the way.
            patches = 2 * rows * winograd.WAYS * (self.channels + self.filters)
        # What is found is read again, by what follows, and should still be in the cache.
        turns = -(-longest * max(patches, 2 * found) * dtype.itemsize // most_bytes)
        self.step = max(1, -(-longest // max(turns, 1)))
        self.rows_of_a_turn = self.step * rows
        product = math.prod(self.matrices)
        bytes_of_a_turn = (self.step * (patches + found) + product) * dtype.itemsize
        self._keeps_desks = backend is CPU and bytes_of_a_turn <= scratch.LARGEST_KEPT

    def desk(self, kind: type[D], may_keep: bool) -> D:
        """Where this thread works on one turn after the other, inside `scratch.in_use`.

        Args:
            kind: of the work.
            may_keep: what entering that block told.
        """
        if may_keep and self._keeps_desks:
            return scratch.keep((self, kind), lambda: kind(self, scratch.shared))
        return kind(self, lambda _, shape, dtype: self.backend.xp.empty(shape, dtype=dtype))

    def to_matrices(self, weight: Array) -> Array:
        """The filters as what patches are multiplied with, or sums of the pixels of tiles."""
        if self.tiled:
            return winograd.to_matrices(weight)
        if not self.covering:
            return weight.reshape(self.matrices)
        wide = self.backend.xp.zeros(
            (self.taps, *self.window.size, *weight.shape[2:]), dtype=weight.dtype
        )
        for matrix, part in zip(wide, self._own_parts(), strict=True):
            matrix[part] = weight
        return wide.reshape(self.matrices)

    def to_turned_matrix(self, weight: Array) -> Array:
        """The filters turned by 180 degrees, which the output's gradient is convolved with."""
        turned = weight[::-1, ::-1].transpose(0, 1, 3, 2)
        return self.backend.xp.ascontiguousarray(turned).reshape(self.seen, self.channels)

    def to_transposed_matrix(self, weight: Array) -> Array:
        """The filters as what the output's gradient is multiplied with, place by place."""
        return self.backend.xp.ascontiguousarray(weight.reshape(-1, self.filters).T)

    def from_matrices(self, parts: Array) -> Array:
        """The gradient of the filters: the sum of what is (pieces, *matrices)."""
        shape = *self.window.size, self.channels, self.filters
        if not self.covering:
            return parts.reshape(-1, *shape).sum(axis=0)
        wide = parts.sum(axis=0).reshape(-1, *shape)
        own = [matrix[part] for matrix, part in zip(wide, self._own_parts(), strict=True)]
        return sum(own[1:], start=own[0])

    def turn_back(self, parts: Array) -> Array:
        """The gradient of the filters: the sum of what is (pieces, *taps turned by 180)."""
        total = parts.sum(axis=0).reshape(*self.how.window.size, self.filters, self.channels)
        turned = total[::-1, ::-1].transpose(0, 1, 3, 2)
        return self.backend.xp.ascontiguousarray(turned)

    def _own_parts(self) -> Iterator[tuple[slice, slice]]:
        """Where in a covering patch each place of the pooling window finds its own."""
        (height, width), (down, right) = self.how.window.size, self.how.window.strides
        for row in range(self.how.pool[0]):
            for column in range(self.how.pool[1]):
                top, left = row * down, column * right
                yield slice(top, top + height), slice(left, left + width)


class Desk:
    """Memory for one turn of the work, and views of it.

    Args:
        plan: what is to be done.
        memory: where to get uninitialised memory.

    Attributes:
        found: what belongs to all places of a turn, (taps, rows, C_out).
        nbytes: what it takes besides `memory`.
    """

    nbytes: int

    def __init__(self, plan: Plan, memory: Memory) -> None:
        self.plan = plan
        self.found = memory(1, (plan.taps, plan.rows_of_a_turn, plan.filters), plan.dtype)
        self._rounds = tournament(self.found)

    def room_for(self, rows: int) -> tuple[Array, list[Round]]:
        """Memory for so many places, (taps, rows, C_out), and the rounds that find the largest."""
        if rows == self.found.shape[1]:
            return self.found, self._rounds
        found = self.found[:, :rows]
        return found, tournament(found)

    def patches_of(
        self, image: tuple[int, int, int], window: Window, pool: Pair, memory: Memory
    ) -> im2col:
        """What writes out patches of the images (H, W, C) of one turn."""
        plan = self.plan
        return im2col(plan.backend, plan.dtype, plan.step, image, window, pool, memory)

    def in_order(self, grid: Array) -> Array:
        """Places (n, rows, columns, C_out) in the order that they are found in.

        (*pool, n, OH, OW), each element a run of C_out, or with C_out as the last axis.
        """
        (rows, columns), (down, right) = self.plan.places, self.plan.how.pool
        reached = grid[:, : rows * down, : columns * right]
        shape = len(grid), rows, down, columns, right, self.plan.filters
        return as_runs(reached.reshape(shape).transpose(2, 4, 0, 1, 3, 5), 1)

    def put(self, found: Array, in_order: Array) -> int:
        """Write what was found, (taps, n * OH * OW, C_out), to the places. Returns n."""
        plan = self.plan
        images = found.reshape(*plan.how.pool, -1, *plan.places, plan.filters)
        count = images.shape[2]
        in_order[:, :, :count] = as_runs(images, 1)
        return count


class Weights:
    """Adds up the gradient of filters: products of transposed patches with what goes with them.

    Args:
        plan: what is to be done.
        memory: where to get uninitialised memory.
        samples: rows of patches in a whole turn.
        shape: (T, M, N) of the gradient, M being the length of a patch.
    """

    def __init__(
        self, plan: Plan, memory: Memory, samples: int, shape: tuple[int, int, int]
    ) -> None:
        matrices, rows, columns = shape
        self._matmul = plan.backend.xp.matmul
        self._samples = samples
        self._groups = blas.groups(samples, rows, columns) if plan.backend is CPU else 1
        self._products = memory(2, (matrices, self._groups, rows, columns), plan.dtype)

    def add(self, patches: Array, slopes: Array, to: Array) -> None:
        """Add to the gradient (T, M, N) what follows from patches (S, M) and slopes (T, S, N)."""
        count = self._groups if len(patches) == self._samples else 1
        groups = patches.reshape(count, -1, patches.shape[1]).swapaxes(1, 2)
        products = self._products[:, :count]
        self._matmul(groups, slopes.reshape(len(to), count, -1, to.shape[2]), out=products)
        to += products.sum(axis=1) if count > 1 else products[:, 0]


class Forward(Desk):
    """For the output, from patches of the images or from tiles."""

    def __init__(self, plan: Plan, memory: Memory) -> None:
        super().__init__(plan, memory)
        image = *plan.image, plan.channels
        self._tiles = self._columns = None
        if plan.tiled:
            self._tiles = winograd.Tiles(
                plan.dtype, plan.step, image, plan.window, plan.places, plan.filters, memory
            )
            self.nbytes = self._tiles.nbytes
        else:
            self._columns = self.patches_of(image, plan.window, plan.pool, memory)
            self.nbytes = self._columns.nbytes

    def find(self, images: Array, matrices: Array, out: Array, patches: Array | None) -> None:
        """Write what the filters see at all places of a turn.

        Args:
            images: of this turn.
            matrices: the filters, from `Plan.to_matrices`.
            out: (taps, rows, C_out).
            patches: where to keep the patches, (n, OH * OW, KH * KW * C_in), or None.
        """
        if self._tiles:
            self._tiles.find(images, matrices, out)
            return
        assert self._columns is not None  # noqa: S101  one of both there is
        if patches is None:
            rows = self._columns.of(images)
        else:
            rows = patches.reshape(1, -1, self.plan.patch)
            self._columns.write(images, to=rows)
        self.plan.multiply(rows, matrices, out=out)


class Collect(Desk):
    """For gradients from patches of the output's gradient: what each pixel was seen from.

    Each pixel collects from the places around it. That is a convolution of the gradient, with the
    filters turned by 180 degrees, which writes every pixel only once; and products of each pixel
    with the same patches are the gradient of the filters.
    """

    def __init__(self, plan: Plan, memory: Memory) -> None:
        super().__init__(plan, memory)
        assert plan.mirrored is not None  # noqa: S101  whoever calls has looked
        grid = *plan.grid, plan.filters
        self._columns = self.patches_of(grid, plan.mirrored, (1, 1), memory)
        self.nbytes = self._columns.nbytes
        self._places = self.in_order(self._columns.room)
        pixels = plan.step * plan.image[0] * plan.image[1]
        self._weights = Weights(plan, memory, pixels, (1, plan.seen, plan.channels))

    def pass_on(
        self,
        images: Array,
        patches: Array | None,  # noqa: ARG002  here those of the output's gradient are needed
        found: Array,
        back: Array,
        of_images: Array | None,
        of_weight: Array | None,
    ) -> None:
        """Write the gradient of images and add to that of the filters, unless they are None.

        Args:
            images: the images of this turn.
            patches: of these images, if they were kept.
            found: the gradient at all their places, (taps, rows, C_out).
            back: the filters as a matrix.
            of_images: where to write the gradient of the images.
            of_weight: where to add that of the filters.
        """
        channels = self.plan.channels
        seen = self._columns.of_room(self.put(found, self._places))[0]
        if of_weight is not None:
            self._weights.add(seen, images, of_weight[None])
        if of_images is not None:
            self.plan.multiply(seen, back, out=of_images.reshape(-1, channels))


class Scatter(Desk):
    """For gradients from patches of the images, and back to them, for windows of any kind."""

    def __init__(self, plan: Plan, memory: Memory) -> None:
        super().__init__(plan, memory)
        backend, dtype, image = plan.backend, plan.dtype, (*plan.image, plan.channels)
        self._columns = self.patches_of(image, plan.window, plan.pool, memory)
        self.nbytes = self._columns.nbytes
        samples = plan.rows_of_a_turn * plan.taps // plan.matrices[0]
        self._weights = Weights(plan, memory, samples, plan.matrices)
        if plan.input_gradient:
            self._grid = backend.xp.zeros((plan.step, *plan.grid, plan.filters), dtype=dtype)
            self._places = self.in_order(self._grid)
            taps = plan.how.window.size[0] * plan.how.window.size[1]
            rows = plan.step * plan.grid[0] * plan.grid[1]
            self._slopes = memory(3, (rows, taps * plan.channels), dtype)
            self._col2im = col2im(backend, dtype, plan.step, image, plan.how.window)
            self.nbytes += self._grid.nbytes + self._col2im.nbytes

    def pass_on(
        self,
        images: Array,
        patches: Array | None,
        found: Array,
        back: Array,
        of_images: Array | None,
        of_weight: Array | None,
    ) -> None:
        """As `Collect.pass_on`."""
        plan = self.plan
        if of_weight is not None:
            if patches is None:
                patches = self._columns.of(images)
            self._weights.add(patches.reshape(-1, plan.patch), found, of_weight)
        if of_images is not None:
            count = self.put(found, self._places)
            rows = self._grid[:count].reshape(-1, plan.filters)
            slopes = self._slopes[: len(rows)]
            plan.multiply(rows, back, out=slopes)
            self._col2im.add_up(slopes, of_images)


D = TypeVar("D", bound=Desk)
