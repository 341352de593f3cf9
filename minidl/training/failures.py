"""A device that runs out of memory or stops working: one clear error, and memory let go."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from minidl import backend
from minidl.backend import DeviceError
from minidl.kernels import memory

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

P = ParamSpec("P")
T = TypeVar("T")


def explains_failures(
    method: Callable[Concatenate[Trainer, P], T],
) -> Callable[Concatenate[Trainer, P], T]:
    """A method of a trainer that says what to do when its device fails.

    An error keeps alive what the functions that it passed through had in their variables: batches,
    graphs and gradients. These are let go, so that a user who catches the error has the memory.

    Raises:
        MemoryError: in place of one, or of what a device says when its memory is used up.
        DeviceError: in place of what a device says that does not work any more.
    """

    @wraps(method)
    def explained(trainer: Trainer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(trainer, *args, **kwargs)
        except Exception as error:
            here = backend.of(trainer.optimizer.params[0].data)
            full = here.is_out_of_memory(error)
            if not full and not here.has_failed(error):
                raise
            traceback.clear_frames(error.__traceback__)
            trainer.optimizer.zero_grad()
            memory.give_back()
            if full:
                raise MemoryError(
                    f"{method.__name__} has run out of memory on device {here.device!r}; use a "
                    f"smaller batch_size, or a smaller model ({error})"
                ) from error
            raise DeviceError(
                f"device {here.device!r} has failed, and what it held, the weights too, is likely "
                f"to be lost; start a new process and load the last checkpoint there ({error})"
            ) from error

    return explained
