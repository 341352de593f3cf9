"""Every operation against NumPy: values, dtypes, extremes, and what is refused.

Gradients are in test_gradients.py; only those at kinks, where no slope exists, are here.
"""

import itertools
import re
from fractions import Fraction

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import eighths

import minidl
from minidl import Generator, Tensor, backend, losses, ops
from minidl.ops import (
    elementwise,
    images,
    normalization,
    probability,
    products,
    reductions,
    regularization,
    shapes,
)

few = settings(deadline=None, max_examples=40, derandomize=True)

FLOATS = [np.float32, np.float64]
both_floats = pytest.mark.parametrize("dtype", FLOATS)
small_shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
full_shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)
two_shapes = hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3)


def arrays(dtype, shape, low=-8, high=8):
    """Arrays of numbers that float32 holds too, so that both precisions see the same ones."""
    numbers = st.floats(low, high, width=32, allow_subnormal=False)
    return hnp.arrays(dtype, shape, elements=numbers)


def agree(out, expected, dtype, steps=8):
    """A tensor equals NumPy's answer to a few rounding steps and has the dtype."""
    assert isinstance(out, Tensor)
    assert type(out.data) is np.ndarray
    assert out.dtype == dtype
    assert out.shape == np.shape(expected)
    precision = steps * np.finfo(dtype).eps
    np.testing.assert_allclose(out.data, expected, rtol=precision, atol=precision)


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


def gradient(function, values, dtype=np.float64):
    """The gradient of the sum of a function at some values."""
    x = leaf(values, dtype)
    function(x).sum().backward()
    return x.grad


# -- element by element ------------------------------------------------------------------------

UNARY = {
    elementwise.negative: (np.negative, -8),
    elementwise.abs: (np.abs, -8),
    elementwise.exp: (np.exp, -8),
    elementwise.log: (np.log, 2**-6),
    elementwise.sqrt: (np.sqrt, 0),
    elementwise.tanh: (np.tanh, -8),
    elementwise.sigmoid: (lambda x: 1 / (1 + np.exp(-x)), -8),
    elementwise.relu: (lambda x: np.maximum(x, 0), -8),
    elementwise.leaky_relu: (lambda x: np.where(x > 0, x, 0.01 * x), -8),
}


def name(function):
    return function.__name__


@both_floats
@pytest.mark.parametrize("function", UNARY, ids=name)
@few
@given(data=st.data())
def test_unary_values(function, dtype, data):
    expected, low = UNARY[function]
    x = data.draw(arrays(dtype, small_shapes, low))
    agree(function(Tensor(x)), expected(x.astype(np.float64)), dtype)


@pytest.mark.parametrize("function", UNARY, ids=name)
def test_unary_functions_take_arrays_numbers_and_lists(function):
    for value in (np.array([0.5, 2.0], dtype=np.float32), [0.5, 2.0], 0.5, np.float32(0.5)):
        agree(function(value), UNARY[function][0](np.array(value, dtype=np.float64)), np.float32)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize(
    "function",
    [
        elementwise.exp,
        elementwise.log,
        elementwise.sqrt,
        elementwise.tanh,
        elementwise.sigmoid,
        elementwise.leaky_relu,
        probability.softmax,
        probability.log_softmax,
        reductions.mean,
        reductions.var,
        reductions.logsumexp,
    ],
    ids=name,
)
def test_whole_numbers_become_float32_where_the_result_is_fractional(function, dtype):
    x = np.ones((2, 3), dtype=dtype)
    agree(function(Tensor(x)), function(Tensor(x.astype(np.float64))).data, np.float32)


@pytest.mark.parametrize(
    "function",
    [
        elementwise.negative,
        elementwise.abs,
        elementwise.relu,
        reductions.sum,
        reductions.max,
        reductions.min,
        lambda x: elementwise.add(x, 2),
        lambda x: elementwise.multiply(x, True),
        lambda x: elementwise.power(x, 2),
        lambda x: elementwise.maximum(x, 2),
        lambda x: elementwise.clip(x, 0, 2),
        lambda x: shapes.pad(x, 1),
        lambda x: elementwise.where(x > 1, x, 0),
    ],
)
def test_whole_numbers_stay_whole_where_the_result_is(function):
    out = function(Tensor([-1, 2, 3]))
    assert out.dtype == np.int64
    np.testing.assert_array_equal(out.data, function(Tensor([-1.0, 2.0, 3.0])).data)


BINARY = {
    elementwise.add: (np.add, -8),
    elementwise.subtract: (np.subtract, -8),
    elementwise.multiply: (np.multiply, -8),
    elementwise.divide: (np.divide, 0.5),
    elementwise.power: (np.power, 0.5),
    elementwise.maximum: (np.maximum, -8),
    elementwise.minimum: (np.minimum, -8),
}
COMPARISONS = {
    elementwise.less: np.less,
    elementwise.less_equal: np.less_equal,
    elementwise.greater: np.greater,
    elementwise.greater_equal: np.greater_equal,
    elementwise.equal: np.equal,
    elementwise.not_equal: np.not_equal,
}


@both_floats
@pytest.mark.parametrize("function", BINARY, ids=name)
@few
@given(data=st.data())
def test_binary_values(function, dtype, data):
    expected, low = BINARY[function]
    a, b = (data.draw(arrays(dtype, s, low)) for s in data.draw(two_shapes).input_shapes)
    wanted = expected(a.astype(np.float64), b.astype(np.float64))
    agree(function(Tensor(a), Tensor(b)), wanted, dtype, steps=64)
    agree(function(a, Tensor(b)), wanted, dtype, steps=64)
    agree(function(Tensor(a), b), wanted, dtype, steps=64)


@pytest.mark.parametrize("function", COMPARISONS, ids=name)
@few
@given(data=st.data())
def test_comparisons(function, data):
    a, b = (
        data.draw(hnp.arrays(np.int8, s, elements=st.integers(-1, 1)))
        for s in data.draw(two_shapes).input_shapes
    )
    out = function(Tensor(a), Tensor(b))
    assert out.dtype == bool
    np.testing.assert_array_equal(out.data, COMPARISONS[function](a, b))


@pytest.mark.parametrize("function", BINARY, ids=name)
def test_shapes_that_do_not_broadcast_are_refused(function):
    with pytest.raises(ValueError, match=r"\(2,\) \(3,\)"):
        function(Tensor([1.0, 2.0]), Tensor([1.0, 2.0, 3.0]))


def test_two_numbers_make_a_tensor():
    agree(elementwise.maximum(1.0, 2.5), 2.5, np.float32)
    agree(elementwise.add(1.0, 2.5), 3.5, np.float32)
    assert elementwise.minimum(1, 2).item() == 1


@both_floats
@few
@given(data=st.data())
def test_where_values(dtype, data):
    drawn = data.draw(
        hnp.mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=3, max_dims=3)
    ).input_shapes
    condition = data.draw(hnp.arrays(bool, drawn[0]))
    a, b = (data.draw(arrays(dtype, shape)) for shape in drawn[1:])
    agree(elementwise.where(condition, Tensor(a), Tensor(b)), np.where(condition, a, b), dtype)


@both_floats
@few
@given(data=st.data())
def test_clip_values(dtype, data):
    x = data.draw(arrays(dtype, small_shapes))
    low, high = sorted(data.draw(st.tuples(st.floats(-4, 4), st.floats(-4, 4))))
    agree(elementwise.clip(x, low, high), np.clip(x, low, high), dtype)
    agree(elementwise.clip(x, low=low), np.maximum(x, low), dtype)
    agree(elementwise.clip(x, high=high), np.minimum(x, high), dtype)


def test_clip_between_numpy_scalars_keeps_float32():
    x = np.array([-1.0, 0.5, 2.0], dtype=np.float32)
    agree(elementwise.clip(x, np.float64(0), np.float64(1)), [0, 0.5, 1], np.float32)


def test_clip_of_whole_numbers_between_fractions_is_float32():
    agree(elementwise.clip(Tensor([0, 1, 2]), 0.5, 1.5), [0.5, 1, 1.5], np.float32)


@pytest.mark.parametrize("before", FLOATS)
@pytest.mark.parametrize("after", [np.float32, np.float64, np.int64, np.bool_])
def test_astype_values(before, after):
    x = leaf([-1.5, 0.0, 2.0], before)
    out = x.astype(after)
    assert out.dtype == after
    np.testing.assert_array_equal(out.data, x.data.astype(after))
    assert out.requires_grad == (np.dtype(after).kind == "f")
    assert not np.shares_memory(out.data, x.data)


@pytest.mark.parametrize("dtype", [np.float16, np.complex64, np.longdouble, object, str])
def test_astype_refuses_dtypes_that_tensors_do_not_have(dtype):
    with pytest.raises(TypeError, match="expected booleans, integers, float32 or float64"):
        leaf([1.0]).astype(dtype)


def test_astype_carries_the_gradient_in_the_inputs_precision():
    x = leaf([1.0, 2.0], np.float32)
    (x.astype(np.float64) * 3.0).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, 3)


# -- where no slope exists ---------------------------------------------------------------------


def test_slope_of_relu_at_zero_is_zero():
    np.testing.assert_array_equal(gradient(elementwise.relu, [-1.0, 0.0, 1.0]), [0, 0, 1])


def test_slope_of_leaky_relu_at_zero_is_that_below():
    def leaky(x):
        return elementwise.leaky_relu(x, 0.25)

    np.testing.assert_array_equal(gradient(leaky, [-1.0, 0.0, 1.0]), [0.25, 0.25, 1])


def test_slope_of_abs_at_zero_is_zero():
    np.testing.assert_array_equal(gradient(elementwise.abs, [-2.0, 0.0, 2.0]), [-1, 0, 1])


def test_clip_passes_the_gradient_at_its_ends():
    def clipped(x):
        return elementwise.clip(x, -1.0, 1.0)

    np.testing.assert_array_equal(gradient(clipped, [-2.0, -1.0, 0.0, 1.0, 2.0]), [0, 1, 1, 1, 0])


@pytest.mark.parametrize("function", [elementwise.maximum, elementwise.minimum], ids=name)
def test_equal_operands_share_the_gradient_in_halves(function):
    a, b = leaf([1.0, 2.0]), leaf([1.0, 2.0])
    function(a, b).sum().backward()
    np.testing.assert_array_equal(a.grad, 0.5)
    np.testing.assert_array_equal(b.grad, 0.5)


@pytest.mark.parametrize(
    ("function", "values"),
    [(reductions.max, [3.0, 1.0, 3.0, 3.0]), (reductions.min, [0.0, 1.0, 0.0, 0.0])],
)
def test_equal_extremes_share_the_gradient_evenly(function, values):
    np.testing.assert_allclose(gradient(function, values), [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-15)


def test_first_of_equal_pixels_takes_the_gradient_of_max_pooling():
    expected = np.zeros((1, 2, 4, 1))
    expected[0, 0, ::2] = 1
    np.testing.assert_array_equal(gradient(images.max_pool, np.ones((1, 2, 4, 1))), expected)


def test_slope_of_a_power_of_zero():
    np.testing.assert_array_equal(gradient(lambda x: x**0, [0.0, 2.0]), [0, 0])
    np.testing.assert_array_equal(gradient(lambda x: x**1.0, [0.0, 2.0]), [1, 1])
    np.testing.assert_array_equal(gradient(lambda x: x**1.5, [0.0]), [0])


def test_exponents_of_bases_that_are_not_positive_have_no_gradient():
    exponent = leaf([2.0, 2.0, 3.0])
    (np.array([0.0, -2.0, np.e]) ** exponent).sum().backward()
    np.testing.assert_allclose(exponent.grad, [0, 0, np.e**3], rtol=1e-15)


# -- reductions --------------------------------------------------------------------------------

REDUCTIONS = {
    reductions.sum: np.sum,
    reductions.mean: np.mean,
    reductions.var: np.var,
    reductions.max: np.max,
    reductions.min: np.min,
    reductions.logsumexp: lambda x, **how: np.log(np.exp(x).sum(**how)),
}


def axes_of(array):
    """None, one axis, or several, each counted from the front or from the end."""
    rank = array.ndim
    one = st.integers(-rank, rank - 1)
    several = hnp.valid_tuple_axes(rank, min_size=0)
    return st.one_of(st.none(), one, several)


@both_floats
@pytest.mark.parametrize("function", REDUCTIONS, ids=name)
@few
@given(data=st.data())
def test_reductions(function, dtype, data):
    x = data.draw(arrays(dtype, full_shapes))
    how = {"axis": data.draw(axes_of(x)), "keepdims": data.draw(st.booleans())}
    expected = REDUCTIONS[function](x.astype(np.float64), **how)
    # A sum of n terms of size up to m carries an error of about n * m rounding steps.
    steps = 8 * x.size * max(1.0, float(np.abs(x).max()) ** 2)
    agree(function(Tensor(x), **how), expected, dtype, steps=steps)


@pytest.mark.parametrize("function", REDUCTIONS, ids=name)
def test_reductions_take_all_axes_and_drop_them_unless_told_otherwise(function):
    x = np.random.default_rng(0).standard_normal((4, 3))
    agree(function(x), REDUCTIONS[function](x), np.float64)
    agree(function(x, axis=1), REDUCTIONS[function](x, axis=1), np.float64)


@both_floats
@pytest.mark.parametrize("ddof", [0, 1, 2])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
def test_var_with_ddof(axis, ddof, dtype):
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(dtype)
    agree(reductions.var(x, axis=axis, ddof=ddof), np.var(x, axis=axis, ddof=ddof), dtype)


@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_variance_of_too_few_has_no_number_and_no_error():
    x = leaf([[1.0], [2.0]])
    out = reductions.var(x, axis=1, ddof=1)
    np.testing.assert_array_equal(out.data, np.nan)
    out.sum().backward()
    assert x.grad.shape == x.shape


def test_sum_of_nothing_is_zero():
    agree(reductions.sum(np.ones((2, 0)), axis=1), [0, 0], np.float64)


def test_mean_of_nothing_warns_as_numpy_does():
    with pytest.warns(RuntimeWarning), np.errstate(all="ignore"):
        assert np.isnan(reductions.mean(Tensor([])).item())


@pytest.mark.parametrize("function", [reductions.max, reductions.min], ids=name)
def test_extreme_of_nothing_is_refused(function):
    with pytest.raises(ValueError, match="zero-size"):
        function(Tensor([]))


@pytest.mark.parametrize("function", REDUCTIONS, ids=name)
@pytest.mark.parametrize("axis", [2, -3, (0, 2)])
def test_axis_out_of_range_is_refused(function, axis):
    with pytest.raises(ValueError, match="out of bounds"):
        function(leaf([[1.0, 2.0]]), axis=axis)


@pytest.mark.parametrize("function", REDUCTIONS, ids=name)
def test_axis_given_twice_is_refused(function):
    with pytest.raises(ValueError, match="duplicate"):
        function(leaf([[1.0, 2.0]]), axis=(0, 0))


@pytest.mark.parametrize("function", REDUCTIONS, ids=name)
@pytest.mark.parametrize("axis", [0, -1])
def test_a_number_has_no_axis(function, axis):
    with pytest.raises(ValueError, match="out of bounds"):
        function(leaf(2.0), axis=axis)


# -- softmax and its kin, at the extremes ------------------------------------------------------


def softmax_of(x, axis):
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


@both_floats
@few
@given(data=st.data())
def test_softmax_values(dtype, data):
    x = data.draw(arrays(dtype, full_shapes))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    expected = softmax_of(x.astype(np.float64), axis)
    agree(probability.softmax(x, axis), expected, dtype)
    agree(probability.log_softmax(x, axis), np.log(expected), dtype, steps=256)


EXTREMES = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 0.0], [-1e4, 0.0, 0.0]])


@both_floats
def test_softmax_at_extremes(dtype):
    expected = [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0], [0, 0.5, 0.5]]
    agree(probability.softmax(EXTREMES.astype(dtype)), expected, dtype)


@both_floats
def test_log_softmax_at_extremes(dtype):
    half, third = np.log(1 / 2), np.log(1 / 3)
    expected = [[0, -2e4, -1e4], [third] * 3, [half, half, half - 1e4], [half - 1e4, half, half]]
    agree(probability.log_softmax(EXTREMES.astype(dtype)), expected, dtype)


@both_floats
def test_logsumexp_at_extremes(dtype):
    expected = [1e4, -1e4 + np.log(3), 1e4 + np.log(2), np.log(2)]
    agree(reductions.logsumexp(EXTREMES.astype(dtype), axis=1), expected, dtype)


@both_floats
def test_sigmoid_at_extremes(dtype):
    x = leaf([-1e4, -100.0, -30.0, 0.0, 30.0, 1e4, np.inf, -np.inf], dtype)
    out = elementwise.sigmoid(x)
    expected = [0, np.exp(-100.0), 1 / (1 + np.exp(30.0)), 0.5, 1 / (1 + np.exp(-30.0)), 1, 1, 0]
    assert out.dtype == dtype
    # exp(-100) is below float32's normal numbers, so that its own step is the tolerance there.
    np.testing.assert_allclose(
        out.data,
        expected,
        rtol=4 * np.finfo(dtype).eps,
        atol=float(np.finfo(dtype).smallest_subnormal),
    )
    out.sum().backward()
    assert np.isfinite(x.grad).all()


@both_floats
@pytest.mark.parametrize(
    "function",
    [
        elementwise.sigmoid,
        elementwise.tanh,
        probability.softmax,
        probability.log_softmax,
        lambda x: reductions.logsumexp(x, axis=1),
        lambda x: losses.cross_entropy(x, [1, 0, 2, 1]),
        lambda x: losses.cross_entropy(x, [1, 0, 2, 1], label_smoothing=0.1),
        lambda x: losses.cross_entropy(x, np.full((4, 3), 1 / 3)),
        lambda x: losses.cross_entropy(probability.softmax(x), [1, 0, 2, 1], from_logits=False),
        lambda x: losses.binary_cross_entropy(x, np.eye(4, 3)),
        lambda x: losses.binary_cross_entropy(
            elementwise.sigmoid(x), np.eye(4, 3), from_logits=False
        ),
    ],
)
def test_gradients_at_extremes_are_finite(function, dtype):
    x = leaf(EXTREMES, dtype)
    out = function(x)
    assert np.isfinite(out.data).all()
    out.sum().backward()
    assert np.isfinite(x.grad).all()


@both_floats
def test_cross_entropy_at_extremes(dtype):
    logits = leaf(EXTREMES, dtype)
    out = losses.cross_entropy(logits, [1, 0, 2, 1], reduction="none")
    agree(out, [2e4, np.log(3), 1e4 + np.log(2), np.log(2)], dtype)
    out.sum().backward()
    expected = [[1, -1, 0], [-2 / 3, 1 / 3, 1 / 3], [0.5, 0.5, -1], [0, -0.5, 0.5]]
    np.testing.assert_allclose(
        logits.grad, expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps
    )


@both_floats
def test_binary_cross_entropy_at_extremes(dtype):
    logits = leaf([1e4, 1e4, -1e4, -1e4, 0.0], dtype)
    out = losses.binary_cross_entropy(logits, [1, 0, 1, 0, 1], reduction="none")
    agree(out, [0, 1e4, 1e4, 0, np.log(2)], dtype)
    out.sum().backward()
    np.testing.assert_array_equal(logits.grad, [0, 1, -1, 0, -0.5])


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [-np.inf, 1.0], [np.inf, 1.0], [np.inf, -np.inf]])
    agree(reductions.logsumexp(x, axis=1), [-np.inf, 1, np.inf, np.inf], np.float64)
    agree(reductions.logsumexp(x[:2]), 1, np.float64)


def test_gradient_of_logsumexp_beside_infinities_is_finite():
    x = leaf([[-np.inf, -np.inf], [-np.inf, 1.0]])
    reductions.logsumexp(x, axis=1).sum().backward()
    assert np.isfinite(x.grad).all()
    np.testing.assert_array_equal(x.grad[1], [0, 1])


def test_masked_classes_have_no_probability():
    x = leaf([[0.0, -np.inf, 0.0]])
    out = probability.softmax(x)
    np.testing.assert_array_equal(out.data, [[0.5, 0, 0.5]])
    losses.cross_entropy(x, [0]).backward()
    np.testing.assert_array_equal(x.grad, [[-0.5, 0, 0.5]])


@pytest.mark.parametrize("function", [probability.softmax, probability.log_softmax], ids=name)
@pytest.mark.parametrize("axis", [2, -3])
def test_softmax_along_an_axis_that_is_not_there_is_refused(function, axis):
    with pytest.raises(ValueError, match="out of bounds"):
        function(leaf([[1.0, 2.0]]), axis)


# -- shapes ------------------------------------------------------------------------------------


@few
@given(data=st.data())
def test_reshape_values(data):
    x = np.arange(24.0)
    shape = data.draw(st.sampled_from([(24,), (2, 12), (2, 3, 4), (1, 24, 1), (4, -1), (-1, 2, 3)]))
    for out in (shapes.reshape(x, shape), shapes.reshape(x, *shape), Tensor(x).reshape(shape)):
        np.testing.assert_array_equal(out.data, x.reshape(shape))


def test_reshape_refuses_another_number_of_elements():
    with pytest.raises(ValueError, match="cannot reshape array of size 3 into shape"):
        Tensor([1.0, 2.0, 3.0]).reshape(2, 2)


@few
@given(data=st.data())
def test_transpose_values(data):
    x = data.draw(arrays(np.float64, small_shapes))
    order = data.draw(st.permutations(range(x.ndim)))
    signs = [axis - x.ndim * data.draw(st.booleans()) for axis in order]
    np.testing.assert_array_equal(shapes.transpose(x).data, x.transpose())
    np.testing.assert_array_equal(shapes.transpose(x, tuple(signs)).data, x.transpose(order))


@pytest.mark.parametrize("axes", [(0, 0), (0,), (0, 2), (0, 1, 2)])
def test_transpose_refuses_axes_that_do_not_fit(axes):
    with pytest.raises(ValueError, match=r"axis|axes"):
        leaf([[1.0, 2.0]]).transpose(axes)


def test_transpose_of_a_number_refuses_axes():
    with pytest.raises(ValueError, match=r"axis|axes"):
        leaf(1.0).transpose(0)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3), (3,), (0, 2, 3), (2, 0, 3)])
def test_flatten_values(shape):
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    out = shapes.flatten(x)
    assert out.shape == (shape[0], np.prod(shape[1:], dtype=int))
    np.testing.assert_array_equal(out.data.ravel(), x.ravel())


def test_flatten_refuses_a_number():
    with pytest.raises(ValueError, match=re.escape("flatten() needs a batch axis")):
        shapes.flatten(1.0)


@few
@given(data=st.data())
def test_getitem_values(data):
    x = data.draw(arrays(np.float64, full_shapes))
    index = data.draw(
        st.one_of(
            hnp.basic_indices(x.shape, allow_newaxis=True),
            hnp.integer_array_indices(x.shape),
            hnp.arrays(bool, x.shape),
            hnp.arrays(bool, x.shape[:1]),
        )
    )
    t = Tensor(x, requires_grad=True)
    out = t[index]
    np.testing.assert_array_equal(out.data, x[index])
    out.sum().backward()
    expected = np.zeros(x.shape)
    np.add.at(expected, index, 1.0)
    np.testing.assert_array_equal(t.grad, expected)


def test_getitem_with_tensors():
    x = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.testing.assert_array_equal(x[Tensor([2, 0])].data, [[5, 6], [1, 2]])
    np.testing.assert_array_equal(x[x > 2.5].data, [3, 4, 5, 6])
    np.testing.assert_array_equal(x[:, Tensor(1)].data, [2, 4, 6])


@pytest.mark.parametrize("index", [3, -4, (0, 2), [0, 3], (0, 0, 0), np.array([True, False])])
def test_index_out_of_range_is_refused(index):
    with pytest.raises(IndexError):
        leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])[index]


@pytest.mark.parametrize(
    "widths", [0, 1, (1, 2), [(1, 2)], ((1, 0), (2, 3)), [[0, 1], [1, 0]], ((1,), (2,)), [1]]
)
@pytest.mark.parametrize("value", [0.0, -1.5])
@both_floats
def test_pad_values(widths, value, dtype):
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    agree(shapes.pad(x, widths, value), np.pad(x, widths, constant_values=value), dtype)


@pytest.mark.parametrize(
    "widths", [np.int64(1), np.array([1, 2]), np.array([[1, 0], [2, 3]])], ids=repr
)
def test_pad_takes_widths_that_numpy_computed(widths):
    x = leaf(np.arange(6.0).reshape(2, 3))
    out = shapes.pad(x, widths)
    np.testing.assert_array_equal(out.data, np.pad(x.data, widths))
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, np.ones((2, 3)))


@pytest.mark.parametrize("widths", [-1, ((0, 0), (0, -1)), ((1, 1), (1, 1), (1, 1))])
def test_pad_refuses_widths_that_do_not_fit(widths):
    with pytest.raises(ValueError, match=r"negative|broadcast"):
        shapes.pad(np.ones((2, 3)), widths)


@both_floats
@few
@given(data=st.data())
def test_concatenate_and_stack_values(dtype, data):
    shape = data.draw(full_shapes)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    count = data.draw(st.integers(1, 3))
    parts = [data.draw(arrays(dtype, shape)) for _ in range(count)]
    tensors = [Tensor(part) for part in parts]
    agree(shapes.concatenate(tensors, axis), np.concatenate(parts, axis), dtype)
    agree(shapes.stack(tensors, axis), np.stack(parts, axis), dtype)


def test_what_is_joined_is_joined_along_the_first_axis_unless_told_otherwise():
    parts = [np.ones((3, 4)), np.ones((3, 4))]
    assert shapes.concatenate(parts).shape == (6, 4)
    assert shapes.stack(parts).shape == (2, 3, 4)


@pytest.mark.parametrize("function", [shapes.concatenate, shapes.stack], ids=name)
def test_joining_nothing_is_refused(function):
    with pytest.raises(ValueError, match=re.escape(f"{function.__name__}() needs at least one")):
        function([])


def test_joining_shapes_that_do_not_agree_is_refused():
    with pytest.raises(ValueError, match="must match exactly"):
        shapes.concatenate([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ValueError, match="same shape"):
        shapes.stack([np.ones(2), np.ones(3)])


@pytest.mark.parametrize("function", [shapes.concatenate, shapes.stack], ids=name)
@pytest.mark.parametrize("other", [[1.0, 2.0], [1, 2], np.ones(2), Tensor([1, 2])], ids=repr)
def test_what_is_joined_to_float32_becomes_float32(function, other):
    x = leaf([3.0, 4.0], np.float32)
    assert function([x, other]).dtype == np.float32
    assert function([other, x]).dtype == np.float32


# -- products ----------------------------------------------------------------------------------


@both_floats
@few
@given(data=st.data())
def test_matmul_values(dtype, data):
    drawn = data.draw(
        hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3)
    ).input_shapes
    a, b = (data.draw(arrays(dtype, shape)) for shape in drawn)
    expected = np.matmul(a.astype(np.float64), b.astype(np.float64))
    steps = 8 * 3 * 64  # three products of up to 8 * 8
    agree(products.matmul(Tensor(a), Tensor(b)), expected, dtype, steps=steps)
    agree(Tensor(a) @ b, expected, dtype, steps=steps)
    agree(a @ Tensor(b), expected, dtype, steps=steps)


@pytest.mark.parametrize(("p", "q"), [((3,), (2,)), ((2, 3), (2, 3)), ((2, 2, 3), (3, 3, 2))])
def test_matmul_refuses_shapes_that_do_not_fit(p, q):
    with pytest.raises(ValueError, match=r"columns meet \d rows|broadcast"):
        leaf(np.ones(p)) @ leaf(np.ones(q))


@pytest.mark.parametrize("number", [2.0, 2, Tensor(2.0)], ids=repr)
def test_matmul_refuses_numbers(number):
    with pytest.raises(ValueError, match="matmul"):
        leaf([1.0, 2.0]) @ number
    with pytest.raises(ValueError, match="matmul"):
        number @ leaf([1.0, 2.0])


@both_floats
@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (0, 3)])
def test_dense_values(shape, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (shape, (3, 2), (2,)))
    agree(products.dense(Tensor(x), Tensor(w)), x @ w, dtype)
    agree(products.dense(Tensor(x), Tensor(w), Tensor(b)), x @ w + b, dtype)


# -- images ------------------------------------------------------------------------------------

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def windows(x, size, strides, sides, dilation=(1, 1), value=0.0):
    """Place (row, column) and pixels of each window on padded images, found one by one."""
    padded = np.pad(x, ((0, 0), *sides, (0, 0)), constant_values=value)
    reach = [(n - 1) * gap + 1 for n, gap in zip(size, dilation, strict=True)]
    places = [
        range(0, padded.shape[axis + 1] - reach[axis] + 1, strides[axis]) for axis in range(2)
    ]
    for (i, top), (j, left) in itertools.product(*map(enumerate, places)):
        rows = slice(top, top + reach[0], dilation[0])
        columns = slice(left, left + reach[1], dilation[1])
        yield (i, j), padded[:, rows, columns]


def by_windows(x, function, *geometry, **options):
    """The images that a function makes of each window: (N, KH, KW, C) to (N, C')."""
    found = {place: function(pixels) for place, pixels in windows(x, *geometry, **options)}
    height, width = (1 + max(place[axis] for place in found) for axis in range(2))
    return np.stack(
        [np.stack([found[i, j] for j in range(width)], axis=1) for i in range(height)], axis=1
    )


def same_sides(image, size, strides, dilation):
    """What Keras documents for "same": ceil(image / stride) places, the odd pixel at the end."""
    sides = []
    for n, k, s, d in zip(image, size, strides, dilation, strict=True):
        reach = (k - 1) * d + 1
        total = max(reach - (n % s or s), 0)
        sides.append((total // 2, total - total // 2))
    return tuple(sides)


@both_floats
@few
@given(data=st.data())
def test_conv2d_values(dtype, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    image = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    size, strides, dilation = data.draw(pairs), data.draw(pairs), data.draw(pairs)
    sides = data.draw(
        st.one_of(
            st.just("valid"),
            st.just("same"),
            st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
        )
    )
    padding = {"valid": ((0, 0), (0, 0)), "same": same_sides(image, size, strides, dilation)}.get(
        sides, sides
    )
    for n, k, d, ends in zip(image, size, dilation, padding, strict=True):
        assume(n + sum(ends) >= (k - 1) * d + 1)
    x = rng.standard_normal((2, *image, 2)).astype(dtype)
    w = rng.standard_normal((*size, 2, 3)).astype(dtype)
    b = rng.standard_normal(3).astype(dtype)
    expected = by_windows(
        x.astype(np.float64),
        lambda pixels: np.tensordot(pixels, w.astype(np.float64), 3) + b,
        size,
        strides,
        padding,
        dilation,
    )
    out = images.conv2d(x, w, b, strides=strides, padding=sides, dilation=dilation)
    agree(out, expected, dtype, steps=8 * w.size)


@both_floats
@pytest.mark.parametrize(
    ("function", "reduce"), [(images.max_pool, np.nanmax), (images.avg_pool, np.nanmean)]
)
@few
@given(data=st.data())
def test_pooling_values(function, reduce, dtype, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    image = data.draw(st.tuples(st.integers(3, 6), st.integers(3, 6)))
    size = data.draw(pairs)
    strides = data.draw(st.one_of(st.none(), pairs, st.just((4, 4))))
    step = size if strides is None else strides
    padding = data.draw(st.sampled_from(["valid", "same", "explicit"]))
    sides = {"valid": ((0, 0), (0, 0)), "same": same_sides(image, size, step, (1, 1))}.get(padding)
    if sides is None:
        sides = padding = tuple(
            data.draw(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1))) for k in size
        )
    x = rng.standard_normal((2, *image, 2)).astype(dtype)
    expected = by_windows(
        x.astype(np.float64),
        lambda pixels: reduce(pixels, axis=(1, 2)),
        size,
        step,
        sides,
        value=np.nan,
    )
    agree(function(x, size, strides, padding), expected, dtype)


@pytest.mark.parametrize("function", [images.max_pool, images.avg_pool], ids=name)
def test_pooling_along_one_axis_may_be_padded(function):
    x = np.arange(12.0).reshape(1, 3, 4, 1)
    assert function(x, (1, 3), strides=1, padding="same").shape == (1, 3, 4, 1)
    assert function(x, (3, 1), strides=1, padding=(1, 0)).shape == (1, 3, 4, 1)


def test_padding_never_wins_in_max_pooling():
    x = np.full((1, 2, 2, 1), -5.0)
    np.testing.assert_array_equal(images.max_pool(x, 3, 1, "same").data, x)


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((4, 4, 1), (2, 2, 1, 1)),
        ((1, 4, 4, 1), (2, 2, 1)),
        ((1, 4, 4, 2), (2, 2, 3, 1)),
        ((4, 4), (2, 2)),
    ],
)
def test_conv2d_names_the_shapes_that_do_not_fit(x, w):
    with pytest.raises(ValueError, match="conv2d expects images") as error:
        images.conv2d(np.ones(x), np.ones(w))
    assert f"got {x} and {w}" in str(error.value)


@pytest.mark.parametrize("shape", [(1,), (4,), (1, 3), (3, 1), ()])
def test_conv2d_refuses_a_bias_that_does_not_fit(shape):
    with pytest.raises(ValueError, match=r"expects a bias of \(3,\), got ") as error:
        images.conv2d(np.ones((1, 2, 2, 1)), np.ones((2, 2, 1, 3)), np.ones(shape))
    assert str(error.value).endswith(str(shape))


def test_windows_larger_than_the_image_are_refused():
    x = np.ones((1, 3, 4, 1))
    with pytest.raises(ValueError, match="spans 4x4 pixels does not fit on images of 3x4 padded"):
        images.conv2d(x, np.ones((4, 4, 1, 1)))
    with pytest.raises(ValueError, match="spans 5x1 pixels"):
        images.conv2d(x, np.ones((3, 1, 1, 1)), dilation=2)
    with pytest.raises(ValueError, match="does not fit"):
        images.max_pool(x, 4)


@pytest.mark.parametrize("value", [0, -1, 1.5, (1, 2, 3), (1, 0), "2", None])
def test_strides_and_dilation_are_checked_by_name(value):
    x, w = np.ones((1, 4, 4, 1)), np.ones((2, 2, 1, 1))
    for argument in ("strides", "dilation", "pool_size"):
        with pytest.raises(ValueError, match=f"{argument} must be an integer >= 1"):
            images.conv2d(x, w, **{argument: value})
    with pytest.raises(ValueError, match="pool_size must be an integer >= 1"):
        images.avg_pool(x, value)


@pytest.mark.parametrize("value", ["full", -1, 1.5, (1, -1), (1, 2, 3), ((1, 2), (3,)), None])
def test_padding_is_checked(value):
    with pytest.raises(ValueError, match="padding must be"):
        images.conv2d(np.ones((1, 4, 4, 1)), np.ones((2, 2, 1, 1)), padding=value)
    with pytest.raises(ValueError, match="padding must be"):
        images.max_pool(np.ones((1, 4, 4, 1)), 2, padding=value)


def test_geometry_may_be_computed_with_numpy():
    x, w = np.ones((1, 4, 4, 1)), np.ones((2, 2, 1, 1))
    two = np.int64(2)
    assert images.conv2d(x, w, strides=two, padding=np.int64(0)).shape == (1, 2, 2, 1)
    assert images.max_pool(x, two, strides=(two, two)).shape == (1, 2, 2, 1)


@pytest.mark.parametrize("function", [images.max_pool, images.avg_pool], ids=name)
def test_pooling_names_what_it_expects(function):
    with pytest.raises(
        ValueError, match=r"expects images \(N, H, W, C\), got \(4, 4, 1\); .*\[\.\.\., None\]"
    ):
        function(np.ones((4, 4, 1)))
    with pytest.raises(ValueError, match=r"padding .* padding alone"):
        function(np.ones((1, 4, 4, 1)), 2, padding=2)


def test_images_of_whole_numbers_become_float32():
    x = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    single = x.astype(np.float32)
    weight = np.ones((2, 2, 1, 1), dtype=np.float32)
    agree(images.conv2d(x, weight), images.conv2d(single, weight).data, np.float32)
    agree(
        images.max_pool(x, padding="same"), images.max_pool(single, 2, 2, "same").data, np.float32
    )
    agree(images.avg_pool(x), images.avg_pool(single).data, np.float32)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("pool_size", [1, 2, (3, 1), np.int64(2)])
def test_conv2d_may_do_what_follows_it_on_the_spot(dtype, rectified, pool_size):
    x, w, b = (eighths(shape, i) for i, shape in enumerate([(2, 7, 6, 2), (2, 3, 2, 3), (3,)]))
    x, w, b = x.astype(dtype), w.astype(dtype), b.astype(dtype)
    out = images.conv2d(x, w, b, padding="same")
    out = images.max_pool(elementwise.relu(out) if rectified else out, pool_size)
    found = images.conv2d(x, w, b, padding="same", relu=rectified, pool_size=pool_size)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.data, out.data)


def test_a_pooling_that_does_not_fit_on_the_places_of_a_filter_is_refused():
    x, w = np.ones((1, 5, 4, 1)), np.ones((2, 2, 1, 1))
    assert images.conv2d(x, w, pool_size=(4, 3)).shape == (1, 1, 1, 1)
    for pool_size in (4, (5, 1), (1, 4)):
        with pytest.raises(ValueError, match=r"pooling of \(\d, \d\) .* an output of \(4, 3\)"):
            images.conv2d(x, w, pool_size=pool_size)


def test_conv2d_refuses_two_precisions():
    for first, second in itertools.permutations(FLOATS):
        x, weight = leaf(np.ones((1, 2, 2, 1)), first), leaf(np.ones((2, 2, 1, 1)), second)
        names = f"{x.dtype} and {weight.dtype}"
        with pytest.raises(TypeError, match=f"images and weight of one dtype, got {names}"):
            images.conv2d(x, weight)


# -- normalisation and dropout -----------------------------------------------------------------


@both_floats
@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 3), (2, 2, 3, 3)])
def test_batch_norm_values(shape, dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 3 + 5).astype(dtype)
    gamma, beta = rng.standard_normal((2, 3)).astype(dtype)
    out, (mean, variance) = normalization.batch_norm(
        Tensor(x), Tensor(gamma), Tensor(beta), eps=1e-3
    )
    axes = tuple(range(len(shape) - 1))
    double = x.astype(np.float64)
    wanted = double.mean(axes), double.var(axes)
    expected = (double - wanted[0]) / np.sqrt(wanted[1] + 1e-3) * gamma + beta
    agree(out, expected, dtype, steps=64)
    for used, want in zip((mean, variance), wanted, strict=True):
        agree(Tensor(used), want, dtype, steps=64)


def test_batch_norm_with_given_statistics():
    x = np.array([[1.0, 2.0], [3.0, 6.0]])
    given_statistics = np.array([1.0, 2.0]), np.array([4.0, 16.0])
    out, used = normalization.batch_norm(
        Tensor(x), Tensor(np.ones(2)), Tensor(np.zeros(2)), 0.0, given_statistics
    )
    agree(out, [[0, 0], [1, 1]], np.float64)
    assert used == given_statistics


@both_floats
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_scales_the_rest(rate, dtype):
    x = np.ones((200, 100), dtype=dtype)
    out = regularization.dropout(Tensor(x), rate, Generator(0))
    assert out.dtype == dtype
    dropped = out.data == 0
    # Five standard deviations of a binomial share.
    assert abs(dropped.mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / x.size)
    # The rate is a multiple of 1/65536, and so the scale may differ by half of that.
    np.testing.assert_allclose(out.data[~dropped], 1 / (1 - rate), rtol=0.5 / 65536 / (1 - rate))


def test_dropout_repeats_with_the_same_seed():
    x = Tensor(np.ones(100))
    first, second, other = (
        regularization.dropout(x, 0.5, Generator(n)).data.tobytes() for n in (1, 1, 2)
    )
    assert first == second
    assert first != other


# -- losses ------------------------------------------------------------------------------------


def reduced(values, reduction):
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](values)


every_reduction = pytest.mark.parametrize("reduction", losses.REDUCTIONS)


@both_floats
@every_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_values(smoothing, reduction, dtype):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 4))
    numbers = np.array([3, 0, 2, 2, 1])
    one_hot = np.eye(4)[numbers]
    probabilities = softmax_of(logits, 1)
    targets = one_hot * (1 - smoothing) + smoothing / 4
    expected = reduced(-(targets * np.log(probabilities)).sum(axis=1), reduction)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    for labels in (numbers, numbers[:, None], numbers.tolist(), one_hot, Tensor(numbers)):
        out = losses.cross_entropy(logits.astype(dtype), labels, **options)
        agree(out, expected, dtype, steps=32)
        out = losses.cross_entropy(
            probabilities.astype(dtype), labels, from_logits=False, **options
        )
        agree(out, expected, dtype, steps=32)


@both_floats
@every_reduction
def test_binary_cross_entropy_values(reduction, dtype):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((3, 2)), rng.random((3, 2))
    p = 1 / (1 + np.exp(-logits))
    expected = reduced(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)), reduction)
    out = losses.binary_cross_entropy(logits.astype(dtype), labels, reduction)
    agree(out, expected, dtype, steps=32)
    out = losses.binary_cross_entropy(p.astype(dtype), labels, reduction, from_logits=False)
    agree(out, expected, dtype, steps=32)


@both_floats
@every_reduction
def test_mse_values(reduction, dtype):
    rng = np.random.default_rng(0)
    outputs, targets = rng.standard_normal((2, 3, 2))
    expected = reduced((outputs - targets) ** 2, reduction)
    agree(losses.mse(outputs.astype(dtype), targets, reduction), expected, dtype, steps=32)


def test_impossible_probabilities_keep_the_loss_finite():
    p = leaf([[0.0, 1.0], [1.0, 0.0]])
    out = losses.cross_entropy(p, [0, 0], from_logits=False, reduction="none")
    assert np.isfinite(out.data).all()
    info = np.finfo(np.float64)
    assert out.data[0] == pytest.approx(-np.log(info.tiny / info.eps))
    assert out.data[1] == 0
    out.sum().backward()
    assert np.isfinite(p.grad).all()
    q = leaf([0.0, 1.0])
    losses.binary_cross_entropy(q, [1, 0], from_logits=False).backward()
    assert np.isfinite(q.grad).all()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1], ValueError, r"a label for each of 3 samples, got labels of shape \(2,\)"),
        (1, ValueError, r"a label for each of 3 samples, got labels of shape \(\)"),
        ([0, 1, 4], ValueError, "labels from 0 to 3 for 4 classes, got labels from 0 to 4"),
        ([0, -1, 3], ValueError, "got labels from -1 to 3"),
        (np.zeros((3, 5)), ValueError, r"expected labels of shape \(3,\), \(3, 1\) or \(3, 4\)"),
        (np.zeros((3, 1, 1), int), ValueError, r"got \(3, 1, 1\)"),
        ([0.0, 1.0, 2.0], TypeError, r"class numbers as integers, got float32; .*astype\(int\)"),
        (np.zeros((3, 1)), TypeError, "class numbers as integers, got float64"),
        ([True, False, True], TypeError, "class numbers as integers, got bool"),
    ],
)
@pytest.mark.parametrize("from_logits", [True, False])
def test_cross_entropy_says_what_is_wrong_with_labels(labels, error, message, from_logits):
    outputs = np.full((3, 4), 0.25)
    with pytest.raises(error, match=message):
        losses.cross_entropy(outputs, labels, from_logits=from_logits)


def test_cross_entropy_says_what_is_wrong_with_its_arguments():
    outputs = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"outputs \(N, C\), got shape \(3,\)"):
        losses.cross_entropy(outputs[0], [0])
    for smoothing in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"between 0 and 1, got {smoothing}"):
            losses.cross_entropy(outputs, [0, 1], label_smoothing=smoothing)


@pytest.mark.parametrize(
    "loss",
    [
        lambda r: losses.cross_entropy(np.zeros((1, 2)), [0], reduction=r),
        lambda r: losses.binary_cross_entropy([0.5], [1], reduction=r),
        lambda r: losses.mse([0.5], [1], reduction=r),
    ],
)
def test_unknown_reductions_are_refused(loss):
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none; got 'max'"):
        loss("max")


@pytest.mark.parametrize(
    ("loss", "label"), [(losses.mse, "mse"), (losses.binary_cross_entropy, "binary_cross_entropy")]
)
@pytest.mark.parametrize("shape", [(3,), (3, 2), (1, 1), ()])
def test_targets_are_not_broadcast(loss, label, shape):
    with pytest.raises(
        ValueError, match=rf"{label} expects targets of the outputs' shape \(3, 1\)"
    ):
        loss(np.full((3, 1), 0.5), np.ones(shape))


@pytest.mark.parametrize("labels", [[0.0, 1.5], [-1, 1], [0, 2]])
def test_binary_labels_lie_between_0_and_1(labels):
    with pytest.raises(ValueError, match="probabilities from 0 to 1 as labels, got numbers from"):
        losses.binary_cross_entropy([0.5, 0.5], labels)


# -- arguments ---------------------------------------------------------------------------------


def test_where_refuses_a_condition_of_numbers():
    with pytest.raises(TypeError, match=r"where\(\) expects a boolean condition, got int64"):
        elementwise.where([1, 0], 1.0, 2.0)


def test_clip_refuses_bounds_that_make_no_sense():
    with pytest.raises(ValueError, match=r"clip\(\) needs low, high or both"):
        elementwise.clip([1.0])
    with pytest.raises(ValueError, match=r"clip\(\) expects low <= high, got 2 and 1"):
        elementwise.clip([1.0], 2, 1)


OPERATORS = {"add", "sub", "mul", "truediv", "pow", "matmul"}


def test_every_method_is_the_function_of_its_name():
    for method, function in ops._METHODS.items():
        assert getattr(Tensor, method) is function
        if not method.startswith("__"):
            assert function.__name__ == method


def test_every_operator_has_its_reflection():
    for operator in OPERATORS:
        assert f"__{operator}__" in ops._METHODS
        assert f"__r{operator}__" in ops._METHODS


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("exp", ()),
        ("clip", (0.5, 1.0)),
        ("pad", (1,)),
        ("reshape", (2, 1)),
        ("transpose", ()),
        ("sum", (0,)),
        ("var", (0, True)),
        ("softmax", (0,)),
        ("logsumexp", (-1, True)),
        ("maximum", (0.7,)),
    ],
)
def test_methods_and_functions_give_the_same(method, arguments):
    x = Tensor([0.5, 2.0])
    np.testing.assert_array_equal(
        getattr(x, method)(*arguments).data, getattr(minidl, method)(x, *arguments).data
    )


def test_division_by_small_numbers_has_a_finite_gradient():
    denominator = Tensor(np.array([1e-25], np.float32), requires_grad=True)
    (Tensor(np.array([1e-20], np.float32)) / denominator).sum().backward()
    np.testing.assert_allclose(denominator.grad, -1e30, rtol=1e-5)


@pytest.mark.parametrize("function", [reductions.sum, reductions.mean, reductions.logsumexp])
def test_axes_may_be_a_list(function):
    x = np.ones((2, 3, 4), np.float32)
    np.testing.assert_array_equal(function(x, [0, 2]).data, function(x, (0, 2)).data)


def test_matmul_says_which_lengths_do_not_meet():
    message = r"matmul: \(2, 4, 3\) @ \(2, 5, 6\): 3 columns meet 5 rows"
    with pytest.raises(ValueError, match=message):
        products.matmul(np.ones((2, 4, 3)), np.ones((2, 5, 6)))
    with pytest.raises(ValueError, match=r"matmul: \(4, 3\) @ \(4, 3\): 3 columns meet 4 rows"):
        leaf(np.ones((4, 3))) @ np.ones((4, 3))


@pytest.mark.parametrize("base", [0, 0.0, np.zeros(2, np.float32)], ids=repr)
def test_powers_of_zero_have_no_slope_in_the_exponent(base):
    exponent = Tensor(np.array([-1.0, 2.0], np.float32), requires_grad=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        (base**exponent).sum().backward()
    np.testing.assert_array_equal(exponent.grad, [0, 0])


def test_clip_refuses_tensors_as_bounds():
    with pytest.raises(TypeError, match=r"use minimum\(\) and maximum\(\)"):
        Tensor([1.0]).clip(low=Tensor(0.5, requires_grad=True))


def one(x, axes):
    """The number on the device of a tensor."""
    return Tensor(np.ones((1,) * axes, np.float32)).to(x.device)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.relu(),
        lambda x: x.clip(0),
        lambda x: x.maximum(0.0),
        lambda x: -(-x).minimum(0.0),
        lambda x: ops.products.dense(x[:, None], one(x, 2), relu=True),
        lambda x: ops.images.conv2d(x[:, None, None, None], one(x, 4), relu=True),
    ],
    ids=["relu", "clip", "maximum", "minimum", "dense", "conv2d"],
)
@pytest.mark.parametrize("slope", [np.inf, -np.inf, np.nan])
def test_what_does_not_pass_is_zero_even_of_an_infinite_gradient(place, compute, slope):
    x = Tensor([-1.0, 4.0, -2.0], requires_grad=True).to(place).detach()
    x.requires_grad = True
    y = compute(x)
    gradient = backend.named(place).asarray(np.float32([slope, 0.25, 3.0]).reshape(y.shape))
    y.backward(gradient)
    assert backend.on_host(x.grad).tolist() == [0.0, 0.25, 0.0]


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("slope", [np.inf, -np.inf, np.nan])
def test_an_infinite_gradient_reaches_those_alone_that_were_chosen(place, name, slope):
    x = Tensor([[1.0, 4.0, 4.0, 1.0], [2.0, 2.0, 5.0, 5.0]]).to(place)
    x.requires_grad = True
    getattr(x, name)(axis=1).backward(backend.named(place).asarray(np.float32([slope, 3.0])))
    chosen = np.array([[0, 1, 1, 0], [0, 0, 1, 1]], bool) ^ (name == "min")
    expected = np.where(chosen, np.float32([[slope], [3.0]]) / 2, 0)
    np.testing.assert_array_equal(backend.on_host(x.grad), expected)


@pytest.mark.parametrize("number", [Fraction(1, 2), np.longdouble(0.5), np.float64(0.5), 0.5])
def test_a_number_of_any_kind_leaves_the_dtype_as_it_is(number):
    out = Tensor([1.0, 2.0]) * number
    assert out.dtype == np.float32
    assert out.numpy().tolist() == [0.5, 1.0]


def test_a_large_infinite_gradient_is_zero_where_it_does_not_pass():
    x = Tensor(np.tile(np.float32([-1, 4]), 1 << 16), requires_grad=True)
    x.relu().backward(np.tile(np.float32([np.inf, 0.25]), 1 << 16))
    assert x.grad.reshape(-1, 2).min(axis=0).tolist() == [0.0, 0.25]
    assert x.grad.reshape(-1, 2).max(axis=0).tolist() == [0.0, 0.25]
