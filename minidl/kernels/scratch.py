"""Memory that a kernel needs for a moment: borrowed, written, given back, and used again.

A fresh large array costs a page fault for every 4 KiB that is written to it, often more than the
arithmetic that follows. So each thread keeps the buffers that its kernels gave back. What was
borrowed is valid inside the `with` block only.
"""

from __future__ import annotations

import math
import threading
from bisect import insort

import numpy as np
from numpy.typing import DTypeLike

from minidl.backend import CPU, Array, Backend

# A larger buffer goes back to the operating system instead of being kept.
LARGEST_KEPT = 64 << 20
MOST_KEPT = 6


class _Shelf(threading.local):
    """The buffers that lie ready for this thread."""

    def __init__(self) -> None:
        self.buffers: list[Array] = []


_shelf = _Shelf()


class borrow:  # noqa: N801  it reads as what it does
    """Lend an uninitialised C-contiguous array of this shape until the block ends."""

    __slots__ = ("_backend", "_buffer", "_dtype", "_shape")

    def __init__(self, backend: Backend, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._backend, self._shape, self._dtype = backend, shape, np.dtype(dtype)

    def __enter__(self) -> Array:
        if self._backend is not CPU:  # CuPy keeps a memory pool of its own
            return self._backend.xp.empty(self._shape, dtype=self._dtype)
        size = math.prod(self._shape) * self._dtype.itemsize
        kept = _shelf.buffers
        for place, buffer in enumerate(kept):  # the smallest first
            if buffer.size >= size:
                self._buffer = kept.pop(place)
                break
        else:
            self._buffer = np.empty(size, dtype=np.uint8)
        return self._buffer[:size].view(self._dtype).reshape(self._shape)

    def __exit__(self, *_: object) -> None:
        if self._backend is CPU and self._buffer.size <= LARGEST_KEPT:
            insort(_shelf.buffers, self._buffer, key=len)
            del _shelf.buffers[:-MOST_KEPT]
