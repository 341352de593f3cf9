"""One step of each optimizer over all parameters, written in place.

A step is a dozen passes over arrays, and a network has many small ones. So parameters are treated
as if they lay end to end, and cut into blocks: small enough that all passes but the first find
their operands in the cache, and large enough that each call is worth its price. What an optimizer
remembers does lie end to end, in one array. A `Layout` holds views of all that, and serves for many
steps. Every formula is the one that PyTorch documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import is_
from typing import NamedTuple, TypeAlias

import numpy as np

from minidl.backend import CPU, Array, of
from minidl.kernels import scratch
from minidl.kernels.axpby import axpby
from minidl.kernels.threads import cut, share

# Elements of a block at most, and those from which on a parameter has blocks of its own: to lay it
# end to end with others would take a pass more.
BLOCK = 1 << 17
LARGE = 1 << 16

# Elements times passes that are just worth a second thread.
WORTH_SHARING = 1 << 21

# What is remembered of a parameter fades when its gradient stays zero, as that of a unit does which
# relu has shut. Below the smallest normal number of its dtype it would stay for ever, since there
# nine tenths of a number are rounded to the number itself, and many processors take a hundred times
# as long for it. So every so many steps, what would be there by the next time, at nine tenths a
# step, becomes zero: numbers below FADED times the smallest normal one, far less than any step of a
# parameter could show.
FORGET_EVERY = 64
FADED = 2.0**10


class Segment(NamedTuple):
    """The part of a parameter that lies in a block."""

    number: int  # of the parameter
    values: Array  # a view of its elements
    here: slice  # where they are in the parameter
    there: slice  # and in the block


class Block(NamedTuple):
    """A part of all parameters, laid end to end."""

    length: int
    segments: list[Segment]
    remembered: list[Array]  # views of what is remembered of it


class Layout:
    """Parameters, and what is remembered of them, laid end to end and cut into blocks.

    Args:
        parameters: at least one array, all of one dtype, of any shapes and in any memory order.
        remembered: arrays that have room for all parameters, end to end.
        start: where the first parameter begins in them.

    Attributes:
        backend: where all arrays are.
        dtype: in which a step is computed: that of what is remembered, or that of the parameters.
        size: of all parameters together.
        blocks: as the optimizers take them.
        strided: each parameter that is not C-contiguous, with the array that `blocks` has for it.
    """

    def __init__(self, parameters: Sequence[Array], *remembered: Array, start: int = 0) -> None:
        self._arrays = [*parameters, *remembered]
        like = remembered[0] if remembered else parameters[0]
        self.backend, self.dtype = of(like), like.dtype
        self.strided: list[tuple[Array, Array]] = []
        flat = []
        for array in parameters:
            if not array.flags.c_contiguous:
                self.strided.append((array, array.copy()))
                _, array = self.strided[-1]
            flat.append(array.reshape(-1))
        sizes = [array.size for array in flat]
        self.size = sum(sizes)
        self.blocks = [
            Block(
                extent.stop - extent.start,
                [
                    Segment(number, flat[number][here], here, there)
                    for number, here, there in _segments(sizes, extent)
                ],
                [array[start + extent.start : start + extent.stop] for array in remembered],
            )
            for extent in _extents(sizes, self.backend is CPU)
        ]

    def is_made_of(self, arrays: Sequence[Array | None]) -> bool:
        """Whether it was made of just these arrays, first the parameters, then the remembered."""
        return len(arrays) == len(self._arrays) and all(map(is_, arrays, self._arrays))


# From the gradient of a block, memory of its size, and what is remembered of it, to what is to be
# subtracted, and what it is to be multiplied with before.
Rule: TypeAlias = Callable[..., tuple[Array, float]]


def sgd(layout: Layout, gradients: Sequence[Array], *, lr: float, weight_decay: float) -> None:
    """Plain gradient descent: parameter -= lr * (gradient + weight_decay * parameter).

    `layout` remembers nothing; gradients have the shapes of the parameters, here and below.
    """

    def rule(g: Array, _: Array) -> tuple[Array, float]:
        return g, lr

    _descend(layout, gradients, rule, passes=1, penalty=weight_decay)


def momentum_sgd(
    layout: Layout,
    gradients: Sequence[Array],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    step_number: int,
) -> None:
    """Gradient descent with momentum.

    With g = gradient + weight_decay * parameter: velocity = momentum * velocity + g, then
    parameter -= lr * velocity, or lr * (g + momentum * velocity) for Nesterov. `layout` remembers
    the velocity, zeros before the first step, which has the number 1.
    """
    faded = _faded(layout, step_number)

    def rule(g: Array, spare: Array, v: Array) -> tuple[Array, float]:
        axpby(1, g, momentum, v)
        if faded:
            v *= abs(v) >= faded
        if not nesterov:
            return v, lr
        spare[...] = g
        axpby(momentum, v, 1, spare)
        return spare, lr

    _descend(layout, gradients, rule, passes=3, penalty=weight_decay)


def adam(
    layout: Layout,
    gradients: Sequence[Array],
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
    constants drawn together, in seven passes.

    Args:
        layout: remembers the running sums m and s, zeros before the first step.
        gradients: of the parameters.
        lr: learning rate.
        betas: b1 and b2.
        eps: added to the root.
        weight_decay: see above.
        step_number: t, 1 at the first step.

    [1] D. Kingma, J. Ba: Adam: a method for stochastic optimization, 2015, algorithm 1.
    [2] I. Loshchilov, F. Hutter: Decoupled weight decay regularization, 2019, algorithm 2.
    """
    xp = layout.backend.xp
    # With one of its own numbers instead of Python's, NumPy would compute in float64.
    b1, b2, eps = float(betas[0]), float(betas[1]), float(eps)
    root = math.sqrt((1 - b2) / (1 - b2**step_number))
    size = lr * (1 - b1) / (1 - b1**step_number) / root
    least = eps / root
    faded = _faded(layout, step_number)

    def rule(g: Array, step: Array, m: Array, s: Array) -> tuple[Array, float]:
        axpby(1, g, b1, m)
        xp.multiply(g, g, out=step)
        axpby(1, step, b2, s)
        if faded:
            m *= abs(m) >= faded
            xp.maximum(s, faded, out=s)  # not zero, for what is divided by its root if eps is 0
        xp.sqrt(s, out=step)
        step += least
        xp.divide(m, step, out=step)
        return step, size

    _descend(layout, gradients, rule, passes=7, shrink=lr * weight_decay)


def _faded(layout: Layout, step_number: int) -> float:
    """Below what a number that is remembered has faded; 0 in a step that does not look."""
    if layout.backend is not CPU or step_number % FORGET_EVERY:
        return 0.0
    return FADED * float(np.finfo(layout.dtype).smallest_normal)


def _descend(
    layout: Layout,
    gradients: Sequence[Array],
    rule: Rule,
    *,
    passes: int,
    penalty: float = 0.0,
    shrink: float = 0.0,
) -> None:
    """Subtract from all parameters what a rule makes of their gradients.

    Args:
        layout: the parameters.
        gradients: of the same shapes.
        rule: what computes the step of a block, and how long it is to be.
        passes: that are made over each element.
        penalty: what the parameter is multiplied with and added to its gradient.
        shrink: the share of the parameter that is taken away besides.
    """
    multiply = layout.backend.xp.multiply
    slopes = [array.reshape(-1) for array in gradients]

    def gradient(segments: list[Segment], gathered: Array) -> Array:
        """That of a block, with the penalty: where it lies, or gathered in the memory given."""
        if len(segments) == 1 and not penalty:
            number, _, here, _ = segments[0]
            return slopes[number][here]
        for number, values, here, there in segments:
            if penalty:
                multiply(values, penalty, out=gathered[there])
                gathered[there] += slopes[number][here]
            else:
                gathered[there] = slopes[number][here]
        return gathered

    def work(*blocks: Block) -> None:
        longest = max([block.length for block in blocks])
        with scratch.borrow(layout.backend, (2, longest), layout.dtype) as (steps, gathered):
            for length, segments, remembered in blocks:
                spare = steps[:length]
                step, scale = rule(gradient(segments, gathered[:length]), spare, *remembered)
                if len(segments) == 1:
                    axpby(-scale, step, 1 - shrink, segments[0].values)
                    continue
                multiply(step, scale, out=spare)  # once for all, for they are small
                for _, values, _, there in segments:
                    if shrink:
                        values *= 1 - shrink
                    values -= spare[there]

    before = []
    for array, own in layout.strided:
        own[...] = array
        before.append(own.copy())
    if passes * layout.size >= WORTH_SHARING:
        share(work, layout.blocks)
    elif layout.blocks:
        work(*layout.blocks)
    for (array, own), value in zip(layout.strided, before, strict=True):
        array += own - value  # the change: another parameter may have changed the same memory


def _extents(sizes: Sequence[int], limited: bool) -> list[slice]:
    """Where to cut arrays of these sizes, laid end to end; nowhere if not limited."""
    ends = [0, *accumulate(sizes)]
    bounds = {0, ends[-1]}
    if limited:
        bounds.update(*[(start, stop) for start, stop in pairwise(ends) if stop - start >= LARGE])
    extents = []
    for start, stop in pairwise(sorted(bounds)):
        count = 1
        while limited and stop - start > count * BLOCK:
            count *= 2
        extents += [slice(start + p.start, start + p.stop) for p in cut(stop - start, count)]
    return extents


def _segments(sizes: Sequence[int], extent: slice) -> Iterator[tuple[int, slice, slice]]:
    """The parts of arrays that lie in a block: of which array, where in it, where in the block."""
    for number, (start, stop) in enumerate(pairwise([0, *accumulate(sizes)])):
        first, last = max(start, extent.start), min(stop, extent.stop)
        if first < last:
            here = slice(first - start, last - start)
            there = slice(first - extent.start, last - extent.start)
            yield number, here, there
