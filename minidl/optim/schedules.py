"""Learning-rate schedules: the learning rate as a function of the step.

A schedule is called with the number of steps taken so far, 0 before the first, and returns the
learning rate of the next. Pass one as `lr` to any optimizer. Steps are optimizer steps; for a
schedule in epochs, multiply by the batches in an epoch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """The learning rate at each step."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate after `step` steps."""


class StepDecay(Schedule):
    """Multiply the learning rate by `gamma` every `step_size` steps (PyTorch's StepLR)."""

    def __init__(self, lr: float, step_size: int, gamma: float = 0.1) -> None:
        self.lr, self.step_size, self.gamma = _rate(lr), _positive(step_size, "step_size"), gamma

    def __call__(self, step: int) -> float:
        """The learning rate after `step` steps."""
        return self.lr * self.gamma ** (step // self.step_size)


class CosineDecay(Schedule):
    """Half a cosine from `lr` to `final` in `steps` steps, `final` from then on.

    I. Loshchilov, F. Hutter: SGDR: stochastic gradient descent with warm restarts, 2017,
    equation 5, without restarts.
    """

    def __init__(self, lr: float, steps: int, final: float = 0.0) -> None:
        self.lr, self.steps, self.final = _rate(lr), _positive(steps, "steps"), _rate(final)

    def __call__(self, step: int) -> float:
        """The learning rate after `step` steps."""
        return _cosine(self.lr, self.final, step / self.steps)


class WarmUp(Schedule):
    """Rise linearly from `start` times the rate to all of it in `steps` steps, then follow it.

    Args:
        after: what follows: a learning rate, or a schedule that then starts at its step 0.
        steps: length of the rise.
        start: share of the learning rate at step 0.
    """

    def __init__(self, after: float | Schedule, steps: int, start: float = 0.0) -> None:
        self.after = after if isinstance(after, Schedule) else _rate(after)
        self.steps, self.start = _positive(steps, "steps"), _rate(start, "start")

    def __call__(self, step: int) -> float:
        """The learning rate after `step` steps."""
        rate = learning_rate(self.after, max(step - self.steps, 0))
        share = min(step / self.steps, 1.0)
        return rate * (self.start + (1 - self.start) * share)


class OneCycle(Schedule):
    """Rise from max_lr / div_factor to `max_lr`, then fall far below, each along half a cosine.

    Args:
        max_lr: the highest learning rate.
        steps: length of the whole cycle; the lowest rate holds from then on.
        rise: share of the cycle that rises.
        div_factor: max_lr over the first learning rate.
        final_div_factor: the first learning rate over the last.

    L. Smith, N. Topin: Super-convergence, 2018; the two cosines and the defaults are those of
    PyTorch's OneCycleLR. Momentum is left as it is.
    """

    def __init__(
        self,
        max_lr: float,
        steps: int,
        rise: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if not 0 <= rise <= 1 or not min(div_factor, final_div_factor) > 0:
            raise ValueError(
                "OneCycle expects rise from 0 to 1 and positive factors, "
                f"got {rise}, {div_factor} and {final_div_factor}"
            )
        self.max_lr, self.steps, self.rise = _rate(max_lr), _positive(steps, "steps"), rise
        self.first = max_lr / div_factor
        self.last = self.first / final_div_factor

    def __call__(self, step: int) -> float:
        """The learning rate after `step` steps."""
        top = self.rise * self.steps - 1
        end = self.steps - 1
        if step <= top:
            return _cosine(self.first, self.max_lr, step / top if top > 0 else 1.0)
        return _cosine(self.max_lr, self.last, (step - top) / (end - top) if end > top else 1.0)


def learning_rate(lr: float | Schedule, step: int) -> float:
    """The learning rate after `step` steps, of a schedule or of a plain number."""
    return float(lr(step) if callable(lr) else lr)


def _cosine(start: float, end: float, share: float) -> float:
    """Between start (share 0) and end (share 1 and more) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def _rate(lr: float, name: str = "a learning rate") -> float:
    """A learning rate, or a share of one. Raises ValueError below zero."""
    if not lr >= 0:
        raise ValueError(f"{name} must not be negative, got {lr}")
    return lr


def _positive(steps: int, name: str) -> int:
    """A number of steps. Raises ValueError below one."""
    if steps < 1:
        raise ValueError(f"{name} must be at least 1, got {steps}")
    return steps
