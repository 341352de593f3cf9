"""Writes a model as an ONNX graph.

ONNX convolves, pools and normalises with channels first, our models keep them last. A Transpose is
written only where the next operator needs the other order, so that a convolutional network has one
at its start and one before Flatten, whose features stay in our order.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minidl.data.files import replacing
from minidl.interop.onnx.format import CLASS_NAMES, IR_VERSION, MOST_BYTES, OPSET, require_onnx
from minidl.kernels.window import Window, place_window
from minidl.layers import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.layers.activation import ACTIVATIONS
from minidl.tensor import Tensor
from minidl.training.description import check_class_names
from minidl.training.weights import dtype_of, tensors_of

if TYPE_CHECKING:
    import onnx

Shape: TypeAlias = tuple[int, ...]  # of one sample, without the batch

# By the names of activations here. Without an alpha, LeakyRelu has the slope of ours, 0.01.
ACTIVATION_OPERATORS = {
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
}


def export_onnx(
    model: Sequential, path: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> None:
    """Write a model to an ONNX file that computes what the model computes in evaluation mode.

    The graph has one input, "input", and one output, "output", with the shapes and the dtype that
    they have here: images are (N, H, W, C). The batch may have any size, all else is fixed. A model
    without parameters is written for float32.

    Operators are those of ONNX 1.12, which onnxruntime knows since 1.12 (2022). Of a float64 model
    it has no convolution and no average pooling for CPUs; write `model.astype("float32")` for it.

    Args:
        model: of minidl's own layers and activations; it has an `input_shape` or has seen a batch.
        path: of the file. Its folder must exist; an older file is replaced once the new one is
            complete, so that a failure leaves the old one.
        class_names: a name for each output, which the metadata of the file then holds; those that
            the model has, if None.

    Raises:
        ImportError: saying what to install, if the package onnx is missing.
        ValueError: naming the file, and the layer if one is not minidl's own; or if the model has
            not seen an input yet, computes nothing in evaluation mode or takes more than 2 GiB, or
            the class names do not suit it.
        OSError: if the file cannot be written.
    """
    require_onnx()
    try:
        content = _content(model, class_names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with replacing(Path(path)) as file:
        file.write(content)


def _content(model: Sequential, class_names: Sequence[str] | None) -> bytes:
    """The bytes of the file. Raises ValueError as `export_onnx`."""
    from onnx import helper

    if not isinstance(model, Sequential):
        raise ValueError(f"expected a Sequential, got {type(model).__name__}")
    _check_own(model)
    if model.input_shape is None:
        raise ValueError(
            f"{model.label} has not seen the shape of its input yet; give it an input_shape, or "
            "pass one batch through it first"
        )
    tensors = tensors_of(model)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype_of(model)))
    if sum(t.data.nbytes for _, t in tensors) > MOST_BYTES:
        raise ValueError(f"an ONNX file holds at most {MOST_BYTES} bytes, the model takes more")
    graph = _Graph({id(t): name for name, t in tensors})
    shape = graph.add(model, "", model.input_shape)
    if not graph.nodes:
        raise ValueError(f"{model.label} computes nothing in evaluation mode; there is no graph")
    graph.lay_out("output", shape, channels_first=False)
    graph.nodes[-1].output[0] = "output"
    ends = [
        helper.make_tensor_value_info(name, kind, ["N", *sample])
        for name, sample in (("input", model.input_shape), ("output", shape))
    ]
    found = helper.make_model(
        helper.make_graph(graph.nodes, "minidl", ends[:1], ends[1:], list(graph.weights.values())),
        producer_name="minidl",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    names = check_class_names(model.class_names if class_names is None else class_names, model)
    if names is not None:
        helper.set_model_props(found, {CLASS_NAMES: json.dumps(names)})
    content: bytes = found.SerializeToString(deterministic=True)
    return content


def _check_own(module: Module) -> None:
    """Raise ValueError if what a layer computes is not known from its class."""
    if type(module) not in WRITERS or "forward" in vars(module):
        raise ValueError(
            f"{module.label} is no layer of minidl's own, and there is no telling what it computes "
            "in operators of ONNX; build the model of minidl's layers, or export the part that is"
        )


class _Graph:
    """A chain of nodes under construction.

    Attributes:
        nodes: so far.
        weights: that they take, by name.
        channels_first: whether what the last node gives has its channels first.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.channels_first = False
        self._names = names  # of parameters and buffers, by their identities
        self._value = "input"
        self._used: Counter[str] = Counter()

    def add(self, module: Module, name: str, shape: Shape) -> Shape:
        """Add what a layer computes for samples of a shape; the shape of its output."""
        _check_own(module)
        return WRITERS[type(module)](self, module, name, shape)

    def add_activation(self, layer: Conv2D | Dense, name: str, shape: Shape) -> Shape:
        """Add the activation that a layer was given as an argument."""
        function = layer.activation
        if function is None:
            return shape
        if isinstance(function, Module):
            return self.add(function, name, shape)
        for known, own in ACTIVATIONS.items():
            if own is function:
                axis = self.axis(-1, shape) if "softmax" in known else None
                self.node(ACTIVATION_OPERATORS[known], name, axis=axis)
                return shape
        raise ValueError(
            f"{layer.label}: activation is {function!r}, which is none of minidl's own "
            f"({', '.join(ACTIVATIONS)}), and there is no telling what it computes"
        )

    def node(self, operator: str, name: str, *weights: str, **attributes: Any) -> None:
        """Add a node that takes what the last one gives, and weights; without attributes of None.

        Args:
            operator: its type.
            name: of the layer that it is for.
            weights: names of what else it takes.
            attributes: of the operator.
        """
        from onnx import helper

        value = f"{name}.{operator}"
        self._used[value] += 1
        if self._used[value] > 1:
            value = f"{value}_{self._used[value] - 1}"
        inputs = [self._value, *weights]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, inputs, [value], name=value, **given))
        self._value = value

    def weight(self, t: Tensor, *axes: int) -> str:
        """The name of a weight in the graph: a parameter or buffer, its axes in another order."""
        from onnx import numpy_helper

        name = self._names[id(t)]
        if name not in self.weights:
            values = np.ascontiguousarray(t.numpy().transpose(axes) if axes else t.numpy())
            self.weights[name] = numpy_helper.from_array(values, name)
        return name

    def lay_out(self, name: str, shape: Shape, channels_first: bool) -> None:
        """Add a Transpose if the channels are elsewhere, and there are axes that it matters to."""
        rank = len(shape) + 1
        if rank < 3 or channels_first == self.channels_first:
            return
        first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
        self.node("Transpose", name, perm=first if channels_first else last)
        self.channels_first = channels_first

    def axis(self, axis: int, shape: Shape) -> int:
        """Where an axis of a batch is in the graph."""
        rank = len(shape) + 1
        axis %= rank
        if not self.channels_first or axis == 0:
            return axis
        return 1 if axis == rank - 1 else axis + 1


# Each of these adds what one kind of layer computes, as `_Graph.add` says.


def _sequential(graph: _Graph, model: Sequential, name: str, shape: Shape) -> Shape:
    for layer in model.layers:
        shape = graph.add(layer, f"{name}.{layer.name}" if name else str(layer.name), shape)
    return shape


def _conv2d(graph: _Graph, layer: Conv2D, name: str, shape: Shape) -> Shape:
    image = shape[0], shape[1]
    window = place_window(image, layer.kernel_size, layer.strides, layer.padding, layer.dilation)
    graph.lay_out(name, shape, channels_first=True)
    weights = [graph.weight(layer.weight, 3, 2, 0, 1)]
    if layer.bias is not None:
        weights.append(graph.weight(layer.bias))
    graph.node("Conv", name, *weights, dilations=window.dilation, **_attributes(window))
    return graph.add_activation(layer, name, (*window.positions(image), layer.filters))


def _pool(graph: _Graph, layer: MaxPool | AvgPool, name: str, shape: Shape) -> Shape:
    image = shape[0], shape[1]
    window = place_window(image, layer.pool_size, layer.strides, layer.padding)
    graph.lay_out(name, shape, channels_first=True)
    # AveragePool leaves padding out of the count unless it is told otherwise.
    operator = "MaxPool" if isinstance(layer, MaxPool) else "AveragePool"
    graph.node(operator, name, **_attributes(window))
    return *window.positions(image), shape[2]


def _attributes(window: Window) -> dict[str, Sequence[int]]:
    """What convolution and pooling are told of a window."""
    (top, bottom), (left, right) = window.padding
    return {
        "kernel_shape": window.size,
        "strides": window.strides,
        "pads": (top, left, bottom, right),
    }


def _global_avg_pool(graph: _Graph, _: GlobalAvgPool, name: str, shape: Shape) -> Shape:
    graph.lay_out(name, shape, channels_first=True)
    graph.node("GlobalAveragePool", name)
    graph.node("Flatten", name)
    graph.channels_first = False
    return shape[2:]


def _dense(graph: _Graph, layer: Dense, name: str, shape: Shape) -> Shape:
    if not shape:
        raise ValueError(f"{layer.label} expects samples with features, got single numbers")
    graph.lay_out(name, shape, channels_first=False)
    weight = graph.weight(layer.weight)
    bias = [] if layer.bias is None else [graph.weight(layer.bias)]
    if len(shape) == 1:
        graph.node("Gemm", name, weight, *bias)
    else:
        graph.node("MatMul", name, weight)
        if bias:
            graph.node("Add", name, *bias)
    return graph.add_activation(layer, name, (*shape[:-1], layer.units))


def _batch_norm(graph: _Graph, layer: BatchNorm, name: str, shape: Shape) -> Shape:
    graph.lay_out(name, shape, channels_first=True)
    tensors = layer.gamma, layer.beta, layer.running_mean, layer.running_variance
    weights = [graph.weight(t) for t in tensors]
    graph.node("BatchNormalization", name, *weights, epsilon=layer.eps, momentum=layer.momentum)
    return shape


def _flatten(graph: _Graph, _: Flatten, name: str, shape: Shape) -> Shape:
    graph.lay_out(name, shape, channels_first=False)
    graph.node("Flatten", name)
    return (math.prod(shape),)


def _dropout(_graph: _Graph, _layer: Dropout, _name: str, shape: Shape) -> Shape:
    return shape


def _relu(graph: _Graph, _: ReLU, name: str, shape: Shape) -> Shape:
    graph.node("Relu", name)
    return shape


def _sigmoid(graph: _Graph, _: Sigmoid, name: str, shape: Shape) -> Shape:
    graph.node("Sigmoid", name)
    return shape


def _tanh(graph: _Graph, _: Tanh, name: str, shape: Shape) -> Shape:
    graph.node("Tanh", name)
    return shape


def _leaky_relu(graph: _Graph, layer: LeakyReLU, name: str, shape: Shape) -> Shape:
    graph.node("LeakyRelu", name, alpha=layer.slope)
    return shape


def _softmax(graph: _Graph, layer: Softmax, name: str, shape: Shape) -> Shape:
    graph.node("Softmax", name, axis=graph.axis(layer.axis, shape))
    return shape


WRITERS: Mapping[type[Module], Callable[[_Graph, Any, str, Shape], Shape]] = {
    AvgPool: _pool,
    BatchNorm: _batch_norm,
    Conv2D: _conv2d,
    Dense: _dense,
    Dropout: _dropout,
    Flatten: _flatten,
    GlobalAvgPool: _global_avg_pool,
    LeakyReLU: _leaky_relu,
    MaxPool: _pool,
    ReLU: _relu,
    Sequential: _sequential,
    Sigmoid: _sigmoid,
    Softmax: _softmax,
    Tanh: _tanh,
}
