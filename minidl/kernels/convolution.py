"""Two-dimensional convolution as matrix products: im2col, a few images at a time.

Every patch that the kernel sees becomes one row of a matrix, so that the convolution is one product
of (patches, KH*KW*C_in) with (KH*KW*C_in, C_out) [1]. Written out for a whole batch, that matrix is
KH*KW times the size of the batch. Here it exists for a few images only, in scratch memory small
enough to stay in the processor's cache, and is built again for the gradients.

What often follows, max(x, 0) and max pooling, is done on the spot, while the results are in the
cache. Patches may be written out in any order; with each place of the pooling window in a matrix of
its own, pooling is a maximum of whole matrices. For the gradient a byte is kept for each place in
the stead of a float.

All arrays are channels-last: images (N, H, W, C), weights (KH, KW, C_in, C_out).

[1] K. Chellapilla, S. Puri, P. Simard: High performance convolutional neural networks for document
    processing, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from minidl.backend import Array, array_module, of
from minidl.kernels import memory, scratch
from minidl.kernels.elementwise import add_and_rectify
from minidl.kernels.im2col import col2im, im2col, turns
from minidl.kernels.pooling import choose_largest, give_to_largest
from minidl.kernels.products import sum_rows
from minidl.kernels.threads import MOST_PIECES, PIECE_BYTES, cut, pieces_of, share
from minidl.kernels.window import Pair, Window

# What the columns of one turn may take, chosen by measurement: larger ones leave the cache before
# the product reads them, smaller ones make products too small to run at full speed.
COLUMN_BYTES = {"cpu": 1 << 21, "gpu": 1 << 28}

# Patches whose rows are shorter than this take longer to copy than to multiply.
SHORT_ROW = 16


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


def conv2d(
    x: Array, weight: Array, bias: Array | None, how: Convolution, remember: bool = True
) -> tuple[Array, Array | None]:
    """Convolve (cross-correlate, as deep learning names it) a batch with a set of filters.

    Args:
        x: images (N, H, W, C_in).
        weight: filters (KH, KW, C_in, C_out).
        bias: (C_out,) or None.
        how: where the filters are placed, and what follows.
        remember: whether `conv2d_gradients` will be asked for.

    Returns:
        The output (N, OH, OW, C_out), and what the gradients need to know of what followed, one
        byte for each place: booleans (T, N, OH, OW, C_out), first whether the output is above 0,
        or True without max(x, 0), then for each further place of the pooling window whether it is
        larger than all before it. None if nothing followed or nothing is to be remembered.
    """
    xp = array_module(x)
    plan = _plan(x, weight, how)
    out = memory.empty(of(x), (len(x), *plan.places, plan.filters), x.dtype)
    passed = None
    if remember and (plan.pooled or how.relu):
        passed = memory.empty(of(x), (how.taps, *out.shape), bool)
        if not how.relu:
            passed[0] = True
    matrices = plan.to_matrices(weight)

    def work(images: slice) -> None:
        with plan.im2col(x) as columns, plan.borrow_found(x) as spare:
            for part in turns(images, plan.step):
                result = out[part].reshape(-1, plan.filters)
                noted = None if passed is None else passed[:, part].reshape(-1, *result.shape)
                if plan.pooled:
                    found = spare[:, : len(result)]
                    xp.matmul(columns.of(x[part]), matrices, out=found)
                    choose_largest(found, result, noted)
                else:
                    xp.matmul(columns.of(x[part])[0], matrices[0], out=result)
                add_and_rectify(result, bias, how.relu)
                if how.relu and noted is not None:
                    xp.greater(result, 0, out=noted[0])

    share(work, plan.pieces)
    return out, passed


def conv2d_gradients(
    x: Array,
    weight: Array,
    how: Convolution,
    d: Array,
    passed: Array | None = None,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `conv2d` with respect to its images, weight and bias.

    Args:
        x: the images (N, H, W, C_in) of the forward pass.
        weight: its filters (KH, KW, C_in, C_out).
        how: as it was.
        d: gradient with respect to the output, (N, OH, OW, C_out).
        passed: what `conv2d` remembered.
        wanted: which of the three to compute.

    Returns:
        (N, H, W, C_in), (KH, KW, C_in, C_out) and (C_out,), None for what is not wanted. What is
        summed over the batch is added up in the order of the images.
    """
    xp = array_module(x)
    plan = _plan(x, weight, how, input_gradient=wanted[0])
    collects = wanted[0] and plan.mirrored is not None
    way = _collect if collects else _scatter
    matrices = (plan.channels, plan.seen) if collects else plan.matrices
    d = xp.ascontiguousarray(d)
    of_x = memory.empty(of(x), x.shape, x.dtype) if wanted[0] else None
    of_weight = xp.zeros((len(plan.pieces), *matrices), dtype=x.dtype) if wanted[1] else None
    of_bias = xp.zeros((len(plan.pieces), plan.filters), dtype=x.dtype) if wanted[2] else None

    def work(number: int) -> None:
        with plan.borrow_found(x) as spare, way(weight, plan) as pass_on:
            for part in turns(plan.pieces[number], plan.step):
                found = d[part].reshape(1, -1, plan.filters)
                if passed is not None:
                    noted = passed[:, part].reshape(plan.taps, *found.shape[1:])
                    give_to_largest(found[0], noted, spare[:, : noted.shape[1]])
                    found = spare[:, : noted.shape[1]]
                if of_bias is not None:
                    of_bias[number] += sum_rows(found.reshape(-1, plan.filters))
                pass_on(
                    x[part],
                    found,
                    None if of_x is None else of_x[part],
                    None if of_weight is None else of_weight[number],
                )

    share(work, list(range(len(plan.pieces))))
    if of_weight is not None:
        of_weight = plan.turn_back(of_weight) if collects else plan.from_matrices(of_weight)
    return of_x, of_weight, None if of_bias is None else of_bias.sum(axis=0)


def _plan(x: Array, weight: Array, how: Convolution, input_gradient: bool = False) -> _Plan:
    """How to go about a batch."""
    device = of(x).device
    pieces = MOST_PIECES if device == "cpu" else 1
    return _remembered_plan(
        x.shape, weight.shape, how, x.itemsize, COLUMN_BYTES[device], pieces, input_gradient
    )


class _Plan:
    """How the work on a batch is laid out; it follows from the shapes alone.

    With few channels it is copying the patches that takes time. All places of a pooling window then
    read one patch that covers what they see, four times fewer to copy, and for each place there is
    a matrix of its own, in which the filters are padded with zeros to the size of that patch. (An
    infinite pixel then gives nan to the whole pooling window, for 0 times infinity is no number.)
    """

    def __init__(
        self,
        images: tuple[int, ...],
        weight: tuple[int, ...],
        how: Convolution,
        itemsize: int,
        most_bytes: int,
        most_pieces: int,
        input_gradient: bool,
    ) -> None:
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
        self.patch = self.window.size[0] * self.window.size[1] * self.channels
        self.matrices = self.taps if self.covering else 1, self.patch, self.filters

        # What one image needs of scratch memory: for its patches, and for what is found with them.
        rows = self.places[0] * self.places[1]
        patches = rows * self.patch * self.pool[0] * self.pool[1]
        if input_gradient:
            patches = max(patches, self.image[0] * self.image[1] * self.seen)
        found = rows * self.taps * self.filters
        work = count * (patches + found) * itemsize
        self.pieces = cut(count, min(pieces_of(work, PIECE_BYTES), most_pieces))
        longest = max(piece.stop - piece.start for piece in self.pieces)
        # What is found is read again, by what follows, and should still be in the cache.
        turns = -(-longest * max(patches, 2 * found) * itemsize // most_bytes)
        self.step = max(1, -(-longest // max(turns, 1)))

    def im2col(self, x: Array) -> im2col:
        """What writes out the patches of x."""
        return im2col(x, self.step, (*self.image, self.channels), self.window, self.pool)

    def borrow_found(self, x: Array) -> AbstractContextManager[Array]:
        """Memory for what belongs to all places of one turn, (taps, rows, C_out)."""
        rows = self.step * self.places[0] * self.places[1]
        return scratch.borrow(of(x), (self.taps, rows, self.filters), x.dtype)

    def to_matrices(self, weight: Array) -> Array:
        """The filters as what patches are multiplied with."""
        if not self.covering:
            return weight.reshape(self.matrices)
        wide = array_module(weight).zeros(
            (self.taps, *self.window.size, *weight.shape[2:]), dtype=weight.dtype
        )
        for matrix, part in zip(wide, self._own_parts(), strict=True):
            matrix[part] = weight
        return wide.reshape(self.matrices)

    def from_matrices(self, parts: Array) -> Array:
        """The gradient of the filters: the sum of what is (pieces, *matrices)."""
        shape = *self.window.size, self.channels, self.filters
        if not self.covering:
            return parts.reshape(-1, *shape).sum(axis=0)
        wide = parts.sum(axis=0).reshape(-1, *shape)
        own = [matrix[part] for matrix, part in zip(wide, self._own_parts(), strict=True)]
        return sum(own[1:], start=own[0])

    def turn_back(self, parts: Array) -> Array:
        """The gradient of the filters: the sum of what is (pieces, C_in, taps turned by 180)."""
        total = parts.sum(axis=0).reshape(self.channels, *self.how.window.size, self.filters)
        return array_module(parts).ascontiguousarray(total[:, ::-1, ::-1].transpose(1, 2, 0, 3))

    def _own_parts(self) -> Iterator[tuple[slice, slice]]:
        """Where in a covering patch each place of the pooling window finds its own."""
        (height, width), (down, right) = self.how.window.size, self.how.window.strides
        for row in range(self.how.pool[0]):
            for column in range(self.how.pool[1]):
                top, left = row * down, column * right
                yield slice(top, top + height), slice(left, left + width)


_remembered_plan = lru_cache(maxsize=256)(_Plan)


# A function of images, of the gradient at all their places (taps, rows, C_out), of where to write
# the gradient of the images and of where to add that of the filters, both of which may be None.
PassOn: TypeAlias = Callable[[Array, Array, Array | None, Array | None], None]


@contextmanager
def _collect(weight: Array, plan: _Plan) -> Iterator[PassOn]:
    """Gradients from patches of the output's gradient: what each pixel was seen from.

    Each pixel collects from the places around it. That is a convolution of the gradient, with the
    filters turned by 180 degrees, which writes every pixel only once; and products of each pixel
    with the same patches are the gradient of the filters.
    """
    xp = array_module(weight)
    turned = xp.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
    matrix = turned.reshape(plan.seen, plan.channels)
    assert plan.mirrored is not None  # noqa: S101  whoever calls has looked
    with (
        im2col(weight, plan.step, (*plan.grid, plan.filters), plan.mirrored) as columns,
        scratch.borrow(of(weight), matrix.shape[::-1], weight.dtype) as product,
    ):
        _clear_unreached(columns.room, plan)

        def pass_on(
            images: Array, found: Array, of_images: Array | None, of_weight: Array | None
        ) -> None:
            _put_in_place(found, plan, columns.room)
            patches = columns.of_room(len(images))[0]
            if of_weight is not None:
                xp.matmul(images.reshape(-1, plan.channels).T, patches, out=product)
                of_weight += product
            if of_images is not None:
                xp.matmul(patches, matrix, out=of_images.reshape(-1, plan.channels))

        yield pass_on


@contextmanager
def _scatter(weight: Array, plan: _Plan) -> Iterator[PassOn]:
    """Gradients from patches of the images, and back to them, for windows of any kind."""
    xp = array_module(weight)
    matrix = weight.reshape(-1, plan.filters).T
    window, shape = plan.how.window, (*plan.image, plan.channels)
    back = plan.step if plan.input_gradient else 0
    grid = back, *plan.grid, plan.filters
    slopes_shape = back * plan.grid[0] * plan.grid[1], matrix.shape[1]
    with (
        im2col(weight, plan.step, shape, plan.window, plan.pool) as columns,
        scratch.borrow(of(weight), plan.matrices, weight.dtype) as product,
        scratch.borrow(of(weight), grid, weight.dtype) as at_places,
        scratch.borrow(of(weight), slopes_shape, weight.dtype) as slopes,
        col2im(weight, back, shape, window) as add_up,
    ):
        _clear_unreached(at_places, plan)

        def pass_on(
            images: Array, found: Array, of_images: Array | None, of_weight: Array | None
        ) -> None:
            if of_weight is not None:
                patches = columns.of(images).reshape(1, -1, plan.patch)
                by_matrix = found.reshape(len(product), -1, plan.filters)
                xp.matmul(patches.transpose(0, 2, 1), by_matrix, out=product)
                of_weight += product
            if of_images is not None:
                _put_in_place(found, plan, at_places)
                rows = at_places[: len(images)].reshape(-1, plan.filters)
                xp.matmul(rows, matrix, out=slopes[: len(rows)])
                add_up(slopes[: len(rows)], of_images)

        yield pass_on


def _put_in_place(found: Array, plan: _Plan, grid: Array) -> None:
    """Write (taps, n * OH * OW, C_out) to where the places are: (n, rows, columns, C_out)."""
    images = found.reshape(plan.taps, -1, *plan.places, plan.filters)
    down, right = plan.how.pool
    bottom, edge = plan.places[0] * down, plan.places[1] * right
    here = grid[: images.shape[1], :bottom, :edge]
    for place, values in enumerate(images):
        here[:, place // right :: down, place % right :: right] = values


def _clear_unreached(grid: Array, plan: _Plan) -> None:
    """Write zeros to the places that no pooling window reaches."""
    grid[:, plan.places[0] * plan.how.pool[0] :] = 0
    grid[:, :, plan.places[1] * plan.how.pool[1] :] = 0
