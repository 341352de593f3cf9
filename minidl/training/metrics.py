"""How good outputs are, in numbers that people read rather than minimise."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array, array_module
from minidl.layers.module import positive
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
    scores, truth = _scores_and_classes(outputs, labels, "accuracy")
    return Tensor((scores.argmax(axis=1) == truth).mean(dtype=scores.dtype))


def top_k_accuracy(outputs: TensorLike, labels: Any, k: int = 5) -> Tensor:
    """The share of samples whose label is among the k classes with the largest outputs.

    Of equal outputs, that of the lower class number ranks first, so that k=1 is `accuracy`. An
    output of nan is never among the largest. As a metric of a Trainer:
    `metrics={"top_3": functools.partial(top_k_accuracy, k=3)}`.

    Args:
        outputs: (N, C), before or after softmax.
        labels: as for `accuracy`.
        k: from 1 to C.

    Returns:
        A single number from 0 to 1, in the dtype of the outputs.

    Raises:
        ValueError, TypeError: as `accuracy`, and for a k that is out of range.
    """
    scores, truth = _scores_and_classes(outputs, labels, "top_k_accuracy")
    count, classes = scores.shape
    if positive(k, "k") > classes:
        raise ValueError(f"k must be at most the number of classes, {classes}, got {k}")
    xp = array_module(scores)
    own = scores[xp.arange(count), truth][:, None]
    no_earlier = xp.arange(classes) >= truth[:, None]
    behind = (scores < own) | ((scores == own) & no_earlier)  # the label's own class among them
    return Tensor((behind.sum(axis=1) > classes - k).mean(dtype=scores.dtype))


def confusion_matrix(outputs: TensorLike, labels: Any) -> Array:
    """How many samples of each class were taken for each class.

    Args:
        outputs: (N, C), before or after softmax; the largest is the prediction. Class numbers (N,)
            are refused, for they do not say how many classes there are.
        labels: as for `accuracy`.

    Returns:
        Counts as a NumPy array of integers (C, C): a row for each true class, a column for each
        predicted one.

    Raises:
        ValueError, TypeError: as `accuracy`.
    """
    scores, truth = _scores_and_classes(outputs, labels, "confusion_matrix")
    classes = scores.shape[1]
    cells = truth.astype(np.int64) * classes + scores.argmax(axis=1)
    counts = np.bincount(backend.on_host(cells), minlength=classes * classes)
    return counts.reshape(classes, classes)


def per_class_accuracy(outputs: TensorLike, labels: Any) -> Array:
    """The accuracy over the samples of each class by itself, also known as recall.

    Args:
        outputs: (N, C), before or after softmax.
        labels: as for `accuracy`.

    Returns:
        A NumPy array of float64 (C,); nan for a class that no sample belongs to.

    Raises:
        ValueError, TypeError: as `accuracy`.
    """
    scores, truth = _scores_and_classes(outputs, labels, "per_class_accuracy")
    matrix = confusion_matrix(scores, truth)
    with np.errstate(invalid="ignore"):  # no sample: 0 / 0
        return matrix.diagonal() / matrix.sum(axis=1)


def classes_of(labels: Any, outputs: Tensor) -> Array:
    """The class numbers (N,) of labels in either form; of probabilities, the largest counts.

    Args:
        labels: as for `accuracy`.
        outputs: (N, C).

    Raises:
        ValueError, TypeError: as `cross_entropy`.
    """
    truth = class_labels(labels, outputs)
    return truth.argmax(axis=1) if truth.ndim == 2 else truth


def _scores_and_classes(outputs: TensorLike, labels: Any, name: str) -> tuple[Array, Array]:
    """Outputs (N, C) and class numbers (N,) as arrays, checked for the metric of this name."""
    outputs = floating(outputs)
    scores = outputs.data
    if scores.ndim != 2 or not len(scores):
        raise ValueError(
            f"{name} expects outputs (N, C) of at least one sample, got shape {scores.shape}"
        )
    return scores, classes_of(labels, outputs)
