"""Products of matrices in one thread, asked of BLAS in the way that it computes them soonest.

BLAS copies both matrices of a product to where it reads them fastest. OpenBLAS with AVX-512 reads
those of a small product where they lie instead, and is done sooner by what the copies take. So a
product is cut into small ones where that pays: into slabs of rows, as long as the other matrix
stays in the fastest cache from slab to slab, or into groups of what is summed over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np

from minidl.backend import Array
from minidl.kernels.blas_library import blas_architecture

# Kinds of processors on which OpenBLAS reads the matrices of a product of so few multiplications
# where they lie, unless the second is transposed.
READ_IN_PLACE = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
MOST_IN_PLACE = 1_000_000

# Elements that stay in the fastest cache.
MOST_AT_HAND = 1 << 13

# Samples of a group at least, and results of all groups that are soon added up: if there are no
# more, groups may be so small that they stay in that cache.
FEWEST_SAMPLES = 64
FEW_RESULTS = 1 << 16


def multiply(a: Array, b: Array, out: Array) -> None:
    """Write a @ b to `out`: (M, K) and (K, N) to (M, N), or stacks of such matrices."""
    prepare(a, b, out)()


def prepare(a: Array, b: Array, out: Array) -> Callable[[], Array]:
    """What computes `multiply` when it is called, with all decided but the product itself.

    It is short to call, for a thread that others wait for.
    """
    rows, inner = a.shape[-2:]
    if rows * inner * b.shape[-1] > MOST_IN_PLACE and not is_transposed(b):
        count = slabs(rows, inner, b.shape[-1])
        if count > 1:
            a = a.reshape(*a.shape[:-2], count, -1, inner)
            out = out.reshape(*out.shape[:-2], count, -1, b.shape[-1])
            if b.ndim > 2:
                b = b[..., None, :, :]
    return partial(np.matmul, a, b, out)


def is_transposed(matrix: Array) -> bool:
    """Whether columns, not rows, are what lies end to end in a matrix, or in those of a stack."""
    return matrix.strides[-2] < matrix.strides[-1]


def laid_out(b: Array, rows: int) -> Array:
    """A second matrix as a first one of so many rows is best multiplied with: a copy, or itself."""
    inner, columns = b.shape
    if not is_transposed(b) or b.size > MOST_AT_HAND or slabs(rows, inner, columns) == 1:
        return b
    return np.ascontiguousarray(b)


@lru_cache(maxsize=1024)
def slabs(rows: int, inner: int, columns: int) -> int:
    """Into how many slabs of rows to cut the first matrix, (M, K), of a product with (K, N).

    One, which is no cut, where that would not be quicker.
    """
    work = rows * inner * columns
    if inner * columns > MOST_AT_HAND or not _reads_in_place(work):
        return 1
    return divisor(rows, -(-work // MOST_IN_PLACE))


@lru_cache(maxsize=1024)
def groups(samples: int, rows: int, columns: int) -> int:
    """Into how many groups to cut samples that a product (M, N) sums over.

    One, which is no cut, where that would not be quicker.
    """
    work = samples * rows * columns
    if not _reads_in_place(work):
        return 1
    count = divisor(samples, -(-work // MOST_IN_PLACE))
    finer = divisor(samples, -(-samples * (rows + columns) // MOST_AT_HAND))
    if finer * rows * columns <= FEW_RESULTS and samples >= finer * FEWEST_SAMPLES:
        count = max(count, finer)
    return count if samples >= count * FEWEST_SAMPLES else 1


def _reads_in_place(work: int) -> bool:
    """Whether parts of a product of so many multiplications would be read where they lie."""
    return work > MOST_IN_PLACE and blas_architecture() in READ_IN_PLACE


def divisor(length: int, least: int) -> int:
    """The smallest divisor of a length from `least` on, below four times as much; 1 for none."""
    return next((n for n in range(least, min(4 * least, length + 1)) if length % n == 0), 1)
