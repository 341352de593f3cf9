"""How good outputs are, in numbers that people read rather than minimise."""

from __future__ import annotations

from typing import Any

from minidl.losses import class_labels
from minidl.ops.operands import floating
from minidl.tensor import Tensor, TensorLike


def accuracy(outputs: TensorLike, labels: Any) -> Tensor:
    """The share of samples whose largest output is that of their label.

    Args:
        outputs: (N, C), before or after softmax.
        labels: class numbers (N,) or (N, 1), or one row (N, C) of probabilities for each.

    Returns:
        A single number from 0 to 1, in the dtype of the outputs.

    Raises:
        ValueError, TypeError: as `cross_entropy`.
    """
    outputs = floating(outputs)
    scores = outputs.data
    if scores.ndim != 2 or not len(scores):
        raise ValueError(
            f"accuracy expects outputs (N, C) of at least one sample, got shape {scores.shape}"
        )
    truth = class_labels(labels, outputs)
    if truth.ndim == 2:
        truth = truth.argmax(axis=1)
    return Tensor((scores.argmax(axis=1) == truth).mean(dtype=scores.dtype))
