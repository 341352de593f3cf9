"""Waiting for another thread without going to sleep: a word of memory that is read over and over.

Python's locks put a thread that waits to sleep. On a virtual machine, which gives idle cores back
to its host, waking it and hearing from it took fifty microseconds, and a layer of a small network
takes no longer. The C library has a lock that is waited for awake, outside of the interpreter,
which other threads may use meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

# Elements that are computed while another thread gets into the interpreter and out of it again:
# some five microseconds. NumPy stays inside for fewer than 500.
LONG_ENOUGH = 3000

# A thread that waits awake hears of what it waits for in a microsecond, if it has a core to itself.
# More than LATE seconds are lost. If threads have lost MOST_LOST seconds, of which each second that
# passes makes up for BEARABLE ones, then others want the cores too, and waiting awake takes them
# away from those that work. All threads sleep then, for SHORTEST_PAUSE seconds, and twice as long
# as before each time that it has not helped.
LATE = 0.001
BEARABLE = 0.1
MOST_LOST = 0.06
SHORTEST_PAUSE, LONGEST_PAUSE = 2.0, 16.0


class CLibrary(NamedTuple):
    """Functions of the C library; those of locks take an address."""

    initialize: Any
    acquire: Any  # outside of the interpreter
    release: Any
    current_core: Any


@cache
def c_library() -> CLibrary | None:
    """What waiting awake needs; None on systems that lack it, or have it in another form."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        outside, inside = ctypes.CDLL(None), ctypes.PyDLL(None)
        found = CLibrary(
            outside.pthread_spin_init,
            outside.pthread_spin_lock,
            inside.pthread_spin_unlock,
            inside.sched_getcpu,
        )
    except (AttributeError, OSError):
        return None
    found.initialize.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.acquire.argtypes = found.release.argtypes = [ctypes.c_void_p]
    return found


def current_core() -> int:
    """The number of the core that this thread is on; -1 where that is not known."""
    library = c_library()
    return library.current_core() if library else -1


def leave_core(number: int) -> None:
    """Go to another core if this thread is on that one and may.

    The system may put a thread that wakes up on the core of the one that woke it, although others
    are idle. If both then wait awake, it takes them for busy, and parts them after some hundredths
    of a second only.
    """
    if number >= 0 and current_core() == number:
        allowed = os.sched_getaffinity(0)
        if len(allowed) > 1:
            os.sched_setaffinity(0, allowed - {number})
            os.sched_setaffinity(0, allowed)


class Signal:
    """What one thread waits for, awake or asleep, until another gives it.

    The one that gives it has to know how the other waits.

    Attributes:
        wake: gives it to a thread that sleeps, once.
        let_in: gives it to a thread that is awake, and lets it into the interpreter at once. Of two
            threads that want to be there, one sleeps until the other leaves. NumPy computes
            outside; the first remainder that it writes is the lock, now released, and by the time
            the others are written, the thread that waited is through to its first long call.

    Both are a single call for the interpreter, which no interrupt can come between.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.wake = self.let_in = self._lock.release
        self._library = c_library()
        if self._library:
            words = np.zeros(LONG_ENOUGH, np.intc)  # the lock is the first
            self._address = words.ctypes.data
            self._library.initialize(self._address, 0)
            released = words[:1].copy()  # as the C library writes it
            self._library.acquire(self._address)
            self.let_in = partial(np.remainder, released, np.array(1000, np.intc), words)

    def wait(self, awake: bool) -> None:
        """Return once it was given, since the last return or before; rarely, without."""
        if awake and self._library:
            self._library.acquire(self._address)
        else:
            self._lock.acquire()

    def give(self, awake: bool) -> None:
        """Let the thread go on that waits, or will wait, once this one leaves the interpreter."""
        if awake and self._library:
            self._library.release(self._address)
        elif self._lock.locked():
            self._lock.release()


class Cores:
    """Whether there are cores enough for threads to wait awake, as far as it has been noticed.

    Attributes:
        enough: whether this process may use as many as it has threads.
    """

    def __init__(self) -> None:
        self.enough = True
        self._lost, self._noted = 0.0, 0.0
        self._until, self._pause = 0.0, SHORTEST_PAUSE

    def are_free(self) -> bool:
        """Whether a thread that waits awake keeps none from working: all were in time lately."""
        return self.enough and perf_counter() >= self._until

    def take_note(self, lost: float, core: int) -> None:
        """Of a thread that goes on, after it has waited awake for another.

        Args:
            lost: for how many seconds longer than it would have with a core to itself.
            core: the core that the other was on.
        """
        if lost <= LATE:
            return
        leave_core(core)
        now = perf_counter()
        self._lost = max(0.0, self._lost - BEARABLE * (now - self._noted)) + lost
        self._noted = now
        if self._lost > MOST_LOST:
            soon = now - self._until < SHORTEST_PAUSE
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if soon else SHORTEST_PAUSE
            self._until = now + self._pause
            self._lost = 0.0
