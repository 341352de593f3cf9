"""Passes over all elements of an array that training makes in every step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from minidl.backend import Array, Backend, of
from minidl.kernels import memory
from minidl.kernels.threads import parts_of, share

# NumPy needs a call of its inner loop for each line of a broadcast operation, which takes as long
# as some hundred elements. So from MANY elements on, lines are made as long as this.
LINE = 1 << 12
MANY = 1 << 14


class AddAndRectify:
    """Adds a bias to each row of matrices of one shape, and takes the maximum with 0, in place.

    Args:
        backend: where the matrices are.
        shape: (M, C), theirs.
        dtype: theirs.
        bias: (C,) or None.
        relu: whether to take the maximum with 0.
    """

    def __init__(
        self,
        backend: Backend,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        bias: Array | None,
        relu: bool,
    ) -> None:
        self._maximum = backend.xp.maximum
        self._line = self._least = None
        if bias is None and not relu:
            return
        rows, columns = shape
        # Several rows make one line, if their number can be divided so.
        count = math.gcd(rows, 1 << (LINE // columns).bit_length()) if rows * columns > MANY else 1
        lines = backend.xp.empty((count, columns), dtype=dtype)
        lines[...] = 0 if bias is None else bias
        line = lines.reshape(-1)
        if bias is not None:
            self._line = line
        if relu:
            # max(x + b, 0) as max(x, -b) + b, because NumPy's maximum of two arrays is several
            # times as fast as that of an array and a number.
            self._least = -line
        self._shape = -1, len(line)

    def __call__(self, rows: Array) -> None:
        """Change a matrix (M, C), which must be C-contiguous."""
        if self._least is None and self._line is None:
            return
        lines = rows.reshape(self._shape)
        if self._least is not None:
            self._maximum(lines, self._least, out=lines)
        if self._line is not None:
            lines += self._line


def add_and_rectify(rows: Array, bias: Array | None, relu: bool) -> None:
    """Add a bias to each row, and take the maximum with 0, in place.

    Args:
        rows: (M, C).
        bias: (C,) or None.
        relu: whether to take the maximum with 0.
    """
    backend = of(rows)
    if rows.size > MANY and rows.flags.c_contiguous:
        AddAndRectify(backend, rows.shape, rows.dtype, bias, relu)(rows)
        return
    if relu:
        least = backend.xp.zeros(rows.shape[1], dtype=rows.dtype) if bias is None else -bias
        backend.xp.maximum(rows, least, out=rows)
    if bias is not None:
        rows += bias


def relu(x: Array) -> Array:
    """max(x, 0) for each element."""
    backend = of(x)
    out = memory.empty(backend, x.shape, x.dtype)
    maximum = backend.xp.maximum

    def work(values: Array, result: Array) -> None:
        result[...] = 0
        maximum(values, result, out=result)

    _by_parts(work, x, out)
    return out


def keep_where(values: Array, where: Array, out: Array | None = None) -> Array:
    """Each element where a boolean array of the same shape is true, 0 elsewhere.

    Args:
        values: any shape, float32 or float64.
        where: booleans of the same shape.
        out: where to write the result, if it is not to be a new array.
    """
    # A product of integers, for as such NumPy multiplies with booleans a third faster, and every
    # number times one is itself and times zero is zero, while 0 * inf is nan.
    multiply = of(values).xp.multiply
    if out is None:
        kept: Array = multiply(as_bits(values), where).view(values.dtype)
        return kept
    multiply(as_bits(values), where, out=as_bits(out))
    return out


def as_bits(values: Array) -> Array:
    """The bits of numbers, float32 or float64, as integers: the same memory."""
    return values.view(np.int32 if values.itemsize == 4 else np.int64)


def pass_where(values: Array, where: Array, scale: float = 1.0) -> Array:
    """Each element times `scale` where a boolean array of the same shape is true, 0 elsewhere."""
    backend = of(values)
    if scale == 1 and values.nbytes < memory.LEAST:
        return keep_where(values, where)
    out = memory.empty(backend, values.shape, values.dtype)

    def work(values: Array, where: Array, result: Array) -> None:
        keep_where(values, where, out=result)
        if scale != 1:
            result *= scale

    _by_parts(work, values, where, out)
    return out


def _by_parts(work: Callable[..., None], *arrays: Array) -> None:
    """Call `work` with the same parts of several arrays, cut along the first axis if worth it."""
    first = arrays[0]
    parts = parts_of(first, 3) if first.ndim else []
    if len(parts) > 1:
        share(lambda part: work(*[array[part] for array in arrays]), parts)
    else:
        work(*arrays)
