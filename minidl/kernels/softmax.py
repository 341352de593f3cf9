"""Sigmoid, softmax and its logarithm, and the cross-entropy of softmax against class labels.

No exponential overflows: softmax does not change when a constant is added to all its inputs, so
the largest is subtracted first, and sigmoid takes the exponential of negative numbers only.
"""

from __future__ import annotations

import numpy as np

from minidl.backend import CPU, Array, array_module, of


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) for each element; same shape."""
    xp = array_module(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, small) / (1 + small)


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum(exp(x)) along an axis; same shape."""
    out = x - x.max(axis=axis, keepdims=True)
    array_module(x).exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)
    return out


def softmax_gradient(out: Array, d: Array, axis: int) -> Array:
    """Gradient of `softmax` with respect to its input, from its output and the gradient there."""
    gradient = d * out
    gradient -= out * gradient.sum(axis=axis, keepdims=True)
    return gradient


def log_softmax(x: Array, axis: int) -> Array:
    """x - log(sum(exp(x))) along an axis; same shape."""
    xp = array_module(x)
    out = x - x.max(axis=axis, keepdims=True)
    out -= xp.log(xp.exp(out).sum(axis=axis, keepdims=True))
    return out


def log_softmax_gradient(out: Array, d: Array, axis: int) -> Array:
    """Gradient of `log_softmax`, as `softmax_gradient`."""
    return d - array_module(out).exp(out) * d.sum(axis=axis, keepdims=True)


def logsumexp(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """log(sum(exp(x))) over the axes, which stay with length 1, as a sum of two terms.

    The first is the largest of x, or 0 where that is infinite; the second is never below 0, but
    -inf where all of x is -inf, and inf where one of x is inf. Added up, they would lose what a
    large first term rounds away.
    """
    xp = array_module(x)
    largest = x.max(axis=axes, keepdims=True)
    shift = xp.where(xp.isfinite(largest), largest, 0).astype(x.dtype)
    with np.errstate(divide="ignore"):  # log(0) is the answer where every x is -inf
        return shift, xp.log(xp.exp(x - shift).sum(axis=axes, keepdims=True))


def logsumexp_gradient(x: Array, shift: Array, rest: Array, d: Array) -> Array:
    """Gradient of `logsumexp`, from its input, its two terms and the gradient there."""
    xp = array_module(x)
    rest = xp.where(rest == -xp.inf, 0, rest)  # rows of -inf alone: no slope, not nan
    return d * xp.exp(x - shift - rest)


def pick(rows: Array, labels: Array) -> Array:
    """The element of each row that its label names: (N, C) and integers (N,) to (N,)."""
    return rows[array_module(rows).arange(len(rows)), labels]


def cross_entropy(log_probabilities: Array, labels: Array, smoothing: float) -> Array:
    """Cross-entropy of each row against its label: (N, C) to (N,).

    Args:
        log_probabilities: (N, C).
        labels: class numbers (N,), integers from 0 to C - 1, or probabilities (N, C).
        smoothing: the share of each target that is spread evenly over all classes [1].

    On a GPU the loss is nan where a label is no class number; on the CPU there must be none.

    [1] C. Szegedy et al.: Rethinking the Inception architecture for computer vision, 2016, ch. 7.
    """
    if labels.ndim == 1:
        loss = -pick(log_probabilities, labels)
        backend = of(loss)
        if backend is not CPU:  # which takes any number for one of the classes
            legal = labels.view(f"u{labels.itemsize}") < log_probabilities.shape[1]
            loss = backend.xp.where(legal, loss, backend.xp.nan)
    else:
        loss = -(labels * log_probabilities).sum(axis=1)
    if smoothing:
        loss *= 1 - smoothing
        loss -= smoothing * log_probabilities.mean(axis=1)
    return loss


def cross_entropy_gradient(
    log_probabilities: Array, labels: Array, smoothing: float, d: Array
) -> Array:
    """Gradient of `cross_entropy` with respect to what softmax was taken of: (N, C).

    It is softmax less the targets, times d, with no division anywhere. d is (N,), or one number for
    all rows.
    """
    xp = array_module(log_probabilities)
    gradient = xp.exp(log_probabilities)
    if labels.ndim == 1 and not smoothing:
        gradient[xp.arange(len(gradient)), labels] -= 1
    else:
        target = targets(labels, log_probabilities, smoothing)
        gradient *= target.sum(axis=1, keepdims=True)
        gradient -= target
    gradient *= d[:, None] if d.ndim else d
    return gradient


def targets(labels: Array, like: Array, smoothing: float) -> Array:
    """Labels as the probabilities (N, C) that they stand for, in the dtype of `like`."""
    xp = array_module(like)
    if labels.ndim == 1:
        out = xp.zeros(like.shape, dtype=like.dtype)
        out[xp.arange(len(out)), labels] = 1
    else:
        out = labels.astype(like.dtype)
    if smoothing:
        out *= 1 - smoothing
        out += smoothing / like.shape[1]
    return out
