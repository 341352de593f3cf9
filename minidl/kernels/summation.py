"""Sums over the rows of a matrix: the gradients of biases, the means of batches."""

from __future__ import annotations

from minidl.backend import Array, array_module


def sum_rows(rows: Array) -> Array:
    """The sum of all rows: (M, C) to (C,)."""
    # As a product with ones this runs at the speed of BLAS, several times that of rows.sum(0).
    return array_module(rows).ones(len(rows), dtype=rows.dtype) @ rows
