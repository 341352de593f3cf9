"""Softmax and its logarithm, and the cross-entropy of both against class labels.

Everything subtracts the largest value first, so that no exponential overflows: softmax does not
change when a constant is added to all its inputs.
"""

from __future__ import annotations

import numpy as np

from minidl.backend import Array, module


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum(exp(x)) along an axis; same shape."""
    out: Array = x - x.max(axis=axis, keepdims=True)
    module(x).exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)
    return out


def softmax_gradient(out: Array, d: Array, axis: int) -> Array:
    """Gradient of `softmax` with respect to its input, from its output and that's gradient."""
    gradient: Array = d * out
    gradient -= out * gradient.sum(axis=axis, keepdims=True)
    return gradient


def log_softmax(x: Array, axis: int) -> Array:
    """x - log(sum(exp(x))) along an axis; same shape."""
    xp = module(x)
    out: Array = x - x.max(axis=axis, keepdims=True)
    out -= xp.log(xp.exp(out).sum(axis=axis, keepdims=True))
    return out


def log_softmax_gradient(out: Array, d: Array, axis: int) -> Array:
    """Gradient of `log_softmax` with respect to its input, from its output and that's gradient."""
    return d - module(out).exp(out) * d.sum(axis=axis, keepdims=True)


def logsumexp(x: Array, axes: tuple[int, ...]) -> Array:
    """log(sum(exp(x))) over the axes, which stay with length 1.

    It is -inf where all of x is -inf, and inf where one of x is inf.
    """
    xp = module(x)
    largest = x.max(axis=axes, keepdims=True)
    shift = xp.where(xp.isfinite(largest), largest, 0).astype(x.dtype)
    with np.errstate(divide="ignore"):  # log(0) is the answer where every x is -inf
        return xp.log(xp.exp(x - shift).sum(axis=axes, keepdims=True)) + shift


def pick(rows: Array, labels: Array) -> Array:
    """The element of each row that its label names: (N, C) and integers (N,) to (N,)."""
    return rows[module(rows).arange(len(rows)), labels]


def cross_entropy(log_probabilities: Array, labels: Array, smoothing: float) -> Array:
    """Cross-entropy of each row against its label: (N, C) to (N,).

    Args:
        log_probabilities: (N, C).
        labels: class numbers (N,), integers from 0 to C - 1, or probabilities (N, C).
        smoothing: the share of each target that is spread evenly over all classes [1].

    [1] C. Szegedy et al.: Rethinking the Inception architecture for computer vision, 2016, ch. 7.
    """
    if labels.ndim == 1:
        loss: Array = -pick(log_probabilities, labels)
    else:
        loss = -(labels * log_probabilities).sum(axis=1)
    if smoothing:
        loss *= 1 - smoothing
        loss -= smoothing * log_probabilities.mean(axis=1)
    return loss


def targets(labels: Array, like: Array, smoothing: float) -> Array:
    """Labels as the probabilities (N, C) that they stand for, in the dtype of `like`."""
    xp = module(like)
    if labels.ndim == 1:
        out: Array = xp.zeros(like.shape, dtype=like.dtype)
        out[xp.arange(len(out)), labels] = 1
    else:
        out = labels.astype(like.dtype)
    if smoothing:
        out *= 1 - smoothing
        out += smoothing / like.shape[1]
    return out
