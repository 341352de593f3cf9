"""Operations that move elements without computing with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array, array_module
from minidl.ops.operands import tensor
from minidl.tensor import Tensor, TensorLike, record


def reshape(x: TensorLike, *shape: int | Sequence[int]) -> Tensor:
    """The same elements in another shape, one length of which may be -1 for what remains."""
    x = tensor(x)
    before = x.shape
    return record(
        x.data.reshape(*shape),  # type: ignore[arg-type]
        (x, lambda g: g.reshape(before)),
    )


def flatten(x: TensorLike) -> Tensor:
    """All axes but the first made into one: (N, ...) to (N, product of the rest)."""
    x = tensor(x)
    if x.ndim < 1:
        raise ValueError("flatten() needs a batch axis, got a single number")
    return reshape(x, len(x), math.prod(x.shape[1:]))


def transpose(x: TensorLike, *axes: int | Sequence[int]) -> Tensor:
    """The axes in another order; reversed if none is given."""
    x = tensor(x)
    order = axes[0] if len(axes) == 1 and isinstance(axes[0], Sequence) else axes
    if not order:
        return record(x.data.transpose(), (x, lambda g: g.transpose()))
    out = x.data.transpose(*order)
    numbers = [int(a) % x.ndim for a in order]  # type: ignore[arg-type]
    back = [numbers.index(a) for a in range(x.ndim)]
    return record(out, (x, lambda g: g.transpose(back)))


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with integers, slices, integer arrays and boolean arrays, as in NumPy.

    Elements that are taken several times add up their gradients.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(part.data if isinstance(part, Tensor) else part for part in parts)
    shape = x.shape
    repeats = any(_may_repeat(part) for part in parts)

    def rule(g: Array) -> Array:
        xp = array_module(g)
        gradient = xp.zeros(shape, dtype=g.dtype)
        if repeats:
            xp.add.at(gradient, parts, g)
        else:
            gradient[parts] = g
        return gradient

    return record(x.data[parts], (x, rule))


def _may_repeat(part: Any) -> bool:
    """Whether one part of an index can name an element twice: arrays of integers can."""
    if part is None or part is Ellipsis or isinstance(part, (int, slice)):
        return False
    return getattr(part, "dtype", np.dtype(object)).kind != "b"


def pad(x: TensorLike, widths: int | Sequence[Any], value: float = 0.0) -> Tensor:
    """A border of `value` around x.

    Args:
        x: any shape.
        widths: as in `numpy.pad`: one number for all sides, (before, after) for all axes, or a pair
            for each axis.
        value: what to write there.
    """
    x = tensor(x)
    out = array_module(x.data).pad(x.data, widths, mode="constant", constant_values=value)
    before = _before(widths, x.ndim)
    inner = tuple(slice(b, b + n) for b, n in zip(before, x.shape, strict=True))
    return record(out, (x, lambda g: g[inner]))


def _before(widths: int | Sequence[Any], rank: int) -> list[int]:
    """How many elements `pad` puts before each axis."""
    return np.broadcast_to(np.asarray(widths), (rank, 2))[:, 0].tolist()


def concatenate(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Join along an axis that they have; all other axes must agree."""
    parts = _together(tensors, "concatenate")
    value = array_module(parts[0].data).concatenate([part.data for part in parts], axis=axis)
    edges = []
    start = 0
    for part in parts:
        where = [slice(None)] * part.ndim
        where[axis] = slice(start, start + part.shape[axis])
        start += part.shape[axis]
        edges.append((part, lambda g, where=tuple(where): g[where]))
    return record(value, *edges)


def stack(tensors: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Join along a new axis; all must have one shape."""
    parts = _together(tensors, "stack")
    xp = array_module(parts[0].data)
    value = xp.stack([part.data for part in parts], axis=axis)
    return record(
        value,
        *((part, lambda g, i=i: xp.take(g, i, axis=axis)) for i, part in enumerate(parts)),
    )


def _together(tensors: Sequence[TensorLike], name: str) -> list[Tensor]:
    """The arguments as tensors of one device."""
    first = next((t for t in tensors if isinstance(t, Tensor)), None)
    parts = [tensor(t, beside=first) for t in tensors]
    if not parts:
        raise ValueError(f"{name}() needs at least one tensor")
    backend.shared_by(*(part.data for part in parts))
    given = [isinstance(t, Tensor) and t.dtype.kind == "f" for t in tensors]
    if any(given):  # what stands beside floating tensors takes on their dtype
        dtype = np.result_type(*(p.dtype for p, g in zip(parts, given, strict=True) if g))
        parts = [
            p if g else Tensor(p.data.astype(dtype)) for p, g in zip(parts, given, strict=True)
        ]
    return parts
