"""One step of each optimizer on one array of parameters, written in place.

A step is a dozen passes over arrays. Taken over a few thousand elements at a time, all passes but
the first find their operands in the cache. Every formula is the one that PyTorch documents, in its
order of operations, so that results agree to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from minidl.backend import CPU, Array, array_module, of
from minidl.kernels import scratch

# Elements a turn: four arrays and a scratch array of this many floats fit a core's second cache.
BLOCK = 1 << 14


def sgd(parameter: Array, gradient: Array, *, lr: float, weight_decay: float) -> None:
    """Plain gradient descent: parameter -= lr * (gradient + weight_decay * parameter)."""
    for p, g, step in _blocks(parameter, gradient):
        _decayed(g, p, weight_decay, step)
        step *= lr
        p -= step


def momentum_sgd(
    parameter: Array,
    gradient: Array,
    velocity: Array,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    first: bool,
) -> None:
    """Gradient descent with momentum; all arrays have one shape.

    With g = gradient + weight_decay * parameter: velocity = momentum * velocity + g (just g at the
    `first` step), then parameter -= lr * velocity, or lr * (g + momentum * velocity) for Nesterov.
    """
    for p, g, v, step in _blocks(parameter, gradient, velocity):
        _decayed(g, p, weight_decay, step)
        if first:
            v[...] = step
        else:
            v *= momentum
            v += step
        if nesterov:
            step += momentum * v
        else:
            step[...] = v
        step *= lr
        p -= step


def adam(
    parameter: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step_number: int,
) -> None:
    """Adam [1] with decoupled weight decay [2] (none if 0); all arrays have one shape.

    parameter *= 1 - lr * weight_decay; mean += (1 - b1) * (gradient - mean);
    square = b2 * square + (1 - b2) * gradient**2;
    parameter -= lr / (1 - b1**t) * mean / (sqrt(square) / sqrt(1 - b2**t) + eps).

    [1] D. Kingma, J. Ba: Adam: a method for stochastic optimization, 2015, algorithm 1.
    [2] I. Loshchilov, F. Hutter: Decoupled weight decay regularization, 2019, algorithm 2.
    """
    beta1, beta2 = betas
    step_size = lr / (1 - beta1**step_number)
    root_correction = 1 / math.sqrt(1 - beta2**step_number)
    xp = array_module(parameter)
    for p, g, m, s, step in _blocks(parameter, gradient, mean, square):
        if weight_decay:
            p *= 1 - lr * weight_decay
        xp.subtract(g, m, out=step)
        step *= 1 - beta1
        m += step
        xp.multiply(g, g, out=step)
        step *= 1 - beta2
        s *= beta2
        s += step
        xp.sqrt(s, out=step)
        step *= root_correction
        step += eps
        xp.divide(m, step, out=step)
        step *= step_size
        p -= step


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Flat views of the same few thousand elements of each array, and scratch of that size."""
    backend = of(arrays[0])
    flat = [array.reshape(-1) for array in arrays]
    count = flat[0].size
    block = BLOCK if backend is CPU else max(count, 1)  # a GPU wants few, large calls
    with scratch.borrow(backend, (min(block, count),), arrays[0].dtype) as spare:
        for start in range(0, count, block):
            views = [array[start : start + block] for array in flat]
            yield *views, spare[: views[0].size]


def _decayed(gradient: Array, parameter: Array, weight_decay: float, out: Array) -> None:
    """Write gradient + weight_decay * parameter to `out`."""
    if weight_decay:
        array_module(out).multiply(parameter, weight_decay, out=out)
        out += gradient
    else:
        out[...] = gradient
