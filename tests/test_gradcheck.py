"""The gradient checker, checked: planted mistakes are found, and what it touches is put back."""

import re

import numpy as np
import pytest

import minidl
from minidl import (
    BatchNorm,
    Dense,
    Dropout,
    Generator,
    GradientError,
    Layer,
    Sequential,
    Tensor,
    cross_entropy,
    gradcheck,
    mse,
    record,
)
from minidl.backend import default_generator
from minidl.layers import Parameter

POINTS = np.array([0.3, -0.7, 1.2])


def sine(rule):
    """The sine of its input with a given rule for the gradient."""

    def function(x):
        cosine = np.cos(x.data)
        return record(np.sin(x.data), (x, lambda g: rule(g, cosine)))

    return function


def differences(error):
    """The two values that a message names."""
    gradient, slope = re.search(
        r"backward gives (\S+), central differences give (\S+) ", str(error.value)
    ).groups()
    return float(gradient), float(slope)


# -- what is right passes ----------------------------------------------------------------------


def test_right_gradient_passes():
    assert gradcheck(sine(lambda g, cosine: g * cosine), POINTS) is True


@pytest.mark.parametrize(
    "inputs",
    [
        POINTS,
        Tensor(POINTS),
        [POINTS],
        (Tensor(POINTS),),
        POINTS.astype(np.float32),
        np.array(0.3),
        Tensor(0.3),
        np.ones((0, 3)),
    ],
    ids=["array", "tensor", "list", "tuple", "float32", "0-d array", "0-d tensor", "empty"],
)
def test_takes_inputs_of_every_form(inputs):
    assert gradcheck(sine(lambda g, cosine: g * cosine), inputs)


def test_computes_in_double_precision():
    seen = []

    def function(x, y):
        seen.extend([x.dtype, y.dtype])
        return x * y

    gradcheck(function, [Tensor([1.0, 2.0]), np.ones(2, dtype=np.float32)])
    assert set(seen) == {np.dtype(np.float64)}


def test_inputs_without_fractions_are_handed_on_as_they_are():
    def function(x, index, mask):
        assert index.dtype == np.int64
        assert mask.dtype == bool
        return x[index][mask]

    assert gradcheck(function, [POINTS, np.array([2, 2, 0]), Tensor([True, False, True])])


def test_an_input_without_influence_passes():
    assert gradcheck(lambda x, _: x * 2.0, [POINTS, POINTS])


def test_output_of_one_element_is_checked_whatever_its_shape():
    assert gradcheck(lambda x: (x * x).sum(), POINTS)
    assert gradcheck(lambda x: (x * x).sum(keepdims=True), POINTS)


def test_the_same_input_may_be_given_twice():
    x = Tensor(POINTS)
    assert gradcheck(lambda a, b: a * b, [x, x])


def test_needs_a_floating_input():
    with pytest.raises(ValueError, match="at least one floating input"):
        gradcheck(lambda x: x, [np.array([1, 2])])


# -- what is wrong is found --------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        lambda g, cosine: 2 * g * cosine,
        lambda g, cosine: g * cosine * (1 + 1e-4),
        lambda g, cosine: -g * cosine,
        lambda g, cosine: 0 * g * cosine,
        lambda g, cosine: g * cosine + 1e-3,
        lambda g, cosine: (g * cosine)[::-1],
        lambda g, _: g,
        lambda g, cosine: np.where(np.arange(3) == 1, np.nan, g * cosine),
        lambda g, cosine: np.where(np.arange(3) == 1, np.inf, g * cosine),
        lambda g, cosine: g * cosine * np.ones((2, 1)),  # summed, as a broadcast input would be
    ],
    ids=[
        "factor",
        "small factor",
        "sign",
        "zero",
        "offset",
        "order",
        "forgotten factor",
        "nan",
        "infinity",
        "extra axis",
    ],
)
def test_wrong_gradient_fails(rule):
    with pytest.raises(GradientError):
        gradcheck(sine(rule), POINTS)


@pytest.mark.parametrize(
    "rule",
    [
        lambda g, cosine: (g * cosine)[:-1],
        lambda g, cosine: (g * cosine).sum(),
        lambda g, cosine: np.concatenate([g * cosine, g]),
    ],
    ids=["shorter", "a number", "longer"],
)
@pytest.mark.parametrize(
    "points", [POINTS, POINTS[None], POINTS[:2, None]], ids=["row", "one row", "column"]
)
def test_gradient_of_wrong_shape_is_named(rule, points):
    def wrong(g, cosine):
        return rule(g.ravel(), cosine.ravel())

    with pytest.raises(RuntimeError, match="a rule returned shape"):
        gradcheck(sine(wrong), points)


def test_gradient_of_wrong_shape_for_one_element_is_named():
    with pytest.raises(RuntimeError, match=re.escape("a rule returned shape () for an input of")):
        gradcheck(sine(lambda g, cosine: (g * cosine).sum()), POINTS[:1])


def test_failure_is_an_assertion_error():
    assert issubclass(GradientError, AssertionError)


def test_one_wrong_element_of_many_is_found_by_the_random_direction():
    points = np.linspace(-1, 1, 10_000).reshape(100, 100)

    def forgets_one(g, cosine):
        gradient = g * cosine
        gradient[43, 21] = 0
        return gradient

    with pytest.raises(GradientError, match="all inputs along a random direction"):
        gradcheck(sine(forgets_one), points, samples=1)


def test_wrong_gradient_that_only_the_second_input_has_is_found():
    def function(a, b):
        return record(a.data * b.data, (a, lambda g: g * b.data))  # no rule for b

    with pytest.raises(GradientError, match=re.escape("input 1 at (0,)")):
        gradcheck(function, [POINTS, POINTS + 1])


def test_dependence_on_the_order_of_evaluations_is_found():
    calls = []

    def function(x):
        calls.append(1)
        return x * float(len(calls))

    with pytest.raises(GradientError):
        gradcheck(function, POINTS)


# -- the message -------------------------------------------------------------------------------


def test_message_names_input_index_and_both_values():
    def wrong_at_one_place(g, cosine):
        return g * np.where(np.arange(6).reshape(2, 3) == 5, 3 * cosine, cosine)

    points = np.linspace(0.1, 1.1, 6).reshape(2, 3)
    with pytest.raises(GradientError, match=re.escape("input 0 at (1, 2): ")) as error:
        gradcheck(sine(wrong_at_one_place), points, loss=lambda out: out.sum())
    gradient, slope = differences(error)
    assert gradient == pytest.approx(3 * np.cos(1.1), rel=1e-8)
    assert slope == pytest.approx(np.cos(1.1), rel=1e-8)


def test_message_names_the_first_wrong_input():
    def function(a, b):
        return record(
            a.data + b.data, (a, lambda g: g), (b, lambda g: g * np.array([1.0, 1.0, 2.0]))
        )

    with pytest.raises(GradientError, match=re.escape("input 1 at (2,): ")):
        gradcheck(function, [POINTS, POINTS])


def test_message_names_the_tolerance():
    with pytest.raises(GradientError, match=re.escape("(tolerance 0.001 + 0.0002 of the latter)")):
        gradcheck(sine(lambda g, cosine: -g * cosine), POINTS, rtol=2e-4, atol=1e-3)


def test_tolerances_are_obeyed():
    def off_by_a_thousandth(g, cosine):
        return g * cosine * 1.001

    function = sine(off_by_a_thousandth)
    assert gradcheck(function, POINTS, rtol=2e-3)
    assert gradcheck(function, POINTS, atol=1e-2)
    with pytest.raises(GradientError):
        gradcheck(function, POINTS, rtol=5e-4)


# -- models ------------------------------------------------------------------------------------


class WrongDense(Layer):
    """A dense layer whose weight gradient is wrong at one place."""

    def build(self, x):
        self.weight = Parameter(np.ones((x.shape[-1], 2), dtype=x.dtype))
        self.bias = Parameter(np.zeros(2, dtype=x.dtype))

    def forward(self, x):
        def weight_rule(g):
            gradient = x.data.T @ g
            gradient[2, 1] *= 1.5
            return gradient

        return record(
            x.data @ self.weight.data + self.bias.data,
            (x, lambda g: g @ self.weight.data.T),
            (self.weight, weight_rule),
            (self.bias, lambda g: g),
        )


IMAGES = np.random.default_rng(0).standard_normal((4, 3))
LABELS = np.array([0, 1, 1, 0])


def class_loss(out):
    return cross_entropy(out, LABELS)


def test_model_and_loss_pass():
    model = Sequential([Dense(5, "tanh"), Dense(2)], input_shape=(3,))
    assert gradcheck(model, IMAGES, loss=class_loss)


def test_message_names_the_parameter_of_a_model():
    model = Sequential([Dense(3), WrongDense(name="dense")], input_shape=(3,))
    with pytest.raises(GradientError, match=re.escape("dense.weight at (2, 1): ")) as error:
        gradcheck(model, IMAGES, loss=class_loss)
    gradient, slope = differences(error)
    assert gradient == pytest.approx(1.5 * slope, rel=1e-5)


def test_message_names_the_parameter_of_a_layer():
    model = WrongDense()
    model(IMAGES)
    with pytest.raises(GradientError, match=re.escape("weight at (2, 1): ")):
        gradcheck(model, IMAGES)


def test_every_parameter_is_checked_though_no_input_is_floating():
    class Table(minidl.Module):
        def __init__(self):
            self.rows = Parameter(np.ones((4, 2), dtype=np.float32))

        def forward(self, index):
            return self.rows[index] ** 2

    assert gradcheck(Table(), np.array([1, 1, 3]))


def test_unbuilt_model_is_refused_with_advice():
    with pytest.raises(RuntimeError, match="pass one batch through the model first"):
        gradcheck(Dense(2), IMAGES)


def everything():
    """A model with parameters, buffers and randomness, gradients included."""
    model = Sequential([Dense(4), BatchNorm(0.9), Dropout(0.3), Dense(2)], input_shape=(3,))
    model(IMAGES.astype(np.float32)).sum().backward()
    return model


def snapshot(model):
    """What must not change: dtype, values and gradient of every parameter and buffer."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: (t.dtype, t.data.tobytes(), None if t.grad is None else t.grad.tobytes())
        for name, t in tensors
    }


def arrays(model):
    return [t.data for _, t in (*model.named_parameters(), *model.named_buffers())]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_gradients_and_buffers_are_restored(dtype):
    model = everything()
    model.astype(dtype)
    model(IMAGES.astype(dtype)).sum().backward()
    before, held = snapshot(model), arrays(model)
    assert gradcheck(model, IMAGES, loss=class_loss)
    assert snapshot(model) == before
    assert all(now is then for now, then in zip(arrays(model), held, strict=True))


def test_all_is_restored_after_a_failure():
    model = Sequential([BatchNorm(0.9), WrongDense(name="dense")], input_shape=(3,))
    model(IMAGES.astype(np.float32)).sum().backward()
    before = snapshot(model)
    with pytest.raises(GradientError):
        gradcheck(model, IMAGES, loss=class_loss)
    assert snapshot(model) == before


def test_all_is_restored_after_an_error_of_the_model():
    model = everything()
    before = snapshot(model)
    with pytest.raises(ValueError, match="Dense"):
        gradcheck(model, IMAGES[:, :2], loss=class_loss)
    assert snapshot(model) == before


def test_inputs_of_the_user_are_left_alone():
    x = Tensor(POINTS, requires_grad=True)
    x.grad = np.ones(3)
    gradcheck(sine(lambda g, cosine: g * cosine), x)
    np.testing.assert_array_equal(x.data, [0.3, -0.7, 1.2])
    np.testing.assert_array_equal(x.grad, 1)
    assert x.data is POINTS


def test_numbers_after_the_check_are_those_without_it():
    model = everything()
    minidl.seed(5)
    expected = default_generator.host.random(3)
    minidl.seed(5)
    gradcheck(model, IMAGES, loss=class_loss)
    np.testing.assert_array_equal(default_generator.host.random(3), expected)


def test_numbers_after_a_failed_check_are_those_without_it():
    minidl.seed(5)
    expected = default_generator.host.random(3)
    minidl.seed(5)
    with pytest.raises(ValueError, match="planted"):
        gradcheck(fails_after_drawing, POINTS)
    np.testing.assert_array_equal(default_generator.host.random(3), expected)


def fails_after_drawing(x):
    default_generator.host.random(7)
    raise ValueError(f"planted {x.shape}")


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    gradcheck(everything(), IMAGES, loss=class_loss)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_dropout_in_training_draws_one_mask():
    model = Sequential([Dense(8), Dropout(0.5), Dense(2), Dropout(0.2)], input_shape=(3,))
    assert model.training
    assert gradcheck(model, IMAGES, loss=class_loss)


def test_dropout_with_a_generator_of_its_own_draws_one_mask():
    model = Sequential([Dense(8), Dropout(0.5, generator=Generator(3))], input_shape=(3,))
    assert gradcheck(model, IMAGES)


def test_dropout_inside_the_loss_draws_one_mask():
    drop = Dropout(0.5)
    assert gradcheck(lambda x: x * 2.0, POINTS, loss=lambda out: drop(out).sum())


def test_loss_may_be_checked_with_respect_to_outputs_alone():
    assert gradcheck(lambda out: mse(out, np.zeros((4, 3))), IMAGES)


def test_choices_are_repeatable():
    messages = []
    for _ in range(2):
        with pytest.raises(GradientError) as error:
            gradcheck(sine(lambda g, cosine: -g * cosine), np.ones((30, 30)), samples=5, seed=4)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_parameters_that_are_not_to_change_are_not_checked():
    model = minidl.Sequential([minidl.Dense(2, "tanh"), minidl.Dense(1)], input_shape=(3,))
    model[0].weight.requires_grad = False
    gradcheck(model, np.linspace(-1, 1, 6).reshape(2, 3))
