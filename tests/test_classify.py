"""What a model takes images for: one image or many, with names or without, on every device."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import numbers

import minidl
from minidl import Conv2D, Dense, Dropout, Flatten, Sequential, Softmax, Tensor, classify
from minidl.layers.activation import ACTIVATIONS
from minidl.training.outputs import ends_in_softmax

NAMES = ["Bag", "Shirt", "Ankle boot"]


def small_model(activation=None, dtype=np.float32):
    """A model of three classes that drops half of its features in training."""
    minidl.seed(0)
    layers = [Conv2D(4, 2, activation="relu"), Flatten(), Dropout(0.5), Dense(3, activation)]
    return Sequential(layers, input_shape=(4, 5, 1)).astype(dtype)


def images(count):
    return numbers((count, 4, 5, 1), 1).astype(np.float32)


def expected_probabilities(model, x):
    """Softmax of the outputs in float64, as it is written in books."""
    with model.mode(training=False):
        scores = model(x.astype(model.parameters()[0].dtype)).numpy().astype(np.float64)
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def test_one_image_has_one_prediction():
    model, x = small_model(), images(1)
    prediction = classify(model, x[0], NAMES)
    expected = expected_probabilities(model, x)[0]
    assert_allclose(prediction.probabilities, expected, rtol=1e-6)
    assert prediction.probabilities.shape == (3,)
    assert prediction.class_number == expected.argmax()
    assert prediction.class_name == NAMES[expected.argmax()]
    assert prediction.confidence == prediction.probabilities.max()
    assert type(prediction.class_number) is int
    assert type(prediction.confidence) is float


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_a_batch_has_a_list_of_what_each_image_has(count, batch_size):
    model, x = small_model(), images(count)
    predictions = classify(model, x, NAMES, batch_size=batch_size)
    assert isinstance(predictions, list)
    assert len(predictions) == count
    for prediction, image in zip(predictions, x, strict=True):
        alone = classify(model, image, NAMES)
        assert prediction.class_name == alone.class_name
        assert_allclose(prediction.probabilities, alone.probabilities, rtol=1e-6)


class Counting(minidl.Layer):
    """Passes everything, and notes how many samples it was given at a time."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return x


def test_no_more_images_are_taken_at_a_time_than_asked_for():
    counting = Counting()
    model = Sequential([counting, Flatten()])
    model(np.zeros((1, 2, 2)))
    classify(model, np.zeros((7, 2, 2)), batch_size=3)
    assert counting.seen == [1, 3, 3, 1]


def sure_of(probability):
    """A model that gives this probability to the second of two classes."""
    model = Sequential([Dense(2, "softmax", kernel_initializer="zeros")], input_shape=(1,))
    model.layers[0].bias.data[...] = np.log([1 - probability, probability])
    return model


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.97, "Ankle boot 97%"), (0.996, "Ankle boot 100%"), (0.4, "Bag 60%")],
)
def test_a_prediction_reads_well(probability, text):
    prediction = classify(sure_of(probability), np.ones(1), ["Bag", "Ankle boot"])
    assert str(prediction) == text
    assert f"{prediction}" == text


def test_names_are_those_given_or_those_of_the_model_or_numbers():
    model, x = small_model(), images(1)[0]
    number = classify(model, x).class_number
    assert classify(model, x).class_name == f"class {number}"
    model.class_names = ("a", "b", "c")
    assert classify(model, x).class_name == "abc"[number]
    assert classify(model, x, NAMES).class_name == NAMES[number]
    with pytest.raises(ValueError, match="classify got 3 classes and 2 names"):
        classify(model, x, ["a", "b"])


def test_a_saved_model_knows_its_names(tmp_path):
    model, x = small_model(), images(5)
    minidl.save(model, tmp_path / "model", NAMES)
    loaded = minidl.load(tmp_path / "model")
    for one, two in zip(classify(loaded, x), classify(model, x, NAMES), strict=True):
        assert one.class_name == two.class_name
        assert_array_equal(one.probabilities, two.probabilities)


@pytest.mark.parametrize("activation", ["softmax", Softmax()])
def test_a_softmax_at_the_end_is_not_followed_by_another(activation):
    x = images(6)
    for prediction, plain in zip(
        classify(small_model(activation), x), classify(small_model(), x), strict=True
    ):
        assert_allclose(prediction.probabilities, plain.probabilities, rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_ends_in_softmax_is_told(name):
    assert ends_in_softmax(small_model(name)) == (name == "softmax")
    inner = Sequential([Dense(2), Softmax()])
    assert ends_in_softmax(Sequential([Dense(2), inner]))
    assert not ends_in_softmax(Sequential([inner, Dense(2)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("given", [np.uint8, np.int64, np.float32, np.float64])
def test_images_go_to_the_model_as_they_are_in_its_dtype(dtype, given):
    model = small_model(dtype=dtype)
    x = (numbers((3, 4, 5, 1), 2) * 100).astype(given)
    for prediction, expected in zip(
        classify(model, x), expected_probabilities(model, x), strict=True
    ):
        assert prediction.probabilities.dtype == dtype
        assert_allclose(prediction.probabilities, expected, rtol=1e-5, atol=1e-30)


def test_a_model_is_in_evaluation_mode_meanwhile_and_as_it_was_afterwards():
    model, x = small_model().train(), images(3)
    before = [p.probabilities for p in classify(model, x)]
    assert_array_equal(before, [p.probabilities for p in classify(model, x)])  # nothing dropped
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="2 names"):
        classify(model, x, ["a", "b"])
    assert all(module.training for module in model.modules())
    assert model(x).requires_grad


def test_threads_share_a_model_in_evaluation_mode():
    model, x = small_model().eval(), images(40)
    expected = [p.probabilities.tolist() for p in classify(model, x)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: classify(model, x), range(16)):
            assert [p.probabilities.tolist() for p in found] == expected


def test_tensors_are_images_too():
    model, x = small_model(), images(2)
    for one, two in zip(classify(model, Tensor(x)), classify(model, x), strict=True):
        assert_array_equal(one.probabilities, two.probabilities)


def test_a_model_without_parameters_computes_in_float32():
    model = Sequential([Flatten()], input_shape=(2,))
    prediction = classify(model, np.array([1, 3]))
    assert prediction.probabilities.dtype == np.float32
    assert_allclose(prediction.confidence, 1 / (1 + np.exp(-2)), rtol=1e-6)


@pytest.mark.usefixtures("device")
def test_a_model_on_the_device_takes_images_from_anywhere():
    model, x = small_model(), images(5)
    expected = classify(model, x, NAMES)
    model.to("gpu")
    there = Tensor(x).to("gpu")
    for given in (x, Tensor(x), there, there.data):
        for one, two in zip(classify(model, given, NAMES, batch_size=2), expected, strict=True):
            assert type(one.probabilities) is np.ndarray
            assert one.class_name == two.class_name
            assert_allclose(one.probabilities, two.probabilities, rtol=1e-5)
    model.to("cpu")
    assert classify(model, there.data[0], NAMES).class_name == expected[0].class_name


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (1, 1, 4, 5, 1), (5, 4, 1), (2, 4, 4, 1), ()])
def test_images_of_another_shape_are_refused(shape):
    message = r"expects one image of shape \(4, 5, 1\) or a batch of them, got \("
    with pytest.raises(ValueError, match=message):
        classify(small_model(), np.zeros(shape))


def test_what_cannot_be_classified_is_refused():
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got list"):
        classify(small_model(), [[1.0]])
    with pytest.raises(RuntimeError, match="Sequential has no input shape yet"):
        classify(Sequential([Dense(2)]), np.zeros(3))
    one = Sequential([Dense(1, "sigmoid")], input_shape=(3,))
    with pytest.raises(ValueError, match=r"two classes or more, got \(1, 1\)"):
        classify(one, np.zeros(3))
    grid = Sequential([Dense(2)], input_shape=(4, 3))
    with pytest.raises(
        ValueError, match=r"outputs \(N, C\) for two classes or more, got \(1, 4, 2"
    ):
        classify(grid, np.zeros((4, 3)))
