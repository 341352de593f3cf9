"""Every differentiable function: what it computes, and its gradient.

Importing this binds the operators and methods of `Tensor`.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl.ops import elementwise, probability, products, reductions, shapes
from minidl.tensor import Tensor, TensorLike, wants_gradient


def _in_place(compute: Callable[[TensorLike, TensorLike], Tensor]) -> Callable[..., Tensor]:
    """The method for an operator such as -=, which is to change parameters themselves.

    For all other tensors `x -= y` is `x = x - y`, as Python has it, so that gradients flow.
    """

    def method(x: Tensor, other: TensorLike) -> Tensor:
        if not x.is_leaf or not x.requires_grad:
            return NotImplemented
        if wants_gradient(x):
            raise RuntimeError(
                "a tensor that requires a gradient is changed in place inside no_grad() alone; "
                "outside, write x = x - y for a new tensor"
            )
        x.data[...] = compute(x, other).data
        return x

    return method


_METHODS = {
    "__iadd__": _in_place(elementwise.add),
    "__isub__": _in_place(elementwise.subtract),
    "__imul__": _in_place(elementwise.multiply),
    "__itruediv__": _in_place(elementwise.divide),
    "__add__": elementwise.add,
    "__radd__": lambda a, b: elementwise.add(b, a),
    "__sub__": elementwise.subtract,
    "__rsub__": lambda a, b: elementwise.subtract(b, a),
    "__mul__": elementwise.multiply,
    "__rmul__": lambda a, b: elementwise.multiply(b, a),
    "__truediv__": elementwise.divide,
    "__rtruediv__": lambda a, b: elementwise.divide(b, a),
    "__pow__": elementwise.power,
    "__rpow__": lambda a, b: elementwise.power(b, a),
    "__matmul__": products.matmul,
    "__rmatmul__": lambda a, b: products.matmul(b, a),
    "__neg__": elementwise.negative,
    "__abs__": elementwise.abs,
    "__lt__": elementwise.less,
    "__le__": elementwise.less_equal,
    "__gt__": elementwise.greater,
    "__ge__": elementwise.greater_equal,
    # Nothing equals None; NotImplemented lets Python say so instead of making an array of it.
    "__eq__": lambda a, b: NotImplemented if b is None else elementwise.equal(a, b),
    "__ne__": lambda a, b: NotImplemented if b is None else elementwise.not_equal(a, b),
    "__getitem__": shapes.getitem,
    "abs": elementwise.abs,
    "astype": elementwise.astype,
    "clip": elementwise.clip,
    "exp": elementwise.exp,
    "flatten": shapes.flatten,
    "log": elementwise.log,
    "log_softmax": probability.log_softmax,
    "logsumexp": reductions.logsumexp,
    "max": reductions.max,
    "maximum": elementwise.maximum,
    "mean": reductions.mean,
    "min": reductions.min,
    "minimum": elementwise.minimum,
    "pad": shapes.pad,
    "relu": elementwise.relu,
    "reshape": shapes.reshape,
    "sigmoid": elementwise.sigmoid,
    "softmax": probability.softmax,
    "sqrt": elementwise.sqrt,
    "sum": reductions.sum,
    "tanh": elementwise.tanh,
    "transpose": shapes.transpose,
    "var": reductions.var,
}

for _name, _function in _METHODS.items():
    setattr(Tensor, _name, _function)
