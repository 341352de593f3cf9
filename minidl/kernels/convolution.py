"""Two-dimensional convolution as matrix products: im2col, a few images at a time.

Every patch that the kernel sees becomes one row of a matrix, so that the convolution is one product
of (patches, KH*KW*C_in) with (KH*KW*C_in, C_out) [1]. Written out for a whole batch, that matrix is
KH*KW times the size of the batch. Here it exists for a few images only, in scratch memory small
enough to stay in the processor's cache, and is built again for the gradients.

What often follows, max(x, 0) and max pooling, is done on the spot, while the results are in the
cache. Patches may be written out in any order; with each place of the pooling window in a matrix of
its own, pooling is a maximum of whole matrices. For the gradient one byte is kept for each pooled
value, the number of the place it came from, and nothing at all of the others.

All arrays are channels-last: images (N, H, W, C), weights (KH, KW, C_in, C_out).

[1] K. Chellapilla, S. Puri, P. Simard: High performance convolutional neural networks for document
    processing, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import NamedTuple

from minidl.backend import Array, array_module, of
from minidl.kernels import scratch
from minidl.kernels.im2col import Columns, col2im, im2col, turns
from minidl.kernels.pooling import choose_largest, raise_winners
from minidl.kernels.products import sum_rows
from minidl.kernels.threads import MOST_PIECES, PIECE_BYTES, cut, pieces_of, share
from minidl.kernels.window import Pair, Window

# What the columns of one turn may take, chosen by measurement: larger ones leave the cache before
# the product reads them, smaller ones make products too small to run at full speed.
COLUMN_BYTES = {"cpu": 1 << 21, "gpu": 1 << 28}

# Patches whose rows are shorter than this take longer to copy than to multiply.
SHORT_ROW = 16

# The number of a place is kept in a byte, and one number is for none of them.
MOST_TAPS = 254


class Convolution(NamedTuple):
    """A convolution and what follows it on the spot.

    Attributes:
        window: where the filters are placed.
        relu: whether max(x, 0) follows.
        pool: size and stride of the max pooling that follows, at most 254 places; (1, 1) for none.
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
        The output (N, OH, OW, C_out), and what the gradients need to know of the pooling: for each
        output the number of the place that it came from, row by row, or `how.taps` where max(x, 0)
        has cut it off. None without pooling, or if nothing is to be remembered.
    """
    xp = array_module(x)
    plan = _plan(x, weight, how)
    out = xp.empty((len(x), *plan.places, plan.filters), dtype=x.dtype)
    winners = xp.empty(out.shape, dtype=xp.uint8) if plan.pooled and remember else None
    matrices = plan.to_matrices(weight)

    def work(images: slice) -> None:
        with plan.im2col(x) as columns, plan.borrow_found(x) as memory:
            for part in turns(images, plan.step):
                result = out[part].reshape(-1, plan.filters)
                found = memory[:, : len(result)] if plan.pooled else result[None]
                xp.matmul(columns(x[part]), matrices, out=found)
                won = None if winners is None else winners[part].reshape(result.shape)
                if plan.pooled:
                    choose_largest(found, result, won)
                if bias is not None:
                    result += bias
                if how.relu:
                    xp.maximum(result, 0, out=result)
                    if won is not None:
                        raise_winners(won, result == 0, how.taps)

    share(work, plan.pieces)
    return out, winners


def conv2d_gradients(
    x: Array,
    weight: Array,
    how: Convolution,
    d: Array,
    out: Array | None = None,
    winners: Array | None = None,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `conv2d` with respect to its images, weight and bias.

    Args:
        x: the images (N, H, W, C_in) of the forward pass.
        weight: its filters (KH, KW, C_in, C_out).
        how: as it was.
        d: gradient with respect to the output, (N, OH, OW, C_out).
        out: the output, if max(x, 0) followed without pooling.
        winners: what `conv2d` remembered.
        wanted: which of the three to compute.

    Returns:
        (N, H, W, C_in), (KH, KW, C_in, C_out) and (C_out,), None for what is not wanted. What is
        summed over the batch is added up in the order of the images.
    """
    xp = array_module(x)
    plan = _plan(x, weight, how, input_gradient=wanted[0])
    d = xp.ascontiguousarray(d)
    numbers = range(len(plan.pieces))
    of_x = xp.empty(x.shape, dtype=x.dtype) if wanted[0] else None
    of_weight = xp.zeros((len(numbers), *plan.matrices), dtype=x.dtype)
    of_bias = xp.zeros((len(numbers), plan.filters), dtype=x.dtype)

    def work(number: int) -> None:
        with (
            plan.im2col(x) as columns,
            plan.borrow_found(x) as memory,
            scratch.borrow(of(x), plan.matrices, x.dtype) as product,
            _input_gradient(weight, plan) if wanted[0] else nullcontext() as input_gradient,
        ):
            for part in turns(plan.pieces[number], plan.step):
                result = d[part].reshape(-1, plan.filters)
                found = memory.reshape(-1)[: plan.taps * result.size]
                found = found.reshape(plan.taps, *result.shape)
                if winners is not None:
                    won = winners[part].reshape(result.shape)
                    for place in range(plan.taps):
                        xp.multiply(result, won == place, out=found[place])
                elif out is not None:
                    xp.multiply(result, out[part].reshape(result.shape) > 0, out=found[0])
                else:
                    found = result[None]
                if wanted[1]:
                    seen = columns(x[part]).reshape(1, -1, plan.patch)
                    by_matrix = found.reshape(len(product), -1, plan.filters)
                    xp.matmul(seen.transpose(0, 2, 1), by_matrix, out=product)
                    of_weight[number] += product
                if wanted[2]:
                    of_bias[number] += sum_rows(found.reshape(-1, plan.filters))
                if of_x is not None and input_gradient is not None:
                    input_gradient(found, of_x[part])

    share(work, list(numbers))
    return (
        of_x,
        plan.from_matrices(of_weight) if wanted[1] else None,
        of_bias.sum(axis=0) if wanted[2] else None,
    )


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
    a matrix of its own, in which the filters are padded with zeros to the size of that patch.
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
        self.places = how.places(self.image)
        self.how = how
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

        read = self.patch * self.pool[0] * self.pool[1]
        elements = self.places[0] * self.places[1] * max(read, self.taps * self.filters)
        if input_gradient:
            seen = how.window.size[0] * how.window.size[1] * self.filters
            elements = max(elements, self.image[0] * self.image[1] * seen)
        size = elements * itemsize  # of the largest scratch memory that one image needs
        self.pieces = cut(count, min(pieces_of(count * size, PIECE_BYTES), most_pieces))
        longest = max(piece.stop - piece.start for piece in self.pieces)
        self.step = max(1, min(most_bytes // max(size, 1), longest))

    def im2col(self, x: Array) -> AbstractContextManager[Columns]:
        """What writes out the patches of x: (matrices to multiply, rows, patch)."""
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

    def _own_parts(self) -> Iterator[tuple[slice, slice]]:
        """Where in a covering patch each place of the pooling window finds its own."""
        (height, width), (down, right) = self.how.window.size, self.how.window.strides
        for row in range(self.how.pool[0]):
            for column in range(self.how.pool[1]):
                top, left = row * down, column * right
                yield slice(top, top + height), slice(left, left + width)


_remembered_plan = lru_cache(maxsize=256)(_Plan)


@contextmanager
def _input_gradient(weight: Array, plan: _Plan) -> Iterator[Callable[[Array, Array], None]]:
    """Borrow the memory for the gradient with respect to images, a few at a time.

    Yields:
        A function of gradients at all places, (taps, rows, C_out), and of the images to write to.
    """
    xp = array_module(weight)
    window, step = plan.how.window, plan.step
    places = window.positions(plan.image)
    mirrored = window.mirrored()
    if mirrored:
        # Each pixel collects from the places around it: that is a convolution of the gradient with
        # the filters turned by 180 degrees, and it writes every pixel only once.
        turned = xp.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
        matrix = turned.reshape(-1, plan.channels)
        with (
            _in_place(weight, plan, places) as in_place,
            im2col(weight, step, (*places, plan.filters), mirrored) as columns,
        ):
            yield lambda found, images: xp.matmul(
                columns(in_place(found))[0], matrix, out=images.reshape(-1, plan.channels)
            )
        return
    matrix = weight.reshape(-1, plan.filters).T
    shape = step * places[0] * places[1], matrix.shape[1]
    with (
        _in_place(weight, plan, places) as in_place,
        scratch.borrow(of(weight), shape, weight.dtype) as memory,
        col2im(weight, step, (*plan.image, plan.channels), window) as add_up,
    ):

        def scatter(found: Array, images: Array) -> None:
            rows = in_place(found).reshape(-1, plan.filters)
            product = memory[: len(rows)]
            xp.matmul(rows, matrix, out=product)
            add_up(product, images)

        yield scatter


@contextmanager
def _in_place(like: Array, plan: _Plan, places: Pair) -> Iterator[Callable[[Array], Array]]:
    """Borrow the memory to order (taps, rows, C_out) as (n, rows, columns, C_out) of all places."""
    if not plan.pooled:
        yield lambda found: found.reshape(-1, *places, plan.filters)
        return
    pool = plan.how.pool
    bottom, right = plan.places[0] * pool[0], plan.places[1] * pool[1]
    with scratch.borrow(of(like), (plan.step, *places, plan.filters), like.dtype) as grid:
        grid.fill(0)  # also the places that no pooling window reaches

        def in_place(found: Array) -> Array:
            images = found.reshape(plan.taps, -1, *plan.places, plan.filters)
            here = grid[: images.shape[1]]
            for place, values in enumerate(images):
                row, column = divmod(place, pool[1])
                here[:, row : bottom : pool[0], column : right : pool[1]] = values
            return here

        yield in_place
