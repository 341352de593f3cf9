"""Which library holds an array, how arrays change devices, and where random numbers come from.

The array decides: a NumPy array computes on the CPU, a CuPy array on the GPU, and everything above
this file asks `of(array).xp` for the module to compute with. This is the only file that imports
CuPy, and it does so only when a user asks for a GPU.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# A NumPy array, or a CuPy array, which has the same methods and passes for one in type checks.
Array: TypeAlias = NDArray[Any]

INSTALL_CUPY = 'pip install "cupy-cuda12x[ctk]" (or "cupy-cuda13x[ctk]")'

# What CUDA's runtime and its driver both call this (cudaErrorMemoryAllocation).
CUDA_OUT_OF_MEMORY = 2


class DeviceError(RuntimeError):
    """A device that this machine cannot offer was asked for, or two devices met in an operation."""


class Backend:
    """One array library: its name as a device, its module and the type of its arrays."""

    def __init__(self, device: str, xp: Any) -> None:
        self.device = device
        self.xp = xp
        self.array_type: type = xp.ndarray

    def asarray(self, array: Array) -> Array:
        """Bring an array here from any device; one that is here already is returned as it is."""
        if isinstance(array, self.array_type):
            return array
        return np.asarray(of(array).to_host(array))

    def to_host(self, array: Array) -> Array:
        """The array as a NumPy array, copied only if it lives on another device."""
        return array

    def random_stream(self, seed: np.random.SeedSequence) -> Any:
        """A random generator of this library."""
        return np.random.Generator(np.random.SFC64(seed))

    def random_bits(self, stream: Any, count: int) -> Array:
        """Draw `count` random 16-bit unsigned integers."""
        # Raw words cost a tenth of what random floats cost; dropout needs no more than 16 bits.
        return stream.bit_generator.random_raw(-(-count // 4)).view(np.uint16)[:count]

    def uniform(self, stream: Any, shape: tuple[int, ...]) -> Array:
        """Draw float64 numbers from 0 up to, but not including, 1."""
        return stream.random(shape)

    def free_memory(self) -> float:
        """How many bytes arrays may still take; infinite where nobody knows."""
        return math.inf

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether an error says that the device, or the host, has no memory left."""
        return isinstance(error, MemoryError)

    def has_failed(self, error: Exception) -> bool:  # noqa: ARG002  the processor never has
        """Whether an error says that the device itself does not work any more."""
        return False


class CupyBackend(Backend):
    """The GPU, through CuPy."""

    def asarray(self, array: Array) -> Array:
        """Bring an array here from any device; one that is here already is returned as it is."""
        return self.xp.asarray(array)

    def to_host(self, array: Array) -> Array:
        """A copy of the array as a NumPy array."""
        return self.xp.asnumpy(array)

    def random_stream(self, seed: np.random.SeedSequence) -> Any:
        """A random generator of CuPy."""
        return self.xp.random.Generator(self.xp.random.XORWOW(seed))

    def random_bits(self, stream: Any, count: int) -> Array:
        """Draw `count` random 16-bit unsigned integers."""
        return stream.integers(0, 1 << 16, size=count, dtype=np.uint16)

    def free_memory(self) -> float:
        """How many bytes arrays may still take: what the card has left, and CuPy keeps unused."""
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return free + self.xp.get_default_memory_pool().free_bytes()

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether an error says that the device, or the host, has no memory left."""
        cuda = self.xp.cuda
        if isinstance(error, (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)):
            return error.status == CUDA_OUT_OF_MEMORY
        return super().is_out_of_memory(error)

    def has_failed(self, error: Exception) -> bool:
        """Whether an error says that the device itself does not work any more."""
        cuda = self.xp.cuda
        failures = (
            cuda.runtime.CUDARuntimeError,
            cuda.driver.CUDADriverError,
            cuda.cublas.CUBLASError,
        )
        return isinstance(error, failures)


CPU = Backend("cpu", np)
_by_array_type: dict[type, Backend] = {np.ndarray: CPU}


def _gpu() -> Backend:
    """The GPU's backend, made at the first call. Raises DeviceError where no GPU is usable."""
    for backend in list(_by_array_type.values()):
        if backend.device == "gpu":
            return backend
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise _broken_cupy(error) from error
        raise DeviceError(
            f"device 'gpu' needs CuPy, which is not installed here: {INSTALL_CUPY}."
        ) from error
    except ImportError as error:
        raise _broken_cupy(error) from error
    if not cupy.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        among = f" among CUDA_VISIBLE_DEVICES={visible}" if visible else ""
        raise DeviceError(
            f"device 'gpu': CuPy {cupy.__version__} is installed, but it finds no NVIDIA driver or "
            f"no GPU{among}; install the driver (nvidia-smi must list a card) or use device 'cpu'."
        )
    backend = CupyBackend("gpu", cupy)
    _by_array_type[cupy.ndarray] = backend
    return backend


def _broken_cupy(error: ImportError) -> DeviceError:
    (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
    return DeviceError(
        f"device 'gpu': CuPy is installed, but cannot be imported ({reason}); "
        f"install it again: {INSTALL_CUPY}."
    )


def import_nccl() -> Any:
    """CuPy's module for NCCL, whose `available` is False where the library is missing."""
    from cupy.cuda import nccl

    return nccl


def of(array: Array) -> Backend:
    """The backend whose array this is. Raises TypeError for anything that is not an array."""
    try:
        return _by_array_type[type(array)]
    except KeyError:
        return _of_another_class(array)


def _of_another_class(array: Array) -> Backend:
    """The backend of an array whose class is not one that is known; TypeError if it has none."""
    for array_type, known in list(_by_array_type.items()):  # a subclass, such as numpy.memmap
        if isinstance(array, array_type):
            return known
    if (
        type(array).__module__.partition(".")[0] == "cupy"
    ):  # made by the user, before any .to("gpu")
        return _gpu()
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def on_host(values: Any) -> Array:
    """An array of any device, or anything `numpy.asarray` takes, as a NumPy array."""
    try:
        return of(values).to_host(values)
    except TypeError:
        return np.asarray(values)


def array_module(array: Array) -> Any:
    """The library that computes with this array: NumPy or CuPy. TypeError as `of`."""
    return of(array).xp


def shared_by(*arrays: Array) -> Backend:
    """The one backend that holds all arrays. Raises DeviceError, naming both, if there are two."""
    first = of(arrays[0])
    for array in arrays[1:]:
        if type(array) is not type(arrays[0]) and (other := of(array)) is not first:
            raise DeviceError(
                f"arrays on two devices met: {first.device!r} (shape {arrays[0].shape}) and "
                f"{other.device!r} (shape {array.shape}); move one of them with .to(device)."
            )
    return first


def named(device: str) -> Backend:
    """The backend of a device name; names and errors as in `find_device`."""
    if device == "cpu":
        return CPU
    if device == "gpu":
        return _gpu()
    if device == "auto":
        try:
            return _gpu()
        except DeviceError:
            return CPU
    raise ValueError(f"device must be 'cpu', 'gpu' or 'auto', got {device!r}")


def find_device(device: str = "auto") -> str:
    """The device that a name stands for on this machine: "cpu" or "gpu".

    Args:
        device: "cpu", "gpu", or "auto" for a GPU where one is usable.

    Raises:
        ValueError: if the name is none of the three.
        DeviceError: if "gpu" is asked for and CuPy, the driver or the card is missing.
    """
    return named(device).device


class Generator:
    """A seeded source of random numbers, with a stream for each device.

    Args:
        seed: any non-negative integer, or None for a seed drawn from the operating system.

    Two generators with one seed give the same numbers in the same order on the same device. Drawing
    is safe from several threads.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._make_locks()
        self.seed(seed)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()
        self._replay = threading.RLock()  # replays take turns; draws meanwhile need not wait

    def seed(self, seed: int | None = None) -> None:
        """Start again from a seed. Raises ValueError for a negative one."""
        if seed is not None and seed < 0:
            raise ValueError(f"a seed must be a non-negative integer, got {seed}")
        with self._lock:
            self._sequence = np.random.SeedSequence(seed)
            self._streams: dict[str, Any] = {}

    def on(self, backend: Backend) -> Any:
        """The stream for one device, in that library's own generator type."""
        with self._lock:
            if backend.device not in self._streams:
                self._streams[backend.device] = backend.random_stream(self._sequence)
            return self._streams[backend.device]

    @property
    def host(self) -> np.random.Generator:
        """The NumPy stream: initial weights and the order of batches come from here."""
        stream: np.random.Generator = self.on(CPU)
        return stream

    def random_bits(self, backend: Backend, count: int) -> Array:
        """Draw `count` 16-bit unsigned integers on a device."""
        with self._lock:
            return backend.random_bits(self.on(backend), count)

    def uniform(self, backend: Backend, shape: tuple[int, ...]) -> Array:
        """Draw float64 numbers from 0 up to, but not including, 1 on a device."""
        with self._lock:
            return backend.uniform(self.on(backend), shape)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Draw the same numbers in every such block, and afterwards go on as if it had not been."""
        with self._replay:
            with self._lock:
                before = self._sequence, self._streams
                self._streams = {}
            try:
                yield
            finally:
                with self._lock:
                    self._sequence, self._streams = before

    def state_dict(self) -> dict[str, Any]:
        """Where the generator stands, in numbers and strings that JSON can hold.

        Streams on a GPU are not in it, for CuPy's cannot be asked.
        """
        with self._lock:
            sequence, stream = self._sequence, self._streams.get(CPU.device)
            drawn = None
            if stream is not None:
                drawn = stream.bit_generator.state
                drawn = {**drawn, "state": {"state": drawn["state"]["state"].tolist()}}
            return {
                "entropy": sequence.entropy,
                "spawn_key": list(sequence.spawn_key),
                "n_children_spawned": sequence.n_children_spawned,
                "host": drawn,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another generator stood when its `state_dict` was taken.

        Raises ValueError, and changes nothing, for anything that is no such state.
        """
        try:
            sequence = np.random.SeedSequence(
                state["entropy"],
                spawn_key=tuple(state["spawn_key"]),
                n_children_spawned=state["n_children_spawned"],
            )
            streams = {}
            if state["host"] is not None:
                stream = CPU.random_stream(np.random.SeedSequence(0))
                words = np.array(state["host"]["state"]["state"], dtype=np.uint64)
                stream.bit_generator.state = {**state["host"], "state": {"state": words}}
                streams[CPU.device] = stream
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"expected the state of a Generator: {error}") from error
        with self._lock:
            self._sequence, self._streams = sequence, streams

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: all but the locks."""
        return {"_sequence": self._sequence, "_streams": self._streams}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_locks()


default_generator = Generator()


def seed(n: int) -> None:
    """Seed the default generator, which draws initial weights, dropout masks and batch orders.

    Raises ValueError for a negative seed.
    """
    default_generator.seed(n)
