"""Matrix products: `matmul` as NumPy defines it, and `dense`, the product of a layer."""

from __future__ import annotations

import math

from minidl import backend
from minidl.backend import Array, array_module
from minidl.kernels.summation import sum_rows
from minidl.ops.operands import Number, operands
from minidl.tensor import Tensor, TensorLike, record


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """a @ b: the matrix product over the last two axes, all axes before them broadcast.

    A vector on the left counts as one row, on the right as one column, and that axis is dropped.
    Raises ValueError for numbers, and for shapes that do not fit together.
    """
    p, q = operands(a, b)
    if isinstance(p, Number) or isinstance(q, Number) or not p.ndim or not q.ndim:
        raise ValueError("matmul needs arrays with axes on both sides; numbers are multiplied by *")
    x, y = p.data, q.data
    left_vector, right_vector = x.ndim == 1, y.ndim == 1
    rows = x[None, :] if left_vector else x
    columns = y[:, None] if right_vector else y
    if rows.shape[-1] != columns.shape[-2]:
        raise ValueError(
            f"matmul: {x.shape} @ {y.shape}: {rows.shape[-1]} columns meet {columns.shape[-2]} rows"
        )
    out = x @ y

    def matrices(g: Array) -> Array:
        """The gradient with the axes of a vector put back."""
        if left_vector:
            g = array_module(g).expand_dims(g, -1 if right_vector else -2)
        return array_module(g).expand_dims(g, -1) if right_vector else g

    def left(g: Array) -> Array:
        gradient = matrices(g) @ columns.swapaxes(-1, -2)
        return gradient[..., 0, :] if left_vector else gradient

    def right(g: Array) -> Array:
        d = matrices(g)
        if columns.ndim == 2 and rows.ndim > 2:  # one product over the batch, nothing to sum after
            count = math.prod(rows.shape[:-1])
            gradient = rows.reshape(count, rows.shape[-1]).T @ d.reshape(count, d.shape[-1])
        else:
            gradient = rows.swapaxes(-1, -2) @ d
        return gradient[..., 0] if right_vector else gradient

    return record(out, (p, left), (q, right))


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight + bias on the last axis: (..., in), (in, out), (out,) to (..., out)."""
    inputs, matrix = x.data, weight.data
    backend.shared_by(inputs, matrix, *([] if bias is None else [bias.data]))
    shape = inputs.shape
    rows = inputs.reshape(-1, matrix.shape[0])
    out = rows @ matrix
    if bias is not None:
        out += bias.data

    def flat(g: Array) -> Array:
        return g.reshape(-1, matrix.shape[1])

    edges = [
        (x, lambda g: (flat(g) @ matrix.T).reshape(shape)),
        (weight, lambda g: rows.T @ flat(g)),
    ]
    if bias is not None:
        edges.append((bias, lambda g: sum_rows(flat(g))))
    return record(out.reshape(*shape[:-1], matrix.shape[1]), *edges)
