"""Memory that a kernel needs for a moment: borrowed, written, given back, and used again.

A fresh large array costs a page fault for every 4 KiB that is written to it, often more than the
arithmetic that follows. So each thread keeps the buffers that its kernels gave back. What was
borrowed is valid inside the `with` block only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import DTypeLike

from minidl.backend import CPU, Array, Backend

# A larger buffer goes back to the operating system instead of being kept.
LARGEST_KEPT = 64 << 20
MOST_KEPT = 4


class _Shelf(threading.local):
    """The buffers that lie ready for this thread."""

    def __init__(self) -> None:
        self.buffers: list[Array] = []


_shelf = _Shelf()


@contextmanager
def borrow(backend: Backend, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[Array]:
    """Lend an uninitialised C-contiguous array of this shape until the block ends."""
    if backend is not CPU:  # CuPy keeps a memory pool of its own
        yield backend.xp.empty(shape, dtype=dtype)
        return
    size = math.prod(shape) * np.dtype(dtype).itemsize
    fitting = [buffer for buffer in _shelf.buffers if buffer.size >= size]
    if fitting:
        buffer = min(fitting, key=len)
        _shelf.buffers = [kept for kept in _shelf.buffers if kept is not buffer]
    else:
        buffer = np.empty(size, dtype=np.uint8)
    try:
        yield buffer[:size].view(dtype).reshape(shape)
    finally:
        if buffer.size <= LARGEST_KEPT:
            kept = sorted([*_shelf.buffers, buffer], key=len)
            _shelf.buffers = kept[-MOST_KEPT:]
