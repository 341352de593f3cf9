"""The processor's cores: work shared among threads, while BLAS keeps to one.

A kernel cuts its work into pieces by the shape of the problem alone, and each piece is computed in
the same way whichever thread takes it. So results are the same to the last bit for any number of
threads. BLAS would cut products by threads of its own, and several callers would wait for each
other inside it, so it computes each product in the thread that asks, until the kernel is done.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from operator import call, index
from time import perf_counter, sleep
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from minidl.backend import CPU, Array, of
from minidl.kernels.pace import Pace
from minidl.kernels.spinning import Cores, Signal, current_core, leave_core

SetThreads: TypeAlias = Callable[[int], Any]
Then: TypeAlias = "Callable[[_Helper], None]"
T = TypeVar("T")

VARIABLE = "MINIDL_NUM_THREADS"

# Work that passes over less memory than this is not cut at all. Handing a piece to another thread
# takes five microseconds, but what it reads is in the cache of another core, and short calls of
# NumPy spend their time waiting for the interpreter. More work is cut into more pieces, but larger
# ones too.
PIECE_BYTES = 7 << 18
MOST_PIECES = 8

# A helper and who calls it look every so many times on which core they are.
LOOK_EVERY = 16

# Seconds for which a helper that has nothing to do stays awake, or twice as many.
PATIENCE = 0.02


def set_num_threads(count: int) -> None:
    """Let kernels on the CPU use so many threads, in the whole process, from now on.

    Args:
        count: at least 1. More threads than cores make nothing faster.

    The number at the start is that of the cores this process may use, or what the environment
    variable MINIDL_NUM_THREADS says. Results do not depend on it.

    Raises:
        ValueError: if count is not an integer of at least 1.
    """
    global _count, _enough_cores
    try:
        number = 0 if isinstance(count, bool) else index(count)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"set_num_threads expects an integer of at least 1, got {count!r}")
    _count = number
    _inside.pace = Pace()
    _enough_cores = _count <= _number_of_cores()


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
_enough_cores = _count <= _number_of_cores()
_cores = Cores()


def _may_wait_awake() -> bool:
    """Whether a thread that waits awake keeps none from working."""
    return _enough_cores and _cores.are_free()


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
    helpers: list[_Helper] = []

    def take_turns() -> None:
        try:
            for piece in remaining:
                if errors:
                    return
                work(piece)
        except BaseException as error:
            errors.append(error)

    try:
        _take_helpers(helpers, wanted)
        for helper in helpers:
            helper.start(take_turns)
        _inside.alone = True
        take_turns()
    finally:
        # Nobody may go on while a helper still writes, not even after Ctrl-C.
        while True:
            try:
                _inside.alone = False
                for helper in helpers:
                    while not helper.finished:
                        helper.wait()
                break
            except BaseException as error:
                errors.append(error)
        _helpers.extend(helpers)
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
        helpers: list[_Helper] = []
        try:
            if _count > 1 and not _inside.alone:
                _take_helpers(helpers, 1)
            if helpers:
                self._done.acquire()
                self.begun = True
                helpers[0].start(self._compute, _helpers.append)
        except BaseException:
            _helpers.extend([helper for helper in helpers if helper.finished])
            raise

    def _compute(self) -> None:
        work = self._work
        assert work is not None  # noqa: S101  until it is done, here and nowhere else
        try:
            _inside.alone = _inside.holds = False
            self._outcome.append(work())
            self._work = None  # and what it holds on to, which may hold on to this
        except BaseException as error:
            self._error = error
        finally:
            _inside.alone = _inside.holds = True
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


class _Helper:
    """A thread that waits for something to do: awake if it was busy lately, asleep if not.

    Attributes:
        finished: whether it has done all that it was asked for.
        asked: how often it was asked for something.
        awake: how it waits.
    """

    def __init__(self) -> None:
        self._call, self._done = Signal(), Signal()
        self._called_at = 0.0
        self._caller_core = self._own_core = -1
        self.finished = True  # the helper says so itself: a call that waits may be interrupted
        self.asked = 0
        self.awake = self._caller_awake = False
        self._job: tuple[contextvars.Context, Callable[[], None], Then | None]
        # Asked for here: a process that is forked while another thread imports hangs.
        self._blas = _blas().own
        threading.Thread(target=self._serve, name="minidl", daemon=True).start()

    def start(self, job: Callable[[], None], then: Then | None = None) -> None:
        """Begin with a job, which must not raise; afterwards pass the helper to `then`."""
        self._caller_awake = _may_wait_awake()
        # A copy of the context, so that numpy.errstate holds there as it does here.
        self._job = contextvars.copy_context(), job, then
        self.asked += 1
        begin = self._call.let_in if self.awake else self._call.wake
        if not self.awake or self.asked % LOOK_EVERY == 1:
            self._caller_core = current_core()
        self._called_at = perf_counter()
        self.finished = False
        begin()

    def wait(self) -> None:
        """Return when the job is done, perhaps earlier."""
        awake, since = self._caller_awake, perf_counter()
        self._done.wait(awake)
        if awake and self.finished:
            # No longer than it has worked itself, since their pieces are alike.
            _cores.take_note(perf_counter() - since - (since - self._called_at), self._own_core)

    def _serve(self) -> None:
        _inside.alone = _inside.holds = True
        for _, set_threads in self._blas:  # for good: this thread computes nothing else
            set_threads(1)
        while True:
            self._call.wait(self.awake)
            if self.finished:
                continue
            # Who called wants the interpreter, too, now and when the job is done. So the way is as
            # short as can be to the first long call, and from telling of the end to waiting again.
            heard_at = perf_counter()
            context, job, then = self._job
            context.run(job)
            del context, job, self._job  # arrays are not to be held until the next job
            if self.awake:
                _cores.take_note(heard_at - self._called_at, self._caller_core)
            was_awake, self.awake = self.awake, _may_wait_awake()
            if self.awake and not was_awake:
                leave_core(self._caller_core)
                _somebody_awake.set()
            if not was_awake or self.asked % LOOK_EVERY == 1:
                self._own_core = current_core()
            caller_awake = self._caller_awake
            self.finished = True
            self._done.give(caller_awake)
            if then:
                then(self)


class _Inside(threading.local):
    """What a thread is inside of.

    Attributes:
        alone: whether it computes a piece that is shared out already, whose own work is not.
        holds: whether it, or the thread that it computes a piece for, keeps BLAS to one thread.
        divides: whether it cuts products into parts, for others to compute some of them.
        before: the threads that it had, while it holds it to one, of each BLAS that has a number
            for each thread.
        pace: whether it shares its work, if it trains.
    """

    alone = False
    holds = False
    divides = True

    def __init__(self) -> None:
        self.before: list[int] = []
        self.pace = Pace()


_inside = _Inside()
_helpers: list[_Helper] = []  # those that are idle; taking and giving back are single operations
_made: list[_Helper] = []
_making = threading.Lock()
_somebody_awake = threading.Event()


def _take_helpers(taken: list[_Helper], wanted: int) -> None:
    """Add helpers to a list: idle ones, then new ones while the process has fewer than allowed."""
    while len(taken) < wanted:
        try:
            # One call for the interpreter, which no interrupt can come between.
            taken.extend(map(list.pop, [_helpers]))
        except IndexError:
            with _making:
                if _helpers:  # by now
                    continue
                if len(_made) >= _count - 1:  # other threads of the user's have them
                    break
                if not _made:
                    threading.Thread(target=_send_to_sleep, name="minidl rest", daemon=True).start()
                _made.append(_Helper())
                taken.append(_made[-1])


def _nothing() -> None:
    """The job of a helper that is to fall asleep."""


def _send_to_sleep() -> None:
    """Have helpers sleep that nobody has asked for a while. Never returns."""
    asked: dict[_Helper, int] = {}
    back = threading.Event()

    def put_to_sleep(helper: _Helper) -> None:
        helper.awake = False
        _helpers.insert(0, helper)  # those that are awake are taken before
        back.set()

    while True:
        _somebody_awake.wait()
        _somebody_awake.clear()
        sleep(PATIENCE)
        for helper in _helpers.copy():
            if helper.awake and asked.get(helper) == helper.asked:
                # Meanwhile nobody is to find that there is none.
                with _making, contextlib.suppress(ValueError):
                    _helpers.remove(helper)
                    back.clear()
                    helper.start(_nothing, put_to_sleep)
                    back.wait()
            asked[helper] = helper.asked
        if any(helper.awake for helper in _made):
            _somebody_awake.set()


class _Blas:
    """The threads that BLAS had before, and how many threads hold it to one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.inside = 0
        self.before: list[tuple[SetThreads, int]] = []  # until it is put back

    def hold(self) -> None:
        """Let BLAS have one thread."""
        for get_threads, set_threads in _blas().shared:
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


_state = _Blas()


class one_blas_thread:  # noqa: N801  it reads as what it does
    """A block in which BLAS computes each product in the thread that asks for it.

    Inside another such block of the same thread, it costs next to nothing.
    """

    __slots__ = ("_hold",)

    def __enter__(self) -> None:
        self._hold = None if _inside.holds else _Hold()

    def __exit__(self, *_: object) -> None:
        if self._hold:
            self._hold.end()


class _Hold:
    """One thread's part in holding BLAS to one thread, until its end."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: _Blas | None = None
        state = _state
        with state.lock:
            if not state.inside:
                state.hold()
            state.inside += 1
            self._held = state
        for get_threads, set_threads in _blas().own:
            # One call for the interpreter, which no interrupt can come between.
            _inside.before.extend(map(call, (get_threads,)))
            set_threads(1)
        _inside.holds = True

    def end(self) -> None:
        """Let go."""
        state = self._held
        _inside.holds = False
        if _inside.before:
            _put_own_back()
        if state is not _state:  # but what a fork left behind
            self._held = None
            return
        with state.lock:
            if self._held:
                state.inside -= 1
                self._held = None
            if not state.inside:
                state.put_back()

    def __del__(self) -> None:
        if self._held:  # an interrupt came before the block began, or kept it from ending
            self.end()


def _put_own_back() -> None:
    """Give this thread the threads it had, of each BLAS that has a number for each thread."""
    for (_, set_threads), count in zip(_blas().own, _inside.before, strict=False):
        set_threads(count)
    _inside.before.clear()


class _Libraries(NamedTuple):
    """What tells and sets the threads of each BLAS that is loaded; nothing of what cannot be set.

    Attributes:
        shared: functions that tell and that set a number for all threads of the process.
        own: the same of those that have a number for each thread that asks for products, of which
            the first may set it to one as well.
    """

    shared: list[tuple[Callable[[], int], SetThreads]]
    own: list[tuple[Callable[[], int], SetThreads]]


@cache
def _blas() -> _Libraries:
    """The BLAS that NumPy has loaded, and others, if there are any."""
    from threadpoolctl import ThreadpoolController

    libraries = _Libraries([], [])
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        # threadpoolctl lets one thread alone set OpenBLAS, so we ask the libraries themselves.
        functions: Any = getattr(library, "dynlib", None)
        symbol = getattr(library, "_get_symbol", None)
        if hasattr(functions, "MKL_Set_Num_Threads_Local"):
            # It tells what it was set to before: 0 where the number of the process held.
            set_threads = functions.MKL_Set_Num_Threads_Local
            libraries.own.append((partial(set_threads, 1), set_threads))
        elif library.internal_api == "openblas" and library.threading_layer == "openmp":
            openmp = functions.omp_get_max_threads, functions.omp_set_num_threads
            libraries.own.append(openmp)
        elif library.internal_api == "openblas" and symbol:
            names = "openblas_get_num_threads", "openblas_set_num_threads"
            libraries.shared.append((symbol(names[0]), symbol(names[1])))
        else:
            libraries.shared.append((library.get_num_threads, library.set_num_threads))
    return libraries


@cache
def _openblas() -> Any:
    """What threadpoolctl knows of the OpenBLAS that NumPy has loaded; None for another BLAS."""
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return libraries[0] if libraries else None


def blas_function(name: str) -> Any:
    """A function of OpenBLAS, by the name it has in C; None if it or the library is not there."""
    symbol = getattr(_openblas(), "_get_symbol", None)
    return symbol(name) if symbol else None


@cache
def blas_architecture() -> str:
    """The kind of processor that OpenBLAS computes for, in its words; "" for another BLAS."""
    library = _openblas()
    return str(library.info()["architecture"]) if library else ""


def _after_fork() -> None:
    """In a forked child no thread but one lives on, and nobody is inside any more."""
    global _state, _making, _somebody_awake
    if _state.inside:
        _state.put_back()
    if _inside.before:
        _put_own_back()
    _state = _Blas()
    _making, _somebody_awake = threading.Lock(), threading.Event()
    _helpers.clear()
    _made.clear()
    _inside.alone = _inside.holds = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
