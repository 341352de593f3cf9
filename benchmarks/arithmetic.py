"""The matrix products that a model's layers come down to, and how fast NumPy computes them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from models import Model
from threadpoolctl import threadpool_limits
from turns import speed

import minidl

SGEMM_SIZE = 1024


class Products(NamedTuple):
    """The three products of a layer in training, each of as many operations.

    They are x @ weight forward, x.T @ gradient for the weight and gradient @ weight.T for x, where
    x is (rows, inputs) and the weight (inputs, outputs). The rows of a convolution are the patches
    under its kernel.
    """

    rows: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of one of the three."""
        return 2 * self.rows * self.inputs * self.outputs


def products(model: Model, batch_size: int) -> list[Products | None]:
    """The products of each layer; None for a layer that has none."""
    shapes = model.shapes()
    found: list[Products | None] = []
    for (kind, *arguments), before, after in zip(
        model.layers, shapes[:-1], shapes[1:], strict=True
    ):
        inputs = before[-1] * arguments[1] ** 2 if kind == "conv" else before[-1]
        made = Products(batch_size * math.prod(after[:-1]), inputs, after[-1])
        found.append(made if kind in ("conv", "dense") else None)
    return found


def step_flops(model: Model, batch_size: int) -> int:
    """Operations of all products in a training step: three a layer, but two for the first.

    Nothing needs the gradient with respect to the images.
    """
    found = [layer for layer in products(model, batch_size) if layer]
    return 3 * sum(layer.flops for layer in found) - found[0].flops


def sgemm_rate(seconds: float) -> float:
    """GFLOP/s of NumPy's product of two large matrices, on as many threads as minidl uses."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, SGEMM_SIZE, SGEMM_SIZE), dtype=np.float32)
    out = np.empty_like(a)
    return rate(lambda: np.matmul(a, b, out=out), 2 * SGEMM_SIZE**3 / 1e9, seconds)


def rate(work: Callable[[], object], amount: float, seconds: float) -> float:
    """As `speed`, with as many threads in NumPy's BLAS as minidl uses."""
    with threadpool_limits(minidl.get_num_threads(), user_api="blas"):
        return speed(work, amount, seconds)


def alone(layer: Products, which: str, pieces: int) -> Callable[[], None]:
    """What computes one product of a layer with NumPy, its rows cut into pieces.

    Args:
        layer: the shapes.
        which: "forward", "weight gradient" or "input gradient".
        pieces: how many; cut rows stay in the cache better, whole ones make fewer calls.
    """
    rng = np.random.default_rng(0)
    x = rng.random((layer.rows, layer.inputs), dtype=np.float32)
    d = rng.random((layer.rows, layer.outputs), dtype=np.float32)
    weight = rng.random((layer.inputs, layer.outputs), dtype=np.float32)
    part = np.empty_like(weight)
    bounds = [layer.rows * i // pieces for i in range(pieces + 1)]
    cuts = [slice(*bound) for bound in itertools.pairwise(bounds)]

    def run() -> None:
        for cut in cuts:
            if which == "forward":
                np.matmul(x[cut], weight, out=d[cut])
            elif which == "weight gradient":
                np.matmul(x[cut].T, d[cut], out=part)
            else:
                np.matmul(d[cut], weight.T, out=x[cut])

    return run
