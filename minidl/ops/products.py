"""Matrix products: `matmul` as NumPy defines it, and `dense`, the product of a layer."""

from __future__ import annotations

import math

from minidl import backend
from minidl.backend import Array, array_module
from minidl.kernels import products
from minidl.kernels.blas_threads import one_blas_thread
from minidl.kernels.elementwise import pass_where
from minidl.ops.operands import Number, operands
from minidl.ops.shapes import reshape
from minidl.tensor import Tensor, TensorLike, record, record_jointly


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
    out = _multiply(x, y)

    def matrices(g: Array) -> Array:
        """The gradient with the axes of a vector put back."""
        if left_vector:
            g = array_module(g).expand_dims(g, -1 if right_vector else -2)
        return array_module(g).expand_dims(g, -1) if right_vector else g

    def left(g: Array) -> Array:
        gradient = _multiply(matrices(g), columns.swapaxes(-1, -2))
        return gradient[..., 0, :] if left_vector else gradient

    def right(g: Array) -> Array:
        d = matrices(g)
        if columns.ndim == 2 and rows.ndim > 2:  # one product over the batch, nothing to sum after
            count = math.prod(rows.shape[:-1])
            gradient = _multiply(
                rows.reshape(count, rows.shape[-1]).T, d.reshape(count, d.shape[-1])
            )
        else:
            gradient = _multiply(rows.swapaxes(-1, -2), d)
        return gradient[..., 0] if right_vector else gradient

    return record(out, (p, left), (q, right))


def _multiply(a: Array, b: Array) -> Array:
    """a @ b for any number of axes."""
    with one_blas_thread():
        if a.ndim == b.ndim == 2 and a.dtype.kind == b.dtype.kind == "f":
            return products.multiply(a, b)
        return a @ b


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """x @ weight + bias on the last axis, and with `relu` the maximum of that and 0.

    (..., in), (in, out) and (out,) to (..., out).
    """
    rows, matrix = x.data, weight.data
    if rows.ndim != 2:
        inputs, units = matrix.shape
        out_rows = dense(reshape(x, -1, inputs), weight, bias, relu=relu)
        return reshape(out_rows, *x.shape[:-1], units)
    sources = [x, weight] if bias is None else [x, weight, bias]
    backend.shared_by(*[source.data for source in sources])
    with one_blas_thread():
        out = products.multiply(rows, matrix, None if bias is None else bias.data, relu)

    def rule(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        d = pass_where(g, out > 0) if relu else g
        of_x, of_weight = products.multiply_gradients(rows, matrix, d, wanted[0], wanted[1])
        of_bias = products.sum_rows(d) if bias is not None and wanted[2] else None
        return (of_x, of_weight, of_bias)[: len(wanted)]

    return record_jointly(out, sources, rule)
