"""Products of two matrices: cut into parts by their shape, one BLAS call each.

What a call computes never depends on the number of threads, so neither does how its sums are
rounded. Who calls keeps BLAS to one thread: an operation for its value, `backward` for all rules.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minidl.backend import CPU, Array, of
from minidl.kernels import memory, scratch
from minidl.kernels.elementwise import add_and_rectify
from minidl.kernels.threads import blas_architecture, cut, pieces_of, share

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

# Elements of a result for which NumPy's own memory does, and up to which a product may be the sum
# of several.
SMALL = memory.LEAST // 8
MOST_SUMS = 1 << 18

# Kinds of processors on which OpenBLAS reads the matrices of a product of so few multiplications
# where they lie, instead of copying them to where it reads them faster. The product of a transposed
# matrix is a fifth quicker in parts so small: in parts of its rows, while its sums are short and
# its rows too; and as the sum of products of some samples each, up to twice as quick, while that
# leaves no fewer than so many.
READ_IN_PLACE = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
MOST_IN_PLACE = 1_000_000
LONGEST_SUMS, MOST_COLUMNS = 64, 256
FEWEST_SAMPLES = 64

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
        axis, parts = _plan(rows, len(b), columns)
        if parts:
            return _in_parts(a, b, bias, relu, axis, parts)
    product: Array
    if rows * columns < SMALL and backend is CPU:
        product = a.dot(b)  # half a microsecond quicker than `matmul`
    else:
        product = memory.empty(backend, (rows, columns), _dtype(a, b))
        backend.xp.matmul(a, b, out=product)  # where `dot` would write zeros first
    if relu or bias is not None:
        add_and_rectify(product, bias, relu)
    return product


def multiply_transposed(a: Array, b: Array) -> Array:
    """a.T @ b, the product that sums over samples: (M, K) and (M, N) to (K, N)."""
    rows, inner, columns = a.shape[1], len(a), b.shape[1]
    if type(a) is np.ndarray and a.flags.c_contiguous:
        count = _slabs(rows, inner, columns)
        if count > 1:
            out = memory.empty(CPU, (rows, columns), _dtype(a, b))
            slabs = a.T.reshape(count, -1, inner)
            np.matmul(slabs, b, out=out.reshape(count, -1, columns))
            return out
        count = groups_of_samples(inner, rows, columns)
        if count > 1 and b.flags.c_contiguous:
            return _add_up_groups(a, b, count)
    return multiply(a.T, b)


def _add_up_groups(a: Array, b: Array, count: int) -> Array:
    """a.T @ b as the sum of products of so many groups of samples."""
    (samples, rows), columns = a.shape, b.shape[1]
    groups, slopes = a.reshape(count, -1, rows).swapaxes(1, 2), b.reshape(count, -1, columns)
    with scratch.borrow(CPU, (count, rows, columns), _dtype(a, b)) as products:

        def compute(part: slice) -> None:
            np.matmul(groups[part], slopes[part], out=products[part])

        share(compute, cut(count, pieces_of(samples * rows * columns, PIECE_WORK, 3)))
        return np.add.reduce(products)


@lru_cache(maxsize=1024)
def groups_of_samples(samples: int, rows: int, columns: int) -> int:
    """Into how many groups to cut samples so that BLAS reads them where they lie: a power of two.

    One, which is no cut, where that would not be quicker.

    Args:
        samples: that a product sums over.
        rows: of that product.
        columns: of that product.
    """
    count = 1
    while samples * rows * columns > count * MOST_IN_PLACE:
        count *= 2
    if samples % count or samples < count * FEWEST_SAMPLES:
        return 1
    return count if blas_architecture() in READ_IN_PLACE else 1


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
        found: list[Any] = [None, None]

        def compute(number: int) -> None:
            found[number] = multiply_transposed(a, d) if number else multiply(d, b.T)

        share(compute, [0, 1])
        return found[0], found[1]
    return multiply(d, b.T) if of_a else None, multiply_transposed(a, d) if of_b else None


@lru_cache(maxsize=1024)
def _are_a_pair(rows: int, inner: int, columns: int) -> bool:
    """Whether both gradients of such a product are worth a thread each, but not several."""
    shapes = (rows, columns, inner), (inner, rows, columns)
    return rows * inner * columns >= PAIR_WORK and not any(_plan(*shape)[1] for shape in shapes)


@lru_cache(maxsize=1024)
def _slabs(rows: int, inner: int, columns: int) -> int:
    """Into how many slabs of rows to cut a product so that BLAS reads each where it lies.

    One, which is no cut, where that would not be quicker.
    """
    work = rows * inner * columns
    if work <= MOST_IN_PLACE or inner > LONGEST_SUMS or columns > MOST_COLUMNS:
        return 1
    count = 2
    while work > count * MOST_IN_PLACE:
        count *= 2
    shared = _plan(rows, inner, columns)[1]  # among threads, which is worth more
    if shared or rows % count or blas_architecture() not in READ_IN_PLACE:
        return 1
    return count


def _in_parts(
    a: Array, b: Array, bias: Array | None, relu: bool, axis: int, parts: list[slice]
) -> Array:
    """The product, on several threads, cut along an axis."""
    if a.shape[1] != len(b):
        raise ValueError(f"{a.shape} @ {b.shape}: {a.shape[1]} columns meet {len(b)} rows")
    out = memory.empty(CPU, (len(a), b.shape[1]), _dtype(a, b))
    if axis == INNER:
        _add_up(a, b, out, parts)
        add_and_rectify(out, bias, relu)
        return out
    at_once = out.size >= LONG_PASS * len(parts)

    def compute(part: slice) -> None:
        down, across = (part, slice(None)) if axis == ROWS else (slice(None), part)
        result = out[down, across]
        np.matmul(a[down], b[:, across], out=result)
        if at_once:
            add_and_rectify(result, None if bias is None else bias[across], relu)

    share(compute, parts)
    if not at_once:
        add_and_rectify(out, bias, relu)
    return out


def _dtype(a: Array, b: Array) -> np.dtype[Any]:
    """The dtype of a product."""
    return a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)


def _add_up(a: Array, b: Array, out: Array, parts: list[slice]) -> None:
    """The product as the sum of products of some columns of `a` with the same rows of `b`."""
    with scratch.borrow(CPU, (len(parts), *out.shape), out.dtype) as products:

        def compute(number: int) -> None:
            part = parts[number]
            np.matmul(a[:, part], b[part], out=products[number])

        share(compute, list(range(len(parts))))
        np.add(products[0], products[1], out=out)
        for product in products[2:]:
            out += product


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
def _plan(rows: int, inner: int, columns: int) -> tuple[int, list[slice]]:
    """The axis to cut a product along, and the parts; none if it is not worth cutting.

    BLAS copies both matrices to where it reads them fast. Cut along the longest axis, the parts
    copy least of what others copy too; but a cut along the inner one leaves sums to be added up.
    """
    work = rows * columns * (inner + WRITE_WORK) + (rows + columns) * inner * READ_WORK
    axis, length = (ROWS, rows) if rows > columns else (COLUMNS, columns)
    if inner >= 2 * length and rows * columns <= MOST_SUMS:
        axis, length = INNER, inner
    pieces = pieces_of(work, PIECE_WORK, 3)
    return axis, cut(length, pieces) if pieces > 1 else []
