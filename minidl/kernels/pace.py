"""Whether it pays to share work among threads: found out by training some steps either way.

What a second thread gains depends on the machine, on what else it is doing, and on the network. A
large one gains nearly all that there is to gain; in a small one, handing over work and fetching
results from the cache of another core may take longer than the work. Results are the same to the
last bit, so that both can be tried while training goes on.
"""

from __future__ import annotations

from statistics import median

# Steps before the first trial. In a trial, both ways take turns of so many steps, so many of each.
# The first step of a turn does not count, for what it needs lies in the caches of other cores.
WARM_UP = 20
STEPS = 3
TURNS = 4

# A way that is so many times as fast as the other in each step of the first turns is so in the
# others too, and the trial is over.
CLEARLY = 1.25

# Until the next trial there are at least so many times as many steps as in this one, and as many as
# make of what it has cost a hundredth of their time, or MOST_STEPS.
REST = 10
COST = 0.01
MOST_STEPS = 10_000


class Pace:
    """What a thread that trains decides, and from what.

    Attributes:
        shares: whether to share work until the end of the step.
    """

    def __init__(self) -> None:
        self.shares = True
        self._steps = -WARM_UP  # of the trial, or until the next
        self._took: dict[bool, list[float]] = {True: [], False: []}
        self._last = 0.0

    def step_done(self, now: float) -> None:
        """Take note of the end of a step, at a time in seconds."""
        took, self._last = now - self._last, now
        self._steps += 1
        if self._steps <= 0:
            return
        done, place = divmod(self._steps - 1, STEPS)  # turns that are over, and step of this one
        if self._steps > 1 and (self._steps - 2) % STEPS:
            self._took[self.shares].append(took)
        if done >= 2 * TURNS or (done == 2 and place == 0 and self._is_clear()):
            self._decide()
        else:
            # Each way comes first as often as second: in turns a b, b a, a b, b a.
            self.shares = done % 4 in (0, 3)

    def _is_clear(self) -> bool:
        """Whether the first turns have been enough."""
        shared, alone = self._took[True], self._took[False]
        return min(alone) > CLEARLY * max(shared) or min(shared) > CLEARLY * max(alone)

    def _decide(self) -> None:
        """End the trial."""
        typical = {way: median(times) for way, times in self._took.items()}
        self.shares = typical[True] <= typical[False]
        steps = self._steps - 1
        lost = steps / 2 * (max(typical.values()) / max(min(typical.values()), 1e-9) - 1)
        self._steps = -int(min(MOST_STEPS, max(REST * steps, lost / COST)))
        self._took = {True: [], False: []}
