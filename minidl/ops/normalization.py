"""Batch normalisation, with the statistics of the batch or with given ones."""

from __future__ import annotations

from minidl import backend
from minidl.backend import Array
from minidl.kernels import normalization as kernels
from minidl.kernels.blas_threads import one_blas_thread
from minidl.kernels.products import sum_rows
from minidl.tensor import Tensor, record


def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    statistics: tuple[Array, Array] | None = None,
) -> tuple[Tensor, tuple[Array, Array]]:
    """Normalise each channel over all other axes, then scale and shift it.

    Args:
        x: (..., C).
        gamma: scale of each channel, (C,).
        beta: shift of each channel, (C,).
        eps: added to the variance.
        statistics: mean and variance (C,) to normalise with; those of the batch if None, and then
            the gradient flows through them too.

    Returns:
        The tensor (..., C), and the mean and biased variance that were used.
    """
    backend.shared_by(x.data, gamma.data, beta.data, *(statistics or ()))
    rows = x.data.reshape(-1, x.shape[-1])
    of_batch = statistics is None
    if statistics is None:
        with one_blas_thread():
            mean, variance, normalized = kernels.moments(rows)
    else:
        mean, variance = statistics
        normalized = rows - mean
    scale = kernels.normalize(normalized, variance, eps)
    factor = gamma.data

    def flat(g: Array) -> Array:
        return g.reshape(-1, g.shape[-1])

    def input_rule(g: Array) -> Array:
        d = flat(g) * factor
        d = kernels.batch_norm_gradient(d, normalized, scale) if of_batch else d * scale
        return d.reshape(g.shape)

    out = normalized * factor
    out += beta.data
    return (
        record(
            out.reshape(x.shape),
            (x, input_rule),
            (gamma, lambda g: sum_rows(flat(g) * normalized)),
            (beta, lambda g: sum_rows(flat(g))),
        ),
        (mean, variance),
    )
