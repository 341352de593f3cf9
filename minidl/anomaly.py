"""Numbers that are nan or infinite, and a mode that finds the operation they come from.

To look for them everywhere takes as long as much of the arithmetic, so nobody does unless asked.
Inside `detect_anomaly`, `record` hands the value of each operation to `checked`, and the rules for
its gradients, in whose place it gets rules that look at what they return.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from itertools import compress
from traceback import FrameSummary, extract_stack, format_list
from types import FrameType
from typing import Any, Self

import numpy as np

from minidl import backend
from minidl.backend import Array, array_module

# Of the calls that led to an operation, so many are noted.
LINES = 12

# How many blocks of `detect_anomaly` the process is inside of.
blocks = 0
_counting = threading.Lock()


class NonFiniteError(FloatingPointError):
    """A number has become nan or infinite that is to be neither."""


class detect_anomaly(ContextDecorator):  # noqa: N801  the name that PyTorch's users know
    """Find the operation that first computes nan or infinity: `with detect_anomaly():`.

    The value of every operation that is computed inside, in any thread, and every gradient that one
    of them passes on, are looked at. Training a small network then takes half as long again, a
    convolutional one a tenth. PyTorch's mode of that name looks at gradients alone.

    Raises:
        NonFiniteError: naming the layer and the operation, whether its value or a gradient is not
            finite, and whether what that was computed from was; for a gradient, with a note of the
            lines of code that computed the operation.
    """

    def __enter__(self) -> Self:
        global blocks
        with _counting:
            blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        global blocks
        with _counting:
            blocks -= 1


def checked(
    value: Array, inputs: Sequence[Array | float], rules: Sequence[Callable[..., Any]]
) -> list[Callable[..., Any]]:
    """An operation's rules, which will look at the gradients they return, if its value is finite.

    Args:
        value: what the operation computed.
        inputs: what it was computed from, as far as that can have a gradient.
        rules: as for `record`, or the one for `record_jointly`.

    Raises:
        NonFiniteError: if the value is not finite.
    """
    name = _layer() + (operation_name(rules[0]) if rules else "operation")
    if not is_finite(value):
        source = "its inputs are finite"
        if not all(is_finite(x) for x in inputs):
            source = "not all of its inputs are finite either"
        raise NonFiniteError(f"{name}: the value {describe(value)}; {source}")
    recorded = extract_stack(limit=LINES + 2)[:-2]  # without `record` and this function
    return [_checked_rule(name, rule, recorded) for rule in rules]


def _checked_rule(
    name: str, rule: Callable[..., Any], recorded: list[FrameSummary]
) -> Callable[..., Any]:
    """A rule that raises NonFiniteError instead of passing on what is not finite."""

    def look_at_gradients(g: Array, *wanted: tuple[bool, ...]) -> Any:
        passed = rule(g, *wanted)
        # One gradient; or one for each input, of which some are not wanted and may be anything.
        gradients = compress(passed, wanted[0]) if wanted else [passed]
        for gradient in gradients:
            if not is_finite(gradient):
                source = "the gradient of its value is finite"
                if not is_finite(g):
                    source = "the gradient of its value was not finite before"
                error = NonFiniteError(
                    f"{name}, backward: the gradient of its input {describe(gradient)}; {source}"
                )
                error.add_note(f"{name} was computed here:\n{''.join(format_list(recorded))}")
                raise error
        return passed

    look_at_gradients.__qualname__ = _qualified_name(rule)
    return look_at_gradients


def is_finite(values: Array | float) -> bool:
    """Whether no number of an array of any dtype and device is nan or infinite."""
    if isinstance(values, (np.generic, int, float)):
        return bool(np.isfinite(values))
    return values.dtype.kind != "f" or bool(array_module(values).isfinite(values).all())


def describe(values: Array) -> str:
    """What to say of an array that is not finite: how much of it is not, and where first."""
    array = backend.on_host(values)
    wrong = ~np.isfinite(array)
    first = np.unravel_index(int(wrong.argmax()), array.shape)
    if not first:
        return f"is {array.item()}"
    place = ", ".join(map(str, first))
    return (
        f"is nan or infinite in {wrong.sum()} of {wrong.size} places, first {array[first]} at "
        f"[{place}]"
    )


def _layer() -> str:
    """The innermost module whose `forward` is under way, as errors begin; "" outside of all."""
    frame: FrameType | None = sys._getframe()
    while frame:
        if frame.f_code.co_name == "forward":
            label = getattr(frame.f_locals.get("self"), "label", None)
            if label is not None:
                return f"{label}: "
        frame = frame.f_back
    return ""


def operation_name(rule: Callable[..., Any]) -> str:
    """The function that recorded an operation: the one that its rules are defined in."""
    *around, own = _qualified_name(rule).split(".<locals>.")
    for name in (*reversed(around), own):
        if not name.startswith("<"):  # a lambda, or what builds a list
            return name
    return "operation"


def _qualified_name(rule: Callable[..., Any]) -> str:
    """A function's name with those of the functions around it; the class of anything else."""
    return str(getattr(rule, "__qualname__", type(rule).__name__))
