"""Reads an ONNX graph as a model, if it is a chain of operators that our layers stand for.

A file is not trusted. Nothing in it is executed, no other file is opened that it names, and the
lengths of weights are compared with their shapes before any of them is copied.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from minidl.backend import Array
from minidl.data.files import open_file
from minidl.interop.channels_first import flattened_order
from minidl.interop.onnx.format import CLASS_NAMES, MOST_BYTES, OPSETS_READ, require_onnx
from minidl.kernels.window import Padding, place_window
from minidl.layers import (
    AvgPool,
    BatchNorm,
    Buffer,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    MaxPool,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.layers.activation import ACTIVATIONS
from minidl.training.description import check_class_names
from minidl.training.weights import shortened

if TYPE_CHECKING:
    import onnx

Shape: TypeAlias = tuple[int, ...]  # of one sample, without the batch

DOMAINS = ("", "ai.onnx")  # of the operators that ONNX itself defines

# Where operators that look at the order of axes expect the channels.
LAYOUT = {
    "AveragePool": "channels first",
    "BatchNormalization": "channels first",
    "Conv": "channels first",
    "Flatten": "as it is",
    "Gemm": "as it is",
    "GlobalAveragePool": "channels first",
    "MatMul": "as it is",
    "MaxPool": "channels first",
    "ReduceMean": "channels first",
    "Reshape": "as it is",
    "Transpose": "as it is",
}

# No chain of layers is as long. Even empty nodes take 75 times as much memory as in the file.
MOST_NODES = 4096

# Several nodes may take one weight, of which each layer gets a copy: files leave out what is equal
# by chance, such as two biases of zeros. Copies may take four times the length of the file, or:
BYTES_OF_ANY_FILE = 2**26

# The types of tensors that are read, by their numbers in onnx.TensorProto. Of each: where a tensor
# has its values if not as raw bytes, and what these are.
FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11
TYPES: Mapping[int, tuple[str, np.dtype[Any]]] = {
    FLOAT: ("float_data", np.dtype("<f4")),
    INT64: ("int64_data", np.dtype("<i8")),
    BOOL: ("int32_data", np.dtype("?")),
    DOUBLE: ("double_data", np.dtype("<f8")),
}


def load_onnx(path: str | os.PathLike[str]) -> Sequential:
    """The model that the graph in an ONNX file describes, on the CPU and in evaluation mode.

    The graph is a chain, in which each node takes what the one before gives: such as `export_onnx`
    writes, or PyTorch for an `nn.Sequential` of layers that are here too. There may be AveragePool,
    BatchNormalization, Conv, Dropout, Flatten, Gemm, GlobalAveragePool, Identity, LeakyRelu,
    LogSoftmax (after Conv, Gemm or MatMul), MatMul with Add, MaxPool, ReduceMean (over height and
    width), Relu, Reshape (to features), Sigmoid, Softmax, Tanh and Transpose (of channels), from
    operator sets 13 to 28.

    **What the model takes.** Images with channels last, (N, H, W, C), whatever the graph takes:
    where its first operator that looks at the order of axes is Conv, a pooling or
    BatchNormalization, its input is (N, C, H, W), and `images.transpose(0, 2, 3, 1)` is for the
    model what `images` is for the graph. Images that the model gives have channels last as well.
    Features are in the order of the graph: filters and dense weights are turned to suit, and so is
    what follows a Flatten. Where the graph flattens its input before anything else, as for a
    multilayer perceptron, the model takes what the graph takes, (N, 1, 28, 28) say.

    The file need not be trusted: nothing is executed, no other file is read, and memory is taken in
    proportion to what the file holds, whatever it declares.

    Returns:
        The model, with `input_shape` and, if `export_onnx` wrote them, `class_names`. It is float32
        or float64 as the graph is.

    Raises:
        ImportError: saying what to install, if the package onnx is missing.
        OSError: if the file cannot be read.
        ValueError: naming the file, if it is no ONNX file; and the node with its operator or
            attribute, if that is not one of those above, or does not fit.
    """
    require_onnx()
    from google.protobuf.message import DecodeError

    with open_file(Path(path)) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise ValueError(f"{path}: expected at most {MOST_BYTES} bytes, as ONNX files have")
        content = file.read()
    try:
        return _model(content)
    except DecodeError as error:
        raise ValueError(
            f"{path}: expected an ONNX file, but it is none, or damaged ({shortened(error)})"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {shortened(error)}") from error


def _model(content: bytes) -> Sequential:
    """The model in the bytes of a file. Raises ValueError as `load_onnx`, or DecodeError."""
    import onnx

    found = onnx.ModelProto.FromString(content)
    if not found.HasField("graph"):
        raise ValueError("expected an ONNX file, but there is no graph in it")
    opsets = [entry.version for entry in found.opset_import if entry.domain in DOMAINS]
    if len(opsets) != 1 or opsets[0] not in OPSETS_READ:
        raise ValueError(
            f"expected the operators of ONNX from set {OPSETS_READ[0]} to {OPSETS_READ[-1]}, got "
            f"{opsets or 'none'}; onnx.version_converter converts one into another"
        )
    if found.functions:
        raise ValueError(f"defines operators of its own ({found.functions[0].name!r})")
    model = _Chain(found.graph, max(BYTES_OF_ANY_FILE, 4 * len(content))).model()
    for entry in found.metadata_props:
        if entry.key == CLASS_NAMES:
            model.class_names = check_class_names(_json(entry.value), model)
    return model.eval()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the class names are nested too deeply") from None


class Operator(NamedTuple):
    """What is read of an operator.

    Attributes:
        read: adds the layer that it stands for.
        weights: how many it takes, at least and at most.
        options: its attributes with their defaults, which tell the types as well.
        only: attributes that must have this value, the default, where they are given.
    """

    read: Callable[[_Chain, _Node], None]
    weights: tuple[int, int] = (0, 0)
    options: Mapping[str, Any] = {}
    only: Mapping[str, Any] = {}


class _Node(NamedTuple):
    """An operator in the chain, with its attributes and the names of the weights that it takes."""

    operator: str
    attributes: Mapping[str, Any]
    weights: list[str]

    @property
    def padding(self) -> Padding:
        """As `Conv2D` takes it."""
        how = self.attributes["auto_pad"]
        known = {"NOTSET": None, "VALID": "valid", "SAME_UPPER": "same"}
        if how not in known:
            raise ValueError(f"auto_pad must be NOTSET, VALID or SAME_UPPER, got {how!r}")
        if (word := known[how]) is not None:
            return word
        pads = self.attributes["pads"]
        if len(pads) != 4:
            raise ValueError(f"expects the pads of images, four numbers, got {pads}")
        top, left, bottom, right = pads
        return (top, bottom), (left, right)


class _Chain:
    """The layers of a graph, as far as it has been read.

    Attributes:
        layers: so far.
        shape: of what they give for one sample.
        channels_first: whether the graph has the channels of that first.
        flattened: the shape of the images whose features are in the order of channels first, from
            Flatten until a Dense has taken them.
    """

    def __init__(self, graph: onnx.GraphProto, most_bytes: int) -> None:
        self.layers: list[Layer] = []
        self.flattened: Shape | None = None
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._bytes_left = most_bytes
        self._whole_pool: AvgPool | None = None  # over all of the image
        if graph.sparse_initializer:
            raise ValueError("holds sparse weights, which minidl has none of")
        if len(graph.node) > MOST_NODES:
            raise ValueError(f"expected at most {MOST_NODES} nodes, got {len(graph.node)}")
        inputs = [entry for entry in graph.input if entry.name not in self._constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ValueError(
                f"expected one input and one output, got {len(inputs)} and {len(graph.output)}"
            )
        self._value = inputs[0].name
        kind = inputs[0].type.tensor_type
        if kind.elem_type not in (FLOAT, DOUBLE):
            raise ValueError(
                f"input {self._value!r}: expected float32 or float64, got type {kind.elem_type}"
            )
        self._type = kind.elem_type
        lengths = [length.dim_value for length in kind.shape.dim]
        if len(lengths) < 2 or min(lengths[1:]) < 1:
            raise ValueError(
                f"input {self._value!r}: expected a batch of a shape of which only the first "
                f"length is left open, got {lengths}, where 0 is open; export it with fixed sizes"
            )
        self._batch = lengths[0]
        # The first operator that looks at the order of the axes tells what it is.
        first = next((n.op_type for n in graph.node if n.op_type in LAYOUT), "")
        self.channels_first = len(lengths) > 2 and LAYOUT.get(first) == "channels first"
        given = lengths[1:]
        self.shape = (*given[1:], given[0]) if self.channels_first else tuple(given)

    def model(self) -> Sequential:
        """The model of all nodes."""
        input_shape = self.shape
        for node in self._graph.node:
            try:
                self._read(node)
            except ValueError as error:
                where = f"node {node.name!r} of type {node.op_type!r}"
                raise ValueError(f"{where}: {error}") from error
        if self._graph.output[0].name != self._value:
            raise ValueError(
                f"the output is {self._graph.output[0].name!r}, expected what the last node gives, "
                f"{self._value!r}"
            )
        if self.flattened is not None:
            raise ValueError(
                "returns what Flatten makes of images, which is in another order where channels "
                "come last; let a Gemm follow"
            )
        model = Sequential(self.layers)
        model.input_shape = input_shape
        model.output_shape = (None, *self.shape)
        return model

    def add(self, layer: Layer, shape: Shape) -> None:
        """Add a layer that gives samples of this shape."""
        layer.built = True
        layer.output_shape = (None, *shape)
        self.layers.append(layer)
        self.shape = shape

    def _read(self, node: onnx.NodeProto) -> None:
        """Read one node."""
        if node.domain not in DOMAINS or node.op_type not in KNOWN:
            known = ", ".join(sorted(KNOWN))
            raise ValueError(f"no layer of minidl stands for this operator; known: {known}")
        if len([name for name in node.output if name]) != 1 or not node.output[0]:
            raise ValueError(f"expected one output in use, got {list(node.output)}")
        if node.output[0] in self._constants:
            raise ValueError(f"there is a weight named {node.output[0]!r} as its output already")
        inputs = list(node.input)
        if node.op_type == "Constant":
            self._constants[node.output[0]] = _value_of(node)
            return
        if node.op_type == "Identity" and len(inputs) == 1 and inputs[0] in self._constants:
            self._constants[node.output[0]] = self._constants[inputs[0]]
            return
        while inputs and not inputs[-1]:  # left out, as it may be
            inputs.pop()
        self._check_inputs(node.op_type, inputs)
        inputs.remove(self._value)
        operator = OPERATORS[node.op_type]
        least, most = operator.weights
        if not least <= len(inputs) <= most:
            raise ValueError(f"expects {least} to {most} weights, got {len(inputs)}")
        operator.read(self, _Node(node.op_type, _attributes(node, operator), inputs))
        self._value = node.output[0]

    def _check_inputs(self, operator: str, inputs: list[str]) -> None:
        """Raise ValueError unless these are what the last node gives, and weights."""
        first = inputs[:1] if operator != "Add" else inputs
        others = [name for name in inputs if name != self._value]
        unknown = [name for name in others if name not in self._constants]
        if self._value not in first or len(others) != len(inputs) - 1 or unknown:
            raise ValueError(
                f"expected as inputs {self._value!r}, which the node before gives, and weights, "
                f"got {inputs}; only graphs are read in which one node follows another"
            )

    # Weights

    def weight(self, name: str) -> Array:
        """The values of a weight: an array of its own, in the dtype of the graph."""
        return self._values(name, (self._type,))

    def _values(self, name: str, types: tuple[int, ...]) -> Array:
        """The values of a tensor of one of these types."""
        tensor = self._constants[name]
        if tensor.external_data or tensor.data_location:
            raise ValueError(
                f"{name!r} is in another file, which is not read; save the model with its weights "
                "in one file"
            )
        if tensor.data_type not in types:
            expected = " or ".join(TYPES[number][1].name for number in types)
            raise ValueError(f"{name!r} must be {expected}, got type {tensor.data_type}")
        field, dtype = TYPES[tensor.data_type]
        shape = tuple(tensor.dims)
        expected_bytes = math.prod(shape) * dtype.itemsize
        raw = tensor.HasField("raw_data")
        held = len(tensor.raw_data) if raw else len(getattr(tensor, field)) * dtype.itemsize
        if min(shape, default=1) < 1 or held != expected_bytes:
            raise ValueError(
                f"{name!r} of shape {shape} must hold numbers in {expected_bytes} bytes, got {held}"
            )
        self._bytes_left -= held
        if self._bytes_left < 0:
            raise ValueError("its weights, shared with other nodes, take far more than the file")
        if raw:
            values = np.frombuffer(tensor.raw_data, dtype)
        else:
            values = np.array(getattr(tensor, field), dtype)
        return values.reshape(shape).astype(dtype.newbyteorder("="))

    def in_our_order(self, weight: Array) -> Array:
        """A weight with an entry or a row for each feature, in the order of the features here."""
        if self.flattened is None:
            return weight
        ordered = np.empty_like(weight)
        ordered[flattened_order((1, *self.flattened))] = weight
        return ordered

    def check_images(self) -> None:
        """Raise ValueError unless what comes in are images, with channels first."""
        if len(self.shape) != 3 or not self.channels_first:
            raise ValueError(f"expects images (N, C, H, W), not {self._describe()}")

    def check_last(self) -> None:
        """Raise ValueError if the channels of what comes in are not the last axis."""
        if self.channels_first:
            raise ValueError(f"works on the last axis, but takes {self._describe()}")

    def _describe(self) -> str:
        where = "first" if self.channels_first else "last"
        return f"samples that are {self.shape} here and have channels {where} in the graph"

    # What operators stand for

    def conv(self, node: _Node) -> None:
        """A Conv2D."""
        self.check_images()
        weight = self.weight(node.weights[0])
        if weight.ndim != 4 or weight.shape[1] != self.shape[2]:
            raise ValueError(
                f"expects filters (C_out, {self.shape[2]}, KH, KW), got {weight.shape}"
            )
        size = weight.shape[2:]
        if node.attributes["kernel_shape"] not in ((), size):
            raise ValueError(f"kernel_shape must be {size} as the filters are")
        layer = Conv2D(
            weight.shape[0],
            size,
            node.attributes["strides"],
            node.padding,
            node.attributes["dilations"],
            use_bias=len(node.weights) > 1,
        )
        layer.weight = Parameter(np.array(weight.transpose(2, 3, 1, 0), order="C"))
        if layer.use_bias:
            layer.bias = Parameter(self._vector(node.weights[1], layer.filters))
        image = self.shape[0], self.shape[1]
        window = place_window(image, size, layer.strides, layer.padding, layer.dilation)
        self.add(layer, (*window.positions(image), layer.filters))

    def pool(self, node: _Node) -> None:
        """A MaxPool or AvgPool."""
        self.check_images()
        kind = MaxPool if node.operator == "MaxPool" else AvgPool
        layer = kind(node.attributes["kernel_shape"], node.attributes["strides"], node.padding)
        image = self.shape[0], self.shape[1]
        window = place_window(image, layer.pool_size, layer.strides, layer.padding)
        if any(max(p) >= n for p, n in zip(window.padding, window.size, strict=True)):
            raise ValueError(f"pads {window.padding} would leave windows with padding alone")
        if node.attributes.get("count_include_pad") and window.padded:
            raise ValueError("count_include_pad must be 0 where there is padding")
        self.add(layer, (*window.positions(image), self.shape[2]))

    def global_pool(self, _: _Node) -> None:
        """An AvgPool over the whole image, which stays an image; see `flatten`."""
        self.check_images()
        self._whole_pool = AvgPool((self.shape[0], self.shape[1]))
        self.add(self._whole_pool, (1, 1, self.shape[2]))

    def reduce_mean(self, node: _Node) -> None:
        """The same, as it may be written as well."""
        self.check_images()
        # Since operator set 18, the axes are among the inputs.
        axes = node.attributes["axes"]
        if node.weights:
            axes = self._values(node.weights[0], (INT64,)).reshape(-1).tolist()
        if sorted(axis % 4 for axis in axes) != [2, 3]:
            raise ValueError(f"expects the axes of height and width, [2, 3], got {axes}")
        self.global_pool(node)
        if not node.attributes["keepdims"]:
            self._flatten()

    def flatten(self, node: _Node) -> None:
        """A Flatten; with the pooling before it, a GlobalAvgPool."""
        if node.operator == "Reshape":
            self._check_flattens(node)
        self._flatten()

    def _flatten(self) -> None:
        features = math.prod(self.shape)
        if self.layers and self.layers[-1] is self._whole_pool:
            self.layers.pop()
            self.add(GlobalAvgPool(), (features,))
        else:
            if self.channels_first and len(self.shape) != 3:
                raise ValueError(f"expects images or channels last, not {self._describe()}")
            if self.channels_first and self.shape[-1] not in (1, features):
                self.flattened = self.shape
            self.add(Flatten(), (features,))
        self.channels_first = False

    def _check_flattens(self, node: _Node) -> None:
        """Raise ValueError if a Reshape does anything else."""
        to = self._values(node.weights[0], (INT64,)).tolist()
        features = math.prod(self.shape)
        # One -1 is what remains; 0 leaves a length as it is, unless it is to be taken literally.
        batches = {-1, self._batch or -1, -1 if node.attributes["allowzero"] else 0}
        known = [[batch, features] for batch in batches] + [[batch, -1] for batch in batches - {-1}]
        if to not in known:
            raise ValueError(f"expects the shape (N, {features}), got {to}")

    def gemm(self, node: _Node) -> None:
        """A Dense on features."""
        if len(self.shape) != 1:
            raise ValueError(f"expects features (N, C), not {self._describe()}")
        weight = self.weight(node.weights[0])
        layer = self._dense(weight.T if node.attributes["transB"] else weight)
        if len(node.weights) > 1:
            self._give_bias(layer, node.weights[1])

    def matmul(self, node: _Node) -> None:
        """A Dense on the last axis."""
        self.check_last()
        self._dense(self.weight(node.weights[0]))

    def _dense(self, weight: Array) -> Dense:
        """A Dense, without bias yet."""
        if weight.ndim != 2 or len(weight) != self.shape[-1]:
            raise ValueError(f"expects a weight for {self.shape[-1]} features, got {weight.shape}")
        layer = Dense(weight.shape[1], use_bias=False)
        layer.weight = Parameter(np.array(self.in_our_order(weight), order="C"))
        self.flattened = None
        self.add(layer, (*self.shape[:-1], layer.units))
        return layer

    def add_bias(self, node: _Node) -> None:
        """The bias of the Dense before."""
        self.check_last()
        layer = self.layers[-1] if self.layers else None
        if not isinstance(layer, Dense) or layer.use_bias or layer.activation is not None:
            raise ValueError("adds to something else than a MatMul, as only a bias is read")
        self._give_bias(layer, node.weights[0])

    def _give_bias(self, layer: Dense, name: str) -> None:
        layer.bias = Parameter(self._vector(name, layer.units))
        layer.use_bias = True

    def batch_norm(self, node: _Node) -> None:
        """A BatchNorm."""
        if len(self.shape) > 1 and not self.channels_first:
            raise ValueError(f"works on the second axis, but takes {self._describe()}")
        vectors = [self.in_our_order(self._vector(name, self.shape[-1])) for name in node.weights]
        layer = BatchNorm(node.attributes["momentum"], node.attributes["epsilon"])
        layer.gamma, layer.beta = map(Parameter, vectors[:2])
        layer.running_mean, layer.running_variance = map(Buffer, vectors[2:])
        self.add(layer, self.shape)

    def _vector(self, name: str, length: int) -> Array:
        """A weight with a number for each channel."""
        values = self.weight(name)
        if values.shape != (length,):
            raise ValueError(f"{name!r} must be of shape {(length,)}, got {values.shape}")
        return values

    def activation(self, node: _Node) -> None:
        """An activation, which a Conv2D or Dense right before takes as an argument."""
        kind = {"Relu": ReLU, "Sigmoid": Sigmoid, "Tanh": Tanh}[node.operator]
        if not self._activate(kind.__name__.lower()):
            self.add(kind(), self.shape)

    def leaky_relu(self, node: _Node) -> None:
        """A LeakyReLU."""
        self.add(LeakyReLU(node.attributes["alpha"]), self.shape)

    def softmax(self, node: _Node) -> None:
        """A softmax or its logarithm, along any axis."""
        rank = len(self.shape) + 1
        given = node.attributes["axis"]
        if not -rank <= given < rank:
            raise ValueError(f"axis must be one of {rank}, got {given}")
        axis = given % rank
        if self.channels_first and axis:
            axis = rank - 1 if axis == 1 else axis - 1
        logarithm = node.operator == "LogSoftmax"
        if axis == rank - 1 and self._activate("log_softmax" if logarithm else "softmax"):
            return
        if logarithm:
            raise ValueError("is read only as the activation of a Conv or Gemm before, by channels")
        self.add(Softmax(axis), self.shape)

    def _activate(self, name: str) -> bool:
        """Give the layer before an activation if it can have one; whether it could."""
        layer = self.layers[-1] if self.layers else None
        if not isinstance(layer, (Conv2D, Dense)) or layer.activation is not None:
            return False
        layer.activation = ACTIVATIONS[name]
        return True

    def dropout(self, node: _Node) -> None:
        """A Dropout."""
        if len(node.weights) > 1 and self._values(node.weights[1], (BOOL,)).any():
            raise ValueError("training_mode must be false")
        rate = 0.5
        if node.weights:
            values = self._values(node.weights[0], (FLOAT, DOUBLE))
            if values.size != 1:
                raise ValueError(f"expects one ratio, got {values.size}")
            rate = _shortest(values.reshape(-1)[0])
        self.add(Dropout(rate), self.shape)

    def identity(self, _: _Node) -> None:
        """Nothing."""

    def transpose(self, node: _Node) -> None:
        """Another place for the channels in the graph, which stay where they are here."""
        rank = len(self.shape) + 1
        first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
        perm = node.attributes["perm"]
        if rank > 2 and perm == (last if self.channels_first else first):
            self.channels_first = not self.channels_first
        elif perm != tuple(range(rank)):
            raise ValueError(
                f"perm must bring channels from one end to the other, got {perm} for "
                f"{self._describe()}"
            )


def _value_of(node: onnx.NodeProto) -> onnx.TensorProto:
    """The tensor that a Constant gives."""
    if [attribute.name for attribute in node.attribute] != ["value"] or node.input:
        raise ValueError("expected a tensor as its value, and nothing else")
    return node.attribute[0].t


def _attributes(node: onnx.NodeProto, operator: Operator) -> dict[str, Any]:
    """The attributes of a node, with their defaults where they are not given."""
    values = dict(operator.options)
    for attribute in node.attribute:
        name, value = attribute.name, _attribute(attribute)
        if name in operator.only:
            if value != operator.only[name]:
                raise ValueError(f"{name} must be {operator.only[name]}, got {value}")
        elif name not in values or type(value) is not type(values[name]):
            raise ValueError(f"attribute {name!r} is unknown or of a wrong type, {value!r}")
        else:
            values[name] = value
    return values


def _attribute(attribute: onnx.AttributeProto) -> int | float | str | tuple[int, ...] | None:
    """The value of an attribute, None for kinds that no operator here has."""
    match attribute.type:
        case attribute.FLOAT:
            return _shortest(np.float32(attribute.f))
        case attribute.INT:
            return int(attribute.i)
        case attribute.STRING:
            return str(attribute.s, "utf-8")
        case attribute.INTS:
            return tuple(attribute.ints)
    return None


def _shortest(number: np.floating[Any]) -> float:
    """The number with the fewest digits that is this one in its dtype: 0.3, not 0.30000001192."""
    return float(str(number))


_WINDOW = {"auto_pad": "NOTSET", "kernel_shape": (), "pads": (0, 0, 0, 0), "strides": (1, 1)}

OPERATORS: Mapping[str, Operator] = {
    "Add": Operator(_Chain.add_bias, (1, 1)),
    "AveragePool": Operator(
        _Chain.pool,
        options={**_WINDOW, "count_include_pad": 0},
        only={"ceil_mode": 0, "dilations": (1, 1)},
    ),
    "BatchNormalization": Operator(
        _Chain.batch_norm,
        (4, 4),
        options={"epsilon": 1e-5, "momentum": 0.9},
        only={"training_mode": 0},
    ),
    "Conv": Operator(
        _Chain.conv, (1, 2), options={**_WINDOW, "dilations": (1, 1)}, only={"group": 1}
    ),
    "Dropout": Operator(_Chain.dropout, (0, 2), options={"seed": 0}),
    "Flatten": Operator(_Chain.flatten, only={"axis": 1}),
    "Gemm": Operator(
        _Chain.gemm,
        (1, 2),
        options={"transB": 0},
        only={"alpha": 1.0, "beta": 1.0, "transA": 0},
    ),
    "GlobalAveragePool": Operator(_Chain.global_pool),
    "Identity": Operator(_Chain.identity),
    "LeakyRelu": Operator(_Chain.leaky_relu, options={"alpha": 0.01}),
    "LogSoftmax": Operator(_Chain.softmax, options={"axis": -1}),
    "MatMul": Operator(_Chain.matmul, (1, 1)),
    "MaxPool": Operator(
        _Chain.pool,
        options=_WINDOW,
        only={"ceil_mode": 0, "dilations": (1, 1), "storage_order": 0},
    ),
    "Relu": Operator(_Chain.activation),
    "ReduceMean": Operator(
        _Chain.reduce_mean,
        (0, 1),
        options={"axes": (), "keepdims": 1},
        only={"noop_with_empty_axes": 0},
    ),
    "Reshape": Operator(_Chain.flatten, (1, 1), options={"allowzero": 0}),
    "Sigmoid": Operator(_Chain.activation),
    "Softmax": Operator(_Chain.softmax, options={"axis": -1}),
    "Tanh": Operator(_Chain.activation),
    "Transpose": Operator(_Chain.transpose, options={"perm": ()}),
}

KNOWN = {*OPERATORS, "Constant"}
