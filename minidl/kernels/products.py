"""Products of two matrices, cut by their shape into parts that several threads compute.

What a call computes never depends on the number of threads, so neither does how its sums are
rounded. Who calls keeps BLAS to one thread: an operation for its value, `backward` for all rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from operator import call
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import CPU, Array, of
from minidl.kernels import blas, memory, scratch
from minidl.kernels.elementwise import add_and_rectify
from minidl.kernels.threads import cut, divides, pieces_of, share

# Multiplications that are just worth cutting in two, and how many of them take the time that
# reading an element takes, or writing one and passing over it again. The parts of so much work are
# long enough for BLAS to run at full speed.
PIECE_WORK = 14 << 19
READ_WORK = 16
WRITE_WORK = 32

# Multiplications of each of two products from which on two threads take one each.
PAIR_WORK = 5 << 18

# Elements of a part from which on the thread that has computed it adds the bias to it as well.
LONG_PASS = 1 << 16

# Elements of a result for which NumPy's own memory does.
SMALL = memory.LEAST // 8

# A product is cut, for threads, into products that are added up, if it sums over so many times as
# much as it has rows or columns, and if there are no more elements to add up.
DEEP = 4
MOST_SUMS = 1 << 18

# Rows up to which the ones that add them up are kept.
MOST_ONES = 1 << 12

ROWS, COLUMNS, INNER = range(3)


def multiply(a: Array, b: Array, bias: Array | None = None, relu: bool = False) -> Array:
    """The product of two matrices: (M, K) and (K, N) to (M, N).

    Args:
        a: (M, K).
        b: (K, N).
        bias: (N,), added to each row.
        relu: whether max(x, 0) follows.
    """
    backend = of(a)
    rows, columns = len(a), b.shape[1]
    if backend is CPU:
        b, way = _laid_out(a, b)
        if way:
            return _in_parts(a, b, bias, relu, way)
    product: Array
    if rows * columns < SMALL and backend is CPU:
        product = a.dot(b)  # half a microsecond quicker than `matmul`
    else:
        product = memory.empty(backend, (rows, columns), _dtype(a, b))
        backend.xp.matmul(a, b, out=product)  # where `dot` would write zeros first
    if relu or bias is not None:
        add_and_rectify(product, bias, relu)
    return product


def multiply_gradients(
    a: Array, b: Array, d: Array, of_a: bool, of_b: bool
) -> tuple[Array | None, Array | None]:
    """Gradients of `multiply` with respect to both matrices.

    Args:
        a: (M, K), as it was.
        b: (K, N), as it was.
        d: gradient with respect to the product, (M, N).
        of_a: whether to compute the first.
        of_b: whether to compute the second.

    Returns:
        (M, K) and (K, N), None for what is not wanted.
    """
    if of_a and of_b and type(d) is np.ndarray and _are_a_pair(len(a), *b.shape):
        (gradient_of_a, first), (gradient_of_b, second) = _prepare(d, b.T), _prepare(a.T, d)
        share(call, [first, second])
        return gradient_of_a, gradient_of_b
    return multiply(d, b.T) if of_a else None, multiply(a.T, d) if of_b else None


def _prepare(a: Array, b: Array) -> tuple[Array, Callable[[], Any]]:
    """Memory for a product that is not shared itself, and what computes it."""
    out = memory.empty(CPU, (len(a), b.shape[1]), _dtype(a, b))
    b, way = _laid_out(a, b)
    if way and way.axis == INNER:
        return out, partial(_add_up, a, b, out, way)
    return out, blas.prepare(a, b, out)


def _laid_out(a: Array, b: Array) -> tuple[Array, Way | None]:
    """The second matrix as BLAS takes it soonest, and how to cut the product."""
    rows, columns = len(a), b.shape[1]
    large = rows * len(b) * columns > blas.MOST_IN_PLACE
    if large:
        b = blas.laid_out(b, rows)
    return b, _way(rows, len(b), columns, large and blas.is_transposed(a), divides())


@lru_cache(maxsize=1024)
def _are_a_pair(rows: int, inner: int, columns: int) -> bool:
    """Whether both gradients of such a product are worth a thread each, but not several."""
    ways = _way(rows, columns, inner), _way(inner, rows, columns, transposed=True)
    shared = any(way is not None and len(way.parts) > 1 for way in ways)
    return rows * inner * columns >= PAIR_WORK and not shared


class Way(NamedTuple):
    """How to cut a product.

    Attributes:
        axis: the one that is cut: ROWS, COLUMNS or INNER.
        groups: the equal ones that the inner axis is cut into; 1 if it is not the one.
        parts: of the axis, or of the groups, one for a thread at a time.
    """

    axis: int
    groups: int
    parts: list[slice]


def _in_parts(a: Array, b: Array, bias: Array | None, relu: bool, way: Way) -> Array:
    """The product, cut in some way."""
    if a.shape[1] != len(b):
        raise ValueError(f"{a.shape} @ {b.shape}: {a.shape[1]} columns meet {len(b)} rows")
    out = memory.empty(CPU, (len(a), b.shape[1]), _dtype(a, b))
    if way.axis == INNER:
        _add_up(a, b, out, way)
        add_and_rectify(out, bias, relu)
        return out
    at_once = (relu or bias is not None) and out.size >= LONG_PASS * len(way.parts)
    calls = []
    for part in way.parts:
        down, across = (part, slice(None)) if way.axis == ROWS else (slice(None), part)
        result = out[down, across]
        product: Callable[[], Any] = blas.prepare(a[down], b[:, across], result)
        if at_once:
            own_bias = None if bias is None else bias[across]
            product = partial(_finish, product, result, own_bias, relu)
        calls.append(product)
    _call_all(calls)
    if not at_once:
        add_and_rectify(out, bias, relu)
    return out


def _finish(product: Callable[[], Any], result: Array, bias: Array | None, relu: bool) -> None:
    """Compute a part, and what follows on it."""
    product()
    add_and_rectify(result, bias, relu)


def _call_all(calls: list[Callable[[], Any]]) -> None:
    """Make all calls, on several threads if there are several."""
    if len(calls) > 1:
        share(call, calls)
    else:
        calls[0]()


def _dtype(a: Array, b: Array) -> np.dtype[Any]:
    """The dtype of a product."""
    return a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)


def _add_up(a: Array, b: Array, out: Array, way: Way) -> None:
    """The product as the sum of products of some columns of `a` with the same rows of `b`."""
    (rows, columns), groups = out.shape, way.groups
    length = len(b) // groups
    left = a.reshape(rows, groups, length).swapaxes(0, 1)
    right = b.reshape(groups, length, columns)
    with scratch.borrow(CPU, (groups, rows, columns), out.dtype) as products:
        _call_all([partial(np.matmul, left[p], right[p], products[p]) for p in way.parts])
        np.add.reduce(products, out=out)


def sum_rows(rows: Array) -> Array:
    """The sum of all rows: (M, C) to (C,)."""
    # As a product with ones this runs at the speed of BLAS, several times that of rows.sum(0).
    if type(rows) is np.ndarray and len(rows) <= MOST_ONES:
        return _ones(rows.dtype)[: len(rows)].dot(rows)
    return of(rows).xp.ones(len(rows), dtype=rows.dtype) @ rows


@lru_cache(maxsize=8)
def _ones(dtype: np.dtype[Any]) -> Array:
    return np.ones(MOST_ONES, dtype=dtype)


@lru_cache(maxsize=1024)
def _way(
    rows: int, inner: int, columns: int, transposed: bool = False, divide: bool = True
) -> Way | None:
    """How to cut a product; None if it is not worth cutting.

    BLAS copies both matrices to where it reads them fast. Cut along the longest axis, the parts
    copy least of what others copy too; but a cut along the inner one leaves sums to be added up.

    Args:
        rows: M.
        inner: K.
        columns: N.
        transposed: whether the first matrix is, with samples to sum over.
        divide: whether into parts for several threads.
    """
    work = rows * columns * (inner + WRITE_WORK) + (rows + columns) * inner * READ_WORK
    pieces = pieces_of(work, PIECE_WORK, 3) if divide else 1
    axis, length = (ROWS, rows) if rows > columns else (COLUMNS, columns)
    slabs = blas.slabs(rows, inner, columns)
    groups = 1
    if pieces > 1 and inner >= DEEP * length and rows * columns <= MOST_SUMS:
        groups = blas.divisor(inner, pieces)
    if transposed and (pieces > 1 or slabs == 1):
        groups = max(groups, blas.groups(inner, rows, columns))
    if groups > 1:
        return Way(INNER, groups, cut(groups, pieces))
    if pieces > 1:
        return Way(axis, 1, cut(length, pieces))
    if slabs > 1:
        return Way(ROWS, 1, [slice(0, rows)])
    return None
