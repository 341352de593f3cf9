"""Every kernel against a plain reference, on generated shapes.

Convolution, scratch memory and threads have files of their own. Max pooling is compared exactly.
Where a kernel divides or takes an exponential, `TOLERANCE` applies: a few dozen roundings of half a
unit in the last place, 6e-8 in float32 and 1.1e-16 in float64, relative to values of about 1.
"""

import math
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

import numpy as np
import pytest
import reference
from generated import DTYPES, LAYOUTS, SEEDS, cases, generated, laid_out, pooled_cases
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import eighths, numbers

import minidl
from minidl import Generator
from minidl.backend import CPU
from minidl.kernels import (
    axpby,
    blas,
    convolution,
    dropout,
    elementwise,
    normalization,
    optimizer,
    pooling,
    products,
    softmax,
)
from minidl.kernels.convolution_plan import Convolution
from minidl.kernels.optimizer import FADED, FORGET_EVERY, Layout
from minidl.kernels.window import Window, place_window, same_padding

TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}


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
    with pytest.raises(ValueError, match=r"12x13 pixels.*images of 4x6 padded to 7x10"):
        place_window((4, 6), (12, 13), (1, 1), ((1, 2), (3, 1)), (1, 1))


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


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 9, 40])
def test_the_largest_is_chosen_and_the_first_that_has_it_gets_the_gradient(count):
    values = np.round(numbers((count, 7, 3), count))  # from -2 to 2: ties everywhere
    d = numbers((7, 3), 1)
    out, larger = np.full((7, 3), np.nan), np.empty((count, 7, 3), bool)
    pooling.choose_largest(pooling.tournament(values.copy()), out, larger)
    assert_array_equal(out, values.max(axis=0))
    gradients = np.full(values.shape, np.nan)
    gradients[0] = d
    pooling.give_to_largest(pooling.tournament(gradients), larger)
    expected = np.zeros(values.shape)
    np.put_along_axis(expected, values.argmax(axis=0)[None], d[None], axis=0)
    assert_array_equal(gradients, expected)
    out[...] = np.nan
    pooling.choose_largest(pooling.tournament(values.copy()), out, None)
    assert_array_equal(out, values.max(axis=0))


@pytest.mark.parametrize("place", range(3))
def test_the_largest_of_nan_and_numbers_is_nan(place):
    values = np.zeros((3, 2), np.float32)
    values[place, 0] = np.nan
    out, larger = np.empty(2, np.float32), np.ones((3, 2), bool)
    pooling.choose_largest(pooling.tournament(values), out, larger)
    assert np.isnan(out).tolist() == [True, False]
    gradient = np.full((3, 2), np.nan, np.float32)
    gradient[0] = 1
    pooling.give_to_largest(pooling.tournament(gradient), larger)
    assert gradient.sum(axis=0).tolist() == [1, 1]  # all of it, to some one
    assert gradient[0, 1] == 1


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("size", [2, 3])
def test_an_infinite_gradient_goes_to_the_largest_alone(value, size):
    values = np.array([3, 1, 4, 1], np.float32).reshape(4, 1)
    larger = np.empty((4, 1), bool)
    pooling.choose_largest(pooling.tournament(values.copy()), np.empty(1, np.float32), larger)
    gradients = np.full((4, 1), value, np.float32)
    pooling.give_to_largest(pooling.tournament(gradients), larger)
    assert_array_equal(gradients[:, 0], [0, 0, value, 0])

    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1] = 1  # it is under each place, whether they overlap (2) or not (3)
    window = Window((size, size))
    d = np.full((1, *window.positions((3, 3)), 1), value, np.float32)
    expected = np.where(x == 1, np.float32(value), 0)
    assert_array_equal(
        pooling.max_pool_gradient(x, pooling.max_pool(x, window), d, window), expected
    )


# Element by element


@st.composite
def rows_and_biases(draw):
    """Rows (M, C) that may be written to, of any numbers of rows and columns, and a bias."""
    shape = draw(st.integers(0, 40)), draw(st.sampled_from([1, 2, 3, 10, 64, 1000, 5000]))
    seed, dtype = draw(SEEDS), draw(DTYPES)
    wide = np.full((shape[0], shape[1] + draw(st.sampled_from([0, 1]))), np.nan, dtype)
    rows = wide[:, : shape[1]]
    rows[...] = numbers(shape, seed)
    return rows, numbers(shape[1:], seed + 1).astype(dtype), wide


@generated
@given(rows_and_biases(), st.booleans(), st.booleans())
def test_a_bias_is_added_to_each_row_and_what_is_below_0_is_cut_off(case, with_bias, relu):
    rows, bias, wide = case
    expected = rows + bias if with_bias else rows.copy()
    if relu:
        expected = np.maximum(expected, 0)
    beside = wide[:, bias.size :].copy()
    elementwise.add_and_rectify(rows, bias if with_bias else None, relu)
    assert_array_equal(rows, expected)
    assert_array_equal(wide[:, bias.size :], beside)  # nothing is written there


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (7,), (3, 0), (400, 401, 5)], ids=str)
def test_rectifying_and_passing_element_by_element(dtype, shape):
    x = laid_out(numbers(shape, 0).astype(dtype), "fortran")
    d, where = numbers(shape, 1).astype(dtype), numbers(shape, 2) > 0
    for out, expected in (
        (elementwise.relu(x), np.maximum(x, 0)),
        (elementwise.pass_where(d, where), np.where(where, d, 0)),
        (elementwise.pass_where(d, where, 1.25), np.where(where, d, 0) * dtype(1.25)),
    ):
        assert out.dtype == dtype
        assert_array_equal(out, expected)
        assert not any(np.shares_memory(out, array) for array in (x, d))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_nothing_is_left_of_what_does_not_pass_whatever_it_was(dtype, scale):
    values = np.array([np.inf, -np.inf, np.nan, -1.5, np.finfo(dtype).smallest_subnormal], dtype)
    none, every = np.zeros(5, bool), np.ones(5, bool)
    assert_array_equal(elementwise.pass_where(values, none, scale), np.zeros(5))
    assert_array_equal(elementwise.pass_where(values, every, scale), values * dtype(scale))
    for where in (none, every):
        out = np.full((5, 2), 7, dtype)[:, 0]  # not end to end
        elementwise.keep_where(values, where, out=out)
        assert_array_equal(out, np.where(where, values, 0))


def test_rectifying_passes_nan_on():
    x = np.array([np.nan, -1, 1], np.float32)
    assert_array_equal(elementwise.relu(x), [np.nan, 0, 1])
    rows = np.array([[np.nan, -1, 1]] * 2, np.float32)
    for bias in (None, np.array([1, np.nan, 1], np.float32)):
        elementwise.add_and_rectify(rows, bias, True)
    assert_array_equal(rows, [[np.nan, np.nan, 2]] * 2)


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
    for out in (sum(softmax.logsumexp(x, (1,)))[:, 0], sum(softmax.logsumexp(x.T, (0,)))[0]):
        assert out.dtype == x.dtype
        assert_allclose(out, expected, rtol=0, atol=20 * TOLERANCE[x.dtype.type])


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [-np.inf, 1], [np.inf, 0]])
    assert sum(softmax.logsumexp(x, (1,)))[:, 0].tolist() == [-np.inf, 1, np.inf]


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


# Products


@st.composite
def products_of_matrices(draw):
    """Two matrices that fit together, also with nothing to add up, and a bias."""
    m, k, n = draw(st.integers(0, 9)), draw(st.integers(0, 9)), draw(st.integers(1, 9))
    seed, dtype = draw(SEEDS), draw(DTYPES)
    a = laid_out(eighths((m, k), seed).astype(dtype), draw(LAYOUTS))
    b = laid_out(eighths((k, n), seed + 1).astype(dtype), draw(LAYOUTS))
    return a, b, laid_out(eighths((n,), seed + 2).astype(dtype), "every second")


@generated
@given(products_of_matrices(), st.booleans(), st.booleans())
def test_a_product_is_the_sum_of_products(case, with_bias, relu):
    a, b, bias = case
    out = products.multiply(a, b, bias if with_bias else None, relu)
    expected = np.zeros((len(a), b.shape[1])) + (bias if with_bias else 0)
    for i, k, j in np.ndindex(*a.shape, b.shape[1]):
        expected[i, j] += float(a[i, k]) * float(b[k, j])
    assert out.dtype == a.dtype
    assert_array_equal(out, np.maximum(expected, 0) if relu else expected)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [0, 3])
def test_a_product_may_have_no_columns(rows, relu):
    for bias in (None, np.ones(0)):
        out = products.multiply(np.ones((rows, 2)), np.ones((2, 0)), bias, relu)
        assert out.shape == (rows, 0)


# multiplications by the million, and shapes that divide by nothing: whole, tall, wide, deep
LARGE_PRODUCTS = [
    (1031, 131, 127),
    (9001, 67, 31),
    (33, 311, 2003),
    (257, 4001, 65),
    (20011, 257, 3),
]


@pytest.mark.parametrize("shape", LARGE_PRODUCTS, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_product_is_that_of_numpy(shape, turned):
    m, k, n = shape
    a, b = eighths((m, k), 0).astype(np.float32), eighths((k, n), 1).astype(np.float32)
    if turned:  # as the operands of gradients are
        a, b = np.asfortranarray(a), np.asfortranarray(b)
    bias = eighths((n,), 2).astype(np.float32)
    expected = a.astype(float) @ b.astype(float)
    assert_array_equal(products.multiply(a, b), expected)
    assert_array_equal(products.multiply(a, b, bias, True), np.maximum(expected + bias, 0))


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 5), (64, 256, 128), (900, 130, 70)], ids=str)
@pytest.mark.parametrize("of_a", [True, False])
@pytest.mark.parametrize("of_b", [True, False])
def test_gradients_of_a_product_are_products_with_the_other_matrix(shape, of_a, of_b):
    m, k, n = shape
    a, b = eighths((m, k), 0).astype(np.float32), eighths((k, n), 1).astype(np.float32)
    d = eighths((m, n), 2).astype(np.float32)
    found = products.multiply_gradients(a, b, d, of_a, of_b)
    for gradient, wanted, expected in zip(found, (of_a, of_b), (d @ b.T, a.T @ d), strict=True):
        assert (gradient is not None) == wanted
        if wanted:
            assert gradient.dtype == np.float32
            assert_array_equal(gradient, expected)


@contextmanager
def read_in_place(most, fewest_samples):
    """BLAS reads matrices where they lie for products of so many multiplications at most.

    Samples are cut into groups of no fewer than so many.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blas, "MOST_IN_PLACE", most)
        patch.setattr(blas, "FEWEST_SAMPLES", fewest_samples)
        patch.setattr(blas, "blas_architecture", lambda: "SkylakeX")
        forget_plans()
        try:
            yield
        finally:
            forget_plans()


def forget_plans():
    """Decide anew how to go about products and convolutions."""
    for plan in (blas.slabs, blas.groups, products._way, convolution._remembered_plan):
        plan.cache_clear()


@pytest.mark.parametrize(
    ("most", "count", "of_61"),
    [(64 * 6 * 5, 1, 1), (64 * 6 * 5 - 1, 2, 1), (100, 32, 61), (59, 64, 61), (29, 1, 1)],
)
def test_samples_are_cut_into_groups_as_large_as_can_be(most, count, of_61):
    with read_in_place(most, 1):
        assert blas.groups(64, 6, 5) == count
        assert blas.groups(61, 6, 5) == of_61
    with read_in_place(most, 64 // count + 1):
        assert blas.groups(64, 6, 5) == 1


def test_samples_are_cut_into_groups_that_stay_at_hand_if_their_results_are_few(monkeypatch):
    monkeypatch.setattr(blas, "MOST_AT_HAND", 8 * (6 + 5))
    with read_in_place(64 * 6 * 5 - 1, 8):
        assert blas.groups(64, 6, 5) == 8
        monkeypatch.setattr(blas, "FEW_RESULTS", 8 * 6 * 5 - 1)
        forget_plans()
        assert blas.groups(64, 6, 5) == 2
    with read_in_place(64 * 6 * 5 - 1, 9):
        assert blas.groups(64, 6, 5) == 2


@settings(generated, max_examples=60)
@given(pooled_cases(), st.integers(1, 300))
def test_convolutions_add_up_groups_of_samples(case, most):
    how = Convolution(case.window, True, case.pool)
    out, remembered = convolution.conv2d(case.x, case.weight, None, how)
    d = eighths(out.shape, 3).astype(case.x.dtype)
    whole = convolution.conv2d_gradients(case.x, case.weight, how, d, remembered)
    with read_in_place(most, 1):
        in_groups = convolution.conv2d_gradients(case.x, case.weight, how, d, remembered)
    for one, other in zip(whole, in_groups, strict=True):
        assert_array_equal(one, other)


@st.composite
def samples_and_gradients(draw):
    """Matrices of as many rows, each of its own precision, and multiplications to read at once."""
    samples, m, n = (draw(st.integers(0, 12)) for _ in range(3))
    seed = draw(SEEDS)
    return (
        laid_out(eighths((samples, m), seed).astype(draw(DTYPES)), draw(LAYOUTS)),
        laid_out(eighths((samples, n), seed + 1).astype(draw(DTYPES)), draw(LAYOUTS)),
        draw(st.integers(1, 200)),
    )


@generated
@given(samples_and_gradients())
def test_a_product_that_sums_over_samples_is_that_of_numpy(case):
    a, b, most = case
    expected = a.astype(float).T @ b.astype(float)
    whole = products.multiply(a.T, b)
    with read_in_place(most, 1000):
        in_slabs = products.multiply(a.T, b)
    with read_in_place(most, 1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(blas, "MOST_AT_HAND", 1)
        patch.setattr(blas, "FEW_RESULTS", -1)
        in_groups = products.multiply(a.T, b)
    for out in (whole, in_slabs, in_groups):
        assert out.dtype == np.result_type(a, b)
        assert_array_equal(out, expected)
        assert not np.shares_memory(out, a)
        assert not np.shares_memory(out, b)


@st.composite
def stacks_of_matrices(draw):
    """Operands of `blas.multiply`, the first ones in any memory order, and how many at once."""
    m, k, n, stacks = (draw(st.integers(1, 12)) for _ in range(4))
    seed, one_left, one_right = draw(SEEDS), draw(st.booleans()), draw(st.booleans())
    first = laid_out(eighths((1 if one_left else stacks, m, k), seed), draw(LAYOUTS))
    second = laid_out(eighths((1 if one_right else stacks, k, n), seed + 1), draw(LAYOUTS))
    if draw(st.booleans()):
        first, second = first[0], second[0]
    return first, second, draw(st.integers(1, 400))


@generated
@given(stacks_of_matrices(), st.booleans())
def test_a_product_in_slabs_is_that_of_numpy(case, transposed):
    a, b, most = case
    if transposed:
        a = a.swapaxes(-2, -1).copy().swapaxes(-2, -1)
        b = b.swapaxes(-2, -1).copy().swapaxes(-2, -1)
    expected = a @ b
    out = np.full_like(expected, np.nan)
    with read_in_place(most, 1):
        blas.multiply(a, b, out=out)
        if b.ndim == 2:
            assert_array_equal(blas.laid_out(b, len(a)), b)
    assert_array_equal(out, expected)


def test_a_transposed_matrix_is_laid_out_for_slabs_alone():
    b = eighths((5, 6), 0).T
    with read_in_place(8 * 6 * 5 - 1, 1):
        assert blas.slabs(8, 6, 5) == 2
        assert blas.laid_out(b, 8).flags.c_contiguous
        assert blas.laid_out(b, 7) is b  # one product is small enough
        rows = b.copy()
        assert blas.laid_out(rows, 8) is rows


@contextmanager
def cut_early(**limits):
    """Products are cut into eight parts, or as many as they have lines, in the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PIECE_WORK": 0, **limits}.items():
            patch.setattr(products, name, value)
        products._way.cache_clear()  # it remembers what the numbers were
        try:
            yield
        finally:
            products._way.cache_clear()


@st.composite
def products_cut_along(draw, axis):
    """As `products_of_matrices`, each of its own precision, just long enough for some parts."""
    length = draw(st.integers(4, 24))
    if axis == products.INNER:
        length += 4  # for eight parts
        side = st.integers(0, length // products.DEEP)
        m, k, n = draw(side), length, draw(side)
    else:
        k = draw(st.integers(0, products.DEEP * length - 1))
        # rows are cut if there are more of them than columns
        rows_or_columns = length, draw(st.integers(0, length - (axis == products.ROWS)))
        m, n = rows_or_columns if axis == products.ROWS else reversed(rows_or_columns)
    seed = draw(SEEDS)
    return (
        laid_out(eighths((m, k), seed).astype(draw(DTYPES)), draw(LAYOUTS)),
        laid_out(eighths((k, n), seed + 1).astype(draw(DTYPES)), draw(LAYOUTS)),
        laid_out(eighths((n,), seed + 2).astype(draw(DTYPES)), "every second"),
    )


AXES = [products.ROWS, products.COLUMNS, products.INNER]


@pytest.mark.parametrize("axis", AXES, ids=["rows", "columns", "inner axis"])
@pytest.mark.parametrize("long_pass", [0, products.LONG_PASS], ids=["in parts", "at the end"])
@settings(generated, max_examples=100)
@given(data=st.data(), with_bias=st.booleans(), relu=st.booleans(), count=st.integers(1, 3))
def test_a_product_in_parts_is_that_of_numpy(axis, long_pass, data, with_bias, relu, count):
    a, b, bias = data.draw(products_cut_along(axis))
    minidl.set_num_threads(count)
    with cut_early(LONG_PASS=long_pass):
        way = products._way(*a.shape, b.shape[1])
        assert way.axis == axis
        assert len(way.parts) > 1
        out = products.multiply(a, b, bias if with_bias else None, relu)
    expected = a @ b
    if with_bias:
        expected = expected + bias.astype(expected.dtype)
    assert out.dtype == expected.dtype
    assert_array_equal(out, np.maximum(expected, 0) if relu else expected)


@pytest.mark.parametrize("shape", [(24, 5, 4), (4, 5, 24), (6, 24, 6)], ids=str)
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True)], ids=str)
def test_a_bias_is_added_once_to_each_element_in_parts_or_at_the_end(monkeypatch, shape, given):
    (m, k, n), (with_bias, relu) = shape, given
    seen = []

    def note(rows, *more):
        seen.append(rows.shape)
        elementwise.add_and_rectify(rows, *more)

    monkeypatch.setattr(products, "add_and_rectify", note)
    a, b = eighths((m, k), 0), eighths((k, n), 1)
    bias = eighths((n,), 2) if with_bias else None
    expected = products.multiply(a, b, bias, relu)
    part = (m // 8, n) if m > n else (m, n // 8)
    for long_pass, passes in ((m * n // 8, [part] * 8), (m * n // 8 + 1, [(m, n)])):
        seen.clear()
        with cut_early(LONG_PASS=long_pass):
            assert_array_equal(products.multiply(a, b, bias, relu), expected)
        assert seen == (passes if k < 24 else [(m, n)])


@pytest.mark.parametrize("shape", [(24, 5, 4), (4, 5, 24), (4, 24, 4)], ids=str)
@pytest.mark.parametrize("long_pass", [0, products.LONG_PASS], ids=["in parts", "at the end"])
def test_a_product_in_parts_passes_nan_on_to_its_row_alone(shape, long_pass):
    m, k, n = shape
    a, b, bias = eighths((m, k), 0), eighths((k, n), 1), eighths((n,), 2)
    a[1, k - 1] = np.nan
    with cut_early(LONG_PASS=long_pass):
        out = products.multiply(a, b, bias, True)
    assert np.isnan(out).any(axis=1).tolist() == [row == 1 for row in range(m)]
    assert np.isnan(out[1]).all()


@pytest.mark.parametrize("shape", [(24, 5, 4), (4, 5, 24), (4, 24, 4)], ids=str)
def test_a_product_in_parts_of_two_precisions_is_rounded_to_the_higher(shape):
    m, k, n = shape
    coarse, fine = eighths((m, k), 0).astype(np.float32), eighths((k, n), 1) * (1 + 2**-30)
    expected = coarse.astype(float) @ fine  # 43 bits at most
    assert (expected != expected.astype(np.float32)).any()
    with cut_early():
        assert_array_equal(products.multiply(coarse, fine), expected)
        assert_array_equal(products.multiply(fine.T, coarse.T), expected.T)


def test_operands_are_left_as_they_were_and_no_result_lies_in_them():
    for m, k, n in ((24, 5, 4), (4, 5, 24), (4, 24, 4)):
        given = eighths((m, k), 0), eighths((k, n), 1), eighths((n,), 2)
        copies = [array.copy() for array in given]
        with cut_early(LONG_PASS=0):
            out = products.multiply(*given, True)
        for array, copy in zip(given, copies, strict=True):
            assert_array_equal(array, copy)
            assert not np.shares_memory(array, out)


@pytest.mark.parametrize(("most", "axis"), [(24, products.INNER), (23, products.COLUMNS)])
def test_a_product_of_many_elements_is_no_sum_of_several(most, axis):
    a, b = eighths((4, 24), 0), eighths((24, 6), 1)
    with cut_early(MOST_SUMS=most):
        assert products._way(4, 24, 6).axis == axis
        assert_array_equal(products.multiply(a, b), a @ b)


@pytest.mark.parametrize("shapes", [((24, 5), (6, 4)), ((4, 5), (6, 24)), ((4, 5), (24, 4))])
def test_matrices_that_do_not_fit_together_are_refused_in_parts_too(shapes):
    a, b = map(np.ones, shapes)
    with cut_early(), pytest.raises(ValueError, match="5 columns meet"):
        products.multiply(a, b)


def test_a_product_of_two_precisions_has_the_higher():
    a, b = numbers((3, 4), 0).astype(np.float32), numbers((4, 2), 1) / 3
    out = products.multiply(a, b)
    assert out.dtype == np.float64
    assert_array_equal(out, a.astype(float) @ b)


def test_a_product_passes_nan_on():
    a, b = np.ones((2, 2)), np.ones((2, 2))
    a[0, 1] = np.nan
    for relu in (False, True):
        assert np.isnan(products.multiply(a, b, None, relu)).tolist() == [[True] * 2, [False] * 2]


@generated
@given(tables())
def test_sum_rows_adds_the_rows_up(table):
    rows, _ = table
    total = products.sum_rows(rows)
    assert total.dtype == rows.dtype
    expected = [math.fsum(column) for column in rows.T.tolist()]
    assert_allclose(total, expected, rtol=0, atol=10 * TOLERANCE[rows.dtype.type])


def test_sum_rows_of_no_rows_is_zero():
    assert products.sum_rows(np.empty((0, 3), np.float32)).tolist() == [0, 0, 0]


# Batch normalisation


@generated
@given(tables(least=2))
def test_batch_norm_normalises_each_column(table):
    rows, _ = table
    tolerance = TOLERANCE[rows.dtype.type]
    out, means, variances = reference.batch_norm(rows, 1e-3)
    mean, variance, normalized = normalization.moments(rows)
    # values reach 10, squares 100; the difference from the mean carries their rounding along
    assert_allclose(mean, means, rtol=0, atol=10 * tolerance)
    assert_allclose(variance, variances, rtol=0, atol=100 * tolerance)
    assert mean.dtype == variance.dtype == rows.dtype
    assert_allclose(normalized, rows - means, rtol=0, atol=10 * tolerance)
    scale = normalization.normalize(normalized, variances.astype(rows.dtype), 1e-3)
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


@pytest.mark.parametrize("count", [8, 50_000])
def test_a_column_that_does_not_vary_becomes_zero(count):
    row = np.float32([3.25, 0.1, 3333.333, -12345.678])
    mean, variance, centred = normalization.moments(np.tile(row, (count, 1)))
    assert_array_equal(mean, row)
    assert_array_equal(variance, np.zeros(4))
    assert_array_equal(centred, np.zeros((count, 4)))


# Optimizer steps


@st.composite
def steps(draw):
    """A few parameters of any shapes, and a few gradients for each."""
    shapes = draw(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4))
    seed, dtype = draw(SEEDS), draw(DTYPES)
    layout = draw(LAYOUTS.filter(lambda name: name in ("plain", "fortran")))
    parameters = [numbers(tuple(s), seed + i).astype(dtype) for i, s in enumerate(shapes)]
    gradients = [
        [
            laid_out(numbers(p.shape, seed + 10 * step + i).astype(dtype), layout)
            for i, p in enumerate(parameters)
        ]
        for step in range(1, draw(st.integers(2, 6)))
    ]
    return parameters, gradients


def step_by_step(parameters, gradients, rule, **settings):
    """The reference for each element of each parameter."""
    results = []
    for number, parameter in enumerate(parameters):
        flat = [together[number].reshape(-1) for together in gradients]
        values = [
            rule(start, [g[i] for g in flat], **settings)
            for i, start in enumerate(parameter.reshape(-1))
        ]
        results.append(np.reshape(values, parameter.shape))
    return results


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [63, 64, 65, 128])
def test_numbers_close_to_the_smallest_normal_one_are_forgotten(dtype, number):
    least = FADED * float(np.finfo(dtype).smallest_normal)
    below = np.nextafter(dtype(least), dtype(0))
    sums = np.array([1, least, -least, below, -below, 0, np.inf, np.nan], dtype)
    forgets = number % FORGET_EVERY == 0
    left = [1, least, -least, 0, 0, 0, np.inf, np.nan] if forgets else sums
    parameter, gradient = np.zeros(8, dtype), np.zeros(8, dtype)
    velocity, mean, square = sums.copy(), sums.copy(), abs(sums)
    plain = {"lr": 0.0, "weight_decay": 0.0, "step_number": number}
    keep_all = {"momentum": 1.0, "nesterov": False, **plain}
    halve = {"betas": (0.5, 0.5), "eps": 1.0, **plain}
    with np.errstate(invalid="ignore"):
        optimizer.momentum_sgd(Layout([parameter], velocity), [gradient], **keep_all)
        optimizer.adam(Layout([parameter], mean, square), [gradient], **halve)
    assert_array_equal(velocity, left)
    # Halves, of which only that of 1 is not forgotten.
    assert_array_equal(mean, [0.5, 0, 0, 0, 0, 0, np.inf, np.nan] if forgets else sums / 2)
    smallest = least if forgets else 0
    assert_array_equal(square, np.maximum(abs(sums) / 2, smallest))


@pytest.mark.parametrize("make", [minidl.Adam, partial(minidl.SGD, momentum=0.9)])
def test_sums_of_a_parameter_without_a_slope_do_not_stay_subnormal(make):
    # Nine tenths of the smallest numbers are rounded to the numbers themselves.
    parameter = minidl.Tensor(np.ones(3, np.float32), requires_grad=True)
    trained = make([parameter])
    for slopes in ([1, -1e-3, 0], *[[0, 0, 0]] * 1100):
        parameter.grad = np.array(slopes, np.float32)
        trained.step()
    name = "mean" if isinstance(trained, minidl.Adam) else "velocity"
    assert_array_equal(trained.state_dict()["memory"][name], 0)


def end_to_end(parameters):
    """Memory for what is remembered of all parameters."""
    return np.zeros(sum(array.size for array in parameters), parameters[0].dtype)


@generated
@given(steps(), st.sampled_from([0.0, 0.9]), st.booleans(), st.sampled_from([0.0, 0.1]))
def test_sgd_is_the_formula_element_by_element(case, momentum, nesterov, weight_decay):
    start, gradients = case
    nesterov = nesterov and momentum > 0
    parameters, velocity = [array.copy() for array in start], end_to_end(start)
    shared = {"lr": 0.1, "weight_decay": weight_decay}
    for together in gradients:
        if momentum:
            more = {"momentum": momentum, "nesterov": nesterov, "step_number": 1}
            optimizer.momentum_sgd(Layout(parameters, velocity), together, **shared, **more)
        else:
            optimizer.sgd(Layout(parameters), together, **shared)
    expected = step_by_step(
        start, gradients, reference.sgd, momentum=momentum, nesterov=nesterov, **shared
    )
    for parameter, wanted, before in zip(parameters, expected, start, strict=True):
        assert parameter.dtype == before.dtype
        assert_allclose(parameter, wanted, rtol=0, atol=2 * TOLERANCE[before.dtype.type])


@generated
@given(steps(), st.sampled_from([(0.9, 0.999), (0.0, 0.5)]), st.sampled_from([0.0, 0.1]))
def test_adam_is_the_formula_element_by_element(case, betas, weight_decay):
    start, gradients = case
    parameters = [array.copy() for array in start]
    mean, square = end_to_end(start), end_to_end(start)
    shared = {"lr": 0.1, "betas": betas, "eps": 1e-3, "weight_decay": weight_decay}
    for i, together in enumerate(gradients):
        optimizer.adam(Layout(parameters, mean, square), together, step_number=i + 1, **shared)
    expected = step_by_step(start, gradients, reference.adam, **shared)
    for parameter, wanted, before in zip(parameters, expected, start, strict=True):
        assert parameter.dtype == before.dtype
        assert_allclose(parameter, wanted, rtol=0, atol=2 * TOLERANCE[before.dtype.type])


BLOCK = optimizer.BLOCK
SIZES = [
    [BLOCK + 1],
    [7 * BLOCK],
    [3, BLOCK, 5],  # one that reaches into its neighbours' blocks
    [BLOCK // 2] * 5,
    [*range(50), 2 * BLOCK + 17, *range(50)],
    [0, 1, 0, BLOCK - 1, 0, 2 * BLOCK, 0],
]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)}-{sum(sizes)}")
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("in_c", [False, True])
def test_a_step_of_all_parameters_is_the_step_of_each(sizes, weight_decay, in_c, monkeypatch):
    # In C an element may be rounded less often, which then depends on how many lie together.
    monkeypatch.setattr(axpby, "LEAST", axpby.LEAST if in_c else math.inf)
    same = partial(assert_allclose, rtol=0, atol=4e-6) if in_c else assert_array_equal
    starts = [numbers((n,), i).astype(np.float32) for i, n in enumerate(sizes)]
    gradients = [numbers((n,), 200 + i).astype(np.float32) for i, n in enumerate(sizes)]
    ends = list(accumulate(sizes))
    own = [slice(end - n, end) for n, end in zip(sizes, ends, strict=True)]
    memory = [numbers((ends[-1],), 400 + i).astype(np.float32) for i in range(3)]
    memory[2] **= 2
    more = {"lr": 0.1, "weight_decay": weight_decay}

    def step(parameters, gradients, velocity, mean, square):
        optimizer.sgd(Layout(parameters), gradients, **more)
        moving = Layout(parameters, velocity)
        last = {"step_number": FORGET_EVERY, **more}
        optimizer.momentum_sgd(moving, gradients, momentum=0.9, nesterov=True, **last)
        optimizer.momentum_sgd(moving, gradients, momentum=0.9, nesterov=False, **last)
        scaled, betas = Layout(parameters, mean, square), (0.9, 0.99)
        optimizer.adam(scaled, gradients, betas=betas, eps=1e-8, **last)

    together, remembered = [a.copy() for a in starts], [a.copy() for a in memory]
    step(together, gradients, *remembered)
    for i in {0, len(sizes) // 2, int(np.argmax(sizes)), len(sizes) - 1}:
        alone, own_memory = starts[i].copy(), [a[own[i]].copy() for a in memory]
        if alone.size > 100:  # in pieces that no block cuts
            for j in range(0, alone.size, BLOCK // 8):
                part = slice(j, j + BLOCK // 8)
                step([alone[part]], [gradients[i][part]], *(a[part] for a in own_memory))
        else:
            step([alone], [gradients[i]], *own_memory)
        same(together[i], alone)
        for result, wanted in zip(remembered, own_memory, strict=True):
            same(result[own[i]], wanted)


def test_a_step_leaves_gradients_as_they_were():
    # in a block of its own a gradient is not copied before it is used
    for sizes in ([5], [5, 3], [3 * BLOCK, 3]):
        for weight_decay in (0.0, 0.1):
            gradients = [laid_out(numbers((n,), n), "every second") for n in sizes]
            parameters = [np.ones(n) for n in sizes]
            mean, square = end_to_end(parameters), end_to_end(parameters)
            optimizer.sgd(Layout(parameters), gradients, lr=0.1, weight_decay=weight_decay)
            more = {"lr": 0.1, "weight_decay": weight_decay, "step_number": 1}
            moving = Layout(parameters, mean)
            optimizer.momentum_sgd(moving, gradients, momentum=0.9, nesterov=True, **more)
            layout = Layout(parameters, mean, square)
            optimizer.adam(layout, gradients, betas=(0.9, 0.9), eps=1e-8, **more)
            for gradient, n in zip(gradients, sizes, strict=True):
                assert_array_equal(gradient, numbers((n,), n))


# alpha * x + beta * y


FACTORS = st.sampled_from([0.0, 1.0, -1.0, 0.9, -1e-3])


@pytest.fixture
def in_c(monkeypatch):
    """Arrays of any size are passed to BLAS, if there is one; what counts those calls."""
    monkeypatch.setattr(axpby, "LEAST", 1)
    calls, routine = [], axpby._routine

    def counted(dtype):
        calls.append(dtype)
        return routine(dtype)

    monkeypatch.setattr(axpby, "_routine", counted)
    return calls


def check_axpby(alpha, x, beta, y):
    """Compare with twice the precision: a rounding for each of three operations at most."""
    before, given = y.copy(), x.copy()
    wide = np.longdouble if y.dtype == np.float64 else np.float64
    first, second = wide(alpha) * x.astype(wide), wide(beta) * y.astype(wide)
    axpby.axpby(alpha, x, beta, y)
    assert y.dtype == before.dtype
    eps = max(np.finfo(array.dtype).eps for array in (x, y))
    bound = 1.5 * eps * (abs(first) + abs(second))
    assert (abs(y - (first + second)) <= bound).all()
    assert_array_equal(x, given)


@settings(generated, max_examples=200)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=2),
    st.tuples(DTYPES, DTYPES),
    st.tuples(LAYOUTS, LAYOUTS),
    st.tuples(FACTORS, FACTORS),
    st.booleans(),
    SEEDS,
)
def test_axpby_is_the_formula_in_any_memory(shape, dtypes, layouts, factors, writeable, seed):
    x = laid_out(numbers(shape, seed).astype(dtypes[0]), layouts[0])
    y = laid_out(numbers(shape, seed + 1).astype(dtypes[1]), layouts[1])
    x.flags.writeable = writeable
    y.flags.writeable = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axpby, "LEAST", 1)
        check_axpby(factors[0], x, factors[1], y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_axpby_writes_to_no_neighbour(dtype, in_c):
    for start, stop in [(0, 70), (1, 2), (3, 66), (64, 70)]:
        x, whole = numbers((70,), 0).astype(dtype), numbers((70,), 1).astype(dtype)
        before = whole.copy()
        check_axpby(-0.1, x[start:stop], 0.9, whole[start:stop])
        assert_array_equal(whole[:start], before[:start])
        assert_array_equal(whole[stop:], before[stop:])
    assert len(in_c) == 4


def test_axpby_gives_c_nothing_that_it_would_misread(in_c):
    own = numbers((6,), 0).astype(np.float32)
    read_only = own.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(bytearray(b"-" + own.tobytes()), np.float32, offset=1)
    for x in (own.astype(np.float64), own[::-1], read_only, unaligned, own.view(np.memmap)):
        y = np.ones(6, np.float32)
        axpby.axpby(1, x, 0, y)
        assert_array_equal(y, x)
    y = np.ones(12, np.float32)
    axpby.axpby(1, own, 0, y[::2])
    assert_array_equal(y[::2], own)
    with pytest.raises(ValueError, match="broadcast"):
        axpby.axpby(1, own[:5], 1, own)
    assert in_c == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.dtype(">f4"), np.float16])
def test_axpby_does_without_a_routine(dtype, monkeypatch):
    axpby._routine.cache_clear()
    monkeypatch.setattr(axpby, "blas_function", lambda _: None)
    monkeypatch.setattr(axpby, "LEAST", 1)
    check_axpby(-0.1, numbers((9,), 0).astype(dtype), 0.9, numbers((9,), 1).astype(dtype))
    axpby._routine.cache_clear()


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
