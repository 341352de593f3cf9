"""The form that a value from a file must have before anything is done with it."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def check_form(value: Any, form: Any, where: str) -> None:
    """Compare a value with the form it must have.

    Args:
        value: made of dicts, lists, arrays, numbers, strings and None.
        form: a type, which must be that of the value itself, or None; a tuple of forms, of which it
            must have one; a list of one form, for a list of any length; a dict, for one with the
            same names, each with a value of its form, or of {str: form}, for one with any names.
        where: names the value in errors.

    Raises:
        ValueError: naming the first part that has another form.
    """
    if isinstance(form, tuple):
        if not any(_is(value, one) for one in form):
            check_form(value, form[-1], where)
    elif isinstance(form, list):
        _check(isinstance(value, list), value, "a list", where)
        for place, part in enumerate(value):
            check_form(part, form[0], f"{where}[{place}]")
    elif isinstance(form, dict):
        _check(isinstance(value, Mapping), value, "a dict", where)
        any_names = form.keys() == {str}
        if not any_names and form.keys() != value.keys():
            names = ", ".join(form)
            raise ValueError(f"expected {names} in {where}, got {reprlib.repr(list(value))}")
        for name, part in value.items():
            check_form(part, form[str] if any_names else form[name], f"{where}: {name}")
    else:
        _check(_is(value, form), value, "None" if form is None else form.__name__, where)


def _is(value: Any, form: Any) -> bool:
    """Whether a value is None, or of a type; integers must have 64 bits at most, as arrays' do."""
    if form is None:
        return value is None
    return (
        isinstance(form, type)
        and type(value) is form
        and not (type(value) is int and value.bit_length() > 63)
    )


def _check(holds: bool, value: Any, expected: str, where: str) -> None:
    if not holds:
        raise ValueError(f"expected {expected} as {where}, got {reprlib.repr(value)}")


def check_arrays(
    arrays: Mapping[str, np.ndarray[Any, Any]],
    expected: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    where: str,
) -> None:
    """Compare shapes and dtypes. Raises ValueError, naming the arrays, if they differ."""
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    wrong = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    if wrong:
        raise ValueError(f"{where} does not suit the model: {reprlib.repr(wrong)}")
