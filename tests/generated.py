"""Generated batches: images in every memory layout, and windows of every kind that fit on them."""

from typing import NamedTuple

import numpy as np
import reference
from hypothesis import settings
from hypothesis import strategies as st
from reference import eighths

from minidl.kernels.window import Window

DTYPES = st.sampled_from([np.float32, np.float64])
SEEDS = st.integers(0, 1000)
LAYOUTS = st.sampled_from(["plain", "fortran", "every second", "backwards", "inside"])

# The same examples in every run, and no limit on the time that one of them takes.
generated = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def laid_out(array, layout):
    """The same values in another order in memory, not to be written to."""
    if layout == "fortran":
        array = np.asfortranarray(array)
    elif layout == "every second":
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        wide[..., ::2] = array
        array = wide[..., ::2]
    elif layout == "backwards":
        ends = tuple({0, array.ndim - 1})
        array = np.flip(np.ascontiguousarray(np.flip(array, ends)), ends)
    elif layout == "inside":
        inside = np.pad(array, 1, constant_values=np.nan)
        array = inside[(slice(1, -1),) * array.ndim]
    array.flags.writeable = False
    return array


class Case(NamedTuple):
    """Images, a window that fits on them, and what may follow a convolution with it."""

    x: np.ndarray
    window: Window
    filters: int
    seed: int
    relu: bool = False
    pool: tuple[int, int] = (1, 1)

    @property
    def image(self):
        return self.x.shape[1], self.x.shape[2]

    def array(self, shape, salt):
        return laid_out(eighths(shape, self.seed + salt).astype(self.x.dtype), "plain")

    @property
    def weight(self):
        return self.array((*self.window.size, self.x.shape[3], self.filters), 1)

    @property
    def bias(self):
        return self.array((self.filters,), 3)

    @property
    def d(self):
        places = self.window.positions(self.image)
        rows, columns = (n // step for n, step in zip(places, self.pool, strict=True))
        shape = len(self.x), rows, columns, self.filters
        return laid_out(eighths(shape, self.seed + 2).astype(self.x.dtype), "every second")

    @property
    def expected(self):
        given = self.x, self.weight, self.bias, self.window, self.relu, self.pool
        gradients = reference.conv2d_and_more_gradients(*given, self.d)
        return reference.conv2d_and_more(*given), *gradients


@st.composite
def cases(draw, dilate=True, pad=3):
    """Batches of 0, 1 or 3 images, all dtypes and layouts, windows of every kind."""
    ones = st.just(1)
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    gap = st.integers(1, 3) if dilate else ones
    dilation = draw(st.tuples(gap, gap))
    sides = [st.integers(0, pad if dilate else min(pad, taps - 1)) for taps in size]
    padding = draw(st.tuples(*(st.tuples(side, side) for side in sides)))
    image = [
        max((size[i] - 1) * dilation[i] + 1 - sum(padding[i]), 1) + draw(st.integers(0, 3))
        for i in (0, 1)
    ]
    shape = (draw(st.sampled_from([0, 1, 3])), *image, draw(st.integers(1, 3)))
    seed = draw(SEEDS)
    x = laid_out(eighths(shape, seed).astype(draw(DTYPES)), draw(LAYOUTS))
    return Case(x, Window(size, strides, padding, dilation), draw(st.integers(1, 3)), seed)


POOLS = [(1, 1), (2, 2), (1, 2), (2, 1), (3, 2)]


@st.composite
def pooled_cases(draw):
    """As `cases`, with max(x, 0) or without, and a pooling window that fits at least once."""
    pool = draw(st.sampled_from(POOLS))
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
    side = st.integers(0, 2)
    padding = draw(st.tuples(st.tuples(side, side), st.tuples(side, side)))
    image = []
    for i in (0, 1):
        # enough for one pooled value, and up to all that does not suffice for another
        least = (pool[i] - 1) * strides[i] + (size[i] - 1) * dilation[i] + 1 - sum(padding[i])
        image.append(max(least, 1) + draw(st.integers(0, 2 * pool[i] * strides[i] - 1)))
    # a row of a patch is short, of 1 to 6 elements, or has at least 16
    channels = draw(st.sampled_from([1, 2, -(-16 // size[1])]))
    seed = draw(SEEDS)
    shape = draw(st.sampled_from([0, 1, 2, 2])), *image, channels
    x = laid_out(eighths(shape, seed).astype(draw(DTYPES)), draw(LAYOUTS))
    window = Window(size, strides, padding, dilation)
    return Case(x, window, draw(st.integers(1, 3)), seed, draw(st.booleans()), pool)
