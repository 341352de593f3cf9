"""BLAS kept to one thread while minidl computes, and left as it was found.

BLAS would cut products by threads of its own: by the number of cores, so that results would depend
on it, and beside threads of ours that wait for the same cores. So it computes each product in the
thread that asks. Some libraries have one number of threads for the whole process. That one is set
by the first thread that needs it, and put back by the last. Others have a number for each thread.
"""

from __future__ import annotations

import os
import threading
from operator import call

from minidl.kernels.blas_library import SetThreads, ThreadNumbers, thread_numbers


class _Here(threading.local):
    """What this thread has done.

    Attributes:
        holds: whether it, or the thread that it computes for, keeps BLAS to one thread.
        before: the threads that it had, while it holds it to one, of each BLAS that has a number
            for each thread.
    """

    holds = False

    def __init__(self) -> None:
        self.before: list[int] = []

    def put_back(self) -> None:
        """Give this thread the threads it had, of each BLAS that has a number for each thread."""
        for (_, set_threads), count in zip(thread_numbers().of_thread, self.before, strict=False):
            set_threads(count)
        self.before.clear()


class _Process:
    """How many threads hold BLAS to one thread, and the threads that it had before.

    Of each BLAS that has one number for the whole process.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.inside = 0
        self.before: list[tuple[SetThreads, int]] = []  # until it is put back

    def hold(self) -> None:
        """Let BLAS have one thread."""
        for get_threads, set_threads in thread_numbers().of_process:
            count = get_threads()
            if count != 1:
                self.before.append((set_threads, count))
                set_threads(1)

    def put_back(self) -> None:
        """Give BLAS the threads it had."""
        while self.before:
            set_threads, count = self.before[-1]
            set_threads(count)
            self.before.pop()


_here = _Here()
_process = _Process()


class one_blas_thread:  # noqa: N801  it reads as what it does
    """A block in which BLAS computes each product in the thread that asks for it.

    Inside another such block of the same thread, it costs next to nothing.
    """

    __slots__ = ("_hold",)

    def __enter__(self) -> None:
        self._hold = None if _here.holds else _Hold()

    def __exit__(self, *_: object) -> None:
        if self._hold:
            self._hold.end()


class _Hold:
    """One thread's part in holding BLAS to one thread, until its end."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: _Process | None = None
        process = _process
        with process.lock:
            if not process.inside:
                process.hold()
            process.inside += 1
            self._held = process
        for get_threads, set_threads in thread_numbers().of_thread:
            # One call for the interpreter, which no interrupt can come between.
            _here.before.extend(map(call, (get_threads,)))
            set_threads(1)
        _here.holds = True

    def end(self) -> None:
        """Let go."""
        process = self._held
        _here.holds = False
        if _here.before:
            _here.put_back()
        if process is not _process:  # but what a fork left behind
            self._held = None
            return
        with process.lock:
            if self._held:
                process.inside -= 1
                self._held = None
            if not process.inside:
                process.put_back()

    def __del__(self) -> None:
        if self._held:  # an interrupt came before the block began, or kept it from ending
            self.end()


def compute_for_others(numbers: ThreadNumbers) -> None:
    """Tell that this thread computes for others for good, which hold BLAS meanwhile.

    Args:
        numbers: those of the BLAS that is loaded. Who starts the thread has to ask for them: a
            process that is forked while another thread imports hangs.
    """
    for _, set_threads in numbers.of_thread:
        set_threads(1)
    _here.holds = True


class computing_alone:  # noqa: N801  it reads as what it does
    """A block in which a thread that computes for others does so with nobody who holds BLAS."""

    __slots__ = ()

    def __enter__(self) -> None:
        _here.holds = False

    def __exit__(self, *_: object) -> None:
        _here.holds = True


def _after_fork() -> None:
    """In a forked child no thread but one lives on, and it is inside of nothing any more."""
    global _process
    if _process.inside:
        _process.put_back()
    if _here.before:
        _here.put_back()
    _process = _Process()
    _here.holds = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
