"""Reads what a pickle describes, and runs nothing of it.

A pickle is a program for a small stack machine (Python's `pickletools` tells the opcodes), and two
of them, REDUCE and BUILD, have the reader call whatever the file names. Here they call nothing.
NumPy arrays, which a pickle can say in no other way, stay descriptions: the name of what would be
called, its arguments, and the state it would be given. All else comes as None, bool, int, str,
tuple, list and dict. Opcodes and names that dicts of lists and arrays do not need are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Enough for lists of some ten thousand strings, and too few to fill the memory.
_MOST_OPCODES = 100_000

_MOST_AXES = 64  # that NumPy's arrays have

# What may be named, each as module and name with a space between. NumPy, old and new, has its
# arrays rebuilt by the first two.
_ARRAY = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_DTYPE = "numpy dtype"
_ENCODE = "_codecs encode"  # Python 3 writes bytes as text to be encoded: protocol 2 has no bytes
_NAMES = {*_ARRAY, _DTYPE, _ENCODE, "numpy ndarray"}


@dataclass(eq=False, repr=False)
class Described:
    """What a pickle would have had built by calling something.

    Attributes:
        name: of what would be called: its module, a space, and its name there.
        arguments: what it would be called with; None where it is named and not called.
        state: what the result would then be given to take its state from.
    """

    name: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None


def read_pickle(data: bytes, source: str) -> Any:
    """What a pickle of protocol 1 or 2 describes; `source` names it in errors.

    Python 2's strings and Python 3's bytes come as str, with one character a byte (latin-1).
    What comes may hold itself, or one list a million times over: look only at what is expected.

    Raises:
        ValueError: if the pickle is damaged, names anything but NumPy's arrays, or uses opcodes
            that dicts, lists, tuples, strings, whole numbers and arrays do not need.
    """
    # Imported here, since hardly anyone needs them.
    import pickletools
    import warnings

    stack = _Stack()
    position = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd text, in opcodes that are refused anyway
            for count, (opcode, argument, at) in enumerate(pickletools.genops(data)):
                position = at or 0
                if count == _MOST_OPCODES:
                    raise ValueError(f"expected at most {_MOST_OPCODES} opcodes, got more")
                stack.do(opcode.name, argument)
        return stack.items.pop()
    except (ValueError, LookupError) as error:
        reason = str(error)[:200]  # what cannot be read is quoted, and may be long
        raise ValueError(
            f"{source}: not a pickle that can be read safely, at byte {position}: {reason}"
        ) from error


def bytes_array(value: Any, source: str) -> npt.NDArray[np.uint8]:
    """The array that a description in a pickle is of, read-only; `source` names it in errors.

    Raises:
        ValueError: if it does not describe a whole array of uint8.
    """
    if not (
        isinstance(value, Described)
        and value.name in _ARRAY
        and isinstance(value.state, tuple)
        and len(value.state) == 5
    ):
        raise ValueError(f"{source}: expected a NumPy array, got {_kind(value)}")
    _, shape, dtype, column_major, text = value.state
    if not (isinstance(dtype, Described) and dtype.name == _DTYPE and dtype.arguments):
        raise ValueError(f"{source}: expected an array with a dtype, got {_kind(dtype)} for it")
    if dtype.arguments[0] != "u1":
        raise ValueError(f"{source}: expected an array of uint8, got one of another dtype")
    if not (isinstance(shape, tuple) and all(type(length) is int for length in shape)):
        raise ValueError(f"{source}: expected a shape of whole numbers, got {_kind(shape)}")
    if not isinstance(text, str) or not isinstance(column_major, bool):
        raise ValueError(f"{source}: expected an array's bytes, got {_kind(text)}")
    if min(shape, default=0) < 0 or len(text) != math.prod(shape[:_MOST_AXES]):
        raise ValueError(f"{source}: expected as many bytes as its shape says, got {len(text)}")
    try:
        flat = np.frombuffer(text.encode("latin-1"), np.uint8)
        return flat.reshape(shape, order="F" if column_major else "C")
    except ValueError as error:
        raise ValueError(f"{source}: expected an array that NumPy can hold: {error}") from error


class _Stack:
    """The stack machine's memory, and what each opcode does to it."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.marks: list[int] = []  # how many items there were at each MARK
        self.memo: dict[int, Any] = {}

    def do(self, opcode: str, argument: Any) -> None:
        """Do one opcode. Raises ValueError or LookupError if it cannot or must not be done."""
        items = self.items
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "NONE":
                items.append(None)
            case "NEWTRUE" | "NEWFALSE":
                items.append(opcode == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                items.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING" | "BINUNICODE":
                items.append(argument)
            case "EMPTY_TUPLE":
                items.append(())
            case "EMPTY_LIST":
                items.append([])
            case "EMPTY_DICT":
                items.append({})
            case "MARK":
                self.marks.append(len(items))
            case "TUPLE":
                items.append(tuple(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items.append(tuple(self.last(int(opcode[-1]))))
            case "APPEND" | "APPENDS":
                added = self.last(1) if opcode == "APPEND" else self.since_mark()
                _expect(items[-1], list).extend(added)
            case "SETITEM" | "SETITEMS":
                added = self.last(2) if opcode == "SETITEM" else self.since_mark()
                # Strings alone: the hash of nested tuples can take for ever.
                keys = [_expect(key, str) for key in added[::2]]
                _expect(items[-1], dict).update(zip(keys, added[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = items[-1]
            case "BINGET" | "LONG_BINGET":
                items.append(self.memo[argument])
            case "GLOBAL":
                if argument not in _NAMES:
                    raise ValueError(f"it names {argument.replace(' ', '.')[:80]!r}, no array")
                items.append(Described(argument))
            case "REDUCE":
                function, arguments = self.last(2)
                items.append(_called(_expect(function, Described), _expect(arguments, tuple)))
            case "BUILD":
                (state,) = self.last(1)
                _expect(items[-1], Described).state = state
            case _:
                raise ValueError(f"the opcode {opcode} has no place in it")

    def last(self, count: int) -> list[Any]:
        """Take the last items from the stack."""
        if len(self.items) < count:
            raise ValueError("the stack is empty")
        taken = self.items[-count:]
        del self.items[-count:]
        return taken

    def since_mark(self) -> list[Any]:
        """Take all items since the last mark from the stack."""
        start = self.marks.pop()
        taken = self.items[start:]
        del self.items[start:]
        return taken


def _called(function: Described, arguments: tuple[Any, ...]) -> Any:
    """What a call would give, without calling anything."""
    if function.name != _ENCODE:
        return Described(function.name, arguments)
    if len(arguments) != 2 or arguments[1] != "latin1":
        raise ValueError("bytes are encoded otherwise than Python does it")
    return _expect(arguments[0], str)


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """A value in an error message: never its content, which may be endless."""
    return f"a {type(value).__name__}"
