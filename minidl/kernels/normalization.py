"""Batch normalisation over all axes but the last [1].

[1] S. Ioffe, C. Szegedy: Batch normalization: accelerating deep network training by reducing
    internal covariate shift, 2015, algorithm 1.
[2] T. Chan, G. Golub, R. LeVeque: Algorithms for computing the sample variance: analysis and
    recommendations, 1983, equation 1.7.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.kernels.products import sum_rows


def moments(rows: Array) -> tuple[Array, Array, Array]:
    """Mean and biased variance of each column, and how far the rows are from that mean.

    A first mean is off by what rounding added to the sum, and that is found again as the mean of
    the centred rows [2]. Without it, a long column of one large number would seem to vary.

    Args:
        rows: (M, C).

    Returns:
        The mean (C,), the variance (C,), and the rows less the mean, (M, C).
    """
    count = len(rows)
    mean = sum_rows(rows) / count
    centred = rows - mean
    missed = sum_rows(centred) / count
    centred -= missed
    return mean + missed, sum_rows(centred * centred) / count, centred


def normalize(centred: Array, variance: Array, eps: float) -> Array:
    """Divide columns by sqrt(variance + eps), in place.

    Args:
        centred: rows less the mean, (M, C).
        variance: (C,).
        eps: what keeps the division finite where a column does not vary.

    Returns:
        What the rows were multiplied with, (C,).
    """
    scale: Array = 1 / array_module(centred).sqrt(variance + eps)
    centred *= scale
    return scale


def update_running(running: Array, now: Array, momentum: float) -> None:
    """Move a running mean towards a new value, in place; `momentum` is the share that stays."""
    running *= momentum
    running += (1 - momentum) * now


def batch_norm_gradient(d: Array, normalized: Array, scale: Array) -> Array:
    """Gradient of batch normalisation with respect to its rows, through mean and variance too.

    Args:
        d: gradient with respect to the normalised rows, (M, C).
        normalized: those rows, (M, C).
        scale: one over the standard deviation of the batch, (C,).

    Returns:
        (M, C).
    """
    count = len(d)
    gradient = d - sum_rows(d) / count
    gradient -= normalized * (sum_rows(d * normalized) / count)
    gradient *= scale
    return gradient
