"""What a model takes images for: the name of a class, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.data.loader import DataLoader
from minidl.layers import Sequential
from minidl.ops.probability import softmax
from minidl.tensor import DEFAULT_FLOAT, Tensor, no_grad
from minidl.training.outputs import ends_in_softmax, outputs_of


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one image; as a text, "Ankle boot 97%".

    Attributes:
        class_name: the most likely class.
        class_number: its place among the outputs.
        confidence: its probability, 0 to 1.
        probabilities: of all classes, a NumPy array (C,).
    """

    class_name: str
    class_number: int
    confidence: float
    probabilities: Array

    def __str__(self) -> str:
        return f"{self.class_name} {self.confidence:.0%}"


def classify(
    model: Sequential,
    images: Any,
    class_names: Sequence[str] | None = None,
    batch_size: int = 256,
) -> Prediction | list[Prediction]:
    """The class that a model takes an image for, or each image of a batch.

    Images are given to the model as they are, in its dtype and on its device. Whatever was done to
    the images it was trained on is for the caller to do: a model that learned from bytes divided by
    255 wants bytes divided by 255.

    Args:
        model: whose outputs (N, C) are probabilities, if its last layer is a softmax, or else what
            a softmax makes probabilities of. It is used in evaluation mode.
        images: one image of the model's `input_shape`, or a batch (N, ...) of them; an array or a
            tensor of any dtype.
        class_names: C names; the model's own, see `load`, if None, or "class 7" where it has none.
        batch_size: images at a time; each thread may work on a batch of its own.

    Returns:
        A `Prediction` for one image, a list of them for a batch.

    Raises:
        TypeError: if images are no array.
        ValueError: if images are of another shape, the outputs are not (N, C) with two classes or
            more, or there are not C names.
        RuntimeError: if the model has not seen an input yet.

    Threads may share a model that is in evaluation mode already, as a loaded one is.
    """
    array = images.data if isinstance(images, Tensor) else images
    backend.of(array)
    shape = model.input_shape
    if shape is None:
        raise RuntimeError(
            f"{model.label} has no input shape yet; give Sequential an input_shape, or pass one "
            "batch through the model first"
        )
    single = array.shape == shape
    if not single and array.shape != (*array.shape[:1], *shape):
        raise ValueError(
            f"classify expects one image of shape {shape} or a batch of them, got {array.shape}"
        )
    if not len(array):
        return []
    names = model.class_names if class_names is None else class_names
    rows = probabilities(model, array[None] if single else array, batch_size)
    predictions = [_prediction(row, names) for row in rows]
    return predictions[0] if single else predictions


def probabilities(model: Sequential, images: Array, batch_size: int = 256) -> list[Array]:
    """The probabilities of each image, or sample of any other shape, (C,), on the host.

    Arguments and errors as for `classify`.
    """
    like = next((p.data for p in model.parameters()), np.empty(0, DEFAULT_FLOAT))
    batches = DataLoader(images, batch_size=batch_size).one_pass(like)
    rows: list[Array] = []
    with model.mode(training=False), no_grad():
        for out in outputs_of(model, range(len(batches)), batches.inputs):
            if out.ndim != 2 or out.shape[1] < 2:
                raise ValueError(
                    "classify expects a model with outputs (N, C) for two classes or more, got "
                    f"{out.shape}"
                )
            rows.extend((out if ends_in_softmax(model) else softmax(out)).numpy())
    return rows


def _prediction(probabilities: Array, names: Sequence[str] | None) -> Prediction:
    if names is not None and len(names) != len(probabilities):
        raise ValueError(f"classify got {len(probabilities)} classes and {len(names)} names")
    number = int(probabilities.argmax())
    name = f"class {number}" if names is None else names[number]
    return Prediction(name, number, float(probabilities[number]), probabilities)
