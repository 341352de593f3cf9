"""Ctrl-C and SIGTERM while training: time to save everything, once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn, Self

from minidl.distributed import OnAllRanks


class Interrupted(OnAllRanks, KeyboardInterrupt):
    """Training was interrupted, and can go on; the message says how."""


class Terminated(OnAllRanks, SystemExit):
    """Training was ended by SIGTERM."""


class interruptible:  # noqa: N801  it reads as what it does
    """A block in which the first Ctrl-C or SIGTERM is noted, and a second does what it always does.

    Nothing is noted outside the main thread, which alone gets signals, and where the program has a
    handler of its own.

    Args:
        active: False for a block like any other.

    Attributes:
        signal: the signal that came; None if none did.
    """

    def __init__(self, active: bool = True) -> None:
        self._active = active
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if self._active and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler in (signal.default_int_handler, signal.SIG_DFL):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()


def end(by: signal.Signals, what_to_do: str, rank: int = 0) -> NoReturn:
    """End training after a signal that all ranks know of.

    Raises:
        Interrupted: after Ctrl-C, saying what to do to go on.
        Terminated: a SystemExit, after SIGTERM, with the status that a shell gives such an end;
            rank 0 prints what to do to the error stream.
    """
    if by is signal.SIGTERM:
        if rank == 0:
            print(f"minidl: {what_to_do}", file=sys.stderr, flush=True)
        raise Terminated(128 + by)
    raise Interrupted(what_to_do)
