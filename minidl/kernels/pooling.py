"""Max and average pooling over windows of a channels-last batch (N, H, W, C).

Both walk over the taps of the window instead of over its places: one strided array operation a tap
handles every place of every image at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from minidl.backend import Array, module
from minidl.kernels.window import Window


def max_pool(x: Array, window: Window) -> Array:
    """The largest value under each place of the window: (N, H, W, C) to (N, OH, OW, C)."""
    xp = module(x)
    padded = _pad(x, window, -xp.inf)
    seen = _taps(padded, window, x.shape)
    out: Array = next(seen).copy()
    for values in seen:
        xp.maximum(out, values, out=out)
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
    xp = module(x)
    padded = _pad(x, window, xp.nan)  # equals nothing, so that no padding takes a gradient
    gradient = xp.zeros(padded.shape, dtype=d.dtype)
    overlapping = window.strides[0] < window.size[0] or window.strides[1] < window.size[1]
    waiting = xp.ones(out.shape, dtype=bool)  # places whose largest value has not been met yet
    for values, target in zip(
        _taps(padded, window, x.shape), _taps(gradient, window, x.shape), strict=True
    ):
        largest = values == out
        largest &= waiting
        waiting ^= largest
        if overlapping:
            target += d * largest
        else:  # every pixel is met once, so that nothing needs to be read before it is written
            xp.multiply(d, largest, out=target)
    return _crop(gradient, window, x.shape)


def average_pool(x: Array, window: Window) -> Array:
    """The mean of the pixels, padding left out, under each place of the window.

    (N, H, W, C) to (N, OH, OW, C).
    """
    seen = _taps(_pad(x, window, 0), window, x.shape)
    out: Array = next(seen).copy()
    for values in seen:
        out += values
    out *= _shares(x, window)
    return out


def average_pool_gradient(x: Array, d: Array, window: Window) -> Array:
    """Gradient of `average_pool` with respect to its images.

    Args:
        x: the images (N, H, W, C), of which only shape and device matter.
        d: gradient with respect to the output, (N, OH, OW, C).
        window: the window of the forward pass.

    Returns:
        (N, H, W, C).
    """
    gradient = _pad(module(x).zeros(x.shape, dtype=d.dtype), window, 0)
    share = d * _shares(x, window)
    for target in _taps(gradient, window, x.shape):
        target += share
    return _crop(gradient, window, x.shape)


def _taps(padded: Array, window: Window, shape: tuple[int, ...]) -> Iterator[Array]:
    """A view (N, OH, OW, C) for each tap of the window, row by row."""
    places = window.positions((shape[1], shape[2]))
    for row in range(window.size[0]):
        for column in range(window.size[1]):
            yield window.tap(padded, row, column, places)


def _pad(x: Array, window: Window, value: float) -> Array:
    """The batch with a border of `value`; the batch itself where no border is needed."""
    if window.padding == ((0, 0), (0, 0)):
        return x
    padded: Array = module(x).pad(
        x, ((0, 0), *window.padding, (0, 0)), mode="constant", constant_values=value
    )
    return padded


def _crop(padded: Array, window: Window, shape: tuple[int, ...]) -> Array:
    """What `_pad` was given, without the border that it added."""
    (top, _), (left, _) = window.padding
    return padded[:, top : top + shape[1], left : left + shape[2]]


def _shares(x: Array, window: Window) -> Array:
    """One over the number of real pixels under each place, (OH, OW, 1)."""
    xp = module(x)
    ones = xp.ones((1, x.shape[1], x.shape[2], 1), dtype=x.dtype)
    counts = sum(_taps(_pad(ones, window, 0), window, x.shape), start=xp.zeros((), x.dtype))
    return 1 / counts[0]
