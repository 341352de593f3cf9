"""Layers one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import overload

import numpy as np

from minidl.kernels.blas_threads import one_blas_thread
from minidl.layers.convolution import Conv2D
from minidl.layers.module import Module, positive, snake_case
from minidl.ops.operands import tensor
from minidl.tensor import DEFAULT_FLOAT, Tensor, TensorLike, no_grad


class Sequential(Module):
    """A model that passes its input through a list of layers.

    A convolution and the max pooling after it are computed in one go where they can be; the result
    is the same, in less time and memory.

    Args:
        layers: modules with one input and one output. Those without a name get one: "dense" for
            the first Dense, "dense_1" for the second.
        input_shape: shape of one sample, without the batch. If given, all parameters are made at
            once; if not, the first batch decides.

    Attributes:
        input_shape: shape of the samples that the parameters were made for; None before.
        class_names: what each output stands for, where somebody has said it; `load` does.

    Raises:
        ValueError: if there is no layer, two have one name, or the shape does not fit a layer.
        TypeError: if something is not a module.
    """

    input_shape: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def __init__(
        self, layers: Iterable[Module], input_shape: tuple[int, ...] | None = None
    ) -> None:
        self.layers = list(layers)
        if not self.layers:
            raise ValueError("Sequential expects at least one layer, got none")
        for layer in self.layers:
            if not isinstance(layer, Module):
                raise TypeError(
                    f"Sequential expects layers, got {type(layer).__name__}; "
                    "a layer is made with parentheses: Flatten()"
                )
        _name(self.layers)
        if input_shape is not None:
            self.build(input_shape)

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make all parameters for samples of this shape, by passing one sample of zeros through.

        Raises TypeError if it is no tuple; ValueError, naming the layer, if it does not fit.
        """
        if not isinstance(input_shape, (tuple, list)):
            raise TypeError(f"input_shape must be a tuple such as (28, 28, 1), got {input_shape!r}")
        input_shape = tuple(positive(n, "each length of input_shape") for n in input_shape)
        with self.mode(training=False), no_grad():  # batch norm must not learn from zeros
            self(np.zeros((1, *input_shape), dtype=DEFAULT_FLOAT))
        self.input_shape = input_shape

    def members(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The layers by their names, which those that were put into `layers` later get now."""
        _name(self.layers)
        for layer in self.layers:
            yield str(layer.name), layer

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        """One layer, or a model of the layers of a slice, which it shares."""
        if isinstance(index, slice):
            return Sequential(self.layers[index])
        return self.layers[index]

    def forward(self, x: TensorLike) -> Tensor:
        """The output of the last layer for a batch, a tensor or an array."""
        out = tensor(x)
        sample = out.shape[1:]
        done = None
        with one_blas_thread():  # here once, instead of in each layer
            for layer, following in zip_longest(self.layers, self.layers[1:]):
                if layer is done:
                    done = None
                elif isinstance(layer, Conv2D) and layer.can_pool(following, out):
                    out = layer.pooled(out, following)
                    done = following
                else:
                    out = layer(out)
        if self.input_shape is None:
            self.input_shape = sample
        return out


def _name(layers: list[Module]) -> None:
    """Give every layer without a name one that no other has."""
    taken = {layer.name: layer for layer in layers if layer.name}
    for layer in layers:
        if layer.name and taken[layer.name] is not layer:
            raise ValueError(f"two layers are named {layer.name!r}; names must differ")
    for layer in layers:
        if layer.name is None:
            kind = snake_case(type(layer).__name__)
            number = 0
            layer.name = kind
            while layer.name in taken:
                number += 1
                layer.name = f"{kind}_{number}"
            taken[layer.name] = layer
