"""Initial values of parameters: how wide the random numbers that a layer starts from are spread.

An initializer is called with the shape of the parameter, the number of inputs and outputs that one
unit of the layer's weight has (its fans), and a NumPy generator. It returns a float64 array, which
the layer converts to its own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from minidl.backend import Array

Initializer: TypeAlias = Callable[[tuple[int, ...], int, int, np.random.Generator], Array]


def zeros(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """All zeros."""
    return np.zeros(shape)


def ones(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """All ones."""
    return np.ones(shape)


def glorot_uniform(
    shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator
) -> Array:
    """Uniform within sqrt(6 / (fan_in + fan_out)), Keras's default.

    X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward neural networks,
    2010, equation 16.
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


def glorot_normal(
    shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator
) -> Array:
    """Normal with variance 2 / (fan_in + fan_out); see `glorot_uniform`."""
    return rng.normal(0, math.sqrt(2 / (fan_in + fan_out)), shape)


def he_uniform(
    shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator
) -> Array:
    """Uniform within sqrt(6 / fan_in), made for ReLU.

    K. He et al.: Delving deep into rectifiers, 2015, equation 10.
    """
    limit = math.sqrt(6 / fan_in)
    return rng.uniform(-limit, limit, shape)


def he_normal(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Normal with variance 2 / fan_in; see `he_uniform`."""
    return rng.normal(0, math.sqrt(2 / fan_in), shape)


def pytorch(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Uniform within 1 / sqrt(fan_in), what PyTorch's Linear and Conv2d use for weight and bias."""
    limit = 1 / math.sqrt(fan_in)
    return rng.uniform(-limit, limit, shape)


INITIALIZERS: dict[str, Initializer] = {
    function.__name__: function
    for function in (
        zeros,
        ones,
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        pytorch,
    )
}


def initializer(name: str | Initializer) -> Initializer:
    """Look an initializer up by name; a function is returned as it is.

    Raises ValueError, listing the names, for an unknown one.
    """
    if callable(name):
        return name
    if name not in INITIALIZERS:
        raise ValueError(f"unknown initializer {name!r}; known: {', '.join(INITIALIZERS)}")
    return INITIALIZERS[name]
