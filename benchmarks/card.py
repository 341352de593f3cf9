"""The GPU that is measured on: what it is, and the time and memory that work on it takes.

CUDA notes on the device itself when it comes by an event, so that the time between two of them is
that of the work, and of the gaps in which the device waits for the host.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from options import PROGRAM, PYTORCH_MISSING

import minidl

try:
    import torch
except ModuleNotFoundError:
    sys.exit(PYTORCH_MISSING)
try:
    minidl.find_device("gpu")
except minidl.DeviceError as error:
    sys.exit(f"{PROGRAM} measures on a GPU; {error}")
import cupy

if not torch.cuda.is_available():
    sys.exit(
        f"{PROGRAM} compares with PyTorch on the GPU, but PyTorch {torch.__version__} finds none"
    )

# Here products are of float32 as it is, while PyTorch rounds it to fewer bits in convolutions.
torch.backends.cudnn.allow_tf32 = False

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
        """The most bytes that are taken from the device to make some work and to run it."""
        self.give_back_memory()
        work = make()
        for _ in range(STEPS_FOR_MEMORY):
            work()
        peak = self.most_memory()
        del work
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


class Torch(Library):
    """PyTorch."""

    def event(self) -> Any:
        """See `Library`."""
        return torch.cuda.Event(enable_timing=True)

    def milliseconds_between(self, start: Any, end: Any) -> float:
        """See `Library`."""
        return float(start.elapsed_time(end))

    def give_back_memory(self) -> None:
        """See `Library`."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def most_memory(self) -> int:
        """See `Library`."""
        return int(torch.cuda.max_memory_reserved())


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
        "PyTorch": torch.__version__,
    }
