"""The models of `models.py` built, trained and asked in minidl."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from models import Batch, Model

import minidl


def build(model: Model) -> minidl.Sequential:
    """The model in minidl."""
    last = len(model.layers) - 1
    layers: list[minidl.Layer] = []
    for i, (kind, *arguments) in enumerate(model.layers):
        if kind == "conv":
            filters, size, padding = arguments
            layers.append(minidl.Conv2D(filters, size, padding=padding, activation="relu"))
        elif kind == "pool":
            layers.append(minidl.MaxPool(2))
        elif kind == "dense":
            layers.append(minidl.Dense(*arguments, None if i == last else "relu"))
        elif kind == "dropout":
            layers.append(minidl.Dropout(*arguments))
        else:
            layers.append(minidl.Flatten())
    return minidl.Sequential(layers, input_shape=model.input_shape)


def make_optimizer(model: Model, built: minidl.Sequential) -> minidl.Optimizer:
    """The optimizer that the model is trained with."""
    make = {"adam": minidl.Adam, "sgd": minidl.SGD}[model.optimizer]
    return make(built.parameters())


def training(model: Model, data: list[Batch], device: str = "cpu") -> Callable[[], None]:
    """What does one training step at each call, on the next of the batches."""
    built = build(model).to(device)
    optimizer = make_optimizer(model, built)
    turn = itertools.cycle(
        [tuple(minidl.Tensor(array).to(device) for array in batch) for batch in data]
    )

    def step() -> None:
        images, labels = next(turn)
        loss = minidl.cross_entropy(built(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def prediction(model: Model, data: list[Batch]) -> Callable[[], None]:
    """What computes the outputs for all batches at each call, without a graph."""
    built = build(model)
    trainer = minidl.Trainer(built, minidl.cross_entropy, make_optimizer(model, built))
    images = np.concatenate([part for part, _ in data])
    return lambda: trainer.predict(images, batch_size=len(data[0][0]))
