"""What the processes of a run have to say to each other, whichever engine carries it.

A run of several processes is a world, and each of them a rank, counted from 0. All ranks go through
the same program, and call the same of these methods in the same order; one that does not leaves the
others waiting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from minidl.backend import Array


class OnAllRanks:
    """Marks an error that all ranks raise at the same point, so that none waits for another."""


class RanksDifferError(OnAllRanks, ValueError):
    """The ranks of a world were not given the same model, data or settings."""


class World(ABC):
    """The processes that train together.

    Attributes:
        rank: the number of this process, from 0 to size - 1.
        size: how many there are.
    """

    rank: int
    size: int

    @abstractmethod
    def allreduce(self, array: Array) -> None:
        """Replace an array by the sum of those of all ranks; the same bits on each of them.

        Args:
            array: of numbers, contiguous; of one shape and dtype on all ranks. It is on the host of
                all, or on the GPU of each, of float32 or float64. For one on a GPU the host does
                not wait.

        Raises:
            DeviceError: on every rank, at the first array on a GPU, if NCCL is missing or two ranks
                have the same GPU.
        """

    @abstractmethod
    def broadcast(self, array: Array) -> None:
        """Replace an array by that of rank 0; as `allreduce`, but of any dtype."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until all ranks are here.

        Where one does something first, such as fetching data that others then find, it also keeps
        them from waiting for ever if that one has ended: the run is aborted.
        """

    @abstractmethod
    def abort(self, message: str) -> NoReturn:
        """End all ranks at once, whatever they are at, and say why on the error stream."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks go through, in which an error of one ends all.

        An error that is marked with `OnAllRanks` is raised as usual.
        """
        yield

    def allgather(self, text: str) -> list[str]:
        """What each rank says, in the order of their numbers."""
        own = np.frombuffer(text.encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(own)
        self.allreduce(lengths)
        said = np.zeros((self.size, lengths.max()), np.uint8)
        said[self.rank, : len(own)] = own
        self.allreduce(said)
        return [line[:n].tobytes().decode() for line, n in zip(said, lengths, strict=True)]


class Alone(World):
    """A world of one process, where nothing needs to be told."""

    rank = 0
    size = 1

    def allreduce(self, array: Array) -> None:
        """Nothing: a sum of one."""

    def broadcast(self, array: Array) -> None:
        """Nothing: rank 0 is here."""

    def barrier(self) -> None:
        """Nothing: all are here."""

    def abort(self, message: str) -> NoReturn:
        """End the program."""
        raise SystemExit(f"minidl: {message}")
