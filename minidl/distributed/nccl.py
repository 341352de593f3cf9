"""The GPUs of the ranks, one each, which exchange arrays among themselves: NCCL, through CuPy.

The hosts meet through MPI, and tell each other what NCCL needs to begin. From then on arrays go
from card to card, and no host waits for them.
"""

from __future__ import annotations

import json
import platform
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array, DeviceError
from minidl.distributed.communicator import OnAllRanks, World

INSTALL_NCCL = "pip install nvidia-nccl-cu12 (or nvidia-nccl-cu13)"

ID_BYTES = 128  # NCCL_UNIQUE_ID_BYTES


class RanksCannotMeetError(OnAllRanks, DeviceError):
    """The GPUs of a world cannot exchange arrays."""


class NcclCommunicator:
    """What the GPUs of all ranks exchange, each array in place.

    Calls put work into CuPy's current stream and return; what is computed there afterwards finds
    the result.

    Args:
        world: whose ranks all make theirs at the same point, and which carries arrays of the host.
        xp: CuPy. Its current device is the card of this rank.

    Raises:
        RanksCannotMeetError: on every rank, if one finds no NCCL, or two have one card.
    """

    def __init__(self, world: World, xp: Any) -> None:
        nccl = backend.import_nccl()
        check_ranks(world, nccl.available, xp.cuda.Device().pci_bus_id)
        identifier = np.zeros(ID_BYTES, np.uint8)
        if world.rank == 0:
            identifier[...] = np.frombuffer(nccl.get_unique_id(), np.uint8)
        world.broadcast(identifier)
        self._xp = xp
        self._nccl = nccl
        self._all = nccl.NcclCommunicator(world.size, identifier.tobytes(), world.rank)

    def allreduce(self, array: Array) -> None:
        """See `World`. Raises TypeError unless the array is of float32 or float64."""
        kinds = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}
        if array.dtype.name not in kinds:
            raise TypeError(
                "expected an array of float32 or float64 to be summed over the GPUs of all ranks, "
                f"got {array.dtype}"
            )
        place, kind = address(array), kinds[array.dtype.name]
        self._all.allReduce(place, place, array.size, kind, self._nccl.NCCL_SUM, self._stream)

    def broadcast(self, array: Array) -> None:
        """See `World`. The array may be of any dtype: it travels as bytes."""
        self._all.bcast(address(array), array.nbytes, self._nccl.NCCL_INT8, 0, self._stream)

    @property
    def _stream(self) -> int:
        return self._xp.cuda.get_current_stream().ptr


def check_ranks(world: World, available: bool, card: str) -> None:
    """Raise RanksCannotMeetError, on every rank, if one has no NCCL, or two have one card.

    Args:
        world: whose ranks call this together.
        available: whether this rank has NCCL.
        card: this rank's, by its place on the machine's PCI bus.
    """
    own = json.dumps([available, platform.node(), card])
    said = [json.loads(text) for text in world.allgather(own)]
    cards = [(node, card) for _, node, card in said]
    for rank, (found, node, card) in enumerate(said):
        if not found:
            raise RanksCannotMeetError(
                f"rank {rank}, on {node}, finds no NCCL, by which GPUs exchange gradients: "
                f"{INSTALL_NCCL}"
            )
        if (first := cards.index((node, card))) < rank:
            raise RanksCannotMeetError(
                f"ranks {first} and {rank} have the same GPU, {card} of {node}, and NCCL wants one "
                "for each rank: start as many ranks on a machine as it has GPUs, and call "
                "minidl.world() before anything asks for a GPU"
            )


def address(array: Any) -> int:
    """Where an array begins on its device. Raises ValueError if it is not contiguous."""
    if not array.flags.c_contiguous:
        raise ValueError(f"expected a contiguous array, got one of strides {array.strides}")
    return array.data.ptr
