"""Setting samples aside that nothing is learned from."""

from __future__ import annotations

import numpy as np

from minidl import backend
from minidl.backend import Array, Generator, default_generator
from minidl.tensor import Tensor

Samples = tuple[Array, Array]


def train_validation_split(
    x: Array | Tensor,
    y: Array | Tensor,
    fraction: float = 0.1,
    *,
    stratify: bool = True,
    generator: Generator = default_generator,
) -> tuple[Samples, Samples]:
    """Divide a data set at random into one to train on and one to validate with.

    Args:
        x: inputs (N, ...), an array or a tensor.
        y: labels, likewise: class numbers (N,) or (N, 1), or a row for each sample, (N, C), whose
            largest element names the class.
        fraction: the share of the samples to validate with, between 0 and 1.
        stratify: whether each class is divided by that share too, to within one sample.
        generator: where the choice comes from; the one that `seed` seeds by default.

    Returns:
        ((x_train, y_train), (x_validation, y_validation)), in the order of the data set, with
        round(fraction * N) samples in the second.

    Raises:
        ValueError: if x and y differ in number, one of the two parts would be empty, or labels of
            another shape are to be stratified.
    """
    x, y = (data.data if isinstance(data, Tensor) else data for data in (x, y))
    count = len(x)
    if len(y) != count:
        raise ValueError(f"expected as many labels as inputs, got {count} inputs, {len(y)} labels")
    wanted = round(fraction * count) if 0 < fraction < 1 else 0
    if not 0 < wanted < count:
        raise ValueError(
            "fraction must leave samples on both sides, "
            f"got {fraction} of {count} samples to validate with"
        )
    rng = generator.host
    order = rng.permutation(count)
    groups = _by_class(order, _classes(y)) if stratify else [order]
    chosen = np.zeros(count, dtype=bool)
    for group, share in zip(groups, _shares(groups, wanted, rng), strict=True):
        chosen[group[:share]] = True
    return (_take(x, ~chosen), _take(y, ~chosen)), (_take(x, chosen), _take(y, chosen))


def _classes(y: Array) -> Array:
    """The class of each label, as a NumPy array (N,)."""
    labels = backend.on_host(y)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    if labels.size != len(labels):
        raise ValueError(
            f"expected labels (N,), (N, 1) or (N, C) to stratify, got shape {labels.shape}; "
            "or say stratify=False"
        )
    return labels.reshape(-1)


def _by_class(order: Array, classes: Array) -> list[Array]:
    """Samples in some order, class by class."""
    _, numbers, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    sorted_by_class = order[np.argsort(numbers[order], kind="stable")]
    return np.split(sorted_by_class, np.cumsum(sizes)[:-1])


def _shares(groups: list[Array], wanted: int, rng: np.random.Generator) -> Array:
    """How many samples to take of each group, in proportion to its size, so many in all.

    What rounding down leaves goes to those that it took most from, by chance among equals.
    """
    sizes = np.array([len(group) for group in groups])
    taken, left = np.divmod(sizes * wanted, sizes.sum())
    most = np.argsort(rng.random(len(left)) - left)[: wanted - taken.sum()]
    taken[most] += 1
    return taken


def _take(array: Array, chosen: Array) -> Array:
    """The samples that a boolean NumPy array names."""
    return array[backend.of(array).asarray(chosen)]
