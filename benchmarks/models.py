"""The eight models that the tutorials train, described once and built in each framework.

A model is its input shape, batch size, optimizer and a list of layers, each a name with arguments:
conv (filters, kernel size, padding; relu follows), pool (2x2), dense (units; relu follows unless it
is the last), dropout (rate), flatten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minidl


class Model(NamedTuple):
    """One model and how it is trained."""

    input_shape: tuple[int, ...]
    batch_size: int
    optimizer: str
    layers: tuple[tuple[Any, ...], ...]


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


def data(model: Model, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (samples, *input_shape) and labels (samples,); speed knows no difference."""
    rng = np.random.default_rng(0)
    images = rng.random((samples, *model.input_shape), dtype=np.float32)
    return images, rng.integers(0, 10, samples)


def in_minidl(model: Model) -> minidl.Sequential:
    """The model in minidl."""
    last = len(model.layers) - 1
    make: dict[str, Callable[..., minidl.Layer]] = {
        "conv": lambda filters, size, padding: minidl.Conv2D(
            filters, size, padding=padding, activation="relu"
        ),
        "pool": lambda: minidl.MaxPool(2),
        "dense": lambda units, final=False: minidl.Dense(units, None if final else "relu"),
        "dropout": minidl.Dropout,
        "flatten": minidl.Flatten,
    }
    layers = [
        make[kind](*arguments, final=True) if i == last else make[kind](*arguments)
        for i, (kind, *arguments) in enumerate(model.layers)
    ]
    return minidl.Sequential(layers, input_shape=model.input_shape)
