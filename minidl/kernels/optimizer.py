"""One step of each optimizer over all parameters, written in place.

A step is a dozen passes over arrays, and a network has many small ones. So parameters are treated
as if they lay end to end, and cut into blocks: small enough that all passes but the first find
their operands in the cache, and large enough that each call is worth its price. What an optimizer
remembers does lie end to end, in one array. Every formula is the one that PyTorch documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

from minidl.backend import CPU, Array, array_module, of
from minidl.kernels import scratch
from minidl.kernels.threads import cut, share

# Elements of a block at most, and those from which on a parameter has blocks of its own: to lay it
# end to end with others would take a pass more.
BLOCK = 1 << 17
LARGE = 1 << 16

# Elements times passes that are just worth a second thread.
WORTH_SHARING = 1 << 20


class Segment(NamedTuple):
    """The part of a parameter that lies in a block."""

    number: int  # of the parameter
    here: slice  # in the parameter
    there: slice  # in the block


class Block(NamedTuple):
    """A part of all parameters, laid end to end."""

    extent: slice
    segments: list[Segment]


# From the gradient of a block, where it lies and memory of its size, to what is to be subtracted.
Rule: TypeAlias = Callable[[Array, slice, Array], None]


def sgd(
    parameters: Sequence[Array], gradients: Sequence[Array], *, lr: float, weight_decay: float
) -> None:
    """Plain gradient descent: parameter -= lr * (gradient + weight_decay * parameter)."""
    xp = array_module(parameters[0])

    def rule(g: Array, _: slice, step: Array) -> None:
        xp.multiply(g, lr, out=step)

    _descend(parameters, gradients, rule, passes=2, penalty=weight_decay)


def momentum_sgd(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    velocity: Array,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """Gradient descent with momentum.

    With g = gradient + weight_decay * parameter: velocity = momentum * velocity + g, then
    parameter -= lr * velocity, or lr * (g + momentum * velocity) for Nesterov. `velocity` is an
    array as long as all parameters together, zeros before the first step.
    """
    xp = array_module(velocity)

    def rule(g: Array, extent: slice, step: Array) -> None:
        v = velocity[extent]
        v *= momentum
        v += g
        if nesterov:
            xp.multiply(v, momentum, out=step)
            step += g
            step *= lr
        else:
            xp.multiply(v, lr, out=step)

    _descend(parameters, gradients, rule, passes=4, penalty=weight_decay, like=velocity)


def adam(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    mean: Array,
    square: Array,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    step_number: int,
) -> None:
    """Adam [1] with decoupled weight decay [2] (none if 0).

    parameter *= 1 - lr * weight_decay, and with running sums m = b1 * m + g, s = b2 * s + g**2:
    parameter -= lr * m * c1 / (sqrt(s * c2) + eps), where c1 = (1 - b1) / (1 - b1**t) and
    c2 = (1 - b2) / (1 - b2**t) make means of the sums. That is the published formula with its
    constants drawn together, in ten passes instead of thirteen.

    Args:
        parameters: arrays of any shapes.
        gradients: of the same shapes.
        mean: the running sum m, an array as long as all parameters together.
        square: the running sum s, likewise.
        lr: learning rate.
        betas: b1 and b2.
        eps: added to the root.
        weight_decay: see above.
        step_number: t, 1 at the first step.

    [1] D. Kingma, J. Ba: Adam: a method for stochastic optimization, 2015, algorithm 1.
    [2] I. Loshchilov, F. Hutter: Decoupled weight decay regularization, 2019, algorithm 2.
    """
    xp = array_module(mean)
    beta1, beta2 = betas
    root = math.sqrt((1 - beta2) / (1 - beta2**step_number))
    size = lr * (1 - beta1) / (1 - beta1**step_number) / root

    def rule(g: Array, extent: slice, step: Array) -> None:
        m, s = mean[extent], square[extent]
        m *= beta1
        m += g
        xp.multiply(g, g, out=step)
        s *= beta2
        s += step
        xp.sqrt(s, out=step)
        step += eps / root
        xp.divide(m, step, out=step)
        step *= size

    _descend(parameters, gradients, rule, passes=10, shrink=lr * weight_decay, like=mean)


def _descend(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    rule: Rule,
    *,
    passes: int,
    penalty: float = 0.0,
    shrink: float = 0.0,
    like: Array | None = None,
) -> None:
    """Subtract from all parameters what a rule makes of their gradients.

    Args:
        parameters: C-contiguous arrays.
        gradients: of the same shapes.
        rule: what computes the step of a block.
        passes: that are made over each element.
        penalty: what the parameter is multiplied with and added to its gradient.
        shrink: the share of the parameter that is taken away besides.
        like: an array of the dtype to compute in, if not that of the first parameter.
    """
    like = parameters[0] if like is None else like
    backend = of(like)
    multiply = backend.xp.multiply
    values = [array.reshape(-1) for array in parameters]
    slopes = [array.reshape(-1) for array in gradients]

    def gradient(segments: list[Segment], gathered: Array) -> Array:
        """That of a block, with the penalty: where it lies, or gathered in the memory given."""
        if len(segments) == 1 and not penalty:
            number, here, _ = segments[0]
            return slopes[number][here]
        for number, here, there in segments:
            if penalty:
                multiply(values[number][here], penalty, out=gathered[there])
                gathered[there] += slopes[number][here]
            else:
                gathered[there] = slopes[number][here]
        return gathered

    def work(*blocks: Block) -> None:
        longest = max([extent.stop - extent.start for extent, _ in blocks])
        with scratch.borrow(backend, (2, longest), like.dtype) as borrowed:
            for extent, segments in blocks:
                step, gathered = borrowed[:, : extent.stop - extent.start]
                rule(gradient(segments, gathered), extent, step)
                for number, here, there in segments:
                    value = values[number][here]
                    if shrink:
                        value *= 1 - shrink
                    value -= step[there]

    sizes = tuple([array.size for array in values])
    blocks = _blocks(sizes, backend is CPU)
    if passes * sum(sizes) >= WORTH_SHARING:
        share(work, blocks)
    elif blocks:
        work(*blocks)


@lru_cache(maxsize=64)
def _blocks(sizes: tuple[int, ...], limited: bool) -> list[Block]:
    """Cut arrays of these sizes, laid end to end, into blocks; into one if not limited."""
    arrays = list(pairwise(accumulate(sizes, initial=0)))
    bounds = {0, sum(sizes)}
    if limited:
        bounds.update(*[(start, stop) for start, stop in arrays if stop - start >= LARGE])
    extents = []
    for start, stop in pairwise(sorted(bounds)):
        count = 1
        while limited and stop - start > count * BLOCK:
            count *= 2
        extents += [slice(start + p.start, start + p.stop) for p in cut(stop - start, count)]
    return [Block(extent, list(_segments(arrays, extent))) for extent in extents]


def _segments(arrays: Sequence[tuple[int, int]], extent: slice) -> Iterator[Segment]:
    """The parts of arrays, of which is told where they begin and end, that lie in a block."""
    for number, (start, stop) in enumerate(arrays):
        first, last = max(start, extent.start), min(stop, extent.stop)
        if first < last:
            here = slice(first - start, last - start)
            there = slice(first - extent.start, last - extent.start)
            yield Segment(number, here, there)
