"""Cutting a data set into batches, in order or shuffled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.backend import Array


def batch_count(samples: int, batch_size: int) -> int:
    """How many batches hold all samples, the last of which may be smaller.

    Raises ValueError if batch_size is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return -(-samples // batch_size)


def batch_indices(
    samples: int, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[slice | Array]:
    """The samples of each batch, as what indexes an array: all of them once, the last batch too.

    Args:
        samples: how many there are.
        batch_size: how many make a batch; the last one holds what remains.
        rng: where a random order comes from; the given order if None.

    Raises:
        ValueError: if batch_size is not positive.
    """
    order = None if rng is None else rng.permutation(samples)
    for number in range(batch_count(samples, batch_size)):
        batch = slice(number * batch_size, min((number + 1) * batch_size, samples))
        yield batch if order is None else order[batch]
