"""Softmax, its logarithm, and the cross-entropies that losses are made of."""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.kernels import softmax as kernels
from minidl.ops.operands import floating
from minidl.tensor import Tensor, TensorLike, record


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis: positive numbers that add up to one."""
    x = floating(x)
    out = kernels.softmax(x.data, axis)
    return record(out, (x, lambda g: kernels.softmax_gradient(out, g, axis)))


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """The logarithm of softmax, exact where softmax itself would round to 0."""
    x = floating(x)
    out = kernels.log_softmax(x.data, axis)
    return record(out, (x, lambda g: kernels.log_softmax_gradient(out, g, axis)))


def softmax_cross_entropy(
    logits: Tensor, labels: Array, smoothing: float = 0.0, mean: bool = False
) -> Tensor:
    """Cross-entropy of softmax(logits) against labels, row by row or as the mean of all rows.

    Args:
        logits: (N, C).
        labels: class numbers (N,) from 0 to C - 1, or probabilities (N, C).
        smoothing: share of each target that is spread evenly over the classes.
        mean: whether to take the mean.

    Returns:
        (N,), or a single number. Its gradient is softmax(logits) less the targets, with no division
        by a probability anywhere.
    """
    log_probabilities = kernels.log_softmax(logits.data, 1)
    losses = kernels.cross_entropy(log_probabilities, labels, smoothing)
    count = len(losses)

    def rule(g: Array) -> Array:
        d = g / count if mean else g
        return kernels.cross_entropy_gradient(log_probabilities, labels, smoothing, d)

    return record(losses.sum() / count if mean else losses, (logits, rule))


def cross_entropy_of_probabilities(
    probabilities: Tensor, labels: Array, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of probabilities, such as the output of softmax, against labels, row by row.

    Shapes as in `softmax_cross_entropy`. A probability of 0 counts as 1e-31 in float32, 1e-292 in
    float64, so that loss and gradient stay finite and can be scaled.
    """
    xp = array_module(probabilities.data)
    info = xp.finfo(probabilities.dtype)
    safe = xp.maximum(probabilities.data, float(info.tiny) / float(info.eps))

    def rule(g: Array) -> Array:
        gradient = -kernels.targets(labels, safe, smoothing) / safe
        gradient *= g[:, None]
        return gradient

    return record(kernels.cross_entropy(xp.log(safe), labels, smoothing), (probabilities, rule))


def binary_cross_entropy_of_probabilities(probabilities: Tensor, labels: Array) -> Tensor:
    """Cross-entropy of probabilities against labels 0 to 1, element by element; same shape.

    A probability nearer to 0 or 1 than float32 or float64 tells apart from 1 counts as that near,
    so that loss and gradient stay finite.
    """
    xp = array_module(probabilities.data)
    eps = float(xp.finfo(probabilities.dtype).eps)
    safe = xp.clip(probabilities.data, eps, 1 - eps)
    value = -(labels * xp.log(safe) + (1 - labels) * xp.log1p(-safe))
    return record(value, (probabilities, lambda g: g * (safe - labels) / (safe * (1 - safe))))


def sigmoid_cross_entropy(logits: Tensor, labels: Array) -> Tensor:
    """Cross-entropy of sigmoid(logits) against labels 0 to 1, element by element; same shape.

    Computed as max(x, 0) - x * y + log(1 + exp(-|x|)), in which nothing overflows.
    """
    x = logits.data
    xp = array_module(x)
    value = xp.maximum(x, 0) - x * labels + xp.log1p(xp.exp(-xp.abs(x)))
    return record(value, (logits, lambda g: g * (kernels.sigmoid(x) - labels)))
