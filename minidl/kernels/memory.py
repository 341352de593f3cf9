"""Memory for results, which comes back when nobody holds it any more, and is used again.

Each training step asks for arrays of the same sizes as the last. The system hands out large ones
page by page, and takes as long to clear a page as the arithmetic that fills it, or longer. So the
memory of large results is kept here while no array uses it, as CuPy does on a GPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minidl.backend import CPU, Array, Backend

# Smaller arrays are left to the C library, which uses their memory again itself. When more than
# MOST_KEPT bytes lie idle, all of it goes back to the system.
LEAST = 1 << 17
MOST_KEPT = 1 << 28

# Bytes of a cache line. A pass over arrays that begin within one takes up to half as long again,
# since wide instructions then read and write across two lines.
LINE = 64

# Bytes and their address, by size. Lists are added to and taken from in single operations, which
# every thread may do at any time.
_idle: defaultdict[int, list[tuple[Array, int]]] = defaultdict(list)


class _Loan:
    """What an array holds on to as its base; it returns the memory with the last array's end."""

    __slots__ = ("__array_interface__", "_block")

    def __init__(self, block: tuple[Array, int], shape: tuple[int, ...], dtype: Any) -> None:
        self._block = block
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (block[1], False),
            "version": 3,
        }

    def __del__(self) -> None:
        _idle[self._block[0].size].append(self._block)


def empty(backend: Backend, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An uninitialised C-contiguous array, for a result."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST or backend is not CPU:
        return backend.xp.empty(shape, dtype=dtype)
    try:
        block = _idle[size].pop()
    except IndexError:
        if sum(size * len(blocks) for size, blocks in list(_idle.items())) > MOST_KEPT:
            give_back()
        try:
            memory = aligned(size)
        except MemoryError:
            give_back()
            memory = aligned(size)
        block = memory, memory.ctypes.data
    return np.asarray(_Loan(block, shape, dtype))


def aligned(size: int) -> Array:
    """So many uninitialised bytes that begin where a cache line does."""
    memory = np.empty(size + LINE, dtype=np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


def give_back() -> None:
    """Return all memory to the system that no array uses."""
    _idle.clear()


def owns(array: Array) -> bool:
    """Whether an array has its memory to itself, as far as it can be known: it is no view."""
    base = getattr(array, "base", None)
    return base is None or type(base) is _Loan
