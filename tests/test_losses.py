"""Losses against plain formulas and PyTorch, every form of labels, and which labels are refused."""

import math

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal
from pytorch import cases
from reference import numbers

from minidl import Tensor, binary_cross_entropy, cross_entropy, mse, softmax
from minidl.ops import probability

LOGITS = numbers((5, 3), 0) * 4
LABELS = np.array([0, 2, 1, 2, 0])
ONE_HOT = np.eye(3)[LABELS]

# Losses are of the order of ten and take about ten roundings each, of 2**-24 or 2**-53 of that.
TOLERANCE = {"float32": 6e-6, "float64": 1.2e-14}
DTYPES = ["float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
SOFT = np.array([reference.softmax(row) for row in numbers((5, 3), 1)])


def loss_and_gradient(loss, outputs, *args, **kwargs):
    """The loss as an array, and the gradient of its sum with respect to the outputs."""
    x = Tensor(np.array(outputs), requires_grad=True)
    value = loss(x, *args, **kwargs)
    value.sum().backward()
    assert value.dtype == x.grad.dtype == x.dtype
    return value.data, x.grad


# Values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
@pytest.mark.parametrize("labels", [ONE_HOT, SOFT])
def test_cross_entropy_is_the_formula_row_by_row(dtype, smoothing, labels):
    logits = LOGITS.astype(dtype)
    expected = [
        reference.cross_entropy(row, reference.smooth(target, smoothing))
        for row, target in zip(LOGITS, labels, strict=True)
    ]
    loss, _ = loss_and_gradient(
        cross_entropy, logits, labels, reduction="none", label_smoothing=smoothing
    )
    assert_allclose(loss, expected, rtol=0, atol=TOLERANCE[dtype])


def test_the_gradient_of_cross_entropy_is_softmax_less_the_target():
    _, gradient = loss_and_gradient(cross_entropy, LOGITS, LABELS, reduction="sum")
    expected = [reference.softmax(row) for row in LOGITS] - ONE_HOT
    # the exponential multiplies the rounding of log-probabilities, which lie around 4
    assert_allclose(gradient, expected, rtol=0, atol=4 * 2.0**-52)


def test_rows_of_smaller_weight_count_by_their_weight():
    weights = ONE_HOT * [[0.5], [0.25], [0.0], [1.0], [0.75]]
    loss, gradient = loss_and_gradient(cross_entropy, LOGITS, weights, reduction="none")
    single, slopes = loss_and_gradient(cross_entropy, LOGITS, ONE_HOT, reduction="none")
    weight = weights.sum(axis=1)
    assert_allclose(loss, single * weight, rtol=4 * 2.0**-53)
    # a slope is a difference of numbers up to 1
    assert_allclose(gradient, slopes * weight[:, None], rtol=0, atol=2 * 2.0**-52)


def test_guessing_costs_the_logarithm_of_the_number_of_classes():
    loss = cross_entropy(np.zeros((4, 10), np.float32), [0, 3, 9, 9])
    assert loss.item() == pytest.approx(math.log(10), rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_cross_entropy_is_the_formula_element_by_element(dtype):
    labels = np.linspace(0, 1, 15).reshape(5, 3)
    expected = [
        [reference.binary_cross_entropy(float(x), float(y)) for x, y in zip(*rows, strict=True)]
        for rows in zip(LOGITS, labels, strict=True)
    ]
    loss, gradient = loss_and_gradient(binary_cross_entropy, LOGITS.astype(dtype), labels, "none")
    assert_allclose(loss, expected, rtol=0, atol=TOLERANCE[dtype])
    assert_allclose(gradient, 1 / (1 + np.exp(-LOGITS)) - labels, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 4), (0, 3)])
def test_mse_is_the_square_of_the_difference(shape):
    outputs, targets = numbers(shape, 0), numbers(shape, 1)
    loss, gradient = loss_and_gradient(mse, outputs, targets, "none")
    assert_array_equal(loss, (outputs - targets) ** 2)
    assert_array_equal(gradient, 2 * (outputs - targets))


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy, mse])
def test_reductions_are_the_mean_and_the_sum_of_the_single_losses(loss):
    single = loss(Tensor(LOGITS), SOFT, reduction="none")
    assert single.shape == ((5,) if loss is cross_entropy else (5, 3))
    total = math.fsum(single.data.reshape(-1))
    assert loss(Tensor(LOGITS), SOFT, reduction="sum").item() == pytest.approx(total, rel=1e-14)
    mean = loss(Tensor(LOGITS), SOFT)
    assert mean.shape == ()
    assert mean.item() == pytest.approx(total / single.size, rel=1e-14)


# The same numbers as PyTorch, in float64


@pytest.mark.parametrize("reduction", cases.REDUCTIONS)
@pytest.mark.parametrize("name", [*cases.CROSS_ENTROPIES, "binary_cross_entropy", "mse"])
def test_losses_and_gradients_are_those_of_pytorch(name, reduction):
    x = Tensor(cases.LOGITS, requires_grad=True)
    if name in cases.CROSS_ENTROPIES:
        labels, smoothing = cases.CROSS_ENTROPIES[name]
        expected = cases.case("cross_entropy", f"{name}_{reduction}")
        loss = cross_entropy(x, labels, reduction, smoothing)
    else:
        expected = cases.case(name, reduction)
        loss = {"mse": mse, "binary_cross_entropy": binary_cross_entropy}[name](
            x, cases.ROWS, reduction
        )
    loss.backward(numbers(loss.shape, 99))
    # sums of 24 terms of up to 10
    assert_allclose(loss.data, expected["out"], rtol=0, atol=5 * TOLERANCE["float64"])
    assert_allclose(x.grad, expected["x"], rtol=0, atol=TOLERANCE["float64"])


# Labels


@pytest.mark.parametrize("dtype", INTEGERS)
def test_class_numbers_of_every_integer_dtype(dtype):
    labels = LABELS.astype(dtype)
    expected = cross_entropy(LOGITS, LABELS).item()
    for form in (labels, labels[:, None], Tensor(labels), labels.tolist(), ONE_HOT.astype(dtype)):
        assert cross_entropy(LOGITS, form).item() == expected


def test_small_integers_count_to_the_last_class():
    logits = np.zeros((1, 256), np.float32)
    logits[0, 255] = 100
    assert cross_entropy(logits, np.array([255], np.uint8)).item() == 0
    assert cross_entropy(logits[:, :128], np.array([127], np.int8)).item() > 0


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
def test_one_hot_rows_of_every_dtype(dtype):
    logits = LOGITS.astype(np.float32)
    loss, gradient = loss_and_gradient(cross_entropy, logits, ONE_HOT.astype(dtype))
    expected, expected_gradient = loss_and_gradient(cross_entropy, logits, LABELS)
    assert_array_equal(loss, expected)
    assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
def test_smoothing_agrees_in_both_forms_of_labels(smoothing):
    settings = {"label_smoothing": smoothing}
    loss, gradient = loss_and_gradient(cross_entropy, LOGITS, LABELS, **settings)
    other, other_gradient = loss_and_gradient(cross_entropy, LOGITS, ONE_HOT, **settings)
    # sums of five losses with zeros among their terms
    assert_allclose(loss, other, rtol=4 * 2.0**-53)
    assert_array_equal(gradient, other_gradient)


def test_smoothed_class_numbers_are_smoothed_rows():
    rows = ONE_HOT * 0.9 + 0.1 / 3
    loss, gradient = loss_and_gradient(cross_entropy, LOGITS, LABELS, label_smoothing=0.1)
    expected, expected_gradient = loss_and_gradient(cross_entropy, LOGITS, rows)
    # 0.9 and 0.1 / 3 are rounded once more in the rows
    assert_allclose(loss, expected, rtol=10 * 2.0**-53)
    assert_allclose(gradient, expected_gradient, rtol=0, atol=2 * 2.0**-53)


def test_a_model_with_one_class_knows_it():
    logits = np.array([[3.0], [-1.0]], np.float32)
    for labels in ([0, 0], [[0], [0]], [[1.0], [1.0]]):
        assert cross_entropy(logits, labels).item() == 0
    with pytest.raises(ValueError, match="from 0 to 0 for 1 classes, got labels from 0 to 1"):
        cross_entropy(logits, [[0], [1]])


def test_labels_are_left_as_they_were():
    labels = ONE_HOT.copy()
    for loss in (cross_entropy, binary_cross_entropy, mse):
        loss_and_gradient(loss, LOGITS, labels)
    cross_entropy(LOGITS, labels, label_smoothing=0.5)
    assert_array_equal(labels, ONE_HOT)


def test_targets_in_float64_leave_a_float32_loss_in_float32():
    outputs = LOGITS.astype(np.float32)
    for loss in (cross_entropy, binary_cross_entropy, mse):
        value, gradient = loss_and_gradient(loss, outputs, SOFT.astype(np.float64))
        assert value.dtype == gradient.dtype == np.float32


def test_numpy_numbers_as_settings_leave_float32_as_it_is():
    loss, gradient = loss_and_gradient(
        cross_entropy, LOGITS.astype(np.float32), LABELS, label_smoothing=np.float64(0.1)
    )
    assert loss.dtype == gradient.dtype == np.float32


# Extremes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", [[0, 1], [[1, 0], [0, 1]], [[0.5, 0.5], [0.5, 0.5]]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_huge_logits_is_finite(dtype, labels, smoothing):
    logits = np.array([[-1e4, 1e4], [-1e4, 1e4]], dtype)
    loss, gradient = loss_and_gradient(cross_entropy, logits, labels, "none", smoothing)
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()


def test_cross_entropy_of_huge_logits_is_the_difference():
    logits = np.array([[-1e4, 1e4], [-1e4, 1e4]], np.float32)
    loss, gradient = loss_and_gradient(cross_entropy, logits, [0, 1], "none")
    assert loss.tolist() == [2e4, 0]
    assert gradient.tolist() == [[-1, 1], [0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_cross_entropy_of_huge_logits_is_their_size_where_wrong(dtype):
    logits = np.array([1e4, 1e4, -1e4, -1e4], dtype)
    loss, gradient = loss_and_gradient(binary_cross_entropy, logits, [1, 0, 1, 0], "none")
    assert loss.tolist() == [0, 1e4, 1e4, 0]
    assert gradient.tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labels", [[0, 1], [[1, 0], [0, 1]]])
def test_probabilities_of_zero_leave_loss_and_gradient_finite(dtype, labels):
    certain = np.array([[0.0, 1.0], [1.0, 0.0]], dtype)
    loss, gradient = loss_and_gradient(cross_entropy, certain, labels, "none", from_logits=False)
    info = np.finfo(dtype)
    floor = float(info.tiny) / float(info.eps)  # what a probability of 0 counts as
    assert_allclose(loss, -math.log(floor), rtol=1e-6)
    assert np.isfinite(gradient).all()
    loss, gradient = loss_and_gradient(
        binary_cross_entropy, certain, np.eye(2), "none", from_logits=False
    )
    assert (loss > 15).all()
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()


# Probabilities in the place of logits


@pytest.mark.parametrize("labels", [LABELS, ONE_HOT, SOFT])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_softmax_is_that_of_its_logits(labels, smoothing):
    settings = {"label_smoothing": smoothing}
    expected, expected_gradient = loss_and_gradient(cross_entropy, LOGITS, labels, **settings)
    x = Tensor(LOGITS, requires_grad=True)
    loss = cross_entropy(softmax(x), labels, from_logits=False, **settings)
    loss.backward()
    # a probability of exp(-16) keeps 2**-53 of relative precision; its logarithm and slope do too
    assert_allclose(loss.data, expected, rtol=1e-14)
    assert_allclose(x.grad, expected_gradient, rtol=0, atol=1e-14)


def test_binary_cross_entropy_of_sigmoid_is_that_of_its_logits():
    expected, expected_gradient = loss_and_gradient(binary_cross_entropy, LOGITS, SOFT)
    x = Tensor(LOGITS, requires_grad=True)
    loss = binary_cross_entropy(x.sigmoid(), SOFT, from_logits=False)
    loss.backward()
    # 1 - p loses up to exp(8) = 3000 units in the last place where p is near 1
    assert_allclose(loss.data, expected, rtol=3000 * 2.0**-53)
    assert_allclose(x.grad, expected_gradient, rtol=0, atol=3000 * 2.0**-53)


# What is refused


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 0], [0, 1, 2, -1, 0]])
def test_class_numbers_out_of_range_are_refused_with_their_range(labels):
    expected = f"from 0 to 2 for 3 classes, got labels from {min(labels)} to {max(labels)}"
    with pytest.raises(ValueError, match=expected):
        cross_entropy(LOGITS, labels)
    with pytest.raises(ValueError, match=expected):
        cross_entropy(LOGITS, np.array(labels)[:, None])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_class_numbers_that_are_no_integers_are_refused(dtype, shape):
    with pytest.raises(TypeError, match=f"integers, got {dtype}"):
        cross_entropy(LOGITS, np.zeros(shape, dtype))


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.zeros((6, 3)), np.zeros((1, 5), int), 1])
def test_labels_for_another_number_of_samples_are_refused(labels):
    with pytest.raises(ValueError, match="a label for each of 5 samples"):
        cross_entropy(LOGITS, labels)


@pytest.mark.parametrize("shape", [(5, 2), (5, 4), (5, 3, 1), (5, 1, 1)])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(5,\), \(5, 1\) or \(5, 3\), got"):
        cross_entropy(LOGITS, np.zeros(shape, int))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_outputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expects outputs \(N, C\), got shape"):
        cross_entropy(np.zeros(shape, np.float32), [0, 1])


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1"):
        cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy, mse])
@pytest.mark.parametrize("reduction", ["average", "Mean", "", None])
def test_unknown_reductions_are_refused_with_the_known_ones(loss, reduction):
    with pytest.raises(ValueError, match="mean, sum, none"):
        loss(LOGITS, ONE_HOT, reduction=reduction)


@pytest.mark.parametrize("loss", [binary_cross_entropy, mse])
@pytest.mark.parametrize(("outputs", "targets"), [((5,), (5, 1)), ((5, 1), (5,)), ((5, 3), (3,))])
def test_targets_are_never_broadcast(loss, outputs, targets):
    with pytest.raises(ValueError, match=r"targets of the outputs' shape \(5.*got"):
        loss(np.zeros(outputs, np.float32), np.zeros(targets))


@pytest.mark.parametrize("labels", [[0.0, 1.5], [-0.5, 1.0], [0, 2]])
def test_binary_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match="probabilities from 0 to 1 as labels, got numbers from"):
        binary_cross_entropy(np.zeros(2, np.float32), labels)


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy, mse])
def test_the_mean_of_no_samples_is_refused_and_their_sum_is_zero(loss):
    outputs = np.zeros((0, 3), np.float32)
    assert loss(outputs, np.zeros((0, 3)), reduction="none").size == 0
    assert loss(outputs, np.zeros((0, 3)), reduction="sum").item() == 0
    with pytest.raises(ValueError, match="at least one sample"):
        loss(outputs, np.zeros((0, 3)))


@pytest.mark.parametrize("wrong", [np.nan, -0.5, 1.5])
def test_labels_that_are_no_probabilities_are_refused(wrong):
    labels = np.array([[0.5, 0.5], [wrong, 0.5]], np.float32)
    with pytest.raises(ValueError, match="expected probabilities from 0 to 1 as labels"):
        cross_entropy(np.zeros((2, 2), np.float32), labels)
    with pytest.raises(ValueError, match="expected probabilities from 0 to 1 as labels"):
        binary_cross_entropy(np.zeros((2, 2), np.float32), labels)


def test_a_target_that_requires_a_gradient_gets_one():
    a = Tensor(np.array([1.0, 2.0]), requires_grad=True)
    b = Tensor(np.array([4.0, 1.0]), requires_grad=True)
    mse(a, b, reduction="sum").backward()
    assert_array_equal(b.grad, [6, -2])
    assert_array_equal(a.grad, [-6, 2])


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_labels_that_require_a_gradient_are_refused(loss):
    labels = Tensor(np.full((2, 2), 0.5, np.float32), requires_grad=True)
    with pytest.raises(TypeError, match=r"pass labels\.detach\(\)"):
        loss(np.zeros((2, 2), np.float32), labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_exactly_0_and_1_still_learn(dtype):
    p = Tensor(np.array([0.0, 1.0, 0.0, 1.0], dtype), requires_grad=True)
    loss = binary_cross_entropy(p, [1, 0, 0, 1], from_logits=False)
    loss.backward()
    assert np.isfinite(loss.item())
    assert loss.dtype == dtype
    assert np.isfinite(p.grad).all()
    assert p.grad[0] < -1e5  # towards 1
    assert p.grad[1] > 1e5  # towards 0


def test_a_probability_that_rounded_to_0_has_a_gradient_that_can_be_scaled():
    logits = Tensor(np.array([[300.0, 0.0, -300.0]], np.float32), requires_grad=True)
    loss = cross_entropy(logits.softmax(), [2], from_logits=False) * 1e6
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "loss", [probability.softmax_cross_entropy, probability.cross_entropy_of_probabilities]
)
def test_labels_are_not_smoothed_unless_asked_for(loss):
    outputs, labels = Tensor(np.full((2, 3), 1 / 3)), np.array([0, 2])
    assert_array_equal(loss(outputs, labels).data, loss(outputs, labels, 0.0).data)
    smoothed = loss(Tensor(np.array([[0.1, 0.2, 0.7]] * 2)), labels, 0.3).data
    assert (smoothed != loss(Tensor(np.array([[0.1, 0.2, 0.7]] * 2)), labels).data).all()
