"""Measuring in turns: in every round each contender has its turn, so that all meet the same noise.

The order shifts from round to round, so that nobody always comes after the same point in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")

# Idle threads of BLAS and OpenMP go on turning for some time before they sleep, and would take the
# cores from whoever has the next turn.
PAUSE = 0.1
WARM_UP = 0.1


def take_turns(turns: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """What each turn returned in every round."""
    names = list(turns)
    results: dict[K, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            results[name].append(turns[name]())
    return results


def speed(
    work: Callable[..., Any],
    amount: float,
    seconds: float,
    prepare: Callable[[], tuple[Any, ...]] = tuple,
) -> float:
    """How much is done in a second of work, over and over for so many seconds after a warm-up.

    Args:
        work: what is timed.
        amount: what one run of it gets done.
        seconds: for how long; it runs at least once.
        prepare: makes the arguments of each run, in time that is not counted.
    """

    def runs_a_second(seconds: float) -> float:
        runs, spent = 0, 0.0
        while spent < seconds:
            arguments = prepare()
            started = time.perf_counter()
            work(*arguments)
            spent += time.perf_counter() - started
            runs += 1
        return runs / spent

    runs_a_second(WARM_UP)
    return amount * runs_a_second(seconds)
