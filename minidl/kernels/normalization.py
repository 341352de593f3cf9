"""Batch normalisation over all axes but the last [1].

[1] S. Ioffe, C. Szegedy: Batch normalization: accelerating deep network training by reducing
    internal covariate shift, 2015, algorithm 1.
"""

from __future__ import annotations

from minidl.backend import Array, array_module
from minidl.kernels.products import sum_rows


def moments(rows: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each column: (M, C) to (C,) and (C,)."""
    mean = sum_rows(rows) / len(rows)
    centred = rows - mean
    centred *= centred
    return mean, sum_rows(centred) / len(rows)


def normalize(rows: Array, mean: Array, variance: Array, eps: float) -> tuple[Array, Array]:
    """Columns shifted by `mean` and divided by sqrt(variance + eps).

    Args:
        rows: (M, C).
        mean: (C,).
        variance: (C,).
        eps: what keeps the division finite where a column does not vary.

    Returns:
        The normalised rows (M, C), and what they were multiplied with, (C,).
    """
    scale = 1 / array_module(rows).sqrt(variance + eps)
    normalized = rows - mean
    normalized *= scale
    return normalized, scale


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
