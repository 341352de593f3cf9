"""The models and trainings of five public tutorials, as `reproduce.py` runs them.

Each is what a tutorial built with Keras, PyTorch or scikit-learn and the figures that it printed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

import minidl

Array: TypeAlias = npt.NDArray[Any]


class Data(NamedTuple):
    """A data set, as a system is trained on it."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    class_names: Sequence[str]


class Figure(NamedTuple):
    """A measure of a training, and what was published for it.

    Attributes:
        label: what the table calls it.
        measure: its name in the history; "test_accuracy" for that after the last epoch.
        epoch: counted from 1; None for the last.
        published: None if nothing was.
    """

    label: str
    measure: str = "val_accuracy"
    epoch: int | None = None
    published: float | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was published of something that can be run again.

    Attributes:
        recipe: model and training, in a line.
        figures: what is compared.
        remark: what one has to know to read the figures.
        epochs: how often the data is gone through.
    """

    recipe: str
    figures: Sequence[Figure]
    remark: str = ""
    epochs: int = 1


@dataclass(frozen=True, kw_only=True)
class System(Entry):
    """A model of minidl and its training.

    Attributes:
        data: loads the data set, from a folder or from where it is found.
        layers: makes the layers.
        parameters: how many numbers are trained.
        batch_size: samples a step.
        optimizer: makes the optimizer, from the parameters and the number of steps.
        transform: what is done to the training batches.
        loss: of outputs and labels.
        watch_test: whether the test set is looked at after every epoch, as tutorials do, and not
            at the end alone.
    """

    data: Callable[[Path | None], Data]
    layers: Callable[[], list[minidl.Layer]]
    parameters: int
    batch_size: int
    optimizer: Callable[[Sequence[minidl.Parameter], int], minidl.Optimizer]
    transform: Callable[..., Array] | None = None
    loss: Callable[..., minidl.Tensor] = minidl.cross_entropy
    watch_test: bool = True


# Data


def raw(data_dir: Path | None) -> Data:
    """Fashion-MNIST, pixels from 0 to 255: (N, 28, 28)."""
    (x_train, y_train), (x_test, y_test) = minidl.fashion_mnist(data_dir)
    return Data(x_train, y_train, x_test, y_test, minidl.FASHION_MNIST_CLASSES)


def scaled(data_dir: Path | None) -> Data:
    """Fashion-MNIST, pixels from 0 to 1, with a channel: (N, 28, 28, 1)."""
    data = raw(data_dir)
    return data._replace(x_train=_scale(data.x_train), x_test=_scale(data.x_test))


def normalized(data_dir: Path | None) -> Data:
    """As `scaled`, less 0.1307 and divided by 0.3081: MNIST's mean and standard deviation."""
    data = scaled(data_dir)
    normalize = minidl.Normalize(0.1307, 0.3081)
    return data._replace(x_train=normalize(data.x_train), x_test=normalize(data.x_test))


def from_csv(data_dir: Path | None) -> Data:
    """As `scaled`, by way of two files of comma-separated values, as the tutorials read it."""
    data = raw(data_dir)
    with tempfile.TemporaryDirectory() as folder:
        arrays = []
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
            path = Path(folder) / "fashion-mnist.csv"
            minidl.save_csv(path, x, y)
            arrays.append(minidl.load_csv(path))
    (x_train, y_train), (x_test, y_test) = arrays
    return Data(_scale(x_train), y_train, _scale(x_test), y_test, data.class_names)


def cifar10(data_dir: Path | None) -> Data:
    """CIFAR-10, pixels from 0 to 1: (N, 32, 32, 3)."""
    (x_train, y_train), (x_test, y_test) = minidl.cifar10(data_dir)
    return Data(_scale(x_train), y_train, _scale(x_test), y_test, minidl.CIFAR10_CLASSES)


def _scale(images: Array) -> Array:
    """Bytes (N, H, W) or (N, H, W, C) as numbers from 0 to 1, (N, H, W, C)."""
    images = images if images.ndim == 4 else images[..., None]
    return images.astype(np.float32) / 255


# Models


def dense_tutorial() -> list[minidl.Layer]:
    return [
        minidl.Flatten(),
        minidl.Dense(128, activation="relu"),
        minidl.Dense(10, activation="softmax"),
    ]


def dense_last_axis() -> list[minidl.Layer]:
    return [
        minidl.Dense(128, activation="relu"),
        minidl.Dense(64, activation="relu"),
        minidl.Flatten(),
        minidl.Dense(10),
    ]


def cnn_one_block() -> list[minidl.Layer]:
    convolution = minidl.Conv2D(32, 3, padding="same", activation="relu")
    return [
        convolution,
        minidl.MaxPool(2),
        minidl.Flatten(),
        minidl.Dense(128, activation="relu"),
        minidl.Dense(10),
    ]


def cnn_three_blocks() -> list[minidl.Layer]:
    blocks: list[minidl.Layer] = []
    for filters in (32, 64, 128):
        convolution = minidl.Conv2D(filters, 3, padding="same", activation="relu")
        blocks += [convolution, minidl.MaxPool(2), minidl.Dropout(0.3)]
    return [
        *blocks,
        minidl.Flatten(),
        minidl.Dense(256, activation="relu"),
        minidl.Dropout(0.5),
        minidl.Dense(10),
    ]


def _like_pytorch(units: int, activation: str | None = None) -> minidl.Dense:
    """A layer that starts as PyTorch's Linear does."""
    return minidl.Dense(units, activation, kernel_initializer="pytorch", bias_initializer="pytorch")


def sgd_dnn() -> list[minidl.Layer]:
    return [
        minidl.Flatten(),
        _like_pytorch(256, "relu"),
        _like_pytorch(128, "relu"),
        _like_pytorch(10),
    ]


def sgd_dnn_dropout() -> list[minidl.Layer]:
    flatten, first, second, last = sgd_dnn()
    return [flatten, first, minidl.Dropout(0.2), second, minidl.Dropout(0.2), last]


def deep_mlp_dropout() -> list[minidl.Layer]:
    before, after = (
        [minidl.Dense(n, activation="relu") for n in sizes]
        for sizes in ((128, 256, 128), (64, 64, 32))
    )
    return [minidl.Flatten(), *before, minidl.Dropout(0.2), *after, minidl.Dense(10)]


def cnn_2x2() -> list[minidl.Layer]:
    convolution = minidl.Conv2D(16, 2, activation="relu")
    return [
        convolution,
        minidl.MaxPool(2),
        minidl.Flatten(),
        minidl.Dense(32, activation="relu"),
        minidl.Dense(10),
    ]


def cifar10_cnn() -> list[minidl.Layer]:
    blocks: list[minidl.Layer] = []
    for size in (3, 2, 2):
        blocks += [minidl.Conv2D(16, size, padding="same", activation="relu"), minidl.MaxPool(2)]
    return [*blocks, minidl.Flatten(), minidl.Dense(32, activation="relu"), minidl.Dense(10)]


# Optimizers


def adam(parameters: Sequence[minidl.Parameter], steps: int) -> minidl.Optimizer:
    """Adam at its usual constant rate, as the tutorials have it."""
    return minidl.Adam(parameters, lr=0.001)


def adam_to_rest(parameters: Sequence[minidl.Parameter], steps: int) -> minidl.Optimizer:
    """Adam with a rate that falls to zero along half a cosine."""
    return minidl.Adam(parameters, lr=minidl.CosineDecay(0.001, steps))


def sgd(parameters: Sequence[minidl.Parameter], steps: int) -> minidl.Optimizer:
    """Plain gradient descent."""
    return minidl.SGD(parameters, lr=0.01)


# Systems

SYSTEMS = {
    "dense-tutorial": System(
        recipe="Flatten, Dense 128 relu, Dense 10 softmax; Adam",
        data=scaled,
        layers=dense_tutorial,
        parameters=101_770,
        epochs=5,
        batch_size=32,
        figures=[Figure("test", published=0.8749)],
        optimizer=adam,
    ),
    "dense-last-axis": System(
        recipe="Dense 128 relu and Dense 64 relu on the last axis, Flatten, Dense 10; Adam, raw "
        "pixels 0-255",
        data=raw,
        layers=dense_last_axis,
        parameters=29_898,
        epochs=10,
        batch_size=32,
        figures=[Figure("train", "accuracy", published=0.8800), Figure("test")],
        optimizer=adam,
    ),
    "cnn-one-block": System(
        recipe="Conv 32 3x3 same relu, MaxPool, Flatten, Dense 128 relu, Dense 10; Adam with a "
        "rate that falls to zero along half a cosine",
        data=scaled,
        layers=cnn_one_block,
        parameters=804_554,
        epochs=5,
        batch_size=32,
        figures=[Figure("validation", published=0.9158)],
        optimizer=adam_to_rest,
        remark="the schedule is ours; the next row is without",
    ),
    "cnn-one-block-constant": System(
        recipe="as cnn-one-block, with Adam's constant rate, as the tutorial had it",
        data=scaled,
        layers=cnn_one_block,
        parameters=804_554,
        epochs=5,
        batch_size=32,
        figures=[Figure("validation", published=0.9158)],
        optimizer=adam,
    ),
    "cnn-three-blocks": System(
        recipe="three of (Conv 32/64/128 3x3 same relu, MaxPool, Dropout .3), Flatten, "
        "Dense 256 relu, Dropout .5, Dense 10; Adam",
        data=scaled,
        layers=cnn_three_blocks,
        parameters=390_410,
        epochs=30,
        batch_size=64,
        figures=[Figure("test", published=0.927)],
        optimizer=adam,
    ),
    "sgd-dnn": System(
        recipe="Flatten, Dense 256 relu, Dense 128 relu, Dense 10, initialised as in PyTorch; "
        "SGD 0.01",
        data=scaled,
        layers=sgd_dnn,
        parameters=235_146,
        epochs=30,
        batch_size=64,
        figures=[
            Figure("test after 1", epoch=1, published=0.6920),
            Figure("after 2", epoch=2, published=0.7745),
            Figure("after 3", epoch=3, published=0.7962),
            Figure("after 30", epoch=30, published=0.8663),
        ],
        optimizer=sgd,
    ),
    "sgd-dnn-dropout": System(
        recipe="as sgd-dnn, with Dropout .2, random horizontal flips, Normalize(0.1307, 0.3081)",
        data=normalized,
        layers=sgd_dnn_dropout,
        parameters=235_146,
        epochs=30,
        batch_size=64,
        figures=[
            Figure("test after 1", epoch=1, published=0.7186),
            Figure("after 2", epoch=2, published=0.7666),
            Figure("after 3", epoch=3, published=0.7772),
            Figure("after 30", epoch=30),
        ],
        optimizer=sgd,
        remark="the tutorial left its test pictures unnormalised, which lowers its figures; "
        "ours are normalised",
        transform=minidl.HorizontalFlip(),
    ),
    "deep-mlp-dropout": System(
        recipe="Dense 128, 256, 128 relu, Dropout .2, Dense 64, 64, 32 relu, Dense 10; Adam; "
        "CSV files",
        data=from_csv,
        layers=deep_mlp_dropout,
        parameters=181_226,
        epochs=40,
        batch_size=50,
        figures=[Figure("test")],
        optimizer=adam,
        remark="no figure was published",
    ),
    "cnn-2x2": System(
        recipe="Conv 16 2x2 relu, MaxPool, Flatten, Dense 32 relu, Dense 10; Adam; CSV files",
        data=from_csv,
        layers=cnn_2x2,
        parameters=86_970,
        epochs=50,
        batch_size=32,
        figures=[Figure("train", "accuracy"), Figure("test", published=1.0)],
        optimizer=adam,
        remark="published: on a private sample, not comparable",
    ),
    "cifar10-cnn": System(
        recipe="on CIFAR-10: Conv 16 3x3 same relu, MaxPool, twice (Conv 16 2x2 same relu, "
        "MaxPool), Flatten, Dense 32 relu, Dense 10; Adam",
        data=cifar10,
        layers=cifar10_cnn,
        parameters=11_082,
        epochs=15,
        batch_size=16,
        figures=[Figure("test")],
        optimizer=adam,
        remark="no figure was published",
    ),
}
