"""Memory that a kernel needs for a moment, kept for the next time.

A fresh large array costs a page fault for every 4 KiB that is written to it, often more than the
arithmetic that follows. So each thread keeps the buffers that its kernels worked with. A kernel
borrows one until the end of a `with` block. Or it keeps views of one that all kernels of the thread
use in turn: in small networks, making views takes as long as using them.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from minidl.backend import CPU, Array, Backend
from minidl.kernels import memory

# What is larger goes back to the system instead of being kept: a buffer that was borrowed, what is
# shared by those who keep views of it, and the memory that these have of their own.
LARGEST_KEPT = 64 << 20
MOST_KEPT = 6
MOST_VIEWS = 1024


class _Shelf(threading.local):
    """The buffers that lie ready for this thread, those that are shared, and views of them."""

    def __init__(self) -> None:
        self.buffers: list[Array] = []
        self.shared: dict[int, Array] = {}
        self.views: dict[Any, Any] = {}
        self.busy = False


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
            self._buffer = memory.aligned(size)
        return self._buffer[:size].view(self._dtype).reshape(self._shape)

    def __exit__(self, *_: object) -> None:
        if self._backend is CPU and self._buffer.size <= LARGEST_KEPT:
            insort(_shelf.buffers, self._buffer, key=len)
            del _shelf.buffers[:-MOST_KEPT]


def shared(number: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Uninitialised memory that is the same for all of this thread who give one number.

    Whoever writes to it may find it overwritten after the next kernel.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    buffer = _shelf.shared.get(number)
    if buffer is None or buffer.size < size:
        _shelf.views.clear()  # those of the smaller buffer
        buffer = _shelf.shared[number] = memory.aligned(size)
    return buffer[:size].view(dtype).reshape(shape)


class Kept(Protocol):
    """What can be kept: it tells how much memory it has beside what is shared."""

    nbytes: int


K = TypeVar("K", bound=Kept)


def keep(key: Hashable, make: Callable[[], K]) -> K:
    """What this thread has made for a key, or makes now."""
    kept: K | None = _shelf.views.get(key)
    if kept is None:
        kept = make()
        views = _shelf.views
        size = kept.nbytes + sum([other.nbytes for other in views.values()])
        if len(views) >= MOST_VIEWS or size > LARGEST_KEPT:
            views.clear()
        if kept.nbytes <= LARGEST_KEPT:
            views[key] = kept
    return kept


class in_use:  # noqa: N801  it reads as what it does
    """A block in which this thread works with what it shares and keeps.

    Entering tells whether it may: not inside another such block, which a signal handler, say, may
    have come in between.
    """

    __slots__ = ("_entered",)

    def __enter__(self) -> bool:
        self._entered = not _shelf.busy
        _shelf.busy = True
        return self._entered

    def __exit__(self, *_: object) -> None:
        if self._entered:
            _shelf.busy = False
