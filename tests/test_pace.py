"""Whether sharing pays is found out from how long steps take: here by a clock that tests turn."""

import itertools

import numpy as np
import pytest

import minidl
from minidl.kernels import pace, threads
from minidl.kernels.pace import MOST_STEPS, STEPS, TURNS, WARM_UP, Pace

TRIAL = 2 * TURNS * STEPS


def ways(seconds, steps, found=None):
    """What is decided for each of so many steps, that take so long by what was decided."""
    found, now, decided = found or Pace(), 0.0, []
    for number in range(steps):
        decided.append(found.shares)
        now += seconds(found.shares, number)
        found.step_done(now)
    return decided


def after_first_trial(seconds, steps=1):
    return ways(seconds, WARM_UP + 1 + TRIAL + steps)[-steps:]


@pytest.mark.parametrize(("shared", "alone"), [(1.0, 0.9), (0.9, 1.0), (1.0, 1.0), (1, 5), (5, 1)])
def test_the_quicker_way_is_taken_after_a_trial(shared, alone):
    decided = after_first_trial(lambda shares, _: shared if shares else alone, 100)
    assert decided == [shared <= alone] * 100


def test_work_is_shared_until_the_first_trial_in_which_both_ways_take_turns():
    decided = ways(lambda *_: 1.0, WARM_UP + 1 + TRIAL)
    turns = [key for key, run in itertools.groupby(decided[WARM_UP + 1 :]) for _ in run]
    assert decided[: WARM_UP + 1] == [True] * (WARM_UP + 1)
    assert turns.count(True) == turns.count(False) == TRIAL // 2
    assert turns[:STEPS] == [True] * STEPS


def test_a_trial_is_over_when_one_way_is_clearly_slower():
    decided = ways(lambda shares, _: 1.0 if shares else 1.3, WARM_UP + 1 + TRIAL)
    assert decided.count(False) == STEPS
    decided = ways(lambda shares, _: 1.0 if shares else 1.2, WARM_UP + 1 + TRIAL)
    assert decided.count(False) == TRIAL // 2


def test_one_long_step_of_either_way_decides_nothing():
    for number in range(WARM_UP, WARM_UP + 1 + TRIAL):

        def seconds(shares, step, late=number):
            return (1.0 if shares else 0.9) + 100 * (step == late)

        assert after_first_trial(seconds) == [False]


def test_a_machine_that_changes_is_found_out():
    changes = 2000

    def seconds(shares, step):
        return 1.0 if shares == (step < changes) else 1.1

    decided = ways(seconds, 4000)
    assert decided[changes - 300 : changes].count(False) <= TRIAL
    assert decided[-300:].count(True) <= TRIAL


@pytest.mark.parametrize("slower", [1.02, 1.2, 1.5, 3, 8])
def test_trials_cost_little_of_all_time(slower):
    steps = 20_000
    slow = ways(lambda shares, _: 1.0 if shares else slower, steps).count(False)
    assert slow * (slower - 1) < 0.015 * steps


def test_there_is_another_trial_however_much_one_has_cost():
    decided = ways(lambda shares, _: 1e-6 if shares else 1e6, 2 * MOST_STEPS)
    assert STEPS < decided.count(False) <= 3 * STEPS


@pytest.mark.parametrize("number", range(WARM_UP + 1, WARM_UP + 2 + TRIAL))
def test_a_step_that_was_interrupted_does_not_keep_a_trial_from_its_end(number):
    found = Pace()
    ways(lambda *_: 1.0, number, found)
    found._steps += 1  # and nothing more
    ways(lambda *_: 1.0, TRIAL + 5, found)
    assert found._steps < 0


def test_steps_that_take_no_time_by_the_clock_are_no_error():
    assert len(ways(lambda *_: 0.0, 1000)) == 1000


def one_step(optimizer, parameter):
    parameter.grad = np.ones_like(parameter.data)
    optimizer.step()


def test_each_step_of_an_optimizer_is_one_of_the_thread_that_trains(monkeypatch):
    minidl.set_num_threads(2)
    parameter = minidl.Tensor(np.ones(3), requires_grad=True)
    optimizer = minidl.SGD([parameter])
    seen = []
    monkeypatch.setattr(pace.Pace, "step_done", lambda _, now: seen.append(now))
    for _ in range(3):
        one_step(optimizer, parameter)
    assert len(seen) == 3
    assert seen == sorted(seen)
    minidl.set_num_threads(1)
    one_step(optimizer, parameter)
    assert len(seen) == 3


def test_work_is_given_to_nobody_else_while_that_is_slower_but_for_long_pieces(monkeypatch):
    minidl.set_num_threads(2)
    shared = []
    monkeypatch.setattr(threads, "_share_with", lambda *_: shared.append(True))
    monkeypatch.setattr(threads._inside.pace, "shares", False)
    done = []
    threads.share(done.append, [1, 2, 3])
    assert (done, shared) == ([1, 2, 3], [])
    threads.share(done.append, [1, 2, 3], long=True)
    assert shared == [True]
    monkeypatch.setattr(threads._inside.pace, "shares", True)
    threads.share(done.append, [1, 2, 3])
    assert shared == [True, True]


def test_another_number_of_threads_begins_anew():
    threads._inside.pace.shares = False
    minidl.set_num_threads(2)
    assert threads._inside.pace.shares
