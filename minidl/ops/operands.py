"""How the arguments of an operation become arrays of one device and one precision.

A Python number stays a number: it takes on the precision of the array it meets, and needs no memory
on the device. An array or a list beside a floating tensor takes on that tensor's dtype, and so does
an integer tensor. Two floating tensors meet as in NumPy: float32 and float64 give float64.
"""

from __future__ import annotations

import numbers
import operator
from typing import Any

from minidl import backend
from minidl.tensor import DEFAULT_FLOAT, Tensor, TensorLike


def tensor(value: TensorLike, beside: Tensor | None = None) -> Tensor:
    """A tensor as it is; anything else as a tensor without gradient.

    Numbers and lists of them have no device: they go to that of `beside`.
    """
    if isinstance(value, Tensor):
        return value
    made = Tensor(value)
    if beside is not None and isinstance(value, (list, tuple, numbers.Real)):
        made = made.to(beside.device)
    return made


def floating(value: TensorLike) -> Tensor:
    """A tensor of a floating dtype: integers and booleans become float32."""
    x = tensor(value)
    return x if x.data.dtype.kind == "f" else Tensor(x.data.astype(DEFAULT_FLOAT))


def operands(a: TensorLike, b: TensorLike) -> tuple[Any, Any]:
    """Both arguments of a binary operation: tensors on one device, or one a `Number`.

    Raises DeviceError if they are arrays on two devices.
    """
    if isinstance(a, numbers.Real):
        return Number(a), _beside_number(tensor(b), a)
    if isinstance(b, numbers.Real):
        return _beside_number(tensor(a), b), Number(b)
    first = tensor(a, beside=b if isinstance(b, Tensor) else None)
    second = tensor(b, beside=first)
    backend.shared_by(first.data, second.data)
    if first.data.dtype != second.data.dtype:
        if _yields(b, second, first):
            second = Tensor(second.data.astype(first.dtype))
        elif _yields(a, first, second):
            first = Tensor(first.data.astype(second.dtype))
    return first, second


def check_images(x: Tensor) -> None:
    """Raise ValueError unless x is a batch of images (N, H, W, C)."""
    if x.ndim == 3:
        raise ValueError(
            f"expects images (N, H, W, C), got {x.shape}; grey images need a channel axis: "
            "x[..., None]"
        )
    if x.ndim != 4:
        raise ValueError(f"expects images (N, H, W, C), got {x.shape}")


class Number:
    """A Python number in the place of a tensor: a value that never has a gradient.

    It is an int or a float: a NumPy scalar would promote float32 arrays to float64.
    """

    __slots__ = ("data", "requires_grad")

    def __init__(self, value: Any) -> None:
        whole = isinstance(value, numbers.Integral)
        self.data = operator.index(value) if whole else float(value)
        self.requires_grad = False


def _beside_number(x: Tensor, number: Any) -> Tensor:
    """Integers that meet a fraction become float32; all else stays."""
    fraction = not isinstance(number, numbers.Integral)
    return floating(x) if fraction else x


def _yields(given: TensorLike, x: Tensor, other: Tensor) -> bool:
    """Whether x takes on the other's dtype, instead of both being promoted."""
    constant = not isinstance(given, Tensor) or x.data.dtype.kind != "f"
    return constant and other.data.dtype.kind == "f"
