"""The eight models that the tutorials train, described once; each framework has a file to build it.

A model is its input shape, batch size, optimizer and a list of layers, each a name with arguments:
conv (filters, kernel size, padding; relu follows), pool (2x2), dense (units; relu follows unless it
is the last), dropout (rate), flatten.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]
Batch: TypeAlias = tuple[np.ndarray, np.ndarray]


class Model(NamedTuple):
    """One model and how it is trained."""

    input_shape: Shape
    batch_size: int
    optimizer: str
    layers: tuple[tuple[Any, ...], ...]

    def shapes(self) -> list[Shape]:
        """The shape of one sample: as it comes in, and after each layer."""
        shapes = [self.input_shape]
        for kind, *arguments in self.layers:
            shape = shapes[-1]
            if kind == "conv":
                filters, size, padding = arguments
                lost = 0 if padding == "same" else size - 1
                shape = (shape[0] - lost, shape[1] - lost, filters)
            elif kind == "pool":
                shape = (shape[0] // 2, shape[1] // 2, shape[2])
            elif kind == "flatten":
                shape = (math.prod(shape),)
            elif kind == "dense":
                shape = (*shape[:-1], *arguments)
            shapes.append(shape)
        return shapes

    def data(self, samples: int) -> Batch:
        """Random images (samples, *input_shape), labels (samples,); speed knows no difference."""
        rng = np.random.default_rng(0)
        images = rng.random((samples, *self.input_shape), dtype=np.float32)
        return images, rng.integers(0, 10, samples)


def batches(data: Batch, size: int) -> list[Batch]:
    """Cut data into batches of this size, the last of which may be smaller."""
    images, labels = data
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    return [(images[part], labels[part]) for part in parts]


def _block(filters: int) -> tuple[tuple[Any, ...], ...]:
    return ("conv", filters, 3, "same"), ("pool",), ("dropout", 0.3)


MODELS = {
    "1 cnn-three-blocks": Model(
        (28, 28, 1),
        64,
        "adam",
        (
            *_block(32),
            *_block(64),
            *_block(128),
            ("flatten",),
            ("dense", 256),
            ("dropout", 0.5),
            ("dense", 10),
        ),
    ),
    "2 cnn-one-block": Model(
        (28, 28, 1),
        32,
        "adam",
        (("conv", 32, 3, "same"), ("pool",), ("flatten",), ("dense", 128), ("dense", 10)),
    ),
    "3 cnn-2x2": Model(
        (28, 28, 1),
        32,
        "adam",
        (("conv", 16, 2, "valid"), ("pool",), ("flatten",), ("dense", 32), ("dense", 10)),
    ),
    "4 cifar10-cnn": Model(
        (32, 32, 3),
        16,
        "adam",
        (
            ("conv", 16, 3, "same"),
            ("pool",),
            ("conv", 16, 2, "same"),
            ("pool",),
            ("conv", 16, 2, "same"),
            ("pool",),
            ("flatten",),
            ("dense", 32),
            ("dense", 10),
        ),
    ),
    "5 dense-tutorial": Model((28, 28), 32, "adam", (("flatten",), ("dense", 128), ("dense", 10))),
    "6 sgd-dnn": Model(
        (28, 28), 64, "sgd", (("flatten",), ("dense", 256), ("dense", 128), ("dense", 10))
    ),
    "7 deep-mlp-dropout": Model(
        (28, 28),
        50,
        "adam",
        (
            ("flatten",),
            ("dense", 128),
            ("dense", 256),
            ("dense", 128),
            ("dropout", 0.2),
            ("dense", 64),
            ("dense", 64),
            ("dense", 32),
            ("dense", 10),
        ),
    ),
    "8 dense-last-axis": Model(
        (28, 28), 32, "adam", (("dense", 128), ("dense", 64), ("flatten",), ("dense", 10))
    ),
}
