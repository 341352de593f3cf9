"""Two-dimensional convolution as matrix products: im2col, a few images at a time.

Every patch that the kernel sees becomes one row of a matrix, so that the convolution is one product
of (patches, KH*KW*C_in) with (KH*KW*C_in, C_out) [1]. Written out for a whole batch, that matrix is
KH*KW times the size of the batch. Here it exists for a few images only, in scratch memory small
enough to stay in the processor's cache, and is built again for the gradients; only where patches
overlap little, and are few, are they kept.

What often follows, max(x, 0) and max pooling, is done on the spot, while the results are in the
cache. Patches may be written out in any order; with each place of the pooling window in a matrix of
its own, pooling is a maximum of whole matrices. For the gradient a byte is kept for each place in
the stead of a float.

With many channels it is the product that takes time. Where max pooling of 2 x 2 follows filters of
3 x 3, `winograd` finds the output and the gradients with fewer multiplications.

All arrays are channels-last: images (N, H, W, C), weights (KH, KW, C_in, C_out).

[1] K. Chellapilla, S. Puri, P. Simard: High performance convolutional neural networks for document
    processing, 2006.
"""

from __future__ import annotations

from functools import lru_cache

from minidl.backend import Array, of
from minidl.kernels import memory, scratch
from minidl.kernels.convolution_desks import Forward, way_back
from minidl.kernels.convolution_plan import Convolution, Plan, Remembered
from minidl.kernels.elementwise import AddAndRectify, add_and_rectify, keep_where
from minidl.kernels.im2col import turns
from minidl.kernels.pooling import choose_largest, give_to_largest
from minidl.kernels.products import sum_rows
from minidl.kernels.threads import share

# What the columns of one turn may take, chosen by measurement. Larger ones would leave the cache
# that cores share before the product reads them. Smaller ones mean more and shorter calls of NumPy,
# and after each a thread may find another in the interpreter and sleep for as long as a call takes.
COLUMN_BYTES = {"cpu": 1 << 22, "gpu": 1 << 28}

NOTHING = Remembered()


def conv2d(
    x: Array, weight: Array, bias: Array | None, how: Convolution, remember: bool = True
) -> tuple[Array, Remembered]:
    """Convolve (cross-correlate, as deep learning names it) a batch with a set of filters.

    Args:
        x: images (N, H, W, C_in).
        weight: filters (KH, KW, C_in, C_out).
        bias: (C_out,) or None.
        how: where the filters are placed, and what follows.
        remember: whether `conv2d_gradients` will be asked for.

    Returns:
        The output (N, OH, OW, C_out), and what is to be remembered.
    """
    plan = _plan(x, weight, how)
    backend, xp = plan.backend, plan.backend.xp
    out = memory.empty(backend, (len(x), *plan.places, plan.filters), x.dtype)
    passed = kept = None
    if remember and (plan.pooled or how.relu):
        passed = memory.empty(backend, (how.taps, *out.shape), bool)
        if not how.relu:
            passed[0] = True
    if remember and plan.kept_patches:
        kept = memory.empty(backend, plan.kept_patches, x.dtype)
    matrices = Forward.lay_out(plan, weight)
    whole_turn = plan.rows_of_a_turn, plan.filters
    finish = AddAndRectify(backend, whole_turn, x.dtype, bias, how.relu)

    def work(images: slice) -> None:
        with scratch.in_use() as may_keep:
            desk = Forward.take(plan, may_keep)
            for part in turns(images, plan.step):
                result = out[part].reshape(-1, plan.filters)
                noted = None if passed is None else passed[:, part].reshape(-1, *result.shape)
                patches = None if kept is None else kept[part]
                if plan.pooled:
                    found, rounds = desk.room_for(len(result))
                    desk.find(x[part], matrices, found, patches)
                    choose_largest(rounds, result, noted)
                else:
                    desk.find(x[part], matrices, result[None], patches)
                if result.shape == whole_turn:
                    finish(result)
                else:
                    add_and_rectify(result, bias, how.relu)
                if how.relu and noted is not None:
                    xp.greater(result, 0, out=noted[0])

    share(work, plan.pieces)
    return out, Remembered(passed, kept)


def conv2d_gradients(
    x: Array,
    weight: Array,
    how: Convolution,
    d: Array,
    remembered: Remembered = NOTHING,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `conv2d` with respect to its images, weight and bias.

    Args:
        x: the images (N, H, W, C_in) of the forward pass.
        weight: its filters (KH, KW, C_in, C_out).
        how: as it was.
        d: gradient with respect to the output, (N, OH, OW, C_out).
        remembered: what `conv2d` returned beside the output.
        wanted: which of the three to compute.

    Returns:
        (N, H, W, C_in), (KH, KW, C_in, C_out) and (C_out,), None for what is not wanted. What is
        summed over the batch is added up in the order of the images.
    """
    plan = _plan(x, weight, how, input_gradient=wanted[0])
    passed, kept = remembered
    backend, xp = plan.backend, plan.backend.xp
    way = way_back(plan)
    back = way.lay_out(plan, weight)
    d = xp.ascontiguousarray(d, dtype=x.dtype)
    of_x = memory.empty(backend, x.shape, x.dtype) if wanted[0] else None
    of_weight = xp.zeros((len(plan.pieces), *way.shape(plan)), dtype=x.dtype) if wanted[1] else None
    of_bias = xp.zeros((len(plan.pieces), plan.filters), dtype=x.dtype) if wanted[2] else None

    def work(number: int) -> None:
        with scratch.in_use() as may_keep:
            desk = way.take(plan, may_keep)
            for part in turns(plan.pieces[number], plan.step):
                found = d[part].reshape(1, -1, plan.filters)
                if passed is not None:
                    noted = passed[:, part].reshape(plan.taps, *found.shape[1:])
                    spread, rounds = desk.room_for(found.shape[1])
                    keep_where(found[0], noted[0], out=spread[0])
                    found = spread
                if of_bias is not None:
                    of_bias[number] += sum_rows(found[0])
                if plan.pooled:
                    give_to_largest(rounds, noted)
                desk.pass_on(
                    x[part],
                    None if kept is None else kept[part],
                    found,
                    back,
                    None if of_x is None else of_x[part],
                    None if of_weight is None else of_weight[number],
                )

    share(work, list(range(len(plan.pieces))))
    if of_weight is not None:
        of_weight = way.to_filters(plan, of_weight.sum(axis=0))
    return of_x, of_weight, None if of_bias is None else of_bias.sum(axis=0)


def _plan(x: Array, weight: Array, how: Convolution, input_gradient: bool = False) -> Plan:
    """How to go about a batch."""
    backend = of(x)
    most_bytes = COLUMN_BYTES[backend.device]
    return _remembered_plan(
        backend, x.dtype, x.shape, weight.shape, how, input_gradient, most_bytes
    )


_remembered_plan = lru_cache(maxsize=256)(Plan)
