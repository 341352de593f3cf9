"""Every operation, layer and loss against numerical slopes, in one table.

Each row of `CASES` names what it covers, computes something with it, and says what inputs to draw.
The rows serve four promises: gradients equal slopes, inputs stay as they were, gradients share no
memory with anything, and float32 stays float32. The last test of the file reads the package and
finds what the table has forgotten.
"""

import inspect
import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from place import here
from public_ops import COMPARISONS, differentiable

import minidl
from minidl import (
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
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    Tensor,
    gradcheck,
    losses,
    no_grad,
)
from minidl.backend import default_generator
from minidl.layers.activation import ACTIVATIONS
from minidl.ops import (
    elementwise,
    images,
    normalization,
    probability,
    products,
    reductions,
    regularization,
    shapes,
)

Draw = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class Case:
    """One row: what it covers, how it computes, and its inputs, drawn when the test runs."""

    covers: Any
    note: str
    compute: Callable[..., Any]  # of tensors; for a model, of nothing: it makes one
    draws: tuple[Draw, ...]
    model: bool = False
    training: bool = True

    def __str__(self):
        return f"{self.covers.__name__}-{self.note}"

    def prepare(self, dtype):
        """The function or model, its parameters, and the inputs as tensors of one dtype."""
        minidl.seed(0)
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        arrays = [np.asarray(draw(rng)) for draw in self.draws]
        if not self.model:
            return self.compute, [], [as_tensor(a, dtype) for a in arrays]
        model = self.compute()
        with no_grad():
            model(*(as_tensor(a, np.float32) for a in arrays))  # makes the parameters
        model.astype(dtype).train(self.training)
        return model, model.parameters(), [as_tensor(a, dtype) for a in arrays]


def as_tensor(array, dtype):
    if array.dtype.kind != "f":
        return Tensor(array.copy())
    return Tensor(array.astype(dtype), requires_grad=True)


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def positive(*shape):
    return lambda rng: rng.uniform(0.3, 2.0, shape)


def unit(*shape):
    """Strictly between 0 and 1."""
    return lambda rng: rng.uniform(0.1, 0.9, shape)


def rows(*shape):
    """Rows of probabilities."""
    return lambda rng: rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def flags(*shape):
    return lambda rng: rng.random(shape) < 0.5


def fixed(values):
    return lambda _: np.array(values)


CASES: list[Case] = []


def op(covers, note, compute, *draws):
    CASES.append(Case(covers, note, compute, draws))


def layer(covers, note, make, *draws, training=True):
    CASES.append(Case(covers, note, make, draws, model=True, training=training))


def arguments(function, **fixed_arguments):
    """The function with some of its arguments set."""
    return lambda *inputs, **more: function(
        *inputs, **{name: here(value) for name, value in fixed_arguments.items()}, **more
    )


def tripled(function):
    """A step after the function, so that what reaches its rules was computed by another rule."""
    return lambda *inputs: function(*inputs) * 3.0


# -- one input, element by element -------------------------------------------------------------

UNARY = [
    (elementwise.negative, "", elementwise.negative, normal),
    (elementwise.abs, "", elementwise.abs, normal),
    (elementwise.exp, "", elementwise.exp, normal),
    (elementwise.log, "", elementwise.log, positive),
    (elementwise.sqrt, "", elementwise.sqrt, positive),
    (elementwise.tanh, "", elementwise.tanh, normal),
    (elementwise.sigmoid, "", elementwise.sigmoid, normal),
    (elementwise.relu, "", elementwise.relu, normal),
    (elementwise.leaky_relu, "", elementwise.leaky_relu, normal),
    (elementwise.leaky_relu, "slope ", arguments(elementwise.leaky_relu, slope=0.3), normal),
    (elementwise.clip, "both ", arguments(elementwise.clip, low=-0.5, high=0.7), normal),
    (elementwise.clip, "low ", arguments(elementwise.clip, low=-0.2), normal),
    (elementwise.clip, "high ", arguments(elementwise.clip, high=0.2), normal),
    (
        elementwise.astype,
        "and back ",
        lambda x: elementwise.astype(elementwise.astype(x, np.float64), x.dtype),
        normal,
    ),
]
for covers, note, compute, draw in UNARY:
    op(covers, note + "plain", compute, draw(2, 3))
    op(covers, note + "batch of one", compute, draw(1, 4))
    op(covers, note + "empty", compute, draw(0, 3))
    op(covers, note + "0-d", tripled(compute), draw())
    op(covers, note + "transposed", lambda x, f=compute: f(x.transpose()), draw(2, 3))
    op(covers, note + "used twice", lambda x, f=compute: f(x) * x + f(x), draw(3))

# -- two inputs, element by element ------------------------------------------------------------

BINARY = [
    (elementwise.add, lambda a, b: a + b, normal),
    (elementwise.subtract, lambda a, b: a - b, normal),
    (elementwise.multiply, lambda a, b: a * b, normal),
    (elementwise.divide, lambda a, b: a / b, positive),
    (elementwise.power, lambda a, b: a**b, positive),
    (elementwise.maximum, elementwise.maximum, normal),
    (elementwise.minimum, elementwise.minimum, normal),
]
PAIRS = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((1, 3), (2, 1)),
    ((2, 3), ()),
    ((), (2, 3)),
    ((1,), (2, 2)),
    ((4, 1, 2), (3, 1)),
    ((2, 3), (1, 1, 3)),
    ((0, 3), (3,)),
    ((0, 3), (1, 1)),
    ((1, 1), (1, 1)),
]
CONSTANTS = {
    "number": 1.5,
    "whole number": 2,
    "float64 scalar": np.float64(0.7),
    "float32 scalar": np.float32(0.7),
    "array": np.array([[0.4], [1.6]]),
    "list": [0.5, 1.5, 2.5],
    "whole numbers": Tensor([1, 2, 3]),
}
for covers, operator, draw in BINARY:
    for p, q in PAIRS:
        op(covers, f"{p} {q}", covers, draw(*p), draw(*q))
    for note, constant in CONSTANTS.items():
        op(covers, f"{note} left", lambda b, f=covers, c=constant: f(here(c), b), draw(2, 3))
        op(covers, f"{note} right", lambda a, f=covers, c=constant: f(a, here(c)), draw(3))
        op(
            covers,
            f"operator, {note} left",
            lambda b, f=operator, c=constant: f(here(c), b),
            draw(3),
        )
        op(
            covers,
            f"operator, {note} right",
            lambda a, f=operator, c=constant: f(a, here(c)),
            draw(2, 3),
        )
    op(covers, "operator", operator, draw(2, 3), draw(3))
    op(covers, "0-d", tripled(covers), draw(), draw())
    op(covers, "0-d and number", tripled(lambda a, f=covers: f(a, 1.5)), draw())
    op(covers, "transposed", lambda a, b, f=covers: f(a.transpose(), b), draw(3, 2), draw(2, 3))
    op(covers, "same on both sides", lambda a, f=covers: f(a, a), draw(2, 3))
for covers in (elementwise.maximum, elementwise.minimum):
    op(covers, "ties", covers, fixed([1.0, 2.0, 3.0]), fixed([1.0, 5.0, 3.0]))
    op(covers, "ties stretched", covers, fixed([[1.0], [2.0]]), fixed([2.0]))
    op(covers, "tie with a number", lambda a, f=covers: f(a, 0.25), fixed([0.25, 1.0, 0.0]))

FLAGS = np.array([[True], [False]])
for p, q in PAIRS[:7]:
    op(elementwise.where, f"{p} {q}", elementwise.where, flags(2, 3), normal(*p), normal(*q))
for shape in [(4, 2, 3), (2, 1), (3,), ()]:
    op(elementwise.where, f"{shape}", elementwise.where, flags(*shape), normal(2, 3), normal(3))
for note, constant in CONSTANTS.items():
    op(
        elementwise.where,
        f"{note} 2",
        lambda b, c=constant: elementwise.where(here(FLAGS), here(c), b),
        normal(3),
    )
    op(
        elementwise.where,
        f"{note} 3",
        lambda a, c=constant: elementwise.where(here(FLAGS), a, here(c)),
        normal(3),
    )
op(
    elementwise.where,
    "list",
    lambda a, b: elementwise.where([True, False], a, b),
    normal(2),
    normal(),
)
op(elementwise.where, "0-d", tripled(elementwise.where), flags(), normal(), normal())
op(elementwise.where, "empty", elementwise.where, flags(0, 3), normal(0, 3), normal(3))
op(
    elementwise.where,
    "same on both sides",
    lambda a: elementwise.where(here(FLAGS), a, a),
    normal(2, 3),
)

op(elementwise.negative, "operator", lambda x: -x, normal(3))
op(elementwise.abs, "operator", abs, normal(3))
for exponent in (0, 1, 2, 3, -1, -2):
    op(elementwise.power, f"negative base ** {exponent}", lambda x, n=exponent: x**n, normal(5))
    op(elementwise.power, f"0-d ** {exponent}", tripled(lambda x, n=exponent: x**n), positive())
for exponent in (0, 1, 2.0, 3):
    op(elementwise.power, f"0 ** {exponent}", lambda x, n=exponent: x**n, fixed([0.0, 0.5, -1.0]))
op(elementwise.power, "0 ** array", lambda x: x ** here(np.arange(3.0)), fixed([0.0] * 3))
op(elementwise.power, "array ** tensor", lambda x: here(np.array([0.0, 2.0])) ** x, positive(3, 2))

# -- shapes ------------------------------------------------------------------------------------

for value in (0.0, 1.5):
    op(shapes.pad, f"all sides {value}", arguments(shapes.pad, widths=1, value=value), normal(2, 3))
for widths in [(1, 2), [(1, 2)], ((1, 0), (0, 2)), [[0, 0], [2, 1]], ((1,), (2,)), 0]:
    op(shapes.pad, f"{widths}", lambda x, w=widths: shapes.pad(x, w), normal(2, 3))
op(shapes.pad, "0-d", tripled(lambda x: shapes.pad(x, 0)), normal())
op(shapes.pad, "empty", lambda x: shapes.pad(x, 1), normal(0, 2))
op(shapes.pad, "images", lambda x: x.pad(((0, 0), (1, 2), (0, 1), (0, 0))), normal(1, 2, 2, 2))

for before, after in [
    ((2, 3), (6,)),
    ((2, 3), (3, -1)),
    ((6,), (1, 2, 3)),
    ((), (1, 1)),
    ((1, 1), ()),
    ((0, 3), (3, 0)),
]:
    op(shapes.reshape, f"{before} {after}", lambda x, s=after: x.reshape(s), normal(*before))
op(shapes.reshape, "separate lengths", lambda x: shapes.reshape(x, 3, 2), normal(2, 3))
op(shapes.reshape, "0-d", tripled(lambda x: shapes.reshape(x, ())), normal(1))
op(shapes.reshape, "transposed", lambda x: x.transpose().reshape(-1), normal(2, 3))

op(shapes.transpose, "reversed", shapes.transpose, normal(2, 3, 4))
op(shapes.transpose, "order", lambda x: shapes.transpose(x, 1, 2, 0), normal(2, 3, 4))
op(shapes.transpose, "tuple", lambda x: shapes.transpose(x, (2, 0, 1)), normal(2, 3, 4))
op(shapes.transpose, "list", lambda x: x.transpose([1, 0]), normal(2, 3))
op(shapes.transpose, "from the end", lambda x: x.transpose(-1, 0, -2), normal(2, 3, 4))
op(shapes.transpose, "0-d", tripled(shapes.transpose), normal())
op(shapes.transpose, "empty", shapes.transpose, normal(0, 2))

for shape in [(2, 3, 2, 2), (2, 3), (3,), (1, 2, 2), (0, 2, 3)]:
    op(shapes.flatten, f"{shape}", shapes.flatten, normal(*shape))

INDICES = {
    "number": 1,
    "from the end": -1,
    "numpy number": np.int64(2),
    "two numbers": (1, 2),
    "slice": slice(1, 3),
    "step": slice(None, None, 2),
    "negative step": slice(None, None, -1),
    "negative step, part": (slice(None), slice(2, None, -2)),
    "None": None,
    "None between": (slice(None), None, 1),
    "Ellipsis": Ellipsis,
    "Ellipsis and number": (Ellipsis, 1),
    "list": [2, 0],
    "array": np.array([0, 3, 1]),
    "repeats": np.array([1, 1, 0, 1]),
    "repeats, 2-d": np.array([[1, 1], [0, -3]]),
    "repeats by sign": np.array([0, -4]),
    "two arrays": (np.array([0, 0, 2]), np.array([1, 1, 0])),
    "array and slice": (slice(1, None), np.array([2, 2])),
    "arrays apart": (np.array([0, 0]), slice(None), np.array([1, 1])),
    "arrays broadcast": (np.array([[0], [1]]), np.array([2, 2])),
    "empty array": np.array([], dtype=int),
    "empty slice": slice(2, 2),
    "mask of rows": np.array([True, False, True, True]),
    "mask of elements": np.arange(24).reshape(4, 3, 2) % 3 == 0,
    "mask of nothing": np.zeros((4, 3), dtype=bool),
    "list of flags": [True, False, False, True],
    "mask and number": (np.array([True, False, True, False]), 1),
    "mask and array": (np.array([True, False, True, False]), np.array([1, 1])),
    "tensor": Tensor([1, 1, 2]),
    "tensor mask": Tensor([True, False, False, True]),
    "tensor in a tuple": (slice(None), Tensor([0, 0])),
}
for note, index in INDICES.items():
    op(shapes.getitem, note, lambda x, i=index: x[here(i)], normal(4, 3, 2))
op(shapes.getitem, "0-d result", tripled(lambda x: x[1]), normal(3))
op(shapes.getitem, "0-d result of an array", tripled(lambda x: x[here(np.array(1))]), normal(3))
op(shapes.getitem, "0-d to 1-d", lambda x: (x[None] * 2.0)[0] * 3.0, normal())
op(shapes.getitem, "0-d to 0-d", tripled(lambda x: x[()]), normal())
op(shapes.getitem, "empty", lambda x: x[:, 1], normal(0, 3))
op(shapes.getitem, "unpacked", lambda x: next(iter(x)), normal(2, 3))


def joined(function, **options):
    return lambda *parts: function(parts, **options)


op(shapes.concatenate, "rows", joined(shapes.concatenate), normal(2, 3), normal(1, 3))
op(shapes.concatenate, "columns", joined(shapes.concatenate, axis=1), normal(2, 1), normal(2, 2))
op(
    shapes.concatenate,
    "last",
    joined(shapes.concatenate, axis=-1),
    normal(2, 1, 2),
    normal(2, 1, 1),
)
op(shapes.concatenate, "one", joined(shapes.concatenate), normal(2, 3))
op(shapes.concatenate, "three", joined(shapes.concatenate), normal(1), normal(2), normal(3))
op(shapes.concatenate, "empty part", joined(shapes.concatenate), normal(0, 2), normal(2, 2))
op(shapes.concatenate, "all empty", joined(shapes.concatenate), normal(0, 2), normal(0, 2))
op(shapes.concatenate, "itself", lambda x: shapes.concatenate([x, x * 2.0, x]), normal(2))
op(
    shapes.concatenate,
    "array",
    lambda x: shapes.concatenate([x, here(np.ones((1, 2)))]),
    normal(2, 2),
)
op(shapes.stack, "first", joined(shapes.stack), normal(2, 3), normal(2, 3))
op(shapes.stack, "second", joined(shapes.stack, axis=1), normal(2, 3), normal(2, 3))
op(shapes.stack, "last", joined(shapes.stack, axis=-1), normal(2, 3), normal(2, 3), normal(2, 3))
op(shapes.stack, "numbers", tripled(joined(shapes.stack)), normal(), normal())
op(
    shapes.stack,
    "computed numbers",
    lambda a, b: shapes.stack([a * 2.0, a * b]),
    normal(),
    normal(),
)
op(shapes.stack, "empty", joined(shapes.stack), normal(0, 3), normal(0, 3))
op(shapes.stack, "itself", lambda x: shapes.stack([x, x]), normal(2))
op(shapes.stack, "list", lambda x: shapes.stack([x, [1.0, 2.0]]), normal(2))

# -- products ----------------------------------------------------------------------------------

for p, q in [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((1, 3), (3, 1)),
    ((4, 2, 3), (4, 3, 2)),
    ((4, 2, 3), (3, 2)),
    ((2, 3), (4, 3, 2)),
    ((3,), (4, 3, 2)),
    ((4, 2, 3), (3,)),
    ((1, 2, 3), (4, 3, 2)),
    ((4, 1, 2, 3), (2, 3, 2)),
    ((2, 1, 2, 3), (1, 4, 3, 1)),
    ((3,), (2, 2, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (3, 2)),
]:
    op(products.matmul, f"{p} {q}", products.matmul, normal(*p), normal(*q))
op(products.matmul, "operator", lambda a, b: a @ b, normal(2, 3), normal(3, 2))
op(products.matmul, "0-d result", tripled(products.matmul), normal(3), normal(3))
op(products.matmul, "array left", lambda b: here(np.ones((2, 3))) @ b, normal(3, 2))
op(products.matmul, "array right", lambda a: a @ here(np.ones(3)), normal(2, 3))
op(products.matmul, "with itself", lambda a: a @ a.transpose(), normal(2, 3))
op(products.matmul, "strided", lambda a, b: a[:, ::2] @ b[::-1], normal(2, 6), normal(3, 2))
op(products.dense, "rows", products.dense, normal(2, 3), normal(3, 4), normal(4))
op(products.dense, "no bias", products.dense, normal(2, 3), normal(3, 4))
op(products.dense, "one row", products.dense, normal(3), normal(3, 2), normal(2))
op(products.dense, "4-d", products.dense, normal(2, 1, 2, 3), normal(3, 2), normal(2))
op(products.dense, "empty", products.dense, normal(0, 3), normal(3, 2), normal(2))
op(
    products.dense,
    "transposed",
    lambda x, w, b: products.dense(x.transpose(), w.transpose(), b),
    normal(3, 2),
    normal(2, 3),
    normal(2),
)
for shape in [(4, 3), (2, 2, 3), (3,), (1, 3), (0, 3)]:
    op(
        products.dense,
        f"relu {shape}",
        arguments(products.dense, relu=True),
        normal(*shape),
        normal(3, 2),
        normal(2),
    )
op(
    products.dense,
    "relu, no bias",
    arguments(products.dense, relu=True),
    normal(4, 3),
    normal(3, 2),
)
op(
    products.dense,
    "relu, constant input",
    lambda w, b: products.dense(here(Tensor(np.ones((2, 3), w.dtype))), w, b, relu=True),
    normal(3, 2),
    normal(2),
)
op(
    products.dense,
    "relu, transposed, then more",
    tripled(lambda x, w: products.dense(x.transpose(), w.transpose(), relu=True)),
    normal(3, 4),
    normal(2, 3),
)

# -- reductions --------------------------------------------------------------------------------

REDUCTIONS = {
    "sum": (reductions.sum, reductions.sum),
    "mean": (reductions.mean, reductions.mean),
    "var": (reductions.var, reductions.var),
    "var ddof": (reductions.var, arguments(reductions.var, ddof=1)),
    "max": (reductions.max, reductions.max),
    "min": (reductions.min, reductions.min),
    "logsumexp": (reductions.logsumexp, reductions.logsumexp),
}
for name, (covers, function) in REDUCTIONS.items():
    for axis in (None, 0, 1, -1, (0, 2), (-1, 0), (2, 1, 0), ()):
        if name == "var ddof" and axis == ():
            continue  # one element less one leaves nothing to divide by
        for keepdims in (False, True):
            op(
                covers,
                f"{name} {axis} {keepdims}",
                arguments(function, axis=axis, keepdims=keepdims),
                normal(2, 3, 2),
            )
    op(covers, f"{name} of one row", arguments(function, axis=1), normal(1, 3))
    op(covers, f"{name} of an empty batch", arguments(function, axis=1), normal(0, 3))
    op(covers, f"{name} then more", tripled(function), normal(3))
    op(covers, f"{name} transposed", lambda x, f=function: f(x.transpose(), axis=0), normal(2, 3))
    if name != "var ddof":
        op(covers, f"{name} 0-d", tripled(function), normal())
op(reductions.sum, "of nothing", arguments(reductions.sum, axis=1), normal(2, 0, 3))
op(reductions.sum, "of nothing at all", reductions.sum, normal(0))
op(reductions.max, "tie", reductions.max, fixed([1.0, 3.0, 3.0]))
op(reductions.max, "ties", arguments(reductions.max, axis=1), fixed([[1.0, 1.0], [2.0, 0.0]]))
op(reductions.min, "tie", reductions.min, fixed([1.0, 3.0, 1.0]))
op(
    reductions.min,
    "ties over two axes",
    arguments(reductions.min, axis=(0, 2), keepdims=True),
    fixed([[[1.0, 4.0], [2.0, 2.0]], [[3.0, 1.0], [5.0, 6.0]]]),
)
op(
    reductions.logsumexp,
    "large",
    arguments(reductions.logsumexp, axis=0),
    fixed([[900.0], [901.0]]),
)

# -- probabilities -----------------------------------------------------------------------------

for function in (probability.softmax, probability.log_softmax):
    for axis in (0, 1, -1):
        op(function, f"axis {axis}", arguments(function, axis=axis), normal(2, 3, 2))
    op(function, "one row", function, normal(4))
    op(function, "batch of one", function, normal(1, 3))
    op(function, "one class", function, normal(2, 1))
    op(function, "empty batch", function, normal(0, 3))
    op(function, "large", function, fixed([[1000.0, 1001.0, 999.5]]))
    op(function, "transposed", lambda x, f=function: f(x.transpose()), normal(3, 2))
    op(function, "then more", tripled(function), normal(2, 3))

LABELS = np.array([2, 0, 1, 2])
SOFT = np.random.default_rng(0).dirichlet(np.ones(3), 4)
UNEVEN = SOFT * np.array([[0.5], [1.0], [2.0], [0.0]])  # rows that do not add up to one


def against(loss, labels, smoothing):
    """The loss of its outputs against labels, which are brought to the outputs' dtype if rows."""
    return lambda x: loss(
        x, here(labels if labels.ndim == 1 else labels.astype(x.dtype)), smoothing
    )


for smoothing in (0.0, 0.1, 1.0):
    for note, labels in {"numbers": LABELS, "rows": SOFT, "uneven rows": UNEVEN}.items():
        op(
            probability.softmax_cross_entropy,
            f"{note} {smoothing}",
            against(probability.softmax_cross_entropy, labels, smoothing),
            normal(4, 3),
        )
        op(
            probability.cross_entropy_of_probabilities,
            f"{note} {smoothing}",
            against(probability.cross_entropy_of_probabilities, labels, smoothing),
            rows(4, 3),
        )
op(
    probability.sigmoid_cross_entropy,
    "plain",
    lambda x: probability.sigmoid_cross_entropy(x, here(SOFT.astype(x.dtype))),
    normal(4, 3),
)
op(
    probability.sigmoid_cross_entropy,
    "0-d",
    tripled(lambda x: probability.sigmoid_cross_entropy(x, here(np.ones((), x.dtype)))),
    normal(),
)

op(
    probability.binary_cross_entropy_of_probabilities,
    "plain",
    lambda x: probability.binary_cross_entropy_of_probabilities(x, here(SOFT.astype(x.dtype))),
    unit(4, 3),
)

op(products.matmul, "batched, nothing to sum over", products.matmul, normal(2, 3, 0), normal(0, 4))
op(products.matmul, "batched, no columns", products.matmul, normal(2, 3, 4), normal(4, 0))
op(products.matmul, "batched, vector right", products.matmul, normal(2, 3, 4), normal(4))

# -- convolution and pooling -------------------------------------------------------------------

CONVOLUTIONS = [
    # image (H, W, C_in), filters (KH, KW, C_out), options
    ((4, 5, 2), (3, 3, 2), {}),
    ((4, 4, 1), (2, 2, 2), {}),
    ((4, 5, 1), (2, 4, 2), {"padding": "same"}),
    ((5, 4, 2), (4, 2, 1), {"padding": "same", "strides": 2}),
    ((4, 5, 1), (3, 3, 2), {"padding": "same"}),
    ((5, 6, 1), (3, 3, 2), {"strides": 2}),
    ((5, 6, 1), (3, 2, 1), {"strides": (1, 2)}),
    ((6, 5, 1), (2, 2, 1), {"strides": (3, 2)}),  # the stride leaves pixels out
    ((5, 4, 2), (3, 3, 1), {"strides": 2, "padding": "same"}),
    ((5, 5, 1), (1, 2, 2), {"strides": 3, "padding": "same"}),
    ((5, 6, 1), (2, 2, 2), {"dilation": 2}),
    ((6, 4, 1), (3, 2, 1), {"dilation": (2, 1)}),
    ((4, 5, 1), (3, 3, 1), {"dilation": 2, "padding": "same"}),
    ((7, 6, 1), (2, 3, 1), {"dilation": (3, 2), "strides": (2, 1)}),
    ((5, 6, 1), (2, 2, 1), {"dilation": 3, "strides": 2, "padding": "same"}),
    ((3, 4, 1), (2, 3, 2), {"padding": 1}),
    ((3, 4, 1), (2, 3, 1), {"padding": (1, 2)}),
    ((3, 4, 1), (2, 3, 1), {"padding": [0, 1]}),
    ((3, 4, 1), (2, 3, 1), {"padding": ((1, 0), (0, 2))}),
    ((3, 4, 1), (2, 3, 1), {"padding": [[0, 2], [1, 1]], "strides": (2, 1)}),
    ((3, 4, 1), (3, 3, 1), {"padding": ((0, 0), (0, 0))}),
    ((3, 3, 1), (2, 2, 2), {"padding": 3}),  # wider than the filter
    ((3, 3, 1), (2, 2, 1), {"padding": 3, "strides": 2}),
    ((3, 3, 1), (2, 2, 1), {"padding": ((3, 0), (0, 4))}),
    ((3, 3, 2), (1, 1, 3), {}),
    ((4, 5, 2), (1, 1, 2), {"strides": 2}),
    ((3, 2, 1), (1, 1, 2), {"padding": 1}),
    ((3, 4, 2), (3, 4, 2), {}),  # as large as the image
    ((2, 2, 1), (4, 4, 1), {"padding": 1}),  # as large as the padded image
    ((2, 2, 1), (3, 3, 2), {"padding": "same"}),  # larger than the image
    ((1, 1, 1), (1, 1, 1), {}),
]
for (h, w, channels), (kh, kw, filters), options in CONVOLUTIONS:
    op(
        images.conv2d,
        f"{h}x{w}x{channels} {kh}x{kw}x{filters} {options}",
        arguments(images.conv2d, **options),
        normal(2, h, w, channels),
        normal(kh, kw, channels, filters),
        normal(filters),
    )
FILTERS = normal(2, 3, 2, 2)
op(images.conv2d, "no bias", images.conv2d, normal(2, 3, 4, 2), FILTERS)
op(images.conv2d, "batch of one", images.conv2d, normal(1, 3, 4, 2), FILTERS, normal(2))
op(images.conv2d, "empty batch", images.conv2d, normal(0, 3, 4, 2), FILTERS, normal(2))
op(
    images.conv2d,
    "empty batch, strides",
    arguments(images.conv2d, strides=2, padding="same"),
    normal(0, 3, 4, 2),
    FILTERS,
    normal(2),
)
op(
    images.conv2d,
    "transposed images and filters",
    lambda x, w: images.conv2d(x.transpose(3, 2, 1, 0), w.transpose(3, 2, 1, 0), padding="same"),
    normal(2, 4, 3, 2),
    normal(1, 2, 3, 2),
)
op(
    images.conv2d,
    "strided images and filters",
    lambda x, w: images.conv2d(x[::-1, ::2, ::-1], w[::-1, :, :, ::2], strides=(1, 2)),
    normal(2, 6, 4, 2),
    normal(2, 3, 2, 3),
)
op(
    images.conv2d,
    "constant images",
    lambda w: images.conv2d(here(np.ones((2, 3, 4, 2), dtype=w.dtype)), w),
    FILTERS,
)
op(
    images.conv2d,
    "constant filters",
    lambda x: images.conv2d(x, here(np.arange(8, dtype=x.dtype).reshape(2, 2, 1, 2))),
    normal(2, 3, 3, 1),
)
op(
    images.conv2d,
    "twice",
    lambda x, w: images.conv2d(images.conv2d(x, w, padding="same"), w, padding="same"),
    normal(1, 3, 4, 2),
    FILTERS,
)

# With what may follow on the spot. Of normal draws no two are close enough for a slope to change
# its place, nor any close enough to 0.
FOLLOWED = [
    # image (H, W, C_in), filters (KH, KW, C_out), options; few channels, then many
    ((5, 6, 1), (2, 2, 2), {"pool_size": 2}),
    ((5, 6, 1), (3, 3, 2), {"pool_size": 2, "padding": "same"}),  # a row is left over
    ((5, 5, 2), (2, 3, 1), {"pool_size": (1, 2), "padding": 1}),
    ((5, 5, 1), (2, 3, 2), {"pool_size": (2, 1), "strides": (1, 2)}),
    ((6, 5, 1), (2, 2, 1), {"pool_size": (3, 2), "padding": ((1, 0), (0, 2))}),
    ((7, 7, 1), (2, 2, 1), {"pool_size": 2, "strides": 2, "padding": "same"}),
    ((6, 6, 1), (2, 2, 1), {"pool_size": 2, "dilation": (1, 2)}),
    ((3, 4, 8), (2, 2, 1), {"pool_size": 2, "padding": 1}),
    ((5, 4, 8), (2, 2, 1), {"pool_size": 2, "strides": (2, 1)}),
    ((4, 4, 2), (1, 1, 2), {"pool_size": 2}),
    ((3, 4, 1), (2, 2, 2), {"pool_size": (2, 3)}),  # the whole image
]
for (h, w, channels), (kh, kw, filters), options in FOLLOWED:
    for more in ({}, {"relu": True}):
        op(
            images.conv2d,
            f"{h}x{w}x{channels} {kh}x{kw}x{filters} {options} {more}",
            arguments(images.conv2d, **options, **more),
            normal(2, h, w, channels),
            normal(kh, kw, channels, filters),
            normal(filters),
        )
RELU_AND_POOL = arguments(images.conv2d, relu=True, pool_size=2)
for (h, w, channels), (kh, kw, filters), options in CONVOLUTIONS[::4]:
    op(
        images.conv2d,
        f"relu, {h}x{w}x{channels} {kh}x{kw}x{filters} {options}",
        arguments(images.conv2d, relu=True, **options),
        normal(2, h, w, channels),
        normal(kh, kw, channels, filters),
        normal(filters),
    )
op(images.conv2d, "relu and pool, no bias", RELU_AND_POOL, normal(2, 3, 4, 2), FILTERS)
op(
    images.conv2d,
    "relu and pool, empty batch",
    RELU_AND_POOL,
    normal(0, 3, 4, 2),
    FILTERS,
    normal(2),
)
op(
    images.conv2d,
    "relu and pool, transposed images and filters",
    lambda x, w: RELU_AND_POOL(x.transpose(3, 2, 1, 0), w.transpose(3, 2, 1, 0)),
    normal(2, 4, 3, 2),
    normal(1, 2, 3, 2),
)
op(
    images.conv2d,
    "relu and pool, constant images",
    lambda w, b: RELU_AND_POOL(
        here(np.cos(np.arange(24, dtype=w.dtype)).reshape(1, 3, 4, 2)), w, b
    ),
    FILTERS,
    normal(2),
)
op(
    images.conv2d,
    "relu and pool, constant filters",
    lambda x: RELU_AND_POOL(x, here(np.arange(8, dtype=x.dtype).reshape(2, 2, 1, 2) - 3)),
    normal(2, 4, 3, 1),
)
op(
    images.conv2d,
    "relu and pool, bias alone",
    lambda b: RELU_AND_POOL(
        here(np.arange(12, dtype=b.dtype).reshape(1, 3, 4, 1)),
        here(np.ones((2, 2, 1, 2), b.dtype)),
        b,
    ),
    normal(2),
)
op(
    images.conv2d,
    "relu and pool, then more",
    tripled(RELU_AND_POOL),
    normal(1, 3, 4, 2),
    FILTERS,
)
op(
    images.conv2d,
    "relu and pool, twice",
    lambda x, w: images.conv2d(RELU_AND_POOL(x, w, padding="same"), w, relu=True, padding="same"),
    normal(1, 4, 5, 2),
    FILTERS,
)

POOLS = [
    ((4, 4), {}),
    ((5, 7), {}),  # what does not fill a window is left out
    ((5, 5), {"pool_size": 3, "strides": 1}),
    ((5, 6), {"pool_size": 3, "strides": 2}),
    ((5, 6), {"pool_size": (2, 3), "strides": (1, 2)}),
    ((5, 5), {"padding": "same"}),
    ((5, 4), {"pool_size": 3, "strides": 2, "padding": "same"}),
    ((4, 5), {"pool_size": 3, "strides": 1, "padding": "same"}),
    ((3, 5), {"pool_size": (1, 3), "strides": 1, "padding": "same"}),
    ((5, 3), {"pool_size": (3, 1), "padding": "same"}),
    ((7, 7), {"strides": 3}),  # the stride leaves pixels out
    ((7, 8), {"strides": (3, 4), "padding": "same"}),
    ((4, 5), {"pool_size": 3, "padding": 1}),
    ((4, 5), {"pool_size": 3, "strides": 2, "padding": (2, 1)}),
    ((4, 5), {"pool_size": (2, 3), "padding": ((1, 0), (0, 2))}),
    ((3, 4), {"pool_size": (3, 4)}),  # the whole image
    ((2, 3), {"pool_size": 1}),
    ((4, 5), {"pool_size": 2, "strides": (2, 1)}),  # windows overlap along one axis
]
for function in (images.max_pool, images.avg_pool):
    for (h, w), options in POOLS:
        op(function, f"{h}x{w} {options}", arguments(function, **options), normal(2, h, w, 2))
    op(function, "batch of one", function, normal(1, 4, 4, 1))
    op(function, "empty batch", function, normal(0, 4, 4, 2))
    op(
        function,
        "empty batch, padded",
        arguments(function, pool_size=3, padding="same"),
        normal(0, 4, 4, 2),
    )
    op(function, "transposed", lambda x, f=function: f(x.transpose()), normal(2, 4, 5, 1))
    op(function, "strided", lambda x, f=function: f(x[:, ::-1, ::2]), normal(1, 4, 8, 2))
    op(function, "then more", tripled(function), normal(1, 2, 2, 1))

# -- normalisation and dropout -----------------------------------------------------------------


def with_statistics(x, gamma, beta):
    given = np.array([0.3, -0.2], dtype=x.dtype), np.array([0.5, 1.5], dtype=x.dtype)
    return normalization.batch_norm(x, gamma, beta, 1e-3, here(given))[0]


def with_batch(x, gamma, beta):
    return normalization.batch_norm(x, gamma, beta, 1e-3)[0]


for shape in [(5, 2), (2, 3, 2), (2, 2, 3, 2)]:
    op(normalization.batch_norm, f"batch {shape}", with_batch, normal(*shape), normal(2), normal(2))
    op(
        normalization.batch_norm,
        f"given {shape}",
        with_statistics,
        normal(*shape),
        normal(2),
        normal(2),
    )
op(
    normalization.batch_norm,
    "transposed",
    lambda x, gamma, beta: with_batch(x.transpose(), gamma, beta),
    normal(2, 5),
    normal(2),
    normal(2),
)
op(
    normalization.batch_norm,
    "given, empty batch",
    with_statistics,
    normal(0, 3, 2),
    normal(2),
    normal(2),
)
for rate in (0.0, 0.4):
    op(
        regularization.dropout,
        f"{rate}",
        arguments(regularization.dropout, rate=rate, generator=default_generator),
        normal(4, 5),
    )
op(
    regularization.dropout,
    "empty",
    arguments(regularization.dropout, rate=0.5, generator=default_generator),
    normal(0, 5),
)
op(
    regularization.dropout,
    "0-d",
    tripled(arguments(regularization.dropout, rate=0.5, generator=default_generator)),
    normal(),
)

# -- layers ------------------------------------------------------------------------------------

for activation in (None, "linear", *ACTIVATIONS, lambda x: x * x):
    note = activation.__name__ if callable(activation) else str(activation)
    for shape in [(2, 3), (2, 2, 3), (2, 1, 2, 3)]:
        layer(
            Dense,
            f"{note} {len(shape)}-d",
            lambda a=activation: Dense(2, activation=a),
            normal(*shape),
        )
    layer(
        Conv2D,
        f"{note}",
        lambda a=activation: Conv2D(2, 2, activation=a),
        normal(2, 3, 3, 1),
    )
layer(Dense, "no bias", lambda: Dense(2, use_bias=False), normal(2, 3))
layer(Dense, "drawn bias", lambda: Dense(2, bias_initializer="pytorch"), normal(2, 3))
layer(Dense, "one row", lambda: Dense(2), normal(1, 3))
layer(Dense, "empty batch", lambda: Dense(2), normal(0, 3))
layer(Conv2D, "no bias", lambda: Conv2D(2, (2, 3), use_bias=False), normal(1, 3, 4, 2))
layer(Conv2D, "same", lambda: Conv2D(2, 3, padding="same"), normal(1, 4, 3, 1))
layer(Conv2D, "strides", lambda: Conv2D(1, 3, strides=2, padding="same"), normal(2, 5, 4, 1))
layer(Conv2D, "dilation", lambda: Conv2D(1, 2, dilation=(1, 2)), normal(1, 3, 4, 2))
layer(Conv2D, "sides", lambda: Conv2D(1, 2, padding=((2, 0), (0, 1))), normal(1, 2, 2, 1))
layer(Conv2D, "empty batch", lambda: Conv2D(2, 2), normal(0, 3, 3, 1))
for activation in (None, "relu"):
    layer(
        Sequential,
        f"convolution and pooling, {activation}",
        lambda a=activation: Sequential([Conv2D(2, 3, activation=a), MaxPool(2)]),
        normal(2, 5, 6, 1),
    )
for pool in (MaxPool, AvgPool):
    layer(pool, "plain", pool, normal(2, 4, 5, 1))
    layer(pool, "overlapping", lambda p=pool: p(3, strides=2), normal(1, 5, 5, 2))
    layer(pool, "same", lambda p=pool: p((2, 3), padding="same"), normal(1, 5, 4, 1))
    layer(pool, "padding", lambda p=pool: p(3, padding=1), normal(1, 4, 5, 1))
layer(GlobalAvgPool, "plain", GlobalAvgPool, normal(2, 3, 2, 2))
layer(GlobalAvgPool, "empty batch", GlobalAvgPool, normal(0, 3, 2, 2))
for shape in [(5, 2), (2, 3, 2), (2, 2, 3, 2)]:
    layer(BatchNorm, f"train {shape}", BatchNorm, normal(*shape))
    layer(BatchNorm, f"eval {shape}", lambda: BatchNorm(0.5), normal(*shape), training=False)
layer(Dropout, "train", lambda: Dropout(0.4), normal(4, 5))
layer(Dropout, "eval", lambda: Dropout(0.4), normal(4, 5), training=False)
layer(Dropout, "rate of 0", lambda: Dropout(0.0), normal(2, 3))
layer(Dropout, "rate near 1", lambda: Dropout(0.9), normal(4, 5))
layer(Flatten, "images", Flatten, normal(2, 3, 2, 2))
layer(Flatten, "flat already", Flatten, normal(2, 3))
layer(Flatten, "empty batch", Flatten, normal(0, 3, 2))
for axis in (-1, 0, 1):
    layer(Softmax, f"axis {axis}", lambda a=axis: Softmax(a), normal(2, 3, 2))
layer(ReLU, "plain", ReLU, normal(2, 3))
layer(LeakyReLU, "plain", LeakyReLU, normal(2, 3))
layer(LeakyReLU, "slope", lambda: LeakyReLU(0.3), normal(2, 3))
layer(Sigmoid, "plain", Sigmoid, normal(2, 3))
layer(Tanh, "plain", Tanh, normal(2, 3))


class Residual(Module):
    """What a user writes: parameters of its own, layers in attributes, lists and dicts."""

    def __init__(self):
        self.scale = Parameter(np.array([0.5, 2.0], dtype=np.float32))
        self.branches = [Dense(2, activation="tanh"), Dense(2)]
        self.named = {"last": Dense(2, use_bias=False)}

    def forward(self, x):
        hidden = self.branches[0](x) + self.branches[1](x) * self.scale
        return self.named["last"](hidden) + hidden


class Widened(Module):
    """A module inside Sequential, of any width."""

    def __init__(self):
        self.inner = Dense(3, "tanh")

    def forward(self, x):
        return x + self.inner(x)


class Shared(Module):
    """One layer used twice."""

    def __init__(self):
        self.dense = Dense(3, activation="sigmoid")

    def forward(self, x, y):
        return self.dense(self.dense(x)) * y


layer(Module, "residual", Residual, normal(3, 2))
layer(Module, "shared layer, two inputs", Shared, normal(2, 3), normal(3))
layer(Sequential, "dense", lambda: Sequential([Dense(3, "relu"), Dense(2)], (4,)), normal(2, 4))
layer(
    Sequential,
    "convolutional",
    lambda: Sequential(
        [
            Conv2D(2, 3, padding="same", use_bias=False),
            BatchNorm(),
            ReLU(),
            MaxPool(),
            Dropout(0.25),
            Flatten(),
            Dense(3, "softmax"),
        ]
    ),
    normal(2, 4, 5, 1),
)
layer(
    Sequential,
    "nested",
    lambda: Sequential(
        [Sequential([Dense(3), Tanh()]), Widened(), Sequential([Sequential([Dense(2)])])]
    ),
    normal(2, 2),
)
layer(
    Sequential,
    "evaluation",
    lambda: Sequential([Dense(3), BatchNorm(0.5), Dropout(0.5), LeakyReLU(), Dense(1)]),
    normal(4, 2),
    training=False,
)


# -- losses ------------------------------------------------------------------------------------

LABEL_FORMS = {
    "numbers": LABELS,
    "column": LABELS[:, None],
    "list": LABELS.tolist(),
    "bytes": LABELS.astype(np.uint8),
    "tensor": Tensor(LABELS),
    "one-hot": np.eye(3)[LABELS],
    "whole one-hot": np.eye(3, dtype=int)[LABELS],
    "rows": SOFT,
    "tensor rows": Tensor(SOFT),
}
for (form, labels), reduction, smoothing, from_logits in itertools.product(
    LABEL_FORMS.items(), losses.REDUCTIONS, (0.0, 0.2), (True, False)
):
    op(
        losses.cross_entropy,
        f"{form} {reduction} {smoothing} {from_logits}",
        arguments(
            losses.cross_entropy,
            labels=labels,
            reduction=reduction,
            label_smoothing=smoothing,
            from_logits=from_logits,
        ),
        normal(4, 3) if from_logits else rows(4, 3),
    )
op(losses.cross_entropy, "one sample", arguments(losses.cross_entropy, labels=[1]), normal(1, 3))
op(losses.cross_entropy, "one class", arguments(losses.cross_entropy, labels=[0, 0]), normal(2, 1))
op(
    losses.cross_entropy,
    "weighted",
    tripled(arguments(losses.cross_entropy, labels=LABELS)),
    normal(4, 3),
)
op(
    losses.cross_entropy,
    "of softmax",
    lambda x: losses.cross_entropy(x.softmax(), here(LABELS), from_logits=False),
    normal(4, 3),
)
for reduction in losses.REDUCTIONS:
    for from_logits in (True, False):
        op(
            losses.binary_cross_entropy,
            f"{reduction} {from_logits}",
            arguments(
                losses.binary_cross_entropy,
                labels=SOFT,
                reduction=reduction,
                from_logits=from_logits,
            ),
            unit(4, 3),
        )
    op(
        losses.mse,
        f"{reduction}",
        arguments(losses.mse, targets=SOFT, reduction=reduction),
        normal(4, 3),
    )
for from_logits in (True, False):
    op(
        losses.binary_cross_entropy,
        f"whole labels {from_logits}",
        arguments(losses.binary_cross_entropy, labels=[0, 1, 1], from_logits=from_logits),
        unit(3),
    )
    op(
        losses.binary_cross_entropy,
        f"0-d {from_logits}",
        tripled(arguments(losses.binary_cross_entropy, labels=1.0, from_logits=from_logits)),
        unit(),
    )
op(losses.mse, "0-d", tripled(arguments(losses.mse, targets=0.5)), normal())
op(losses.mse, "one sample", arguments(losses.mse, targets=[[1, 2]]), normal(1, 2))
op(losses.mse, "tensor", arguments(losses.mse, targets=Tensor([1.0, 2.0])), normal(2))

# -- what holds for every row ------------------------------------------------------------------

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def backward(compute, inputs):
    """One pass forward and back, with drawn numbers as the gradient of the output."""
    out = compute(*inputs)
    seed = np.asarray(np.random.default_rng(0).standard_normal(out.shape), dtype=out.dtype)
    out.backward(seed)
    return out, seed


@every_case
def test_gradients_equal_slopes(case):
    compute, _, inputs = case.prepare(np.float64)
    assert gradcheck(compute, inputs, rtol=1e-5)


@every_case
def test_inputs_parameters_and_output_gradient_stay_as_they_were(case):
    compute, parameters, inputs = case.prepare(np.float64)
    held = [*inputs, *parameters]
    before = [t.data.tobytes() for t in held]
    out, seed = backward(compute, inputs)
    assert [t.data.tobytes() for t in held] == before
    again = np.random.default_rng(0).standard_normal(out.shape)
    assert seed.tobytes() == np.asarray(again, dtype=out.dtype).tobytes()


@every_case
def test_gradients_share_no_memory(case):
    compute, parameters, inputs = case.prepare(np.float64)
    held = [t for t in (*inputs, *parameters) if t.requires_grad]
    out, seed = backward(compute, inputs)
    gradients = [t.grad for t in held]
    others = [t.data for t in (*inputs, *parameters)] + [out.data, seed]
    for i, gradient in enumerate(gradients):
        for other in (*gradients[:i], *others):
            assert not np.shares_memory(gradient, other)
        assert gradient.flags.writeable


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_and_shape_are_kept(case, dtype):
    compute, parameters, inputs = case.prepare(dtype)
    out, _ = backward(compute, inputs)
    assert type(out.data) is np.ndarray
    assert out.dtype == dtype
    for t in (*inputs, *parameters):
        if t.requires_grad:
            assert type(t.grad) is np.ndarray
            assert t.grad.dtype == dtype
            assert t.grad.shape == t.shape


@every_case
def test_rules_compute_in_the_precision_of_their_input(case, monkeypatch):
    """What a rule returns before the engine would convert it."""
    fit = minidl.tensor._fit
    returned = []

    def watched(gradient, shape, dtype):
        returned.append((gradient.dtype, dtype))
        return fit(gradient, shape, dtype)

    monkeypatch.setattr(minidl.tensor, "_fit", watched)
    compute, _, inputs = case.prepare(np.float32)
    backward(compute, inputs)
    if case.covers is not elementwise.astype:  # whose gradient arrives in the other precision
        assert all(got == wanted for got, wanted in returned), returned


@every_case
def test_a_second_pass_doubles_the_gradients(case):
    compute, parameters, inputs = case.prepare(np.float64)
    held = [t for t in (*inputs, *parameters) if t.requires_grad]
    streams = default_generator.host.bit_generator.state
    backward(compute, inputs)
    once = [t.grad.copy() for t in held]
    default_generator.host.bit_generator.state = streams
    backward(compute, inputs)
    for t, gradient in zip(held, once, strict=True):
        np.testing.assert_array_equal(t.grad, 2 * gradient)


# -- nothing is forgotten ----------------------------------------------------------------------


def test_the_table_names_every_function_of_ops():
    assert {case.covers for case in CASES} >= differentiable()


def test_the_table_names_every_differentiable_function_that_minidl_exports():
    exported = [getattr(minidl, name) for name in minidl.__all__]
    functions = {
        value
        for value in exported
        if inspect.isfunction(value)
        and value.__module__.startswith(("minidl.ops", "minidl.losses"))
    }
    assert {case.covers for case in CASES} >= functions - COMPARISONS
    assert {losses.cross_entropy, losses.binary_cross_entropy, losses.mse} <= functions


def test_the_table_names_every_layer_that_minidl_exports():
    exported = [getattr(minidl, name) for name in minidl.__all__]
    layers = {
        value for value in exported if inspect.isclass(value) and issubclass(value, minidl.Module)
    }
    assert layers - {case.covers for case in CASES} == {minidl.Layer}


def test_every_row_has_a_name_of_its_own():
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda function: function.__name__)
def test_comparisons_have_no_gradient(compare):
    out = compare(Tensor([1.0, 2.0], requires_grad=True), 1.5)
    assert out.dtype == bool
    assert not out.requires_grad
