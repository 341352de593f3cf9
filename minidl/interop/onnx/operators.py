"""The operators of ONNX that are read, and the layer that each stands for.

They are described in https://github.com/onnx/onnx/blob/main/docs/Operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import Array
from minidl.interop.onnx.chain import Chain
from minidl.interop.onnx.tensors import BOOL, DOUBLE, FLOAT, INT64, shortest
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
    LeakyReLU,
    MaxPool,
    Parameter,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)


class Node(NamedTuple):
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


class Operator(NamedTuple):
    """What is read of an operator.

    Attributes:
        read: adds the layer that it stands for.
        weights: how many it takes, at least and at most.
        layout: where it expects the channels, if it looks at the order of axes at all: "channels
            first", or "as it is", which tells nothing of what the axes are.
        options: its attributes with their defaults, which tell the types as well.
        only: attributes that must have this value, the default, where they are given.
    """

    read: Callable[[Chain, Node], None]
    weights: tuple[int, int] = (0, 0)
    layout: str | None = None
    options: Mapping[str, Any] = {}
    only: Mapping[str, Any] = {}


def conv(chain: Chain, node: Node) -> None:
    """A Conv2D."""
    chain.check_images()
    weight = chain.weight(node.weights[0])
    if weight.ndim != 4 or weight.shape[1] != chain.shape[2]:
        raise ValueError(f"expects filters (C_out, {chain.shape[2]}, KH, KW), got {weight.shape}")
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
        layer.bias = Parameter(chain.vector(node.weights[1], layer.filters))
    image = chain.shape[0], chain.shape[1]
    window = place_window(image, size, layer.strides, layer.padding, layer.dilation)
    chain.add(layer, (*window.positions(image), layer.filters))


def pool(chain: Chain, node: Node) -> None:
    """A MaxPool or AvgPool."""
    chain.check_images()
    kind = MaxPool if node.operator == "MaxPool" else AvgPool
    layer = kind(node.attributes["kernel_shape"], node.attributes["strides"], node.padding)
    image = chain.shape[0], chain.shape[1]
    window = place_window(image, layer.pool_size, layer.strides, layer.padding)
    if any(max(p) >= n for p, n in zip(window.padding, window.size, strict=True)):
        raise ValueError(f"pads {window.padding} would leave windows with padding alone")
    if node.attributes.get("count_include_pad") and window.padded:
        raise ValueError("count_include_pad must be 0 where there is padding")
    chain.add(layer, (*window.positions(image), chain.shape[2]))


def global_pool(chain: Chain, _: Node) -> None:
    """An AvgPool over the whole image, which stays an image; see `flatten`."""
    chain.check_images()
    chain.whole_pool = AvgPool((chain.shape[0], chain.shape[1]))
    chain.add(chain.whole_pool, (1, 1, chain.shape[2]))


def reduce_mean(chain: Chain, node: Node) -> None:
    """The same, as it may be written as well."""
    chain.check_images()
    # Since operator set 18, the axes are among the inputs.
    axes = node.attributes["axes"]
    if node.weights:
        axes = chain.given.values(node.weights[0], INT64).reshape(-1).tolist()
    if sorted(axis % 4 for axis in axes) != [2, 3]:
        raise ValueError(f"expects the axes of height and width, [2, 3], got {axes}")
    global_pool(chain, node)
    if not node.attributes["keepdims"]:
        _flatten(chain)


def flatten(chain: Chain, node: Node) -> None:
    """A Flatten; with the pooling before it, a GlobalAvgPool."""
    if node.operator == "Reshape":
        _check_flattens(chain, node)
    _flatten(chain)


def _flatten(chain: Chain) -> None:
    features = math.prod(chain.shape)
    if chain.last is not None and chain.last is chain.whole_pool:
        chain.replace(GlobalAvgPool(), (features,))
    else:
        if chain.channels_first and len(chain.shape) != 3:
            raise ValueError(f"expects images or channels last, not {chain.described()}")
        if chain.channels_first and chain.shape[-1] not in (1, features):
            chain.flattened = chain.shape
        chain.add(Flatten(), (features,))
    chain.channels_first = False


def _check_flattens(chain: Chain, node: Node) -> None:
    """Raise ValueError if a Reshape does anything else."""
    to = chain.given.values(node.weights[0], INT64).tolist()
    features = math.prod(chain.shape)
    # One -1 is what remains; 0 leaves a length as it is, unless it is to be taken literally.
    batches = {-1, chain.batch or -1, -1 if node.attributes["allowzero"] else 0}
    known = [[batch, features] for batch in batches] + [[batch, -1] for batch in batches - {-1}]
    if to not in known:
        raise ValueError(f"expects the shape (N, {features}), got {to}")


def gemm(chain: Chain, node: Node) -> None:
    """A Dense on features."""
    if len(chain.shape) != 1:
        raise ValueError(f"expects features (N, C), not {chain.described()}")
    weight = chain.weight(node.weights[0])
    layer = _dense(chain, weight.T if node.attributes["transB"] else weight)
    if len(node.weights) > 1:
        _give_bias(chain, layer, node.weights[1])


def matmul(chain: Chain, node: Node) -> None:
    """A Dense on the last axis."""
    chain.check_last()
    _dense(chain, chain.weight(node.weights[0]))


def _dense(chain: Chain, weight: Array) -> Dense:
    """A Dense, without bias yet."""
    if weight.ndim != 2 or len(weight) != chain.shape[-1]:
        raise ValueError(f"expects a weight for {chain.shape[-1]} features, got {weight.shape}")
    layer = Dense(weight.shape[1], use_bias=False)
    layer.weight = Parameter(np.array(chain.in_our_order(weight), order="C"))
    chain.flattened = None
    chain.add(layer, (*chain.shape[:-1], layer.units))
    return layer


def add_bias(chain: Chain, node: Node) -> None:
    """The bias of the Dense before."""
    chain.check_last()
    layer = chain.last
    if not isinstance(layer, Dense) or layer.use_bias or layer.activation is not None:
        raise ValueError("adds to something else than a MatMul, as only a bias is read")
    _give_bias(chain, layer, node.weights[0])


def _give_bias(chain: Chain, layer: Dense, name: str) -> None:
    layer.bias = Parameter(chain.vector(name, layer.units))
    layer.use_bias = True


def batch_norm(chain: Chain, node: Node) -> None:
    """A BatchNorm."""
    if len(chain.shape) > 1 and not chain.channels_first:
        raise ValueError(f"works on the second axis, but takes {chain.described()}")
    vectors = [chain.in_our_order(chain.vector(name, chain.shape[-1])) for name in node.weights]
    layer = BatchNorm(node.attributes["momentum"], node.attributes["epsilon"])
    layer.gamma, layer.beta = map(Parameter, vectors[:2])
    layer.running_mean, layer.running_variance = map(Buffer, vectors[2:])
    chain.add(layer, chain.shape)


def activation(chain: Chain, node: Node) -> None:
    """An activation, which a Conv2D or Dense right before takes as an argument."""
    kind = {"Relu": ReLU, "Sigmoid": Sigmoid, "Tanh": Tanh}[node.operator]
    if not chain.activate(kind.__name__.lower()):
        chain.add(kind(), chain.shape)


def leaky_relu(chain: Chain, node: Node) -> None:
    """A LeakyReLU."""
    chain.add(LeakyReLU(node.attributes["alpha"]), chain.shape)


def softmax(chain: Chain, node: Node) -> None:
    """A softmax or its logarithm, along any axis."""
    rank = len(chain.shape) + 1
    given = node.attributes["axis"]
    if not -rank <= given < rank:
        raise ValueError(f"axis must be one of {rank}, got {given}")
    axis = given % rank
    if chain.channels_first and axis:
        axis = rank - 1 if axis == 1 else axis - 1
    logarithm = node.operator == "LogSoftmax"
    if axis == rank - 1 and chain.activate("log_softmax" if logarithm else "softmax"):
        return
    if logarithm:
        raise ValueError("is read only as the activation of a Conv or Gemm before, by channels")
    chain.add(Softmax(axis), chain.shape)


def dropout(chain: Chain, node: Node) -> None:
    """A Dropout."""
    if len(node.weights) > 1 and chain.given.values(node.weights[1], BOOL).any():
        raise ValueError("training_mode must be false")
    rate = 0.5
    if node.weights:
        values = chain.given.values(node.weights[0], FLOAT, DOUBLE)
        if values.size != 1:
            raise ValueError(f"expects one ratio, got {values.size}")
        rate = shortest(values.reshape(-1)[0])
    chain.add(Dropout(rate), chain.shape)


def identity(chain: Chain, _: Node) -> None:
    """Nothing."""


def transpose(chain: Chain, node: Node) -> None:
    """Another place for the channels in the graph, which stay where they are here."""
    rank = len(chain.shape) + 1
    first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    perm = node.attributes["perm"]
    if rank > 2 and perm == (last if chain.channels_first else first):
        chain.channels_first = not chain.channels_first
    elif perm != tuple(range(rank)):
        raise ValueError(
            f"perm must bring channels from one end to the other, got {perm} for "
            f"{chain.described()}"
        )


# Settings of a window over images.
_WINDOW = {"auto_pad": "NOTSET", "kernel_shape": (), "pads": (0, 0, 0, 0), "strides": (1, 1)}

OPERATORS: Mapping[str, Operator] = {
    "Add": Operator(add_bias, (1, 1)),
    "AveragePool": Operator(
        pool,
        layout="channels first",
        options={**_WINDOW, "count_include_pad": 0},
        only={"ceil_mode": 0, "dilations": (1, 1)},
    ),
    "BatchNormalization": Operator(
        batch_norm,
        (4, 4),
        "channels first",
        options={"epsilon": 1e-5, "momentum": 0.9},
        only={"training_mode": 0},
    ),
    "Conv": Operator(
        conv,
        (1, 2),
        "channels first",
        options={**_WINDOW, "dilations": (1, 1)},
        only={"group": 1},
    ),
    "Dropout": Operator(dropout, (0, 2), options={"seed": 0}),
    "Flatten": Operator(flatten, layout="as it is", only={"axis": 1}),
    "Gemm": Operator(
        gemm,
        (1, 2),
        "as it is",
        options={"transB": 0},
        only={"alpha": 1.0, "beta": 1.0, "transA": 0},
    ),
    "GlobalAveragePool": Operator(global_pool, layout="channels first"),
    "Identity": Operator(identity),
    "LeakyRelu": Operator(leaky_relu, options={"alpha": 0.01}),
    "LogSoftmax": Operator(softmax, options={"axis": -1}),
    "MatMul": Operator(matmul, (1, 1), "as it is"),
    "MaxPool": Operator(
        pool,
        layout="channels first",
        options=_WINDOW,
        only={"ceil_mode": 0, "dilations": (1, 1), "storage_order": 0},
    ),
    "Relu": Operator(activation),
    "ReduceMean": Operator(
        reduce_mean,
        (0, 1),
        "channels first",
        options={"axes": (), "keepdims": 1},
        only={"noop_with_empty_axes": 0},
    ),
    "Reshape": Operator(flatten, (1, 1), "as it is", options={"allowzero": 0}),
    "Sigmoid": Operator(activation),
    "Softmax": Operator(softmax, options={"axis": -1}),
    "Tanh": Operator(activation),
    "Transpose": Operator(transpose, layout="as it is", options={"perm": ()}),
}
