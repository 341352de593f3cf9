"""Losses: how far outputs are from what they should be, as one number to minimise.

Each checks its labels at the door, computes one loss for each sample, and reduces them.
"""

from __future__ import annotations

from typing import Any

from minidl import backend
from minidl.backend import Array
from minidl.ops import probability, reductions
from minidl.ops.elementwise import multiply, subtract
from minidl.ops.operands import floating, tensor
from minidl.tensor import Tensor, TensorLike

# How far above one a probability may lie that was computed in float32.
ROUNDING = 1e-5

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    logits: TensorLike,
    labels: Any,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    from_logits: bool = True,
) -> Tensor:
    """Cross-entropy between predicted classes and labels.

    Args:
        logits: (N, C), the outputs of a model before softmax, of any size; or probabilities, the
            outputs of softmax, with from_logits=False.
        labels: class numbers (N,) or (N, 1), integers from 0 to C - 1; or a probability for each
            class, (N, C), such as one-hot rows.
        reduction: "mean" over the samples, "sum", or "none" for a loss each, (N,).
        label_smoothing: share of each target that is spread evenly over all classes, 0 to 1.
        from_logits: False if the model ends in softmax already.

    Returns:
        A single number, or (N,) with reduction="none".

    Raises:
        ValueError: if shapes do not fit, a label is no class, or an argument is out of range.
        TypeError: if class numbers are not integers.

    On a GPU nobody waits for labels to be looked at: the loss of one that is no class is nan. `fit`
    finds out why.
    """
    logits = floating(logits)
    if logits.ndim != 2:
        raise ValueError(f"cross_entropy expects outputs (N, C), got shape {logits.shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    targets = class_labels(labels, logits)
    if from_logits and reduction == "mean" and len(targets):  # in one go
        return probability.softmax_cross_entropy(logits, targets, label_smoothing, mean=True)
    loss = (
        probability.softmax_cross_entropy
        if from_logits
        else probability.cross_entropy_of_probabilities
    )
    return _reduce(loss(logits, targets, label_smoothing), reduction)


def binary_cross_entropy(
    logits: TensorLike, labels: Any, reduction: str = "mean", from_logits: bool = True
) -> Tensor:
    """Cross-entropy of independent yes-or-no outputs.

    Args:
        logits: any shape, before sigmoid; or probabilities with from_logits=False.
        labels: the same shape, from 0 (no) to 1 (yes).
        reduction: "mean" over all elements, "sum" or "none".
        from_logits: False if the model ends in sigmoid already.

    Returns:
        A single number, or a loss for each element with reduction="none".

    Raises:
        ValueError: if the shapes differ, or a label is not between 0 and 1. On a GPU the loss of
            such a label is nan instead.
    """
    logits = floating(logits)
    targets = _probabilities(_targets(labels, logits, "binary_cross_entropy"), 1.0)
    loss = (
        probability.sigmoid_cross_entropy
        if from_logits
        else probability.binary_cross_entropy_of_probabilities
    )
    return _reduce(loss(logits, targets), reduction)


def mse(outputs: TensorLike, targets: Any, reduction: str = "mean") -> Tensor:
    """Squared difference between outputs and targets.

    Args:
        outputs: any shape.
        targets: the same shape. Nothing is broadcast: (N,) against (N, 1) is a mistake. A tensor
            that requires a gradient gets one.
        reduction: "mean" over all elements, "sum" or "none".

    Returns:
        A single number, or a loss for each element with reduction="none".

    Raises:
        ValueError: if the shapes differ.
    """
    outputs = floating(outputs)
    if isinstance(targets, Tensor) and targets.requires_grad:
        _check_shape(targets.shape, outputs, "mse")
    else:
        targets = _targets(targets, outputs, "mse")
    difference = subtract(outputs, targets)
    return _reduce(multiply(difference, difference), reduction)


def class_labels(labels: Any, outputs: Tensor) -> Array:
    """Labels in one of two forms: class numbers (N,), or probabilities (N, C) in outputs' dtype.

    Args:
        labels: as `cross_entropy` takes them.
        outputs: (N, C).

    Raises:
        ValueError, TypeError: as `cross_entropy`.
    """
    array = _array(labels, outputs)
    here = backend.shared_by(outputs.data, array)
    count, classes = outputs.data.shape
    if not array.ndim or len(array) != count:
        raise ValueError(
            f"expected a label for each of {count} samples, got labels of shape {array.shape}"
        )
    if array.shape == outputs.shape and (classes > 1 or array.dtype.kind == "f"):
        return _probabilities(array.astype(outputs.dtype, copy=False), 1 + ROUNDING)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"expected labels of shape ({count},), ({count}, 1) or {outputs.shape}, "
            f"got {array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"expected class numbers as integers, got {array.dtype}; "
            "convert them with labels.astype(int), or pass one row of probabilities a sample"
        )
    # As unsigned numbers, negative ones are large too, and one pass finds both. On a GPU the kernel
    # makes the loss of others nan.
    if here is backend.CPU and count and array.view(f"u{array.itemsize}").max() >= classes:
        raise ValueError(
            f"expected labels from 0 to {classes - 1} for {classes} classes, "
            f"got labels from {array.min()} to {array.max()}"
        )
    return array


def _probabilities(labels: Array, most: float) -> Array:
    """Labels from 0 to the most that rounding makes of 1.

    Raises ValueError for others, nan among them. On a GPU, where that would wait for the device,
    they become nan instead, and so does the loss.
    """
    if backend.of(labels) is not backend.CPU:
        xp = backend.array_module(labels)
        return xp.where((labels >= 0) & (labels <= most), labels, xp.nan)
    if labels.size and not (labels.min() >= 0 and labels.max() <= most):
        raise ValueError(
            "expected probabilities from 0 to 1 as labels, got numbers from "
            f"{labels.min()} to {labels.max()}"
        )
    return labels


def _targets(targets: Any, outputs: Tensor, name: str) -> Array:
    """Targets as an array of the outputs' dtype. Raises ValueError if the shapes differ."""
    array = _array(targets, outputs)
    backend.shared_by(outputs.data, array)
    _check_shape(array.shape, outputs, name)
    return array.astype(outputs.dtype, copy=False)


def _check_shape(shape: tuple[int, ...], outputs: Tensor, name: str) -> None:
    """Raise ValueError unless targets have the shape of the outputs."""
    if shape != outputs.shape:
        raise ValueError(
            f"{name} expects targets of the outputs' shape {outputs.shape}, got {shape}"
        )


def _array(labels: Any, outputs: Tensor) -> Array:
    """The array of labels of any kind. Raises TypeError if they are to have a gradient."""
    x = tensor(labels, beside=outputs)
    if x.requires_grad:
        raise TypeError("labels have no gradient in this loss; pass labels.detach()")
    return x.data


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    """Take the losses of all samples together. Raises ValueError for an unknown way."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
    if reduction == "none":
        return losses
    if reduction == "mean" and not losses.size:
        raise ValueError("the mean loss needs at least one sample, got an empty batch")
    return reductions.mean(losses) if reduction == "mean" else reductions.sum(losses)
