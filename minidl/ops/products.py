"""Matrix products: `matmul` as NumPy defines it, and `dense`, the product of a layer."""

from __future__ import annotations

from minidl import backend
from minidl.backend import Array, module
from minidl.kernels.normalization import sum_rows
from minidl.ops.operands import operands
from minidl.tensor import Tensor, TensorLike, record


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """a @ b: the matrix product over the last two axes, all axes before them broadcast.

    A vector on the left counts as one row, on the right as one column, and that axis is dropped.
    """
    p, q = operands(a, b)
    x, y = p.data, q.data
    out = x @ y
    rows = x[None, :] if x.ndim == 1 else x
    columns = y[:, None] if y.ndim == 1 else y

    def matrices(g: Array) -> Array:
        """The gradient with the axes of a vector put back."""
        if x.ndim == 1:
            g = module(g).expand_dims(g, -1 if y.ndim == 1 else -2)
        return module(g).expand_dims(g, -1) if y.ndim == 1 else g

    def left(g: Array) -> Array:
        gradient = matrices(g) @ columns.swapaxes(-1, -2)
        return gradient[..., 0, :] if x.ndim == 1 else gradient

    def right(g: Array) -> Array:
        gradient = rows.swapaxes(-1, -2) @ matrices(g)
        return gradient[..., 0] if y.ndim == 1 else gradient

    return record(out, (p, left), (q, right))


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight + bias on the last axis: (..., in), (in, out), (out,) to (..., out)."""
    inputs, matrix = x.data, weight.data
    backend.shared_by(inputs, matrix)
    rows = inputs.reshape(-1, matrix.shape[0])
    out = rows @ matrix
    if bias is not None:
        out += bias.data

    def flat(g: Array) -> Array:
        return g.reshape(-1, matrix.shape[1])

    edges = [
        (x, lambda g: (flat(g) @ matrix.T).reshape(inputs.shape)),
        (weight, lambda g: rows.T @ flat(g)),
    ]
    if bias is not None:
        edges.append((bias, lambda g: sum_rows(flat(g))))
    return record(out.reshape(*inputs.shape[:-1], matrix.shape[1]), *edges)
