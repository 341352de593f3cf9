"""The processor's cores: work shared among threads, while BLAS keeps to one.

A kernel cuts its work into pieces by the shape of the problem alone, and each piece is computed in
the same way whichever thread takes it. So results are the same to the last bit for any number of
threads. BLAS would cut products by threads of its own, and several callers would wait for each
other inside it, so it computes each product in the thread that asks, until the kernel is done.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

VARIABLE = "MINIDL_NUM_THREADS"

# Work that passes over less memory than this is not cut at all: handing a piece to another thread
# takes some ten microseconds. More work is cut into more pieces, but larger ones too, because short
# calls of NumPy spend their time waiting for the interpreter.
PIECE_BYTES = 3 << 19
MOST_PIECES = 8


def set_num_threads(count: int) -> None:
    """Let kernels on the CPU use so many threads, in the whole process, from now on.

    Args:
        count: at least 1. More threads than cores make nothing faster.

    The number at the start is that of the cores this process may use, or what the environment
    variable MINIDL_NUM_THREADS says. Results do not depend on it.

    Raises:
        ValueError: if count is not an integer of at least 1.
    """
    global _count
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"set_num_threads expects an integer of at least 1, got {count!r}")
    _count = count


def get_num_threads() -> int:
    """How many threads kernels on the CPU use."""
    return _count


def _count_at_start() -> int:
    """The number of threads that the environment asks for, or that the machine has cores for."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    try:
        count = int(asked)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(f"{VARIABLE} must be an integer of at least 1, got {asked!r}")
    return count


_count = _count_at_start()


def cut(length: int, pieces: int) -> list[slice]:
    """Cut a range into so many pieces of nearly one length, but none that is empty."""
    pieces = max(1, min(pieces, length))
    bounds = [length * i // pieces for i in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def pieces_of(work: int, least: int, power: int = 2) -> int:
    """Into how many pieces to cut work of some size: 1, 2, 4 or 8.

    Args:
        work: how much there is, in any unit.
        least: the work that is just worth cutting in two.
        power: p pieces are twice as many from least * p**power on; the larger it is, the larger do
            pieces grow too.
    """
    pieces = 1
    while pieces < MOST_PIECES and work >= least * pieces**power:
        pieces *= 2
    return pieces


def share(work: Callable[[Any], None], pieces: list[Any]) -> None:
    """Call `work` with every piece, on several threads if that is allowed and worth it.

    The pieces must not depend on each other. The first error ends the rest and is raised here.
    """
    with one_blas_thread():
        helpers = _idle_helpers(min(len(pieces), _count) - 1) if len(pieces) > 1 else []
        if helpers:
            _share_with(helpers, work, pieces)
        else:
            for piece in pieces:
                work(piece)


def _share_with(helpers: list[_Helper], work: Callable[[Any], None], pieces: list[Any]) -> None:
    remaining = iter(pieces)  # one iterator for all threads: the interpreter hands out each once
    errors: list[BaseException] = []

    def take_turns() -> None:
        try:
            for piece in remaining:
                if errors:
                    return
                work(piece)
        except BaseException as error:
            errors.append(error)

    try:
        for helper in helpers:
            # A copy of the context, so that numpy.errstate holds there as it does here.
            helper.start(contextvars.copy_context().run, take_turns)
        take_turns()
    finally:
        for helper in helpers:
            # Nobody may go on while a helper still writes, not even after Ctrl-C.
            while not helper.finished:
                try:
                    helper.wait()
                except BaseException as error:
                    errors.append(error)
        _helpers.extend(helpers)
    if errors:
        raise errors[0]


class _Helper:
    """A thread that waits for something to do."""

    def __init__(self) -> None:
        # Bare locks hand over in half the time that queues or events take.
        self._asked, self._done = threading.Lock(), threading.Lock()
        self._asked.acquire()
        self._done.acquire()
        self.finished = True  # whether `wait` has seen the end of the last job
        self._call: tuple[Callable[..., None], Callable[[], None]]
        threading.Thread(target=self._serve, name="minidl", daemon=True).start()

    def start(self, run: Callable[..., None], job: Callable[[], None]) -> None:
        """Begin with `run(job)`, which must not raise."""
        self._call = run, job
        self.finished = False
        self._asked.release()

    def wait(self) -> None:
        """Return when the job is done."""
        self._done.acquire()
        self.finished = True

    def _serve(self) -> None:
        _inside.helper = True
        while True:
            self._asked.acquire()
            run, job = self._call
            run(job)
            del run, job, self._call  # arrays are not to be held until the next job
            self._done.release()


class _Inside(threading.local):
    """Whether this thread is a helper, whose own work is not shared further."""

    helper = False


_inside = _Inside()
_helpers: list[_Helper] = []  # those that are idle; taking and giving back are single operations
_made = 0
_making = threading.Lock()


def _idle_helpers(wanted: int) -> list[_Helper]:
    """Up to so many helpers: idle ones, then new ones while the process has fewer than allowed."""
    global _made
    taken: list[_Helper] = []
    if _inside.helper:
        return taken
    while len(taken) < wanted:
        try:
            taken.append(_helpers.pop())
        except IndexError:
            with _making:
                if _made >= _count - 1:  # other threads of the user's have them
                    break
                _made += 1
            taken.append(_Helper())
    return taken


class _OneBlasThread:
    """Holds BLAS to one thread while anybody is inside; the last to leave puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [(library, library.get_num_threads()) for library in _blas()]
                for library, count in self._before:
                    if count != 1:
                        library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self.put_back()

    def put_back(self) -> None:
        """Give BLAS the threads it had."""
        for library, count in self._before:
            if count != 1:
                library.set_num_threads(count)


_holder = _OneBlasThread()


def one_blas_thread() -> _OneBlasThread:
    """A block in which BLAS computes each product in the thread that asks for it."""
    return _holder


@cache
def _blas() -> list[Any]:
    """What sets the threads of the BLAS that NumPy has loaded; nothing for one that it cannot."""
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _after_fork() -> None:
    """In a forked child no thread but one lives on, and nobody is inside any more."""
    global _holder, _made, _making
    if _holder._inside:
        _holder.put_back()
    _holder = _OneBlasThread()
    _making = threading.Lock()
    _helpers.clear()
    _made = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
