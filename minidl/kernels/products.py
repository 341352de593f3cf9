"""Products of two matrices: cut into pieces by their shape, one BLAS call each.

Which rows and columns a call computes never depends on the number of threads, so neither does how
its sums are rounded.
"""

from __future__ import annotations

import numpy as np

from minidl.backend import CPU, Array, array_module, of
from minidl.kernels import memory
from minidl.kernels.elementwise import add_and_rectify
from minidl.kernels.threads import cut, one_blas_thread, pieces_of, share

# Multiplications that are just worth cutting in two, how many of them take the time that reading an
# element takes, or writing one and passing over it again, and how many rows or columns a piece has
# at least, for BLAS to run at full speed.
PIECE_WORK = 13 << 19
READ_WORK = 16
WRITE_WORK = 32
PIECE_LENGTH = 64


def multiply(a: Array, b: Array, bias: Array | None = None, relu: bool = False) -> Array:
    """The product of two matrices: (M, K) and (K, N) to (M, N).

    Args:
        a: (M, K).
        b: (K, N).
        bias: (N,), added to each row.
        relu: whether max(x, 0) follows.
    """
    rows, columns = len(a), b.shape[1]
    work = rows * columns * (a.shape[1] + WRITE_WORK) + (a.size + b.size) * READ_WORK
    longer = max(rows, columns)
    backend = of(a)
    dtype = a.dtype if a.dtype == b.dtype else backend.xp.result_type(a, b)
    out = memory.empty(backend, (rows, columns), dtype)
    if work < PIECE_WORK or longer < 2 * PIECE_LENGTH or backend is not CPU:
        with one_blas_thread():
            backend.xp.matmul(a, b, out=out)
        add_and_rectify(out, bias, relu)
        return out
    # BLAS copies both matrices to where it reads them fast, and in each piece one of them whole.
    by_rows = rows > columns

    def compute(part: slice) -> None:
        down, across = (part, slice(None)) if by_rows else (slice(None), part)
        result = out[down, across]
        np.matmul(a[down], b[:, across], out=result)
        add_and_rectify(result, None if bias is None else bias[across], relu)

    pieces = min(pieces_of(work, PIECE_WORK, 3), longer // PIECE_LENGTH)
    share(compute, cut(longer, pieces))
    return out


def sum_rows(rows: Array) -> Array:
    """The sum of all rows: (M, C) to (C,)."""
    # As a product with ones this runs at the speed of BLAS, several times that of rows.sum(0).
    with one_blas_thread():
        return array_module(rows).ones(len(rows), dtype=rows.dtype) @ rows
