"""Reads an ONNX graph as a model, if it is a chain of operators that our layers stand for.

A file is not trusted, and nothing in it is executed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.data.files import open_file
from minidl.interop.onnx.chain import Chain
from minidl.interop.onnx.format import CLASS_NAMES, MOST_BYTES, OPSETS_READ, require_onnx
from minidl.interop.onnx.operators import OPERATORS, Node
from minidl.interop.onnx.tensors import DOUBLE, FLOAT, GivenTensors, attributes_of
from minidl.layers import Sequential
from minidl.training.description import check_class_names
from minidl.training.weights import shortened

if TYPE_CHECKING:
    import onnx

DOMAINS = ("", "ai.onnx")  # of the operators that ONNX itself defines

# No chain of layers is as long. Even empty nodes take 75 times as much memory as in the file.
MOST_NODES = 4096

KNOWN = {*OPERATORS, "Constant"}


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
    model = _read(found.graph, GivenTensors(found.graph, len(content)))
    for entry in found.metadata_props:
        if entry.key == CLASS_NAMES:
            model.class_names = check_class_names(_json(entry.value), model)
    return model.eval()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the class names are nested too deeply") from None


def _read(graph: onnx.GraphProto, given: GivenTensors) -> Sequential:
    """The model of a graph."""
    if len(graph.node) > MOST_NODES:
        raise ValueError(f"expected at most {MOST_NODES} nodes, got {len(graph.node)}")
    inputs = [entry for entry in graph.input if entry.name not in given]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(
            f"expected one input and one output, got {len(inputs)} and {len(graph.output)}"
        )
    chain = _start(graph, inputs[0], given)
    value = inputs[0].name
    for node in graph.node:
        try:
            value = _read_node(node, value, chain)
        except ValueError as error:
            raise ValueError(f"node {node.name!r} of type {node.op_type!r}: {error}") from error
    if graph.output[0].name != value:
        raise ValueError(
            f"the output is {graph.output[0].name!r}, expected what the last node gives, {value!r}"
        )
    return chain.model()


def _start(graph: onnx.GraphProto, entry: onnx.ValueInfoProto, given: GivenTensors) -> Chain:
    """The chain before the first node, which takes what is given as the input."""
    kind = entry.type.tensor_type
    if kind.elem_type not in (FLOAT, DOUBLE):
        raise ValueError(
            f"input {entry.name!r}: expected float32 or float64, got type {kind.elem_type}"
        )
    batch, *shape = [length.dim_value for length in kind.shape.dim] or [0]
    if not shape or min(shape) < 1:
        raise ValueError(
            f"input {entry.name!r}: expected a batch of a shape of which only the first length is "
            f"left open, got {[batch, *shape]}, where 0 is open; export it with fixed sizes"
        )
    # The first operator that looks at the order of the axes tells what it is.
    looking = (OPERATORS[n.op_type].layout for n in graph.node if n.op_type in OPERATORS)
    channels_first = len(shape) > 1 and next(filter(None, looking), None) == "channels first"
    if channels_first:
        shape = [*shape[1:], shape[0]]
    return Chain(given, kind.elem_type, batch, tuple(shape), channels_first)


def _read_node(node: onnx.NodeProto, value: str, chain: Chain) -> str:
    """Read a node that takes a value; the name of what it gives."""
    if node.domain not in DOMAINS or node.op_type not in KNOWN:
        known = ", ".join(sorted(KNOWN))
        raise ValueError(f"no layer of minidl stands for this operator; known: {known}")
    output, *others = node.output or [""]
    if not output or any(others):
        raise ValueError(f"expected one output in use, got {list(node.output)}")
    if output in chain.given:
        raise ValueError(f"there is a weight named {output!r} as its output already")
    inputs = list(node.input)
    if node.op_type == "Constant":
        chain.given.add(node)
        return value
    if node.op_type == "Identity" and len(inputs) == 1 and inputs[0] in chain.given:
        chain.given.add_name(output, of=inputs[0])
        return value
    while inputs and not inputs[-1]:  # left out, as it may be
        inputs.pop()
    _check_inputs(node.op_type, inputs, value, chain.given)
    inputs.remove(value)
    operator = OPERATORS[node.op_type]
    least, most = operator.weights
    if not least <= len(inputs) <= most:
        raise ValueError(f"expects {least} to {most} weights, got {len(inputs)}")
    attributes = attributes_of(node, operator.options, operator.only)
    operator.read(chain, Node(node.op_type, attributes, inputs))
    return output


def _check_inputs(operator: str, inputs: list[str], value: str, given: GivenTensors) -> None:
    """Raise ValueError unless these are what the last node gives, and weights."""
    first = inputs[:1] if operator != "Add" else inputs
    others = [name for name in inputs if name != value]
    unknown = [name for name in others if name not in given]
    if value not in first or len(others) != len(inputs) - 1 or unknown:
        raise ValueError(
            f"expected as inputs {value!r}, which the node before gives, and weights, got "
            f"{inputs}; only graphs are read in which one node follows another"
        )
