"""The models of `models.py` built, trained and asked in Keras, on the backend it is set up for.

Only the comparing benchmarks import this, and go without where Keras or its backend is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
from models import Batch, Model

if keras.backend.backend() == "tensorflow":
    import tensorflow
else:
    tensorflow = None


def version() -> str:
    """The versions of Keras and, if it is TensorFlow, of the backend."""
    backend = f"TensorFlow {tensorflow.__version__}" if tensorflow else keras.backend.backend()
    return f"{keras.__version__} on {backend}"


def build(model: Model) -> keras.Model:
    """The model in Keras, whose images are channels-last as minidl's are."""
    last = len(model.layers) - 1
    layers: list[Any] = [keras.Input(model.input_shape)]
    for i, (kind, *arguments) in enumerate(model.layers):
        if kind == "conv":
            filters, size, padding = arguments
            layers.append(keras.layers.Conv2D(filters, size, padding=padding, activation="relu"))
        elif kind == "pool":
            layers.append(keras.layers.MaxPooling2D(2))
        elif kind == "dense":
            activation = None if i == last else "relu"
            layers.append(keras.layers.Dense(*arguments, activation=activation))
        elif kind == "dropout":
            layers.append(keras.layers.Dropout(*arguments))
        else:
            layers.append(keras.layers.Flatten())
    return keras.Sequential(layers)


def training(model: Model, data: list[Batch]) -> Callable[[], None]:
    """What does one training step at each call, on the next of the batches."""
    built = build(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile(model.optimizer, loss)
    built.optimizer.build(built.trainable_variables)
    turn = itertools.cycle([tuple(map(keras.ops.convert_to_tensor, batch)) for batch in data])
    # Compiled alone, the step spares what train_on_batch does around it, a sixth of the time.
    step = tensorflow.function(built.train_step) if tensorflow else None

    def train() -> None:
        if step:
            step(next(turn))
        else:
            built.train_on_batch(*next(turn))

    return train


def prediction(model: Model, data: list[Batch]) -> Callable[[], None]:
    """What computes the outputs for all batches at each call, without a graph."""
    built = build(model)
    compute = tensorflow.function(built) if tensorflow else built.predict_on_batch
    inputs = [keras.ops.convert_to_tensor(images) for images, _ in data]

    def predict() -> None:
        for images in inputs:
            compute(images)

    return predict
