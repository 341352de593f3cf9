"""Reads what an ONNX file holds beside its operators: tensors that are given, and attributes.

A file is not trusted. No other file is opened that it names, and the length of a tensor is compared
with its shape before it is copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.backend import Array

if TYPE_CHECKING:
    import onnx

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


class GivenTensors:
    """The tensors of a graph that are given: weights, and what operators take as settings.

    Args:
        graph: the graph; those that its nodes make are added when these are read.
        file_bytes: the length of the file.
    """

    def __init__(self, graph: onnx.GraphProto, file_bytes: int) -> None:
        if graph.sparse_initializer:
            raise ValueError("holds sparse weights, which minidl has none of")
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._bytes_left = max(BYTES_OF_ANY_FILE, 4 * file_bytes)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def add(self, node: onnx.NodeProto) -> None:
        """Add what a node of type Constant gives."""
        if [attribute.name for attribute in node.attribute] != ["value"] or node.input:
            raise ValueError("expected a tensor as its value, and nothing else")
        self._tensors[node.output[0]] = node.attribute[0].t

    def add_name(self, name: str, of: str) -> None:
        """Let a tensor have another name as well."""
        self._tensors[name] = self._tensors[of]

    def values(self, name: str, *types: int) -> Array:
        """The values of a tensor of one of these types: an array of its own."""
        tensor = self._tensors[name]
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


def attributes_of(
    node: onnx.NodeProto, options: Mapping[str, Any], only: Mapping[str, Any]
) -> dict[str, Any]:
    """The attributes of a node.

    Args:
        node: the node.
        options: those that are known, with their defaults, which tell the types as well.
        only: those that must have this value where they are given.
    """
    values = dict(options)
    for attribute in node.attribute:
        name, value = attribute.name, _attribute(attribute)
        if name in only:
            if value != only[name]:
                raise ValueError(f"{name} must be {only[name]}, got {value}")
        elif name not in values or type(value) is not type(values[name]):
            raise ValueError(f"attribute {name!r} is unknown or of a wrong type, {value!r}")
        else:
            values[name] = value
    return values


def _attribute(attribute: onnx.AttributeProto) -> int | float | str | tuple[int, ...] | None:
    """The value of an attribute, None for kinds that no operator here has."""
    match attribute.type:
        case attribute.FLOAT:
            return shortest(np.float32(attribute.f))
        case attribute.INT:
            return int(attribute.i)
        case attribute.STRING:
            return str(attribute.s, "utf-8")
        case attribute.INTS:
            return tuple(attribute.ints)
    return None


def shortest(number: np.floating[Any]) -> float:
    """The number with the fewest digits that is this one in its dtype: 0.3, not 0.30000001192."""
    return float(str(number))
