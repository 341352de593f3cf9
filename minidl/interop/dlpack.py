"""Tensors from the arrays of other libraries, in the same memory.

DLPack is how array libraries tell each other where an array lies: the device, the address, the
shape, the strides and the dtype. `Tensor` speaks it too, so that the other way is the
`from_dlpack` of the other library.
"""

from __future__ import annotations

from typing import Any

from minidl import backend
from minidl.backend import DeviceError
from minidl.tensor import Tensor

# Devices by their numbers in dlpack.h, as those of minidl that can use their memory as it is: plain
# and pinned memory of the host, memory of the GPU and such as it shares with the host.
DEVICES = {1: "cpu", 3: "cpu", 2: "gpu", 13: "gpu"}


def from_dlpack(x: Any) -> Tensor:
    """The array of another library as a tensor that shares its memory.

    What is written to one is seen in the other. For the way back, give the tensor to the other
    library: `torch.from_dlpack(tensor)`. Gradients flow neither way.

    Args:
        x: an array that speaks DLPack: of NumPy or CuPy, or a tensor of PyTorch, JAX or TensorFlow.
            On the CPU or on an NVIDIA GPU; of booleans, integers, float32 or float64.

    Returns:
        A tensor that requires no gradient. It is read-only if x is, and also if the library of x is
        too old to say so.

    Raises:
        TypeError: if x does not speak DLPack or is of another dtype.
        DeviceError: if x is on another device, or on a GPU that CuPy cannot use.
        BufferError: if the library of x does not hand it over; a tensor of PyTorch that requires a
            gradient must be detached first.
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError(
            "from_dlpack expects an array of NumPy, CuPy, PyTorch or another library that speaks "
            f"DLPack, got {type(x).__name__}; Tensor() takes numbers and lists"
        )
    number, _ = x.__dlpack_device__()
    if number not in DEVICES:
        raise DeviceError(
            f"from_dlpack expects an array on the CPU or an NVIDIA GPU, got one on DLPack's device "
            f"{int(number)}; move it to the CPU first"
        )
    there = backend.named(DEVICES[number])
    try:
        array = there.xp.from_dlpack(x)
    except RuntimeError as error:
        if there is not backend.CPU:
            raise
        # What NumPy raises for a dtype that it does not have.
        raise TypeError(
            "from_dlpack expects booleans, integers, float32 or float64, got a "
            f"{type(x).__name__} that NumPy refuses ({error}); convert it first"
        ) from error
    return Tensor(array)
