"""Threads that wait awake: what they wait for reaches them, they sleep when nobody asks, and they
give the cores up to others who want them.
"""

import os
import sys
import threading
import time

import numpy as np
import pytest
from test_threads import A_MINUTE, meeting, promptly, run

import minidl
from minidl.kernels import helpers, spinning, threads
from minidl.kernels.spinning import Cores, Signal, c_library, current_core, leave_core
from minidl.kernels.threads import share

linux = pytest.mark.skipif(not c_library(), reason="threads cannot wait awake on this system")
two_cores = pytest.mark.skipif(threads._number_of_cores() < 2, reason="there is one core only")


@pytest.fixture
def asleep_only():
    """The C library lacks what waiting awake needs, as on other systems."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spinning, "c_library", lambda: None)
        yield


def eventually(condition):
    """Whether something comes true before long."""
    deadline = time.monotonic() + A_MINUTE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def keep_busy():
    """Let two threads share something, so that there is a helper that was busy lately."""
    minidl.set_num_threads(2)
    meet = meeting(2)
    share(lambda _: meet.wait(), [0, 1])


# Signals


@pytest.mark.parametrize("awake", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_who_waits_goes_on_when_the_signal_is_given(awake, early):
    signal, passed = Signal(), []
    ways = [lambda: signal.give(awake), signal.let_in if awake else signal.wake]

    def wait():
        signal.wait(awake)
        passed.append(True)

    for number, give in enumerate(ways * 3):
        if early:
            give()
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        if not early:
            thread.join(0.02)
            assert len(passed) == number, "nobody had given it"
            give()
        thread.join(A_MINUTE)
        assert len(passed) == number + 1


@pytest.mark.parametrize("awake", [True, False])
def test_a_signal_may_be_given_once_too_often(awake):
    signal, passed = Signal(), []
    signal.give(awake)
    signal.give(awake)
    signal.wait(awake)
    thread = threading.Thread(target=lambda: passed.append(signal.wait(awake)), daemon=True)
    thread.start()
    thread.join(0.02)
    assert not passed
    signal.give(awake)
    thread.join(A_MINUTE)
    assert passed


@linux
def test_who_waits_awake_lets_others_into_the_interpreter():
    signal = Signal()
    thread = threading.Thread(target=signal.wait, args=(True,), daemon=True)
    thread.start()
    assert promptly(lambda: sum(range(1000))) == 499500
    assert thread.is_alive()
    signal.let_in()
    thread.join(A_MINUTE)
    assert not thread.is_alive()


@pytest.mark.usefixtures("asleep_only")
def test_without_the_c_library_a_signal_is_waited_for_asleep():
    signal, passed = Signal(), []
    assert current_core() == -1
    for give in (signal.let_in, lambda: signal.give(True)):
        thread = threading.Thread(target=lambda: passed.append(signal.wait(True)), daemon=True)
        thread.start()
        give()
        thread.join(A_MINUTE)
    assert len(passed) == 2


@pytest.mark.parametrize("why", ["system", "function"])
def test_other_systems_are_not_asked_for_what_they_lack(monkeypatch, why):
    if why == "system":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(spinning.ctypes, "CDLL", lambda _: object())
    spinning.c_library.cache_clear()
    try:
        assert spinning.c_library() is None
    finally:
        spinning.c_library.cache_clear()


def test_work_is_shared_alike_without_the_c_library():
    code = """
import test_threads as test
from minidl.kernels import spinning, threads
spinning.c_library = lambda: None
threads.set_num_threads(3)
for _ in range(20):
    meet = test.meeting(3)
    threads.share(lambda _: meet.wait(), [0, 1, 2])
print("done")
"""
    assert run("-c", code) == "done\n"


# Helpers


@linux
@two_cores
def test_a_helper_stays_awake_for_a_while_and_falls_asleep_then(monkeypatch):
    monkeypatch.setattr(helpers, "cores", Cores())
    monkeypatch.setattr(helpers, "PATIENCE", 0.3)  # longer than this test is ever kept waiting
    keep_busy()
    time.sleep(2 * 0.02)  # what is left of the last time that somebody looked
    keep_busy()
    helper = helpers.idle[-1]
    assert helper.awake
    assert eventually(lambda: not helper.awake)
    with helpers._making:
        assert helper in helpers.idle
    keep_busy()  # and is there again
    assert eventually(lambda: not any(helper.awake for helper in helpers._made))


@linux
def test_nobody_waits_awake_where_there_are_more_threads_than_cores():
    assert eventually(lambda: not any(helper.awake for helper in helpers._made))
    count = threads._number_of_cores() + 1
    minidl.set_num_threads(count)
    for _ in range(3):
        meet = meeting(count)
        share(lambda _, meet=meet: meet.wait(), list(range(count)))
        assert not any(helper.awake for helper in helpers._made)


@linux
def test_an_idle_process_uses_no_core():
    code = """
import time
import test_threads as test
from minidl.kernels import helpers, threads
helpers.PATIENCE = 0.1
threads.set_num_threads(2)
helpers.cores.enough = True
meet = test.meeting(2)
threads.share(lambda _: meet.wait(), [0, 1])
assert helpers._made[0].awake
time.sleep(1)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before < 0.25)
"""
    assert run("-c", code) == "True\n"


# Cores that others want


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(spinning, "perf_counter", clock)
    return clock


def lose(cores, clock, lost, times, every=0.008):
    """Note a loss several times; after how many threads have to sleep, or None."""
    for number in range(times):
        clock.now += every
        cores.take_note(lost, -1)
        if not cores.are_free():
            return number + 1
    return None


def test_threads_that_are_in_time_may_wait_awake(clock):
    cores = Cores()
    assert lose(cores, clock, 0.0009, 10_000) is None


def test_losses_that_time_makes_up_for_are_borne(clock):
    cores = Cores()
    assert lose(cores, clock, 0.004, 1000, every=0.05) is None


def test_threads_that_lose_a_lot_sleep_for_a_while(clock):
    cores = Cores()
    assert lose(cores, clock, 0.004, 100) < 40
    clock.now += spinning.SHORTEST_PAUSE - 0.01
    assert not cores.are_free()
    clock.now += 0.02
    assert cores.are_free()


def test_pauses_grow_while_they_do_not_help_and_no_further_than_to_a_limit(clock):
    cores, pauses = Cores(), []
    for _ in range(6):
        assert lose(cores, clock, 0.004, 100)
        pauses.append(cores._until - clock.now)
        clock.now = cores._until
    assert np.allclose(pauses, [2, 4, 8, 16, 16, 16])
    clock.now += 60
    assert lose(cores, clock, 0.004, 100)
    assert np.isclose(cores._until - clock.now, spinning.SHORTEST_PAUSE)


@linux
@two_cores
def test_a_thread_leaves_a_core_and_may_come_back():
    allowed = os.sched_getaffinity(0)
    for _ in range(20):
        here = current_core()
        assert here in allowed
        leave_core(here)
        assert os.sched_getaffinity(0) == allowed
    with pytest.MonkeyPatch.context() as patch:
        asked = []
        patch.setattr(os, "sched_setaffinity", lambda _, cores: asked.append(cores))
        patch.setattr(spinning, "current_core", lambda: min(allowed))
        leave_core(min(allowed))
        assert asked == [allowed - {min(allowed)}, allowed]
        leave_core(max(allowed))  # where it is not
        leave_core(-1)
        assert len(asked) == 2


@linux
def test_a_thread_that_may_use_one_core_only_stays_there(monkeypatch):
    monkeypatch.setattr(spinning, "current_core", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.delattr(os, "sched_setaffinity")
    leave_core(3)
