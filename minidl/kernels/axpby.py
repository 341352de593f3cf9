"""alpha * x + beta * y in place of y: what optimizers do to most of what they hold.

NumPy passes over memory two or three times for it. BLAS has a routine that passes over it once;
NumPy brings it along, but does not call it.
"""

from __future__ import annotations

from ctypes import byref, c_char, c_double, c_float, c_ssize_t, c_void_p
from functools import cache
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.kernels.blas_library import blas_function

# Elements from which on the call, three microseconds, is less than what it saves.
LEAST = 1 << 14


def axpby(alpha: float, x: Array, beta: float, y: Array) -> None:
    """Write alpha * x + beta * y to `y`.

    A large one may be rounded once for each element, not after each operation.

    Args:
        alpha: a number.
        x: any shape.
        beta: a number.
        y: of the same shape, in other memory.
    """
    routine = _routine(y.dtype) if y.size >= LEAST and _fit_c(x, y) else None
    if routine:
        routine(y.size, alpha, _address(x), 1, beta, _address(y), 1)
        return
    if beta != 1:
        y *= float(beta)  # with one of NumPy's numbers NumPy would compute in float64
    y += x if alpha == 1 else x * float(alpha)


def _fit_c(x: Array, y: Array) -> bool:
    """Whether C can read and write two arrays of one kind from end to end."""
    alike = type(x) is type(y) is np.ndarray and x.shape == y.shape and x.dtype == y.dtype
    return bool(alike and x.flags.carray and y.flags.carray)


def _address(array: Any) -> Any:
    """Where the first element is, of an array that may be written to.

    `array.ctypes` tells it of any array, but takes four times as long.
    """
    return byref(c_char.from_buffer(array))


@cache
def _routine(dtype: np.dtype[Any]) -> Any:
    """What computes y = alpha * x + beta * y for arrays of that type; None if there is nothing."""
    kinds: dict[str, tuple[str, Any]] = {"f": ("s", c_float), "d": ("d", c_double)}
    if dtype.char not in kinds or not dtype.isnative:
        return None
    letter, number = kinds[dtype.char]
    routine = blas_function(f"cblas_{letter}axpby")
    if routine:
        # Counts may be narrower there, which makes no difference to how they are passed.
        routine.argtypes = [c_ssize_t, number, c_void_p, c_ssize_t, number, c_void_p, c_ssize_t]
        routine.restype = None
    return routine
