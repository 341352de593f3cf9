"""Max and average pooling over windows of a channels-last batch (N, H, W, C).

Both walk over the taps of the window instead of over its places: one strided array operation a tap
handles every place of every image at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from minidl.backend import Array, array_module, of
from minidl.kernels import memory
from minidl.kernels.elementwise import as_bits, keep_where
from minidl.kernels.threads import parts_of, share
from minidl.kernels.window import Window


def max_pool(x: Array, window: Window) -> Array:
    """The largest value under each place of the window: (N, H, W, C) to (N, OH, OW, C)."""
    backend = of(x)
    padded = _pad(x, window, -backend.xp.inf)
    places = window.positions((x.shape[1], x.shape[2]))
    out = memory.empty(backend, (len(x), *places, x.shape[3]), x.dtype)

    def work(images: slice) -> None:
        seen = _taps(padded[images], window, x.shape)
        out[images] = next(seen)
        for values in seen:
            backend.xp.maximum(out[images], values, out=out[images])

    share(work, parts_of(x, 2))
    return out


def max_pool_gradient(x: Array, out: Array, d: Array, window: Window) -> Array:
    """Gradient of `max_pool` with respect to its images.

    Args:
        x: the images (N, H, W, C).
        out: what `max_pool` made of them, (N, OH, OW, C).
        d: gradient with respect to `out`.
        window: the window of the forward pass.

    Returns:
        (N, H, W, C). Where several values of a place are largest, the first of them, row by row,
        takes the whole gradient, as in PyTorch.
    """
    backend = of(x)
    xp = backend.xp
    padded = _pad(x, window, xp.nan)  # equals nothing, so that no padding takes a gradient
    gradient = memory.empty(backend, padded.shape, d.dtype)
    overlapping = window.strides[0] < window.size[0] or window.strides[1] < window.size[1]

    def work(images: slice) -> None:
        gradient[images] = 0
        waiting = xp.ones(out[images].shape, dtype=bool)  # where the largest is still to come
        for values, target in zip(
            _taps(padded[images], window, x.shape),
            _taps(gradient[images], window, x.shape),
            strict=True,
        ):
            largest = values == out[images]
            largest &= waiting
            waiting ^= largest
            if overlapping:
                target += keep_where(d[images], largest)
            else:  # every pixel is met once, so that nothing needs to be read before it is written
                keep_where(d[images], largest, out=target)

    share(work, parts_of(x, 2))
    return _crop(gradient, window, x.shape)


def average_pool(x: Array, window: Window) -> Array:
    """The mean of the pixels, padding left out, under each place of the window.

    (N, H, W, C) to (N, OH, OW, C).
    """
    seen = _taps(_pad(x, window, 0), window, x.shape)
    out = next(seen).copy()
    for values in seen:
        out += values
    out *= _shares(x, window, (x.shape[1], x.shape[2]))
    return out


def average_pool_gradient(d: Array, window: Window, image: tuple[int, int]) -> Array:
    """Gradient of `average_pool` with respect to its images.

    Args:
        d: gradient with respect to the output, (N, OH, OW, C).
        window: the window of the forward pass.
        image: (H, W) of the images of the forward pass.

    Returns:
        (N, H, W, C).
    """
    shape = (len(d), *image, d.shape[3])
    gradient = _pad(array_module(d).zeros(shape, dtype=d.dtype), window, 0)
    share = d * _shares(d, window, image)
    for target in _taps(gradient, window, shape):
        target += share
    return _crop(gradient, window, shape)


class Round(NamedTuple):
    """One round of a tournament of arrays."""

    first: Array  # of each pair; the winners are written here, but for the last of all
    second: Array
    pairs: slice  # their numbers, from 1 on


def tournament(values: Array) -> list[Round]:
    """The rounds in which the largest of several arrays, (T, ...), is found, element by element.

    Neighbours are compared in pairs, then the winners, so that one call compares several arrays.
    Whoever comes first in a pair is there again, for the winner, in the next round.
    """
    rounds, done = [], 1
    while len(values) > 1:
        pairs = len(values) // 2
        rounds.append(Round(values[: 2 * pairs : 2], values[1::2], slice(done, done + pairs)))
        done += pairs
        values = values[::2]
    return rounds


def choose_largest(rounds: list[Round], out: Array, larger: Array | None) -> None:
    """The largest of several arrays, element by element, and what tells later which it was.

    Args:
        rounds: of at least two arrays (T, ...), which are overwritten.
        out: (...), to write the largest to.
        larger: booleans (T, ...), to write to from the second on: for each comparison, whether the
            later array was larger; None if nobody asks.
    """
    xp = array_module(out)
    last = rounds[-1]
    for each in rounds:
        first, second, pairs = each
        if larger is not None:
            xp.greater(second, first, out=larger[pairs])
        xp.maximum(first, second, out=out[None] if each is last else first)


def give_to_largest(rounds: list[Round], larger: Array) -> None:
    """Pass a gradient on to the one of several arrays that was largest, the first among equals.

    Args:
        rounds: of arrays (T, ...), the first of which is the gradient with respect to the largest;
            all are overwritten with the gradients with respect to the arrays.
        larger: booleans (T, ...) as `choose_largest` wrote them.
    """
    for first, second, pairs in reversed(rounds):
        keep_where(first, larger[pairs], out=second)
        left = as_bits(first)
        left ^= as_bits(second)  # all or nothing, for inf - inf is nan


def _taps(padded: Array, window: Window, shape: tuple[int, ...]) -> Iterator[Array]:
    """A view (N, OH, OW, C) for each tap of the window, row by row."""
    places = window.positions((shape[1], shape[2]))
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            yield window.tap(padded, row, column, places)


def _pad(x: Array, window: Window, value: float) -> Array:
    """The batch with a border of `value`; the batch itself where no border is needed."""
    if not window.padded:
        return x
    widths = ((0, 0), *window.padding, (0, 0))
    return array_module(x).pad(x, widths, mode="constant", constant_values=value)


def _crop(padded: Array, window: Window, shape: tuple[int, ...]) -> Array:
    """What `_pad` was given, without the border that it added."""
    (top, _), (left, _) = window.padding
    return padded[:, top : top + shape[1], left : left + shape[2]]


def _shares(like: Array, window: Window, image: tuple[int, int]) -> Array:
    """One over the number of real pixels under each place, (OH, OW, 1), in the dtype of `like`."""
    xp = array_module(like)
    ones = xp.ones((1, *image, 1), dtype=like.dtype)
    counts = xp.zeros((*window.positions(image), 1), dtype=like.dtype)
    for tap in _taps(_pad(ones, window, 0), window, ones.shape):
        counts += tap[0]
    return 1 / counts
