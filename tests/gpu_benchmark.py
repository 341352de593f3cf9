"""A benchmark for GPUs where there is none: python gpu_benchmark.py PROGRAM OPTIONS.

CuPy is the stand-in, PyTorch's device is the processor, and events take the host's time. So the
program is seen to run; its figures mean nothing.
"""

import runpy
import sys
import time
from pathlib import Path

import numpy as np
import stand_in
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


class Event:
    def __init__(self, enable_timing=True):
        assert enable_timing

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1000 * (other.time - self.time)


class RandomGenerator:
    def __init__(self, seed):
        self.host = np.random.default_rng(seed)

    def random(self, shape, dtype):
        return stand_in.ndarray(self.host.random(shape, dtype=dtype))


def on_processor(to):
    """A method `to` of PyTorch for which CUDA's device is the processor."""
    return lambda self, *where, **options: to(
        self, *("cpu" if place == "cuda" else place for place in where), **options
    )


cuda = stand_in.cuda
cuda.Event, cuda.get_elapsed_time, cuda.Device.id = Event, Event.elapsed_time, 0
cuda.runtime.getDeviceProperties = lambda _: {"name": b"stand-in", "totalGlobalMem": 1 << 33}
cuda.runtime.driverGetVersion = cuda.runtime.runtimeGetVersion = lambda: 0
stand_in.pool.free_all_blocks = stand_in.pool.total_bytes = lambda: 0
stand_in.random.default_rng = RandomGenerator
sys.modules |= {"cupy": stand_in, "cupy.cuda": cuda}

torch.cuda.is_available = lambda: True
torch.cuda.Event = Event
torch.cuda.empty_cache = torch.cuda.reset_peak_memory_stats = lambda: None
torch.cuda.max_memory_reserved = lambda: 0
torch.Tensor.to = on_processor(torch.Tensor.to)
torch.nn.Module.to = on_processor(torch.nn.Module.to)

program = BENCHMARKS / sys.argv[1]
sys.argv = [str(program), *sys.argv[2:]]
sys.path.insert(0, str(BENCHMARKS))
runpy.run_path(str(program), run_name="__main__")
