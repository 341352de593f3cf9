"""Operations that act on each element by itself, with NumPy's broadcasting.

Each is its value and a rule for the gradient. Undoing the broadcasting is the engine's work.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import DTypeLike

from minidl.backend import Array, array_module, shared_by
from minidl.kernels import elementwise as kernels
from minidl.kernels import softmax
from minidl.ops.operands import Number, floating, operands, tensor
from minidl.tensor import Tensor, TensorLike, record


def add(a: TensorLike, b: TensorLike) -> Tensor:
    """a + b."""
    p, q = operands(a, b)
    return record(p.data + q.data, (p, lambda g: g), (q, lambda g: g))


def subtract(a: TensorLike, b: TensorLike) -> Tensor:
    """a - b."""
    p, q = operands(a, b)
    return record(p.data - q.data, (p, lambda g: g), (q, lambda g: -g))


def multiply(a: TensorLike, b: TensorLike) -> Tensor:
    """a * b."""
    p, q = operands(a, b)
    x, y = p.data, q.data
    return record(x * y, (p, lambda g: g * y), (q, lambda g: g * x))


def divide(a: TensorLike, b: TensorLike) -> Tensor:
    """a / b; integers are divided as float32."""
    p, q = (floating(t) if isinstance(t, Tensor) else t for t in operands(a, b))
    y = q.data
    out = p.data / y
    # -g * x / y**2 would overflow for small y where the quotient itself does not.
    return record(out, (p, lambda g: g / y), (q, lambda g: -g * out / y))


def power(a: TensorLike, b: TensorLike) -> Tensor:
    """a to the power of b.

    The gradient with respect to b needs log(a), and is taken as 0 where a is not positive.
    """
    p, q = operands(a, b)
    x, y = p.data, q.data
    out = x**y

    def base_rule(g: Array) -> Array:
        if isinstance(y, (int, float)):
            return g * (y * x ** (y - 1)) if y else array_module(g).zeros_like(g)
        xp = array_module(g)
        # Where the exponent is 0 the slope is 0, though x ** -1 may be infinite.
        return g * xp.where(y == 0, 0, y * x ** xp.where(y == 0, 1, y - 1))

    def exponent_rule(g: Array) -> Array:
        if isinstance(x, (int, float)):
            return g * out * math.log(x) if x > 0 else array_module(g).zeros_like(g)
        xp = array_module(g)
        positive = x > 0
        return g * xp.where(positive, out * xp.log(xp.where(positive, x, 1)), 0)

    return record(out, (p, base_rule), (q, exponent_rule))


def negative(x: TensorLike) -> Tensor:
    """-x."""
    x = tensor(x)
    return record(-x.data, (x, lambda g: -g))


def abs(x: TensorLike) -> Tensor:
    """The absolute value; its slope at 0 is taken as 0."""
    x = tensor(x)
    data = x.data
    return record(array_module(data).abs(data), (x, lambda g: g * array_module(g).sign(data)))


def exp(x: TensorLike) -> Tensor:
    """e to the power of x."""
    x = floating(x)
    out = array_module(x.data).exp(x.data)
    return record(out, (x, lambda g: g * out))


def log(x: TensorLike) -> Tensor:
    """The natural logarithm."""
    x = floating(x)
    data = x.data
    return record(array_module(data).log(data), (x, lambda g: g / data))


def sqrt(x: TensorLike) -> Tensor:
    """The square root."""
    x = floating(x)
    out = array_module(x.data).sqrt(x.data)
    return record(out, (x, lambda g: g * 0.5 / out))


def tanh(x: TensorLike) -> Tensor:
    """The hyperbolic tangent."""
    x = floating(x)
    out = array_module(x.data).tanh(x.data)
    return record(out, (x, lambda g: g * (1 - out * out)))


def sigmoid(x: TensorLike) -> Tensor:
    """1 / (1 + exp(-x)), computed so that nothing overflows."""
    x = floating(x)
    out = softmax.sigmoid(x.data)
    return record(out, (x, lambda g: g * out * (1 - out)))


def relu(x: TensorLike) -> Tensor:
    """max(x, 0); its slope at 0 is taken as 0."""
    x = tensor(x)
    out = kernels.relu(x.data)
    return record(out, (x, lambda g: kernels.pass_where(g, out > 0)))


def leaky_relu(x: TensorLike, slope: float = 0.01) -> Tensor:
    """x where it is positive, slope * x elsewhere."""
    x = floating(x)
    data = x.data
    positive = data > 0
    xp = array_module(data)
    return record(
        xp.where(positive, data, data * slope), (x, lambda g: xp.where(positive, g, g * slope))
    )


def maximum(a: TensorLike, b: TensorLike) -> Tensor:
    """The larger of the two; where they are equal, each takes half the gradient."""
    p, q = operands(a, b)
    x, y = p.data, q.data
    return record(
        _of_either(x, y).maximum(x, y),
        (p, lambda g: _passed(g, x > y, x == y)),
        (q, lambda g: _passed(g, y > x, x == y)),
    )


def minimum(a: TensorLike, b: TensorLike) -> Tensor:
    """The smaller of the two; where they are equal, each takes half the gradient."""
    p, q = operands(a, b)
    x, y = p.data, q.data
    return record(
        _of_either(x, y).minimum(x, y),
        (p, lambda g: _passed(g, x < y, x == y)),
        (q, lambda g: _passed(g, y < x, x == y)),
    )


def _of_either(x: Any, y: Any) -> Any:
    """The library of whichever operand is an array."""
    return array_module(y if isinstance(x, (int, float)) else x)


def _passed(g: Array, wins: Array, ties: Array) -> Array:
    """The gradient where an operand wins, half of it where it ties, 0 elsewhere."""
    return kernels.keep_where(g, wins) + 0.5 * kernels.keep_where(g, ties)


def where(condition: TensorLike, a: TensorLike, b: TensorLike) -> Tensor:
    """Take from a where the condition, an array of booleans, holds, and from b elsewhere.

    Raises TypeError if the condition is not boolean.
    """
    beside = next((t for t in (a, b) if isinstance(t, Tensor)), None)
    chosen = tensor(condition, beside).data
    if chosen.dtype != bool:
        raise TypeError(f"where() expects a boolean condition, got {chosen.dtype}")
    p, q = operands(a, b)
    shared_by(chosen, *(t.data for t in (p, q) if isinstance(t, Tensor)))
    xp = array_module(chosen)
    return record(
        xp.where(chosen, p.data, q.data),
        (p, lambda g: xp.where(chosen, g, 0)),
        (q, lambda g: xp.where(chosen, 0, g)),
    )


def clip(x: TensorLike, low: float | None = None, high: float | None = None) -> Tensor:
    """Limit each element to low..high; the gradient passes where it lies within, ends included.

    Raises ValueError if low is above high, or neither is given; TypeError for bounds that are
    tensors, which `minimum` and `maximum` take.
    """
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise TypeError("clip() takes numbers as bounds; use minimum() and maximum() for tensors")
    if low is None and high is None:
        raise ValueError("clip() needs low, high or both")
    if low is not None and high is not None and low > high:
        raise ValueError(f"clip() expects low <= high, got {low} and {high}")
    low, high = (None if bound is None else Number(bound).data for bound in (low, high))
    fraction = any(isinstance(bound, float) for bound in (low, high))
    x = floating(x) if fraction else tensor(x)
    data = x.data
    inside = array_module(data).ones(data.shape, dtype=bool)
    if low is not None:
        inside &= data >= low
    if high is not None:
        inside &= data <= high
    return record(
        array_module(data).clip(data, low, high), (x, lambda g: kernels.keep_where(g, inside))
    )


def astype(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """The same values in another dtype; the gradient passes between floating dtypes."""
    x = tensor(x)
    out = Tensor(x.data.astype(dtype))  # which refuses dtypes that tensors do not have
    return record(out.data, (x, lambda g: g)) if out.dtype.kind == "f" else out


def less(a: TensorLike, b: TensorLike) -> Tensor:
    """a < b, as booleans without gradient."""
    p, q = operands(a, b)
    return record(p.data < q.data)


def less_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """a <= b, as booleans without gradient."""
    p, q = operands(a, b)
    return record(p.data <= q.data)


def greater(a: TensorLike, b: TensorLike) -> Tensor:
    """a > b, as booleans without gradient."""
    p, q = operands(a, b)
    return record(p.data > q.data)


def greater_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """a >= b, as booleans without gradient."""
    p, q = operands(a, b)
    return record(p.data >= q.data)


def equal(a: TensorLike, b: TensorLike) -> Tensor:
    """a == b, element by element, as booleans without gradient."""
    p, q = operands(a, b)
    return record(p.data == q.data)


def not_equal(a: TensorLike, b: TensorLike) -> Tensor:
    """a != b, element by element, as booleans without gradient."""
    p, q = operands(a, b)
    return record(p.data != q.data)
