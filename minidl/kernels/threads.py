"""The processor's cores: how many threads compute, and how work is cut and shared among them.

A kernel cuts its work into pieces by the shape of the problem alone, and each piece is computed in
the same way whichever thread takes it. So results are the same to the last bit for any number of
threads. Meanwhile BLAS keeps to one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from operator import index
from time import perf_counter
from typing import Any, Generic, TypeVar

from minidl.backend import CPU, Array, of
from minidl.kernels import helpers
from minidl.kernels.blas_threads import computing_alone, one_blas_thread
from minidl.kernels.helpers import Helper
from minidl.kernels.pace import Pace

T = TypeVar("T")

VARIABLE = "MINIDL_NUM_THREADS"

# Work that passes over less memory than this is not cut at all. Handing a piece to another thread
# takes five microseconds, but what it reads is in the cache of another core, and short calls of
# NumPy spend their time waiting for the interpreter. More work is cut into more pieces, but larger
# ones too.
PIECE_BYTES = 7 << 17
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
    try:
        number = 0 if isinstance(count, bool) else index(count)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"set_num_threads expects an integer of at least 1, got {count!r}")
    _count = number
    _inside.pace = Pace()
    helpers.cores.enough = _count <= _number_of_cores()


def get_num_threads() -> int:
    """How many threads kernels on the CPU use."""
    return _count


def is_set_by_user() -> bool:
    """Whether `set_num_threads` or the environment has said how many threads there are."""
    return VARIABLE in os.environ or _count != _count_at_start()


def _count_at_start() -> int:
    """The number of threads that the environment asks for, or that the machine has cores for."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return _number_of_cores()
    try:
        count = int(asked)
    except ValueError:
        count = 0
    if count < 1:
        raise ValueError(f"{VARIABLE} must be an integer of at least 1, got {asked!r}")
    return count


def _number_of_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_count = _count_at_start()
helpers.cores.enough = _count <= _number_of_cores()


class _Inside(threading.local):
    """What a thread is inside of.

    Attributes:
        alone: whether it computes a piece that is shared out already, whose own work is not.
        divides: whether it cuts products into parts, for others to compute some of them.
        pace: whether it shares its work, if it trains.
    """

    alone = False
    divides = True

    def __init__(self) -> None:
        self.pace = Pace()


_inside = _Inside()


def cut(length: int, pieces: int) -> list[slice]:
    """Cut a range into so many pieces of nearly one length, but none that is empty."""
    pieces = max(1, min(pieces, length))
    if pieces == 1:
        return [slice(0, length)]
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


def parts_of(x: Array, passes: int) -> list[slice]:
    """The parts of the first axis of an array that so many passes over it are worth cutting into.

    All of it for an array that is not on the CPU.
    """
    return cut(len(x), pieces_of(passes * x.nbytes, PIECE_BYTES) if of(x) is CPU else 1)


def share(work: Callable[[Any], None], pieces: list[Any], long: bool = False) -> None:
    """Call `work` with every piece, on several threads if that is allowed and worth it.

    The pieces must not depend on each other. The first error ends the rest and is raised here.

    Args:
        work: what to call.
        pieces: what to call it with.
        long: whether each takes so long that sharing is worth it at any pace.
    """
    wanted = min(len(pieces), _count) - 1
    with one_blas_thread():
        if wanted > 0 and not _inside.alone and (long or _inside.pace.shares):
            _share_with(wanted, work, pieces)
        else:
            for piece in pieces:
                work(piece)


class undivided:  # noqa: N801  it reads as what it does
    """A block in which this thread leaves products whole, as others have such work of their own.

    Each part would take calls of its own, copy again what the parts have in common, and bring the
    thread back to the interpreter in between, where others may be. Whoever enters must do so for
    any number of threads, because a part may be rounded in another way than the whole.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _inside.divides
        _inside.divides = False

    def __exit__(self, *_: object) -> None:
        _inside.divides = self._before


def divides() -> bool:
    """Whether this thread is in no `undivided` block."""
    return _inside.divides


def training_step_done() -> None:
    """Let this thread find out whether sharing makes its training steps quicker."""
    if _count > 1:
        _inside.pace.step_done(perf_counter())


def _share_with(wanted: int, work: Callable[[Any], None], pieces: list[Any]) -> None:
    remaining = iter(pieces)  # one iterator for all threads: the interpreter hands out each once
    errors: list[BaseException] = []
    taken: list[Helper] = []

    def take_turns() -> None:
        try:
            _inside.alone = True
            for piece in remaining:
                if errors:
                    return
                work(piece)
        except BaseException as error:
            errors.append(error)

    try:
        helpers.take(taken, wanted, most=_count - 1)
        for helper in taken:
            helper.start(take_turns)
        take_turns()
    finally:
        # Nobody may go on while a helper still writes, not even after Ctrl-C.
        while True:
            try:
                _inside.alone = False
                for helper in taken:
                    while not helper.finished:
                        helper.wait()
                break
            except BaseException as error:
                errors.append(error)
        helpers.idle.extend(taken)
    if errors:
        # Tracebacks lead to frames that hold the list, which is not to hold the errors in turn.
        del errors[1:]
        raise errors.pop()


class Ahead(Generic[T]):
    """Something small that an idle helper computes while this thread goes on with other work.

    Args:
        work: what to compute; it must not depend on what this thread does meanwhile.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._process = os.getpid()
        self.begun = False  # until a helper is at it
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Lock()
        taken: list[Helper] = []
        try:
            if _count > 1 and not _inside.alone:
                helpers.take(taken, 1, most=_count - 1)
            if taken:
                self._done.acquire()
                self.begun = True
                taken[0].start(self._compute, helpers.idle.append)
        except BaseException:
            helpers.idle.extend([helper for helper in taken if helper.finished])
            raise

    def _compute(self) -> None:
        work = self._work
        assert work is not None  # noqa: S101  until it is done, here and nowhere else
        try:
            _inside.alone = False
            with computing_alone():
                self._outcome.append(work())
            self._work = None  # and what it holds on to, which may hold on to this
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()

    def result(self) -> T:
        """What was computed, once it is; computed here and now if no helper was idle.

        Raises what `work` raised.
        """
        if self._process == os.getpid():  # in a forked child nobody is at it any more
            with self._done:
                if self._error:
                    raise self._error
        if self._work is not None:
            self._outcome.append(self._work())
            self._work = None
        return self._outcome[-1]


def _after_fork() -> None:
    """In a forked child the one thread that lives on is inside of nothing any more."""
    _inside.alone = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
