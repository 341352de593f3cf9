"""Operations that take several elements together along axes: sum, mean, var, max, min, logsumexp.

`axis` is an integer, a tuple of them, or None for all; `keepdims` keeps the axes with length 1.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import Array, array_module
from minidl.kernels import softmax as kernels
from minidl.kernels.elementwise import keep_where
from minidl.ops.operands import floating, tensor
from minidl.tensor import Axis, Tensor, TensorLike, record


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over the axes."""
    x = tensor(x)
    shape, axes = x.shape, _axes(x.ndim, axis)
    return record(
        x.data.sum(axis=axes, keepdims=keepdims),
        (x, lambda g: _spread(g, shape, axes)),
    )


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over the axes; of nothing, it is nan with a warning, as in NumPy."""
    x = floating(x)
    shape, axes = x.shape, _axes(x.ndim, axis)
    count = _count(shape, axes)
    return record(
        x.data.mean(axis=axes, keepdims=keepdims),
        (x, lambda g: _spread(g, shape, axes) / count),
    )


def var(x: TensorLike, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
    """The variance over the axes: squared distances from the mean, over their number less ddof."""
    x = floating(x)
    data, axes = x.data, _axes(x.ndim, axis)
    count = _count(x.shape, axes) - ddof

    def rule(g: Array) -> Array:
        centred = data - data.mean(axis=axes, keepdims=True)
        return _spread(g, data.shape, axes) * centred * 2 / count

    return record(data.var(axis=axes, ddof=ddof, keepdims=keepdims), (x, rule))


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over the axes; equal ones share its gradient evenly."""
    x = tensor(x)
    data, axes = x.data, _axes(x.ndim, axis)
    kept = data.max(axis=axes, keepdims=True)
    value = kept if keepdims else array_module(data).squeeze(kept, axis=axes)
    return record(value, (x, lambda g: _spread_over_equal(g, data, kept, axes)))


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over the axes; equal ones share its gradient evenly."""
    x = tensor(x)
    data, axes = x.data, _axes(x.ndim, axis)
    kept = data.min(axis=axes, keepdims=True)
    value = kept if keepdims else array_module(data).squeeze(kept, axis=axes)
    return record(value, (x, lambda g: _spread_over_equal(g, data, kept, axes)))


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over the axes, computed so that nothing overflows."""
    x = floating(x)
    data, axes = x.data, _axes(x.ndim, axis)
    shift, rest = kernels.logsumexp(data, axes)
    kept = shift + rest
    value = kept if keepdims else array_module(data).squeeze(kept, axis=axes)

    def rule(g: Array) -> Array:
        return kernels.logsumexp_gradient(data, shift, rest, _spread(g, data.shape, axes))

    return record(value, (x, rule))


def _spread_over_equal(g: Array, data: Array, kept: Array, axes: tuple[int, ...]) -> Array:
    """Share the gradient of a reduction among the elements that are equal to its value, `kept`."""
    chosen = data == kept
    count = chosen.sum(axis=axes, keepdims=True, dtype=g.dtype)
    return keep_where(_spread(g, data.shape, axes), chosen) / count


def _axes(rank: int, axis: Axis) -> tuple[int, ...]:
    """The axes as a tuple of numbers from 0."""
    if axis is None:
        return tuple(range(rank))
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    for a in axes:
        if not -rank <= a < rank:
            raise np.exceptions.AxisError(a, rank)
    return tuple(a % rank for a in axes)


def _count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """How many elements are taken together."""
    return math.prod(shape[a] for a in axes)


def _spread(g: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Give every element the gradient of the reduction it went into: a view of the full shape."""
    kept = tuple(1 if a in axes else length for a, length in enumerate(shape))
    return array_module(g).broadcast_to(g.reshape(kept), shape)
