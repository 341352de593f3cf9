"""The layers of a model in the order in which they compute, and the shapes between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from minidl.backend import array_module
from minidl.layers import Module, Sequential
from minidl.tensor import DEFAULT_FLOAT, Tensor, no_grad
from minidl.training.weights import tensors_of


class Placed(NamedTuple):
    """A layer at its place in a model.

    Attributes:
        layer: that may stand in other places too.
        before: shape of what comes in, for a batch of one.
        after: shape of what goes out.
    """

    layer: Module
    before: tuple[int, ...]
    after: tuple[int, ...]


def placed_layers(model: Sequential) -> list[Placed]:
    """The layers of a model and of the models inside it.

    One sample of zeros goes through the model, in evaluation mode, to see the shapes on the way:
    what a layer that stands in two places remembers is the shape at the second.

    Raises:
        RuntimeError: if the model has not seen the shape of its input yet.
    """
    if model.input_shape is None:
        raise RuntimeError(
            f"{model.label} has not seen the shape of its input yet; give it an input_shape, or "
            "pass one batch through it first"
        )
    parameters = model.parameters()
    like = parameters[0].data if parameters else np.zeros((), DEFAULT_FLOAT)
    x = Tensor(array_module(like).zeros((1, *model.input_shape), dtype=like.dtype))
    found = []
    with model.mode(training=False), no_grad():
        for layer in _in_line(model):
            before = x.shape
            x = layer(x)
            found.append(Placed(layer, before, x.shape))
    return found


def named_weights(layer: Module, known: Iterable[str] = ()) -> dict[str, Tensor]:
    """The parameters and buffers of a layer by their names.

    Raises ValueError, naming the layer, if it has others than those known.
    """
    tensors = dict(tensors_of(layer))
    if more := tensors.keys() - set(known):
        raise ValueError(f"{layer.label} has weights without a counterpart: {sorted(more)}")
    return tensors


def check_unshared(model: Sequential, tensors: Iterable[Tensor]) -> None:
    """Raise ValueError if a tensor is among them twice."""
    found = [id(tensor) for tensor in tensors]
    if len(set(found)) < len(found):
        raise ValueError(f"layers of {model.label} share weights; only unshared ones are converted")


def _in_line(model: Sequential) -> Iterator[Module]:
    """The layers of a model and of the models inside it, one after another."""
    for layer in model.layers:
        if isinstance(layer, Sequential):
            yield from _in_line(layer)
        else:
            yield layer
