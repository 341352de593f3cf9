"""Products of two matrices: cut into pieces by their shape, one BLAS call each.

Which rows and columns a call computes never depends on the number of threads, so neither does how
its sums are rounded.
"""

from __future__ import annotations

import numpy as np

from minidl.backend import Array, array_module
from minidl.kernels.threads import cut, one_blas_thread, pieces_of, share

# Multiplications that are just worth cutting in two, and how many rows or columns a piece has at
# least, for BLAS to run at full speed.
PIECE_WORK = 1 << 23
PIECE_LENGTH = 64


def multiply(a: Array, b: Array, bias: Array | None = None, relu: bool = False) -> Array:
    """The product of two matrices: (M, K) and (K, N) to (M, N).

    Args:
        a: (M, K).
        b: (K, N).
        bias: (N,), added to each row.
        relu: whether max(x, 0) follows.
    """
    xp = array_module(a)
    rows, columns = len(a), b.shape[1]
    out = xp.empty((rows, columns), dtype=xp.result_type(a, b))
    # BLAS copies both matrices to where it reads them fast, and in each piece one of them whole.
    by_rows = rows > columns
    longer = max(rows, columns)
    pieces = min(pieces_of(a.size * columns, PIECE_WORK), longer // PIECE_LENGTH)

    def work(part: slice) -> None:
        every = slice(None)
        down, across = (part, every) if by_rows else (every, part)
        result = out[down, across]
        xp.matmul(a[down], b[:, across], out=result)
        if bias is not None:
            result += bias[across]
        if relu:
            xp.maximum(result, 0, out=result)

    share(work, cut(longer, pieces) if pieces > 1 and xp is np else [slice(None)])
    return out


def sum_rows(rows: Array) -> Array:
    """The sum of all rows: (M, C) to (C,)."""
    # As a product with ones this runs at the speed of BLAS, several times that of rows.sum(0).
    with one_blas_thread():
        return array_module(rows).ones(len(rows), dtype=rows.dtype) @ rows
