"""Threads that help: each waits for something to do, awake if it was busy lately, asleep if not.

Who wants help takes idle helpers off a list, starts them, waits for them, and puts them back. One
that nobody has asked for a while is sent to sleep.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter, sleep
from typing import TypeAlias

from minidl.kernels.blas_library import thread_numbers
from minidl.kernels.blas_threads import compute_for_others
from minidl.kernels.spinning import Cores, Signal, current_core, leave_core

Then: TypeAlias = "Callable[[Helper], None]"

# A helper and who calls it look every so many times on which core they are.
LOOK_EVERY = 16

# Seconds for which a helper that has nothing to do stays awake, or twice as many.
PATIENCE = 0.02

cores = Cores()


class Helper:
    """A thread that does what it is asked for, again and again.

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
        begin = partial(compute_for_others, thread_numbers())
        threading.Thread(target=self._serve, args=(begin,), name="minidl", daemon=True).start()

    def start(self, job: Callable[[], None], then: Then | None = None) -> None:
        """Begin with a job, which must not raise; afterwards pass the helper to `then`."""
        self._caller_awake = cores.are_free()
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
            cores.take_note(perf_counter() - since - (since - self._called_at), self._own_core)

    def _serve(self, begin: Callable[[], None]) -> None:
        begin()
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
                cores.take_note(heard_at - self._called_at, self._caller_core)
            was_awake, self.awake = self.awake, cores.are_free()
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


idle: list[Helper] = []  # taking one and giving it back are single operations
_made: list[Helper] = []
_making = threading.Lock()
_somebody_awake = threading.Event()


def take(taken: list[Helper], wanted: int, most: int) -> None:
    """Add helpers to a list: idle ones, then new ones while the process has fewer than allowed.

    Args:
        taken: the list, whose helpers are to be added to `idle` in the end.
        wanted: how many it is to have.
        most: how many the process may have. If others have them, the list stays shorter.
    """
    while len(taken) < wanted:
        try:
            # One call for the interpreter, which no interrupt can come between.
            taken.extend(map(list.pop, [idle]))
        except IndexError:
            with _making:
                if idle:  # by now
                    continue
                if len(_made) >= most:
                    break
                if not _made:
                    threading.Thread(target=_send_to_sleep, name="minidl rest", daemon=True).start()
                _made.append(Helper())
                taken.append(_made[-1])


def _nothing() -> None:
    """The job of a helper that is to fall asleep."""


def _send_to_sleep() -> None:
    """Have helpers sleep that nobody has asked for a while. Never returns."""
    asked: dict[Helper, int] = {}
    back = threading.Event()

    def put_to_sleep(helper: Helper) -> None:
        helper.awake = False
        idle.insert(0, helper)  # those that are awake are taken before
        back.set()

    while True:
        _somebody_awake.wait()
        _somebody_awake.clear()
        sleep(PATIENCE)
        for helper in idle.copy():
            if helper.awake and asked.get(helper) == helper.asked:
                # Meanwhile nobody is to find that there is none.
                with _making, contextlib.suppress(ValueError):
                    idle.remove(helper)
                    back.clear()
                    helper.start(_nothing, put_to_sleep)
                    back.wait()
            asked[helper] = helper.asked
        if any(helper.awake for helper in _made):
            _somebody_awake.set()


def _after_fork() -> None:
    """In a forked child no helper lives on."""
    global _making, _somebody_awake
    _making, _somebody_awake = threading.Lock(), threading.Event()
    idle.clear()
    _made.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
