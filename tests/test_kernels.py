"""Every kernel against a plain reference, on generated shapes; and what becomes of scratch memory.

Convolutions and max pooling are compared exactly: their inputs are multiples of 1/8, whose products
and sums float32 holds without rounding, so that no order of additions excuses a difference. Where a
kernel divides or takes an exponential, `TOLERANCE` applies: a few dozen roundings of half a unit in
the last place, 6e-8 in float32 and 1.1e-16 in float64, relative to values of about 1.
"""

import math
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import eighths, numbers

from minidl import Conv2D, Generator, Tensor
from minidl.backend import CPU
from minidl.kernels import convolution, dropout, normalization, optimizer, pooling, scratch, softmax
from minidl.kernels.window import Window, place_window, same_padding

TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}
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
        array = np.ascontiguousarray(array[::-1, ..., ::-1])[::-1, ..., ::-1]
    elif layout == "inside":
        inside = np.pad(array, 1, constant_values=np.nan)
        array = inside[(slice(1, -1),) * array.ndim]
    array.flags.writeable = False
    return array


class Case(NamedTuple):
    """Images and a window that fits on them."""

    x: np.ndarray
    window: Window
    filters: int
    seed: int

    @property
    def image(self):
        return self.x.shape[1], self.x.shape[2]

    def array(self, shape, salt):
        return laid_out(eighths(shape, self.seed + salt).astype(self.x.dtype), "plain")

    @property
    def weight(self):
        return self.array((*self.window.size, self.x.shape[3], self.filters), 1)

    @property
    def d(self):
        shape = (len(self.x), *self.window.positions(self.image), self.filters)
        return laid_out(eighths(shape, self.seed + 2).astype(self.x.dtype), "every second")


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


def in_new_thread(function, *args):
    """The result of a call in a thread that has no scratch buffers yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def fill_scratch_with_nan():
    """Leave this thread nothing but buffers full of NaN, larger than any kernel here needs."""
    scratch._shelf.buffers = []
    with ExitStack() as stack:
        for _ in range(scratch.MOST_KEPT):
            stack.enter_context(scratch.borrow(CPU, (1 << 18,), np.float64)).fill(np.nan)


# Windows


@generated
@given(cases())
def test_positions_are_those_counted_one_by_one(case):
    assert case.window.positions(case.image) == reference.output_size(case.image, *case.window)


def test_positions_below_one_tell_that_a_window_does_not_fit():
    assert min(Window((5, 2)).positions((4, 4))) < 1
    assert min(Window((2, 2), dilation=(1, 4)).positions((4, 4))) < 1


@generated
@given(
    pixels=st.integers(1, 40),
    taps=st.integers(1, 7),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 3),
)
def test_same_padding_is_what_keras_documents(pixels, taps, stride, dilation):
    extent = (taps - 1) * dilation + 1
    left_over = pixels % stride
    total = max(extent - (stride if left_over == 0 else left_over), 0)
    expected = total // 2, total - total // 2
    sides = same_padding((pixels, 1), (taps, 1), (stride, 1), (dilation, 1))
    assert sides == (expected, (0, 0))


@generated
@given(
    image=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    strides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_same_gives_one_place_for_each_started_stride(image, size, strides, dilation):
    window = place_window(image, size, strides, "same", dilation)
    assert window.positions(image) == tuple(
        math.ceil(n / s) for n, s in zip(image, strides, strict=True)
    )


def test_place_window_names_both_sizes_when_the_window_does_not_fit():
    with pytest.raises(ValueError, match=r"5x7 pixels.*images of 4x6 padded to 4x6"):
        place_window((4, 6), (3, 4), (1, 1), "valid", (2, 2))


# Convolution


@generated
@given(cases(), st.booleans())
def test_conv2d_is_the_sum_over_all_taps(case, with_bias):
    bias = case.array((case.filters,), 3) if with_bias else None
    out = convolution.conv2d(case.x, case.weight, bias, case.window)
    assert out.dtype == case.x.dtype
    assert_array_equal(out, reference.conv2d(case.x, case.weight, bias, case.window))


@generated
@given(cases())
def test_conv2d_weight_gradient_is_the_sum_over_all_places(case):
    gradient = convolution.conv2d_weight_gradient(case.x, case.d, case.window)
    assert gradient.dtype == case.x.dtype
    assert_array_equal(gradient, reference.conv2d_weight_gradient(case.x, case.d, case.window))


@generated
@given(cases())
def test_conv2d_input_gradient_is_the_sum_over_all_places(case):
    gradient = convolution.conv2d_input_gradient(case.d, case.weight, case.window, case.image)
    expected = reference.conv2d_input_gradient(case.d, case.weight, case.window, case.image)
    assert gradient.dtype == case.x.dtype
    assert_array_equal(gradient, expected)


@generated
@given(cases())
def test_col2im_gives_the_input_gradient_for_every_stride(case):
    gradient = convolution.col2im(case.d, case.weight, case.window, case.image)
    expected = reference.conv2d_input_gradient(case.d, case.weight, case.window, case.image)
    assert_array_equal(gradient, expected)


def test_the_input_gradient_takes_the_mirrored_path_where_the_stride_is_one(monkeypatch):
    monkeypatch.setattr(convolution, "col2im", None)
    d, weight = np.ones((2, 5, 5, 3), np.float32), np.ones((3, 3, 2, 3), np.float32)
    window = Window((3, 3), padding=((1, 1), (1, 1)))
    gradient = convolution.conv2d_input_gradient(d, weight, window, (5, 5))
    assert gradient[0, :, :, 0].tolist() == [
        [12, 18, 18, 18, 12],
        [18, 27, 27, 27, 18],
        [18, 27, 27, 27, 18],
        [18, 27, 27, 27, 18],
        [12, 18, 18, 18, 12],
    ]


def test_the_input_gradient_allows_more_padding_than_the_window_reaches():
    x = eighths((2, 3, 3, 1), 0)
    window = (2, 2), (1, 1), ((3, 0), (0, 2)), (1, 1)
    d = eighths((2, *reference.output_size((3, 3), *window), 2), 1)
    weight = eighths((2, 2, 1, 2), 2)
    gradient = convolution.conv2d_input_gradient(d, weight, Window(*window), (3, 3))
    assert_array_equal(gradient, reference.conv2d_input_gradient(d, weight, window, (3, 3)))
    assert gradient.shape == x.shape


@pytest.mark.parametrize("budget", [0, 1000, 5000, 1 << 40])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_convolutions_do_not_depend_on_how_many_images_are_taken_at_a_time(
    monkeypatch, budget, strides
):
    x, weight = eighths((7, 6, 5, 2), 0), eighths((3, 2, 2, 3), 1)
    window = Window((3, 2), strides, ((1, 1), (0, 1)))
    d = eighths((7, *window.positions((6, 5)), 3), 2)

    def all_three():
        return (
            convolution.conv2d(x, weight, eighths((3,), 3), window),
            convolution.conv2d_input_gradient(d, weight, window, (6, 5)),
            convolution.conv2d_weight_gradient(x, d, window),
        )

    expected = all_three()
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", budget)
    for result, wanted in zip(all_three(), expected, strict=True):
        assert_array_equal(result, wanted)


def test_weight_gradients_of_any_numbers_differ_by_rounding_alone(monkeypatch):
    x, d = numbers((7, 6, 5, 2), 0), numbers((7, 4, 3, 3), 1)
    whole = convolution.conv2d_weight_gradient(x, d, Window((3, 3)))
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", 0)
    # 84 products of at most 4, each addition rounded by at most 2**-53 of a sum below 84 * 4.
    bound = 84 * 84 * 4 * 2.0**-53
    parts = convolution.conv2d_weight_gradient(x, d, Window((3, 3)))
    assert_allclose(parts, whole, rtol=0, atol=bound)


@generated
@given(cases())
def test_dirty_scratch_changes_no_convolution(case):
    fill_scratch_with_nan()
    out = convolution.conv2d(case.x, case.weight, None, case.window)
    fill_scratch_with_nan()
    gradient = convolution.conv2d_weight_gradient(case.x, case.d, case.window)
    fill_scratch_with_nan()
    back = convolution.conv2d_input_gradient(case.d, case.weight, case.window, case.image)
    fill_scratch_with_nan()
    scattered = convolution.col2im(case.d, case.weight, case.window, case.image)
    for result in (out, gradient, back, scattered):
        assert np.isfinite(result).all()
    assert_array_equal(out, reference.conv2d(case.x, case.weight, None, case.window))


def test_conv2d_never_holds_the_columns_of_the_whole_batch():
    # Batch 1024 of 64 channels on 14x14: the columns of all images would take 462 MB.
    x = Tensor(np.zeros((1024, 14, 14, 64), np.float32), requires_grad=True)
    layer = Conv2D(64, 3, padding="same")
    layer(Tensor(x.data[:1]))
    output_and_gradient = 2 * x.data.nbytes
    seed = np.zeros(x.shape, np.float32)

    def train():
        tracemalloc.start()
        try:
            layer(x).backward(seed)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert in_new_thread(train) < output_and_gradient + 4e6


# Scratch memory


def test_scratch_is_an_array_of_the_shape_and_dtype_asked_for():
    for dtype in (np.float32, np.float64, np.uint8):
        with (
            scratch.borrow(CPU, (2, 0, 3), dtype) as empty,
            scratch.borrow(CPU, (5, 3), dtype) as a,
        ):
            assert (empty.shape, empty.dtype) == ((2, 0, 3), dtype)
            assert (a.shape, a.dtype) == ((5, 3), dtype)
            assert a.flags.c_contiguous
            assert a.flags.aligned


def test_scratch_that_was_given_back_is_lent_again():
    def addresses():
        with scratch.borrow(CPU, (100,), np.float32) as a:
            first = a.ctypes.data
        with scratch.borrow(CPU, (5, 20), np.float32) as a:
            return first, a.ctypes.data

    first, second = in_new_thread(addresses)
    assert first == second


def test_scratch_that_was_given_back_by_an_error_is_lent_again():
    scratch._shelf.buffers = []
    with pytest.raises(KeyError), scratch.borrow(CPU, (100,), np.float32):
        raise KeyError
    assert [buffer.size for buffer in scratch._shelf.buffers] == [400]


def test_scratch_in_use_is_never_lent_twice():
    with ExitStack() as stack:
        lent = [stack.enter_context(scratch.borrow(CPU, (50,), np.float32)) for _ in range(6)]
        for i, a in enumerate(lent):
            assert not any(np.shares_memory(a, b) for b in lent[:i])


def test_scratch_is_kept_in_small_number_and_size():
    scratch._shelf.buffers = []
    with ExitStack() as stack:
        for size in range(1, 9):
            stack.enter_context(scratch.borrow(CPU, (size,), np.uint8))
    assert len(scratch._shelf.buffers) == scratch.MOST_KEPT
    with scratch.borrow(CPU, (scratch.LARGEST_KEPT + 1,), np.uint8):
        pass
    assert max(buffer.size for buffer in scratch._shelf.buffers) <= scratch.LARGEST_KEPT


def test_threads_do_not_share_scratch():
    meet = threading.Barrier(2, timeout=60)

    def lend():
        with scratch.borrow(CPU, (100,), np.float32):
            pass
        meet.wait()  # both have given a buffer back
        with scratch.borrow(CPU, (100,), np.float32) as a:
            meet.wait()  # both hold one
            return a

    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(lend), pool.submit(lend)])
    assert not np.shares_memory(first, second)


def test_convolutions_in_two_threads_do_not_disturb_each_other():
    x, weight = eighths((16, 10, 10, 4), 0), eighths((3, 3, 4, 4), 1)
    window = Window((3, 3), padding=((1, 1), (1, 1)))
    expected = [convolution.conv2d(x * sign, weight, None, window) for sign in (1, -1)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            signs = (1, -1)
            results = pool.map(lambda s: convolution.conv2d(x * s, weight, None, window), signs)
            for result, wanted in zip(results, expected, strict=True):
                assert_array_equal(result, wanted)


def test_no_result_lies_in_scratch_memory():
    x, weight = eighths((3, 6, 6, 2), 0), eighths((3, 3, 2, 4), 1)
    results = []
    for window in (Window((3, 3)), Window((3, 3), (2, 2), ((1, 1), (1, 1)))):
        out = convolution.conv2d(x, weight, None, window)
        results += [
            out,
            convolution.conv2d_weight_gradient(x, out, window),
            convolution.conv2d_input_gradient(out, weight, window, (6, 6)),
        ]
    parameter, mean, square = (eighths((40,), i) ** 2 for i in range(3))
    optimizer.sgd(parameter, mean, lr=0.1, weight_decay=0.1)
    results += [parameter, mean, square]
    assert scratch._shelf.buffers
    for result in results:
        assert not any(np.shares_memory(result, buffer) for buffer in scratch._shelf.buffers)


def test_later_calls_leave_earlier_results_as_they_were():
    x, weight = eighths((3, 6, 6, 2), 0), eighths((3, 3, 2, 2), 1)
    window = Window((3, 3), padding=((1, 1), (1, 1)))

    def all_three(factor):
        return (
            convolution.conv2d(x * factor, weight, None, window),
            convolution.conv2d_input_gradient(x * factor, weight, window, (6, 6)),
            convolution.conv2d_weight_gradient(x * factor, x, window),
        )

    first = all_three(1)
    copies = [array.copy() for array in first]
    all_three(3)
    for array, copy in zip(first, copies, strict=True):
        assert_array_equal(array, copy)


# Pooling


@generated
@given(cases(dilate=False))
def test_max_pool_takes_the_largest_pixel(case):
    out = pooling.max_pool(case.x, case.window)
    assert out.dtype == case.x.dtype
    assert_array_equal(out, reference.max_pool(case.x, case.window[:3]))


@generated
@given(cases(dilate=False))
def test_max_pool_gives_its_gradient_to_the_first_of_equals(case):
    out = pooling.max_pool(case.x, case.window)
    d = case.array(out.shape, 2)
    gradient = pooling.max_pool_gradient(case.x, out, d, case.window)
    assert gradient.dtype == case.x.dtype
    assert_array_equal(gradient, reference.max_pool(case.x, case.window[:3], d))


def test_max_pool_of_equal_pixels_gives_each_gradient_away_once():
    x = np.zeros((2, 6, 6, 3))
    window = Window((3, 3), (2, 2), ((1, 1), (1, 1)))
    d = np.ones((2, *window.positions((6, 6)), 3))
    gradient = pooling.max_pool_gradient(x, pooling.max_pool(x, window), d, window)
    assert gradient.sum() == d.sum()


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (1, 1))])
def test_max_pool_of_nothing_but_minus_infinity_gives_its_gradient_to_real_pixels(padding):
    x = np.full((1, 4, 4, 1), -np.inf)
    window = Window((2, 2), (2, 2), padding)
    out = pooling.max_pool(x, window)
    assert (out == -np.inf).all()
    d = np.ones(out.shape)
    gradient = pooling.max_pool_gradient(x, out, d, window)
    assert_array_equal(gradient, reference.max_pool(x, window[:3], d))


def test_max_pool_takes_any_number_over_minus_infinity():
    x = np.full((1, 2, 2, 1), -np.inf, np.float32)
    x[0, 1, 0, 0] = -3e38
    window = Window((2, 2), (2, 2))
    out = pooling.max_pool(x, window)
    assert out.item() == x[0, 1, 0, 0]
    gradient = pooling.max_pool_gradient(x, out, np.ones_like(out), window)
    assert gradient.ravel().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("place", range(4))
def test_max_pool_passes_nan_on(place):
    x = np.zeros((1, 2, 4, 1), np.float32)
    x[0, place // 2, place % 2] = np.nan
    out = pooling.max_pool(x, Window((2, 2), (2, 2)))
    assert np.isnan(out).ravel().tolist() == [True, False]


@generated
@given(cases(dilate=False))
def test_average_pool_is_the_mean_of_the_real_pixels(case):
    out = pooling.average_pool(case.x, case.window)
    tolerance = TOLERANCE[case.x.dtype.type]
    assert out.dtype == case.x.dtype
    expected = reference.average_pool(case.x, case.window[:3])
    assert_allclose(out, expected, rtol=0, atol=tolerance)


@generated
@given(cases(dilate=False))
def test_average_pool_shares_its_gradient_among_the_real_pixels(case):
    places = case.window.positions(case.image)
    d = case.array((len(case.x), *places, case.x.shape[3]), 2)
    gradient = pooling.average_pool_gradient(d, case.window, case.x.shape[1:3])
    tolerance = TOLERANCE[case.x.dtype.type]
    assert gradient.dtype == case.x.dtype
    expected = reference.average_pool(case.x, case.window[:3], d)
    # a pixel lies under up to 16 places, and collects up to 16 shares
    assert_allclose(gradient, expected, rtol=0, atol=16 * tolerance)


# Softmax


@st.composite
def tables(draw, least=1):
    """A batch of rows, and a gradient of its shape."""
    shape = draw(st.integers(least, 6)), draw(st.integers(1, 6))
    seed, dtype = draw(SEEDS), draw(DTYPES)
    x = laid_out((numbers(shape, seed) * 5).astype(dtype), draw(LAYOUTS))
    d = laid_out(numbers(shape, seed + 1).astype(dtype), draw(LAYOUTS))
    return x, d


@generated
@given(tables())
def test_softmax_is_the_quotient_of_exponentials(table):
    x, _ = table
    out = softmax.softmax(x, 1)
    assert out.dtype == x.dtype
    expected = [reference.softmax(row) for row in x]
    # the exponent, up to 20, is rounded too
    assert_allclose(out, expected, rtol=20 * TOLERANCE[x.dtype.type])
    assert_array_equal(softmax.softmax(x.T, 0), out.T)


@generated
@given(tables())
def test_softmax_gradient_is_the_jacobian_times_d(table):
    x, d = table
    out = np.array([reference.softmax(row) for row in x])
    expected = [
        [
            sum(d[n, j] * out[n, j] * ((i == j) - out[n, i]) for j in range(x.shape[1]))
            for i in range(x.shape[1])
        ]
        for n in range(len(x))
    ]
    gradient = softmax.softmax_gradient(out.astype(x.dtype), d, 1)
    assert gradient.dtype == x.dtype
    assert_allclose(gradient, expected, rtol=0, atol=TOLERANCE[x.dtype.type])


@generated
@given(tables())
def test_log_softmax_is_what_softmax_is_the_exponential_of(table):
    x, _ = table
    out = softmax.log_softmax(x, 1)
    assert out.dtype == x.dtype
    expected = [reference.log_softmax(row) for row in x]
    assert_allclose(out, expected, rtol=0, atol=20 * TOLERANCE[x.dtype.type])
    assert_array_equal(softmax.log_softmax(x.T, 0), out.T)


@generated
@given(tables())
def test_log_softmax_gradient_is_the_jacobian_times_d(table):
    x, d = table
    out = np.array([reference.log_softmax(row) for row in x])
    expected = [
        [
            sum(d[n, j] * ((i == j) - math.exp(out[n, i])) for j in range(x.shape[1]))
            for i in range(x.shape[1])
        ]
        for n in range(len(x))
    ]
    gradient = softmax.log_softmax_gradient(out.astype(x.dtype), d, 1)
    assert gradient.dtype == x.dtype
    # log_softmax reaches -20, where its own rounding in float32 weighs 20 times as much
    assert_allclose(gradient, expected, rtol=0, atol=20 * TOLERANCE[x.dtype.type])


@generated
@given(tables())
def test_logsumexp_is_the_logarithm_of_the_sum(table):
    x, _ = table
    expected = [float(row[0]) - reference.log_softmax(row)[0] for row in x]
    for out in (softmax.logsumexp(x, (1,))[:, 0], softmax.logsumexp(x.T, (0,))[0]):
        assert out.dtype == x.dtype
        assert_allclose(out, expected, rtol=0, atol=20 * TOLERANCE[x.dtype.type])


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [-np.inf, 1], [np.inf, 0]])
    assert softmax.logsumexp(x, (1,))[:, 0].tolist() == [-np.inf, 1, np.inf]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_large_numbers_does_not_overflow(dtype):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e30, 1e30, -1e30]], dtype)
    third = dtype(1) / 3
    expected = [[1, 0, 0], [third, third, third], [0.5, 0.5, 0]]
    assert_allclose(softmax.softmax(x, 1), expected, rtol=TOLERANCE[dtype])
    assert np.isfinite(softmax.log_softmax(x, 1)).all()


@generated
@given(tables(), st.sampled_from([0.0, 0.1, 1.0]))
@example((np.zeros((0, 3)), np.zeros((0, 3))), 0.1)
def test_cross_entropy_is_the_same_for_class_numbers_and_their_rows(table, smoothing):
    x, _ = table
    labels = np.arange(len(x)) % x.shape[1]
    rows = softmax.targets(labels, x, 0)
    log_probabilities = np.array([reference.log_softmax(row) for row in x]).reshape(x.shape)
    log_probabilities = log_probabilities.astype(x.dtype)
    expected = [
        reference.cross_entropy(row, reference.smooth(target, smoothing))
        for row, target in zip(x, rows, strict=True)
    ]
    for form in (labels, rows):
        loss = softmax.cross_entropy(log_probabilities, form, smoothing)
        assert loss.dtype == x.dtype
        assert_allclose(loss, expected, rtol=0, atol=20 * TOLERANCE[x.dtype.type])
        smoothed = softmax.targets(form, x, smoothing)
        wanted = np.reshape([reference.smooth(row, smoothing) for row in rows], x.shape)
        assert_allclose(smoothed, wanted, rtol=0, atol=TOLERANCE[x.dtype.type])


def test_targets_are_not_the_labels_themselves():
    labels = np.eye(3, dtype=np.float32)
    softmax.targets(labels, labels, 0.1)
    assert_array_equal(labels, np.eye(3))
    assert not np.shares_memory(softmax.targets(labels, labels, 0), labels)


# Batch normalisation


@generated
@given(tables(least=2))
def test_batch_norm_normalises_each_column(table):
    rows, _ = table
    tolerance = TOLERANCE[rows.dtype.type]
    out, means, variances = reference.batch_norm(rows, 1e-3)
    mean, variance = normalization.moments(rows)
    # values reach 10, squares 100; the difference from the mean carries their rounding along
    assert_allclose(mean, means, rtol=0, atol=10 * tolerance)
    assert_allclose(variance, variances, rtol=0, atol=100 * tolerance)
    assert mean.dtype == variance.dtype == rows.dtype
    given = means.astype(rows.dtype), variances.astype(rows.dtype)
    normalized, scale = normalization.normalize(rows, *given, 1e-3)
    assert normalized.dtype == scale.dtype == rows.dtype
    assert_allclose(scale, 1 / np.sqrt(variances + 1e-3), rtol=100 * tolerance)
    # one over the deviation is at most 1 / sqrt(eps) = 32, and multiplies the rounding of the mean
    assert_allclose(normalized, out, rtol=0, atol=320 * tolerance)


@generated
@given(tables(least=2))
def test_batch_norm_gradient_is_the_jacobian_times_d(table):
    rows, d = table
    # eps as large as the variance: slopes stay near one, so that rounding does too
    out, _, variances = reference.batch_norm(rows, 1.0)
    scale = 1 / np.sqrt(variances + 1.0)
    dtype = rows.dtype
    gradient = normalization.batch_norm_gradient(d, out.astype(dtype), scale.astype(dtype))
    assert gradient.dtype == dtype
    expected = reference.batch_norm_gradient(rows, d, 1.0)
    assert_allclose(gradient, expected, rtol=0, atol=TOLERANCE[dtype.type])


@generated
@given(tables())
def test_sum_rows_adds_the_rows_up(table):
    rows, _ = table
    total = normalization.sum_rows(rows)
    assert total.dtype == rows.dtype
    expected = [math.fsum(column) for column in rows.T.tolist()]
    assert_allclose(total, expected, rtol=0, atol=10 * TOLERANCE[rows.dtype.type])


def test_sum_rows_of_no_rows_is_zero():
    assert normalization.sum_rows(np.empty((0, 3), np.float32)).tolist() == [0, 0, 0]


def test_a_column_that_does_not_vary_becomes_zero():
    rows = np.full((8, 2), 3.25, np.float32)
    normalized, _ = normalization.normalize(rows, *normalization.moments(rows), 1e-3)
    assert_array_equal(normalized, np.zeros((8, 2)))


# Optimizer steps


@st.composite
def steps(draw):
    """A parameter, and a few gradients for it."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    seed, dtype = draw(SEEDS), draw(DTYPES)
    count = draw(st.integers(1, 5))
    gradients = [numbers(shape, seed + 1 + i).astype(dtype) for i in range(count)]
    return numbers(shape, seed).astype(dtype), gradients


def step_by_step(parameter, gradients, rule, **settings):
    """The reference for each element."""
    flat = [gradient.reshape(-1) for gradient in gradients]
    values = [
        rule(start, [g[i] for g in flat], **settings)
        for i, start in enumerate(parameter.reshape(-1))
    ]
    return np.reshape(values, parameter.shape)


@generated
@given(steps(), st.sampled_from([0.0, 0.9]), st.booleans(), st.sampled_from([0.0, 0.1]))
def test_sgd_is_the_formula_element_by_element(case, momentum, nesterov, weight_decay):
    start, gradients = case
    nesterov = nesterov and momentum > 0
    parameter, velocity = start.copy(), np.full_like(start, np.nan)
    shared = {"lr": 0.1, "weight_decay": weight_decay}
    for i, gradient in enumerate(gradients):
        if momentum:
            more = {"momentum": momentum, "nesterov": nesterov, "first": i == 0}
            optimizer.momentum_sgd(parameter, gradient, velocity, **shared, **more)
        else:
            optimizer.sgd(parameter, gradient, **shared)
    expected = step_by_step(
        start, gradients, reference.sgd, momentum=momentum, nesterov=nesterov, **shared
    )
    assert parameter.dtype == start.dtype
    assert_allclose(parameter, expected, rtol=0, atol=2 * TOLERANCE[start.dtype.type])


@generated
@given(steps(), st.sampled_from([(0.9, 0.999), (0.0, 0.5)]), st.sampled_from([0.0, 0.1]))
def test_adam_is_the_formula_element_by_element(case, betas, weight_decay):
    start, gradients = case
    parameter, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
    shared = {"lr": 0.1, "betas": betas, "eps": 1e-3, "weight_decay": weight_decay}
    for i, gradient in enumerate(gradients):
        optimizer.adam(parameter, gradient, mean, square, step_number=i + 1, **shared)
    expected = step_by_step(start, gradients, reference.adam, **shared)
    assert parameter.dtype == start.dtype
    assert_allclose(parameter, expected, rtol=0, atol=2 * TOLERANCE[start.dtype.type])


@pytest.mark.parametrize("count", [9, 10, 11, 20, 25])
def test_a_step_in_blocks_is_the_step_at_once(monkeypatch, count):
    def run():
        parameter, velocity = numbers((count,), 0), numbers((count,), 1)
        mean, square = numbers((count,), 2), numbers((count,), 3) ** 2
        gradient = numbers((count,), 4)
        more = {"lr": 0.1, "weight_decay": 0.1}
        optimizer.sgd(parameter, gradient, **more)
        optimizer.momentum_sgd(
            parameter, gradient, velocity, momentum=0.9, nesterov=True, first=False, **more
        )
        betas = (0.9, 0.99)
        optimizer.adam(
            parameter, gradient, mean, square, betas=betas, eps=1e-8, step_number=3, **more
        )
        return parameter, velocity, mean, square

    whole = run()
    monkeypatch.setattr(optimizer, "BLOCK", 10)
    for blocks, once in zip(run(), whole, strict=True):
        assert_array_equal(blocks, once)


def test_a_step_leaves_the_gradient_as_it_was():
    gradient = laid_out(numbers((5,), 0), "every second")
    parameter, mean, square = np.ones(5), np.zeros(5), np.zeros(5)
    optimizer.sgd(parameter, gradient, lr=0.1, weight_decay=0.1)
    more = {"momentum": 0.9, "nesterov": True, "first": True, "weight_decay": 0.0}
    optimizer.momentum_sgd(parameter, gradient, mean, lr=0.1, **more)
    more = {"betas": (0.9, 0.9), "eps": 1e-8, "weight_decay": 0.0, "step_number": 1}
    optimizer.adam(parameter, gradient, mean, square, lr=0.1, **more)
    assert_array_equal(gradient, numbers((5,), 0))


# Dropout


class Counting:
    """In the place of a generator: every 16-bit number, once."""

    def random_bits(self, backend, count):
        assert backend is CPU
        return np.arange(count, dtype=np.uint16)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.3, 0.5, 0.999, 0.99999999])
def test_dropout_drops_just_the_share_that_its_scale_makes_good(rate):
    kept, scale = dropout.dropout_mask((256, 256), rate, CPU, Counting())
    assert (kept.dtype, kept.shape) == (np.bool_, (256, 256))
    dropped = min(round(rate * 65536), 65535)
    assert kept.sum() == 65536 - dropped
    assert kept.sum() * scale == pytest.approx(65536, rel=1e-15)
    assert isinstance(scale, float)


def test_dropout_masks_are_repeated_by_the_seed_and_differ_from_call_to_call():
    one, two = Generator(5), Generator(5)
    masks = [dropout.dropout_mask((50, 20), 0.5, CPU, g)[0] for g in (one, two, one, two)]
    assert_array_equal(masks[0], masks[1])
    assert_array_equal(masks[2], masks[3])
    assert (masks[0] != masks[2]).any()


def test_dropout_drops_elements_independently():
    kept = dropout.dropout_mask((200, 500), 0.3, CPU, Generator(0))[0]
    # 100,000 draws: the share varies by sqrt(0.3 * 0.7 / 1e5) = 0.0015; five of those
    assert kept.mean() == pytest.approx(0.7, abs=0.0075)
    both = (kept[:, 1:] & kept[:, :-1]).mean()
    assert both == pytest.approx(0.49, abs=0.01)
    assert (kept[1:] & kept[:-1]).mean() == pytest.approx(0.49, abs=0.01)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_dropout_masks_of_any_shape(shape):
    assert dropout.dropout_mask(shape, 0.5, CPU, Generator(0))[0].shape == shape


def test_a_convolution_of_single_pixels_copies_no_columns():
    x = numbers((3, 4, 5, 2), 0).astype(np.float32)
    ((images, columns),) = convolution.im2col(x, Window((1, 1)))
    assert images == slice(0, 3)
    assert np.shares_memory(columns, x)
    assert_array_equal(columns, x.reshape(-1, 2))
