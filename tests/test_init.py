"""Initial values: how widely they are spread, and that a seed repeats them."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import minidl
from minidl import Conv2D, Dense, Generator, init
from minidl.init import INITIALIZERS, initializer

# 120,000 numbers: a sample variance then strays by sqrt(2 / 120000) = 0.4 % of itself (normal; less
# for uniform) and a mean by std / 346. Bounds are five times that.
SHAPE = (300, 400)
FAN_IN, FAN_OUT = 300, 400
VARIANCE_ERROR = 5 * math.sqrt(2 / 120_000)
MEAN_ERROR = 5 / math.sqrt(120_000)

UNIFORM = {
    "glorot_uniform": math.sqrt(6 / 700),
    "he_uniform": math.sqrt(6 / 300),
    "pytorch": 1 / math.sqrt(300),
}
NORMAL = {"glorot_normal": math.sqrt(2 / 700), "he_normal": math.sqrt(2 / 300)}


def draw(name, seed=0):
    return initializer(name)(SHAPE, FAN_IN, FAN_OUT, np.random.default_rng(seed))


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_initializers_fill_their_interval_evenly(name):
    values, limit = draw(name), UNIFORM[name]
    assert np.abs(values).max() <= limit
    # the largest of 120,000 comes this close to the limit but once in exp(12) draws
    assert min(values.max(), -values.min()) > limit * (1 - 2 * 12 / 120_000)
    assert values.var() == pytest.approx(limit**2 / 3, rel=VARIANCE_ERROR)
    assert abs(values.mean()) < MEAN_ERROR * limit / math.sqrt(3)
    quarters, _ = np.histogram(values, bins=4, range=(-limit, limit))
    # each holds 30,000, give or take sqrt(120000 * 3 / 16) = 150
    assert np.abs(quarters - 30_000).max() < 5 * 150


@pytest.mark.parametrize("name", NORMAL)
def test_normal_initializers_have_their_variance(name):
    values, deviation = draw(name), NORMAL[name]
    assert values.var() == pytest.approx(deviation**2, rel=VARIANCE_ERROR)
    assert abs(values.mean()) < MEAN_ERROR * deviation
    # 4.55 % lie beyond two deviations, give or take sqrt(0.0455 * 0.9545 / 120000) = 0.06 %
    assert (np.abs(values) > 2 * deviation).mean() == pytest.approx(0.0455, abs=5 * 0.0006)
    assert (np.abs(values) > 3 * deviation).any()  # not cut off


def test_zeros_and_ones_draw_nothing():
    rng = np.random.default_rng(0)
    assert_array_equal(init.zeros((2, 3), 1, 1, rng), np.zeros((2, 3)))
    assert_array_equal(init.ones((2, 3), 1, 1, rng), np.ones((2, 3)))
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_return_float64_of_the_shape_asked_for(name):
    values = initializer(name)((3, 2, 4), 6, 8, np.random.default_rng(0))
    assert (values.shape, values.dtype) == ((3, 2, 4), np.float64)


@pytest.mark.parametrize("name", [*UNIFORM, *NORMAL])
def test_a_seed_repeats_the_values(name):
    assert_array_equal(draw(name, 3), draw(name, 3))
    assert (draw(name, 3) != draw(name, 4)).any()


def test_the_fans_set_the_spread_and_not_the_shape():
    rng = np.random.default_rng(0)
    wide = init.glorot_uniform((1000,), 3, 3, rng)
    narrow = init.glorot_uniform((1000,), 300, 300, rng)
    assert 0.9 < np.abs(wide).max() <= 1
    assert 0.09 < np.abs(narrow).max() <= 0.1


def test_an_initializer_is_found_by_its_name():
    assert initializer("he_normal") is init.he_normal
    assert initializer(init.he_normal) is init.he_normal
    assert all(function.__name__ == name for name, function in INITIALIZERS.items())


@pytest.mark.parametrize("name", ["he", "", None, "GlorotUniform"])
def test_unknown_initializers_are_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"unknown initializer .*; known: zeros, ones, glorot_un"):
        initializer(name)


# Through the layers


def weights(layer, shape, seed=0):
    minidl.seed(seed)
    layer(np.zeros((1, *shape), np.float32))
    return layer.weight.data, layer.bias.data


@pytest.mark.parametrize(
    ("make", "shape", "fan_in"),
    [
        (lambda **how: Dense(500, **how), (400,), 400),
        (lambda **how: Conv2D(500, (2, 3), **how), (5, 5, 50), 2 * 3 * 50),
    ],
)
def test_pytorch_bounds_weight_and_bias_by_the_inputs_of_a_unit(make, shape, fan_in):
    layer = make(kernel_initializer="pytorch", bias_initializer="pytorch")
    bound = 1 / math.sqrt(fan_in)
    for values in weights(layer, shape):
        assert values.dtype == np.float32
        assert np.abs(values).max() <= np.float32(bound)
        # the largest of 500 or more comes this close to the bound but once in exp(12) draws
        assert np.abs(values).max() > bound * (1 - 12 / 500)
        assert values.min() < -bound / 2


@pytest.mark.parametrize(
    ("make", "shape", "fans"),
    [
        (lambda: Dense(500), (400,), 400 + 500),
        (lambda: Conv2D(100, (2, 3)), (5, 5, 50), 2 * 3 * (50 + 100)),
    ],
)
def test_the_default_is_keras_glorot_uniform_and_no_bias(make, shape, fans):
    weight, bias = weights(make(), shape)
    limit = math.sqrt(6 / fans)
    assert np.abs(weight).max() <= np.float32(limit)
    assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)  # 30,000 or more numbers
    assert_array_equal(bias, np.zeros_like(bias))


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_take_the_dtype_of_the_input(name, dtype):
    layer = Dense(3, kernel_initializer=name, bias_initializer=name)
    assert layer(np.ones((2, 4), dtype)).dtype == dtype
    assert layer.weight.dtype == layer.bias.dtype == dtype


def test_an_initializer_of_ones_own_gets_shape_fans_and_generator():
    calls = []

    def mine(shape, fan_in, fan_out, rng):
        calls.append((shape, fan_in, fan_out))
        return rng.random(shape)

    weights(Conv2D(4, (2, 3), kernel_initializer=mine, bias_initializer=mine), (5, 5, 7))
    assert calls == [((2, 3, 7, 4), 42, 24), ((4,), 42, 24)]


@pytest.mark.parametrize("name", ["kernel_initializer", "bias_initializer"])
def test_an_initializer_of_ones_own_that_returns_another_shape_is_refused(name):
    layer = Dense(3, **{name: lambda shape, *_: np.zeros((4, 2, *shape))})
    with pytest.raises(ValueError, match=r"Dense: .*shape.*\(4, 2, "):
        layer(np.zeros((2, 4), np.float32))


def test_the_seed_repeats_a_layer_and_the_next_differs():
    first, _ = weights(Dense(3), (4,), seed=7)
    again, _ = weights(Dense(3), (4,), seed=7)
    other, _ = weights(Dense(3), (4,), seed=8)
    assert_array_equal(first, again)
    assert (first != other).any()
    following = Dense(3)
    following(np.zeros((1, 4), np.float32))
    assert (following.weight.data != other).any()


def test_the_global_state_of_numpy_is_left_alone():
    before = np.random.get_state()  # noqa: NPY002  it is the state in question
    minidl.seed(0)
    weights(Dense(3, "relu", kernel_initializer="he_normal"), (4,))
    minidl.Dropout(0.5)(np.ones((4, 4), np.float32))
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


# Generators


def test_generators_with_one_seed_give_the_same_numbers():
    one, two = Generator(5), Generator(5)
    assert_array_equal(one.host.random(10), two.host.random(10))
    one.seed(5)
    assert_array_equal(one.host.random(10), Generator(5).host.random(10))


def test_generators_without_a_seed_differ():
    assert (Generator().host.random(10) != Generator().host.random(10)).all()


def test_random_bits_are_16_bits_each():
    generator = Generator(0)
    bits = generator.random_bits(minidl.backend.CPU, 100_000)
    assert (bits.dtype, bits.shape) == (np.uint16, (100_000,))
    # each bit is set in half of the draws, give or take sqrt(0.25 / 1e5) = 0.0016
    shares = [((bits >> i) & 1).mean() for i in range(16)]
    assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.0016


def test_uniform_numbers_are_spread_evenly_from_zero_to_one():
    generator = Generator(0)
    values = generator.uniform(minidl.backend.CPU, (4, 25_000))
    assert (values.dtype, values.shape) == (np.float64, (4, 25_000))
    assert (values >= 0).all()
    assert (values < 1).all()
    # a tenth of the draws lies in each tenth, give or take sqrt(0.09 / 1e5) = 0.00095
    shares = np.histogram(values, 10, (0, 1))[0] / values.size
    assert np.abs(shares - 0.1).max() < 5 * 0.00095
    assert_array_equal(Generator(0).uniform(minidl.backend.CPU, (4, 25_000)), values)
    assert (generator.uniform(minidl.backend.CPU, (4, 25_000)) != values).all()


@pytest.mark.parametrize("make", [Generator, minidl.seed])
def test_negative_seeds_are_refused(make):
    with pytest.raises(ValueError, match="non-negative integer, got -1"):
        make(-1)
