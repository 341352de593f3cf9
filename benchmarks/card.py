"""The GPU that is measured on: what it is, and the time and memory that work on it takes.

CUDA notes on the device itself when it comes by an event, so that the time between two of them is
that of the work, and of the gaps in which the device waits for the host.
"""

from __future__ import annotations

import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from options import PROGRAM

import minidl

try:
    minidl.find_device("gpu")
except minidl.DeviceError as error:
    sys.exit(f"{PROGRAM} measures on a GPU; {error}")
import cupy

STEPS_FOR_MEMORY = 3
DRIVER = Path("/proc/driver/nvidia/version")


class Library(ABC):
    """What allots memory on the device, and records events there."""

    @abstractmethod
    def event(self) -> Any:
        """An event that knows the time."""

    @abstractmethod
    def milliseconds_between(self, start: Any, end: Any) -> float:
        """The time between two events that have come by."""

    @abstractmethod
    def give_back_memory(self) -> None:
        """Return all memory that no array uses to the device, and forget how much there was."""

    @abstractmethod
    def most_memory(self) -> int:
        """The most bytes that were taken from the device since then."""

    def milliseconds(self, work: Callable[[], Any], seconds: float) -> float:
        """The time of one run of some work, as the mean of as many as take so many seconds."""
        work()  # which compiles kernels, if it is the first
        runs = 1
        while True:
            start, end = self.event(), self.event()
            start.record()
            for _ in range(runs):
                work()
            end.record()
            end.synchronize()
            spent = self.milliseconds_between(start, end)
            if spent >= 1000 * seconds:
                return spent / runs
            runs *= 2  # the shorter rows warm up

    def peak(self, make: Callable[[], Callable[[], Any]]) -> int:
        """The most bytes for arrays that are taken from the device to make some work and to run it.

        What cuBLAS and the CUDA context themselves take is not in it, as far as the library's own
        account leaves it out: CuPy's does, PyTorch's counts the memory it lends to cuBLAS.
        """
        gc.collect()
        self.give_back_memory()
        work = make()
        for _ in range(STEPS_FOR_MEMORY):
            work()
        peak = self.most_memory()
        del work
        gc.collect()
        self.give_back_memory()
        return peak


class Cupy(Library):
    """What minidl computes with."""

    def event(self) -> Any:
        """See `Library`."""
        return cupy.cuda.Event()

    def milliseconds_between(self, start: Any, end: Any) -> float:
        """See `Library`."""
        return float(cupy.cuda.get_elapsed_time(start, end))

    def give_back_memory(self) -> None:
        """See `Library`."""
        cupy.get_default_memory_pool().free_all_blocks()

    def most_memory(self) -> int:
        """See `Library`. CuPy's pool keeps what it has once taken."""
        return int(cupy.get_default_memory_pool().total_bytes())


def describe() -> dict[str, Any]:
    """The card and the versions of what computes on it, for a results file."""
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "card": properties["name"].decode(),
        "memory, GB": properties["totalGlobalMem"] / 1e9,
        "driver": DRIVER.read_text().splitlines()[0] if DRIVER.exists() else "unknown",
        "CUDA of the driver": runtime.driverGetVersion(),
        "CUDA": runtime.runtimeGetVersion(),
        "CuPy": cupy.__version__,
    }
