"""Where one thread works on one turn of a convolution after the other: memory, and views of it.

A desk is found again in the next step. `Forward` is for the output; for the gradients there are
three ways, of which `way_back` chooses one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import numpy as np

from minidl.backend import CPU, Array
from minidl.kernels import blas, scratch, winograd
from minidl.kernels.convolution_plan import Plan
from minidl.kernels.im2col import Memory, as_runs, col2im, im2col, in_order
from minidl.kernels.pooling import Round, tournament
from minidl.kernels.window import Pair, Window


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

    @classmethod
    def take(cls, plan: Plan, may_keep: bool) -> Self:
        """The desk of this thread for a plan, inside `scratch.in_use`.

        Args:
            plan: what is to be done.
            may_keep: what entering that block told.
        """
        if may_keep and plan.keeps_desks:
            return scratch.keep((plan, cls), lambda: cls(plan, scratch.shared))
        return cls(plan, lambda _, shape, dtype: plan.backend.xp.empty(shape, dtype=dtype))

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

    def places_of(self, grid: Array) -> Array:
        """Places (n, rows, columns, C_out) in the order that they are found in."""
        return in_order(grid, self.plan.places, self.plan.how.pool)

    def put(self, found: Array, places: Array) -> int:
        """Write what was found, (taps, n * OH * OW, C_out), to the places. Returns n."""
        plan = self.plan
        images = found.reshape(*plan.how.pool, -1, *plan.places, plan.filters)
        count = images.shape[2]
        places[:, :, :count] = as_runs(images, 1)
        return count


def _own_parts(plan: Plan) -> Iterator[tuple[slice, slice]]:
    """Where in a covering patch each place of the pooling window finds its own."""
    (height, width), (down, right) = plan.how.window.size, plan.how.window.strides
    for row in range(plan.how.pool[0]):
        for column in range(plan.how.pool[1]):
            top, left = row * down, column * right
            yield slice(top, top + height), slice(left, left + width)


class Forward(Desk):
    """For the output, from patches of the images or from tiles."""

    def __init__(self, plan: Plan, memory: Memory) -> None:
        super().__init__(plan, memory)
        self._tiles = self._columns = None
        if plan.tiled:
            self._tiles = winograd.Tiles(plan.turn, memory)
            self.nbytes = self._tiles.nbytes
        else:
            image = *plan.image, plan.channels
            self._columns = self.patches_of(image, plan.window, plan.pool, memory)
            self.nbytes = self._columns.nbytes

    @staticmethod
    def lay_out(plan: Plan, weight: Array) -> Array:
        """The filters as what patches are multiplied with, or sums of the pixels of tiles."""
        if plan.tiled:
            return winograd.to_matrices(weight)
        if not plan.covering:
            return weight.reshape(plan.matrices)
        wide = plan.backend.xp.zeros(
            (plan.taps, *plan.window.size, *weight.shape[2:]), dtype=weight.dtype
        )
        for matrix, part in zip(wide, _own_parts(plan), strict=True):
            matrix[part] = weight
        return wide.reshape(plan.matrices)

    def find(self, images: Array, matrices: Array, out: Array, patches: Array | None) -> None:
        """Write what the filters see at all places of a turn.

        Args:
            images: of this turn.
            matrices: the filters, as `lay_out` has laid them out.
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


class Back(Desk, ABC):
    """For the gradients."""

    @staticmethod
    @abstractmethod
    def lay_out(plan: Plan, weight: Array) -> Array:
        """The filters as `pass_on` needs them."""

    @staticmethod
    @abstractmethod
    def shape(plan: Plan) -> tuple[int, int, int]:
        """The shape in which the gradient of the filters is added up."""

    @staticmethod
    @abstractmethod
    def to_filters(plan: Plan, total: Array) -> Array:
        """The gradient of the filters, (KH, KW, C_in, C_out), from what was added up."""

    @abstractmethod
    def pass_on(
        self,
        images: Array,
        patches: Array | None,
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
            back: the filters, as `lay_out` has laid them out.
            of_images: where to write the gradient of the images.
            of_weight: where to add that of the filters, of the form `shape`.
        """


def way_back(plan: Plan) -> type[Back]:
    """The desk for the gradients."""
    if plan.tiled:
        return Tiled
    return Collect if plan.input_gradient and plan.mirrored is not None else Scatter


class Weights:
    """Adds up the gradient of filters: products of transposed patches with what goes with them.

    Args:
        plan: what is to be done.
        memory: where to get uninitialised memory, by the number 2.
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
        """Add to the gradient what follows from patches and slopes.

        Args:
            patches: (T, S, M), or (1, S, M) if they are the same for all T.
            slopes: (T, S, N).
            to: (T, M, N).
        """
        matrices, samples, length = patches.shape
        count = self._groups if samples == self._samples else 1
        groups = patches.reshape(matrices, count, -1, length).swapaxes(2, 3)
        products = self._products[:, :count]
        self._matmul(groups, slopes.reshape(len(to), count, -1, to.shape[2]), out=products)
        to += products.sum(axis=1) if count > 1 else products[:, 0]


class Collect(Back):
    """For gradients from patches of the output's gradient: what each pixel was seen from.

    Each pixel collects from the places around it. That is a convolution of the gradient, with the
    filters turned by 180 degrees, which writes every pixel only once; and products of each pixel
    with the same patches are the gradient of the filters.
    """

    def __init__(self, plan: Plan, memory: Memory) -> None:
        super().__init__(plan, memory)
        assert plan.mirrored is not None  # noqa: S101  `way_back` has looked
        grid = *plan.grid, plan.filters
        self._columns = self.patches_of(grid, plan.mirrored, (1, 1), memory)
        self.nbytes = self._columns.nbytes
        self._places = self.places_of(self._columns.room)
        pixels = plan.step * plan.image[0] * plan.image[1]
        self._weights = Weights(plan, memory, pixels, self.shape(plan))

    @staticmethod
    def lay_out(plan: Plan, weight: Array) -> Array:
        """The filters turned by 180 degrees."""
        turned = weight[::-1, ::-1].transpose(0, 1, 3, 2)
        return plan.backend.xp.ascontiguousarray(turned).reshape(plan.seen, plan.channels)

    @staticmethod
    def shape(plan: Plan) -> tuple[int, int, int]:
        """As `Back.shape`."""
        return 1, plan.seen, plan.channels

    @staticmethod
    def to_filters(plan: Plan, total: Array) -> Array:
        """As `Back.to_filters`."""
        seen = total.reshape(*plan.how.window.size, plan.filters, plan.channels)
        turned = seen[::-1, ::-1].transpose(0, 1, 3, 2)
        return plan.backend.xp.ascontiguousarray(turned)

    def pass_on(
        self,
        images: Array,
        patches: Array | None,  # noqa: ARG002  here those of the output's gradient are needed
        found: Array,
        back: Array,
        of_images: Array | None,
        of_weight: Array | None,
    ) -> None:
        """As `Back.pass_on`."""
        channels = self.plan.channels
        seen = self._columns.of_room(self.put(found, self._places))
        if of_weight is not None:
            self._weights.add(seen, images.reshape(1, -1, channels), of_weight)
        if of_images is not None:
            self.plan.multiply(seen[0], back, out=of_images.reshape(-1, channels))


class Scatter(Back):
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
            self._places = self.places_of(self._grid)
            taps = plan.how.window.size[0] * plan.how.window.size[1]
            rows = plan.step * plan.grid[0] * plan.grid[1]
            self._slopes = memory(3, (rows, taps * plan.channels), dtype)
            self._col2im = col2im(backend, dtype, plan.step, image, plan.how.window)
            self.nbytes += self._grid.nbytes + self._col2im.nbytes

    @staticmethod
    def lay_out(plan: Plan, weight: Array) -> Array:
        """The filters as what the output's gradient is multiplied with, place by place."""
        return plan.backend.xp.ascontiguousarray(weight.reshape(-1, plan.filters).T)

    @staticmethod
    def shape(plan: Plan) -> tuple[int, int, int]:
        """As `Back.shape`."""
        return plan.matrices

    @staticmethod
    def to_filters(plan: Plan, total: Array) -> Array:
        """As `Back.to_filters`."""
        wide = total.reshape(-1, *plan.window.size, plan.channels, plan.filters)
        if not plan.covering:
            return wide[0]
        own = [matrix[part] for matrix, part in zip(wide, _own_parts(plan), strict=True)]
        return sum(own[1:], start=own[0])

    def pass_on(
        self,
        images: Array,
        patches: Array | None,
        found: Array,
        back: Array,
        of_images: Array | None,
        of_weight: Array | None,
    ) -> None:
        """As `Back.pass_on`."""
        plan = self.plan
        if of_weight is not None:
            if patches is None:
                patches = self._columns.of(images)
            self._weights.add(patches.reshape(1, -1, plan.patch), found, of_weight)
        if of_images is not None:
            count = self.put(found, self._places)
            rows = self._grid[:count].reshape(-1, plan.filters)
            slopes = self._slopes[: len(rows)]
            plan.multiply(rows, back, out=slopes)
            self._col2im.add_up(slopes, of_images)


class Tiled(Back):
    """For gradients by the tiles of `winograd`."""

    def __init__(self, plan: Plan, memory: Memory) -> None:
        super().__init__(plan, memory)
        self._tiles = winograd.TilesBack(plan.turn, memory)
        self.nbytes = self._tiles.nbytes
        self._weights = Weights(plan, memory, plan.rows_of_a_turn, self.shape(plan))

    @staticmethod
    def lay_out(plan: Plan, weight: Array) -> Array:  # noqa: ARG004
        """The sums of the filters, each transposed."""
        return np.ascontiguousarray(winograd.to_matrices(weight).swapaxes(1, 2))

    @staticmethod
    def shape(plan: Plan) -> tuple[int, int, int]:
        """As `Back.shape`."""
        return winograd.WAYS, plan.channels, plan.filters

    @staticmethod
    def to_filters(plan: Plan, total: Array) -> Array:  # noqa: ARG004
        """As `Back.to_filters`."""
        return winograd.to_filters(total)

    def pass_on(
        self,
        images: Array,
        patches: Array | None,  # noqa: ARG002  tiles are none
        found: Array,
        back: Array,
        of_images: Array | None,
        of_weight: Array | None,
    ) -> None:
        """As `Back.pass_on`."""
        slopes = self._tiles.of_products(found)
        if of_weight is not None:
            self._weights.add(self._tiles.add_pixels(images), slopes, of_weight)
        if of_images is not None:
            self._tiles.pass_on(slopes, back, of_images)
