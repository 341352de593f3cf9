"""Weights to Keras and back: the same outputs, and errors that name all.

`tests/test_separately.py` runs this file.
"""

import copy
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import minidl

# Keras reads both when it is imported, and writes its settings into that folder.
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp(prefix="minidl-keras-"))
import h5py
import keras

layers = keras.layers

# Keras has PyTorch's tensors made arrays in a way that NumPy 2 will not have for ever.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def shaken(arrays, seed=0):
    """Weights with biases, scales and statistics as no layer starts them."""
    rng = np.random.default_rng(seed)
    return [a + rng.uniform(0, 0.3, a.shape).astype(a.dtype) * (a.ndim == 1) for a in arrays]


def randomize(model, seed=0):
    state = model.state_dict()
    model.load_state_dict(dict(zip(state, shaken(state.values(), seed), strict=True)))
    return model


def outputs_there(twin, x):
    return keras.ops.convert_to_numpy(twin(x, training=False))


def assert_same_outputs(model, twin, x):
    with model.mode(training=False):
        here = model(x).numpy()
    assert np.ptp(here) > 0.01  # outputs that differ, of which there is something to compare
    assert_allclose(outputs_there(twin, x), here, rtol=0, atol=1e-5)


# The same models, here and there


def mlp():
    here = [
        minidl.Flatten(),
        minidl.Dense(12, activation="relu"),
        minidl.Dropout(0.5),
        minidl.Dense(8, activation="sigmoid", use_bias=False),
        minidl.Dense(6),
        minidl.LeakyReLU(0.3),
        minidl.Dense(5, activation="log_softmax"),
    ]
    there = [
        layers.Flatten(),
        layers.Dense(12),
        layers.Activation("relu"),
        layers.Dense(8, activation="sigmoid", use_bias=False),
        layers.Dropout(0.2),
        layers.Dense(6),
        layers.LeakyReLU(negative_slope=0.3),
        layers.Dense(5, activation="log_softmax"),
    ]
    return here, there, (4, 5)


def cnn():
    """Padding in every form, strides, dilation, filters of even sizes."""
    here = [
        minidl.Conv2D(4, 3, padding="same", activation="relu"),
        minidl.MaxPool(2),
        minidl.Conv2D(3, (2, 4), strides=(2, 1), padding="same"),
        minidl.Tanh(),
        minidl.MaxPool(3, strides=1, padding="same"),
        minidl.Conv2D(5, 3, padding=((1, 0), (2, 1)), dilation=2, use_bias=False),
        minidl.AvgPool(2, strides=1),
        minidl.Conv2D(4, 1, padding="same"),
        minidl.Conv2D(3, 3, padding=1, activation="tanh"),
        minidl.Flatten(),
        minidl.Dense(7),
        minidl.Softmax(),
    ]
    there = [
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(3, (2, 4), strides=(2, 1), padding="same", activation="tanh"),
        layers.MaxPooling2D(3, strides=1, padding="same"),
        layers.ZeroPadding2D(((1, 0), (2, 1))),
        layers.Conv2D(5, 3, dilation_rate=2, use_bias=False),
        layers.AveragePooling2D(2, strides=1),
        layers.Conv2D(4, 1),
        layers.Conv2D(3, 3, padding="same"),
        layers.Activation("tanh"),
        layers.Flatten(),
        layers.Dense(7, activation="softmax"),
    ]
    return here, there, (19, 18, 2)


def with_batch_norm():
    """Of images, of features, and of neither; and Dense on the channels of images."""
    here = [
        minidl.BatchNorm(),
        minidl.Conv2D(4, 3, strides=2, use_bias=False),
        minidl.BatchNorm(eps=1e-5),
        minidl.ReLU(),
        minidl.Dense(6, activation="relu"),
        minidl.GlobalAvgPool(),
        minidl.BatchNorm(momentum=0.5),
        minidl.Dense(5),
    ]
    there = [
        layers.BatchNormalization(axis=3),
        layers.Conv2D(4, 3, strides=2, use_bias=False),
        layers.BatchNormalization(epsilon=1e-5),
        layers.ReLU(),
        layers.Dense(6, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.BatchNormalization(),
        layers.Dense(5),
    ]
    return here, there, (9, 7, 3)


def nested():
    """Models inside models, both ways."""
    here = [
        minidl.Sequential([minidl.Conv2D(3, 3, activation="relu"), minidl.BatchNorm()]),
        minidl.Sequential([minidl.Conv2D(2, 2), minidl.Sequential([minidl.Flatten()])]),
        minidl.Dense(5),
    ]
    there = [
        keras.Sequential([layers.Conv2D(3, 3, activation="relu"), layers.BatchNormalization()]),
        keras.Sequential([layers.Conv2D(2, 2), layers.Flatten()]),
        layers.Dense(5),
    ]
    return here, there, (7, 6, 2)


MODELS = [mlp, cnn, with_batch_norm, nested]


def sequential(there, shape):
    return keras.Sequential([keras.Input(shape), *there])


def functional(there, shape):
    start = x = keras.Input(shape)
    for layer in there:
        x = layer(x)
    return keras.Model(start, x)


@pytest.fixture(params=MODELS, ids=lambda make: make.__name__)
def made(request):
    minidl.seed(0)
    keras.utils.set_random_seed(0)
    return request.param()


@pytest.fixture(params=[sequential, functional], ids=lambda make: make.__name__)
def pair(made, request):
    """A model, its twin in Keras with weights of its own, and inputs."""
    here, there, shape = made
    model = randomize(minidl.Sequential(here, input_shape=shape))
    twin = request.param(there, shape)
    twin.set_weights(shaken(twin.get_weights(), seed=1))
    return model, twin, drawn((4, *shape))


def test_outputs_in_keras_are_ours(pair):
    model, twin, x = pair
    before = model.state_dict()
    minidl.weights_to_keras(model, twin)
    assert_same_outputs(model, twin, x)
    for name, values in model.state_dict().items():
        assert_array_equal(values, before[name])


def test_outputs_here_are_those_of_keras(pair):
    model, twin, x = pair
    before = twin.get_weights()
    minidl.weights_from_keras(model, twin)
    assert_same_outputs(model, twin, x)
    for values, old in zip(twin.get_weights(), before, strict=True):
        assert_array_equal(values, old)


def test_what_get_weights_returns_will_do(pair):
    model, twin, x = pair
    minidl.weights_from_keras(model, twin.get_weights())
    assert_same_outputs(model, twin, x)


def test_a_file_that_keras_has_written_will_do(pair, tmp_path):
    model, twin, x = pair
    twin.compile("adam")
    twin.save_weights(tmp_path / "model.weights.h5")
    minidl.weights_from_keras(model, tmp_path / "model.weights.h5")
    assert_same_outputs(model, twin, x)


def test_through_keras_and_its_file_and_back_is_the_same_to_the_last_bit(pair, tmp_path):
    model, twin, _ = pair
    other = copy.deepcopy(model)
    minidl.weights_to_keras(model, twin)
    twin.save_weights(tmp_path / "model.weights.h5")
    for source in (twin, twin.get_weights(), str(tmp_path / "model.weights.h5")):
        other.load_state_dict({name: 0 * values for name, values in other.state_dict().items()})
        minidl.weights_from_keras(other, source)
        for name, values in model.state_dict().items():
            assert_array_equal(other.state_dict()[name], values, name)


def test_a_functional_model_inside_another_is_read_from_its_file(tmp_path):
    here = [minidl.Sequential([minidl.Dense(3), minidl.Dense(4)]), minidl.Dense(2)]
    model = minidl.Sequential(here, input_shape=(5,))
    inside = functional([layers.Dense(3), layers.Dense(4)], (5,))
    twin = functional([inside, layers.Dense(2)], (5,))
    twin.save_weights(tmp_path / "model.weights.h5")
    minidl.weights_from_keras(model, tmp_path / "model.weights.h5")
    assert_same_outputs(model, twin, drawn((3, 5)))


def test_running_statistics_of_a_trained_model_go_along():
    here, there, shape = with_batch_norm()
    model = minidl.Sequential(here, input_shape=shape)
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters()))
    trainer.fit(3 + drawn((32, *shape)), np.arange(32) % 5, epochs=2, batch_size=16, verbose=0)
    twin = sequential(there, shape)
    minidl.weights_to_keras(model, twin)
    assert_same_outputs(model, twin, drawn((4, *shape)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_each_side_keeps_its_dtype(dtype):
    model = randomize(minidl.Sequential([minidl.Dense(3)], input_shape=(4,)))
    twin = sequential([layers.Dense(3, dtype=dtype)], (4,))
    minidl.weights_to_keras(model, twin)
    assert {str(values.dtype) for values in twin.get_weights()} == {dtype}
    minidl.weights_from_keras(model, twin)
    for ours, theirs in zip(model.parameters(), twin.get_weights(), strict=True):
        assert_array_equal(ours.data, theirs.astype(np.float32))
        assert ours.data.dtype == np.float32
    minidl.weights_from_keras(model, twin.get_weights())


def test_only_a_conversion_between_floats_is_passed_over():
    model = minidl.Sequential([minidl.Dense(3)], input_shape=(4,))
    start = keras.Input((4,))
    end = layers.Dense(3)(keras.ops.cast(start, "float16"))
    minidl.weights_to_keras(model, keras.Model(start, end))
    end = layers.Dense(3)(keras.ops.cast(start, "int32"))
    with pytest.raises(ValueError, match=r"Keras's Cast '\w+' has no counterpart"):
        minidl.weights_to_keras(model, keras.Model(start, end))


def test_weights_on_a_device_are_copied_through_the_host(device):
    model = randomize(minidl.Sequential([minidl.Dense(3), minidl.BatchNorm()], input_shape=(4,)))
    twin, x = sequential([layers.Dense(3), layers.BatchNormalization()], (4,)), drawn((3, 4))
    minidl.weights_to_keras(model.to(device), twin)
    assert_same_outputs(copy.deepcopy(model).to("cpu"), twin, x)
    twin.set_weights(shaken(twin.get_weights()))
    minidl.weights_from_keras(model, twin)
    assert model[0].weight.device == device
    assert_same_outputs(model.to("cpu"), twin, x)


class Doubled(minidl.Layer):
    def forward(self, x):
        return x * 2.0


def test_layers_and_functions_of_your_own_are_paired_by_their_place():
    here = [minidl.Dense(3, activation=lambda x: x * 3.0), Doubled()]
    there = [layers.Dense(3, activation=lambda x: x * 3.0), layers.Rescaling(2.0)]
    model = randomize(minidl.Sequential(here, input_shape=(4,)))
    twin = sequential(there, (4,))
    minidl.weights_to_keras(model, twin)
    assert_same_outputs(model, twin, drawn((3, 4)))


# What does not fit


def small_model(**more):
    here = [
        minidl.Conv2D(2, 3, activation="relu"),
        minidl.BatchNorm(),
        minidl.MaxPool(2),
        minidl.Flatten(),
        minidl.Dense(3, **more),
    ]
    return minidl.Sequential(here, input_shape=(6, 6, 1))


def small_twin(conv=None, norm=None, pool=None, flatten=None, last=None, more=(), shape=(6, 6, 1)):
    """The same in Keras with other layers in some places."""
    named = {
        "conv": conv or layers.Conv2D(2, 3, activation="relu"),
        "norm": norm or layers.BatchNormalization(),
        "pool": pool or layers.MaxPooling2D(2),
        "flatten": flatten or layers.Flatten(),
        "last": last or layers.Dense(3),
    }
    for name, layer in named.items():
        layer.name = name
    return sequential([*named.values(), *more], shape)


FIRST = {"data_format": "channels_first"}


def first(there, here):
    must = "must be 'channels_last' for"
    return f"'data_format' of Keras's {there} {must} {here}, is 'channels_first'"


WRONG = {
    "everything of a convolution": (
        lambda: small_twin(
            conv=layers.Conv2D(
                2, 3, padding="same", dilation_rate=2, activation="relu", use_bias=False
            ),
            last=layers.Dense(3),
            pool=layers.MaxPooling2D(3, strides=2, padding="same"),
        ),
        [
            "Keras's Conv2D 'conv' lacks 'bias' of Conv2D 'conv2d'",
            "'padding' of Keras's Conv2D 'conv' must be 'valid' for Conv2D 'conv2d', is 'same'",
            (
                "'dilation_rate' of Keras's Conv2D 'conv' must be (1, 1) for Conv2D 'conv2d', "
                "is (2, 2)"
            ),
            (
                "'pool_size' of Keras's MaxPooling2D 'pool' must be (2, 2) for MaxPool 'max_pool', "
                "is (3, 3)"
            ),
            "'kernel' of Keras's Dense 'last' must be (8, 3) for Dense 'dense', is (18, 3)",
        ],
    ),
    "strides and shapes": (
        lambda: small_twin(
            conv=layers.Conv2D(2, 2, strides=(2, 1), activation="relu"),
            pool=layers.MaxPooling2D(2, strides=1),
            last=layers.Dense(4),
        ),
        [
            (
                "'kernel' of Keras's Conv2D 'conv' must be (3, 3, 1, 2) for Conv2D 'conv2d', "
                "is (2, 2, 1, 2)"
            ),
            "'strides' of Keras's Conv2D 'conv' must be (1, 1) for Conv2D 'conv2d', is (2, 1)",
            (
                "'strides' of Keras's MaxPooling2D 'pool' must be (2, 2) for MaxPool 'max_pool', "
                "is (1, 1)"
            ),
            "'kernel' of Keras's Dense 'last' must be (8, 3) for Dense 'dense', is (16, 4)",
            "'bias' of Keras's Dense 'last' must be (3,) for Dense 'dense', is (4,)",
        ],
    ),
    "batch normalisation": (
        lambda: small_twin(norm=layers.BatchNormalization(epsilon=1e-5, scale=False)),
        [
            "Keras's BatchNormalization 'norm' lacks 'gamma' of BatchNorm 'batch_norm'",
            (
                "'epsilon' of Keras's BatchNormalization 'norm' must be 0.001 for "
                "BatchNorm 'batch_norm', is 1e-05"
            ),
        ],
    ),
    "channels first": (
        lambda: small_twin(
            layers.Conv2D(2, 3, activation="relu", **FIRST),
            layers.BatchNormalization(axis=1),
            layers.MaxPooling2D(2, **FIRST),
            layers.Flatten(**FIRST),
            shape=(1, 6, 6),
        ),
        [
            first("Conv2D 'conv'", "Conv2D 'conv2d'"),
            (
                "'axis' of Keras's BatchNormalization 'norm' must be -1 for "
                "BatchNorm 'batch_norm', is 1"
            ),
            first("MaxPooling2D 'pool'", "MaxPool 'max_pool'"),
            first("Flatten 'flatten'", "Flatten 'flatten'"),
        ],
    ),
    "activations": (
        lambda: small_twin(
            layers.Conv2D(2, 3, activation="elu"), last=layers.Dense(3, activation="softmax")
        ),
        [
            "relu of Conv2D 'conv2d' expects relu, got elu of Keras's Conv2D 'conv'",
            "softmax of Keras's Dense 'last' has no counterpart",
        ],
    ),
    "layers too few and too many": (
        lambda: small_twin(
            layers.Conv2D(2, 3), more=[layers.Dense(3, name="more"), layers.ReLU(name="relu")]
        ),
        [
            "relu of Conv2D 'conv2d' has no counterpart",
            "Keras's Dense 'more' has no counterpart",
            "Keras's ReLU 'relu' has no counterpart",
        ],
    ),
    "other layers": (
        lambda: small_twin(
            pool=layers.AveragePooling2D(2), last=layers.EinsumDense("ab,bc->ac", 3)
        ),
        [
            "MaxPool 'max_pool' expects MaxPooling2D, got Keras's AveragePooling2D 'pool'",
            "Dense 'dense' expects Dense, got Keras's EinsumDense 'last'",
        ],
    ),
}


def assert_everything_named(copy_weights, model, twin, expected):
    """And nothing changed."""
    ours, theirs = model.state_dict(), twin.get_weights()
    with pytest.raises(ValueError, match="is not the same as Sequential: ") as raised:
        copy_weights(model, twin)
    assert str(raised.value).partition(": ")[2].split("; ") == expected
    for name, values in model.state_dict().items():
        assert_array_equal(values, ours[name])
    for values, before in zip(twin.get_weights(), theirs, strict=True):
        assert_array_equal(values, before)


both_ways = pytest.mark.parametrize(
    "copy_weights", [minidl.weights_to_keras, minidl.weights_from_keras]
)


def test_the_small_ones_fit():
    model, twin = randomize(small_model()), small_twin()
    minidl.weights_to_keras(model, twin)
    assert_same_outputs(model, twin, drawn((3, 6, 6, 1)))


@both_ways
@pytest.mark.parametrize("case", WRONG)
def test_everything_that_differs_is_named_and_nothing_changes(copy_weights, case):
    make, expected = WRONG[case]
    assert_everything_named(copy_weights, randomize(small_model()), make(), expected)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (
            minidl.Dense(4, activation="leaky_relu"),
            lambda: layers.Dense(4, activation="leaky_relu", name="d"),
            (
                "'negative_slope' of leaky_relu of Keras's Dense 'd' must be 0.01 for "
                "leaky_relu of Dense 'dense', is 0.2"
            ),
        ),
        (
            minidl.ReLU(),
            lambda: layers.ReLU(max_value=6, name="r"),
            "'max_value' of Keras's ReLU 'r' must be None for ReLU 're_lu', is 6",
        ),
        (
            minidl.Softmax(axis=1),
            lambda: layers.Softmax(name="s"),
            "'axis' of Keras's Softmax 's' must be 1 for Softmax 'softmax', is -1",
        ),
        (
            minidl.Conv2D(2, 2, padding="same"),
            lambda: layers.Conv2D(2, 2, groups=2, name="c"),
            (
                "'kernel' of Keras's Conv2D 'c' must be (2, 2, 4, 2) for Conv2D 'conv2d', "
                "is (2, 2, 2, 2); "
                "'padding' of Keras's Conv2D 'c' must be 'same' for Conv2D 'conv2d', is 'valid'; "
                "'groups' of Keras's Conv2D 'c' must be 1 for Conv2D 'conv2d', is 2"
            ),
        ),
        (
            minidl.GlobalAvgPool(),
            lambda: layers.GlobalAveragePooling2D(keepdims=True, name="g"),
            (
                "'keepdims' of Keras's GlobalAveragePooling2D 'g' must be False for "
                "GlobalAvgPool 'global_avg_pool', is True"
            ),
        ),
        (
            Doubled(),
            lambda: layers.PReLU(name="p"),
            "Doubled 'doubled' lacks 'alpha' of Keras's PReLU 'p'",
        ),
        (
            minidl.MaxPool(2),
            lambda: keras.Sequential([layers.ZeroPadding2D(1, name="z"), layers.MaxPooling2D(2)]),
            "Keras's ZeroPadding2D 'z' has no counterpart",
        ),
    ],
)
def test_a_single_layer_that_differs(here, there, expected):
    model = minidl.Sequential([copy.deepcopy(here)], input_shape=(6, 6, 4))
    twin = sequential([there()], (6, 6, 4))
    assert_everything_named(minidl.weights_to_keras, model, twin, expected.split("; "))


def test_the_same_padding_may_be_written_otherwise():
    conv = minidl.Conv2D(2, 3, padding=((0, 1), (1, 1)), strides=(2, 1))  # "same" for 6 rows
    model = randomize(minidl.Sequential([conv], input_shape=(6, 5, 1)))
    twin = sequential([layers.Conv2D(2, 3, strides=(2, 1), padding="same")], (6, 5, 1))
    minidl.weights_to_keras(model, twin)
    assert_same_outputs(model, twin, drawn((2, 6, 5, 1)))
    other = minidl.Sequential([conv], input_shape=(7, 5, 1))  # but not for 7
    with pytest.raises(ValueError, match="'padding' of Keras's Conv2D"):
        minidl.weights_to_keras(other, twin)


def test_models_whose_order_is_unknown_are_refused():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = minidl.Sequential([minidl.Dense(3)], input_shape=(4,))
    network = Network()
    network(drawn((1, 4)))
    unseen = keras.Sequential([layers.Dense(3)])
    start = keras.Input((4,))
    left, right = layers.Dense(3)(start), layers.Dense(3)(start)
    for twin, expected in (
        (network, "does not say in which order its layers compute"),
        (unseen, "does not say in which order its layers compute"),
        (keras.Model(start, layers.Add(name="a")([left, right])), "Keras's Add 'a' has 2 inputs"),
        (keras.Model(start, [left, right]), "has 2 outputs; expected one"),
    ):
        with pytest.raises(ValueError, match=expected):
            minidl.weights_from_keras(model, twin)
    minidl.weights_from_keras(model, network.get_weights())
    assert_same_outputs(model, network, drawn((2, 4)))


def test_shared_weights_are_refused():
    model = minidl.Sequential([minidl.Dense(4), minidl.Dense(4)], input_shape=(4,))
    dense = layers.Dense(4)
    with pytest.raises(ValueError, match="layers of the Keras model share weights"):
        minidl.weights_from_keras(model, functional([dense, dense], (4,)))
    ours = minidl.Dense(4)
    shared = minidl.Sequential([ours, minidl.Sequential([ours])], input_shape=(4,))
    with pytest.raises(ValueError, match="layers of Sequential share weights"):
        minidl.weights_to_keras(shared, functional([layers.Dense(4), layers.Dense(4)], (4,)))


class Scaled(minidl.Layer):
    def build(self, x):
        self.scale = minidl.new_parameter("ones", x.shape[-1:], 1, 1, like=x)

    def forward(self, x):
        return x * self.scale


def test_what_is_no_model_is_refused():
    model, twin = small_model(), small_twin()
    with pytest.raises(TypeError, match="expected a Sequential of minidl first, got Sequential"):
        minidl.weights_to_keras(twin, model)
    for source in ([], "model.weights.h5"):
        with pytest.raises(TypeError, match="expected a Sequential of minidl first, got Dense"):
            minidl.weights_from_keras(minidl.Dense(3), source)
    with pytest.raises(TypeError, match=r"expected a keras.Model second, got Dense"):
        minidl.weights_to_keras(model, layers.Dense(3))
    with pytest.raises(TypeError, match=r"expected a keras.Model second, got dict"):
        minidl.weights_from_keras(model, model.state_dict())
    unseen = minidl.Sequential([minidl.Dense(3)])
    for source in (twin, [], "model.weights.h5"):
        with pytest.raises(RuntimeError, match="has not seen the shape of its input yet"):
            minidl.weights_from_keras(unseen, source)
    own = minidl.Sequential([Scaled()], input_shape=(3,))
    with pytest.raises(ValueError, match=r"Scaled 'scaled' has weights without .*\['scale'\]"):
        minidl.weights_to_keras(own, sequential([layers.Dense(3)], (3,)))


def test_everything_that_differs_in_a_list_is_named_and_nothing_changes():
    model = randomize(small_model())
    before = model.state_dict()
    arrays = small_twin().get_weights()
    for wrong, expected in (
        (arrays[:-1], "'bias' of Dense 'dense' is missing"),
        ([*arrays, np.zeros(2)], "array 8, of shape (2,), has no counterpart"),
        (
            [arrays[0].transpose(), *arrays[1:-2], arrays[-2].T, arrays[-1]],
            (
                "array 0 must be (3, 3, 1, 2) for 'kernel' of Conv2D 'conv2d', is (2, 1, 3, 3); "
                "array 6 must be (8, 3) for 'kernel' of Dense 'dense', is (3, 8)"
            ),
        ),
        ([a.astype(complex) for a in arrays], "'dense.bias' expects real numbers, got complex128"),
    ):
        with pytest.raises(ValueError, match=re.escape(expected) + "$"):
            minidl.weights_from_keras(model, wrong)
        for name, values in model.state_dict().items():
            assert_array_equal(values, before[name])


# Files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.weights.h5"
    small_twin().save_weights(path)
    return path


def replaced(path, place, **how):
    with h5py.File(path, "r+") as content:
        del content[place]
        content.create_dataset(place, **how)


def damaged(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def linked(path, link):
    with h5py.File(path, "r+") as content:
        del content["layers/dense/vars/1"]
        content["layers/dense/vars/1"] = link


def kept_elsewhere(path):
    outside = path.with_name("outside")
    outside.write_bytes(bytes(12))
    replaced(path, "layers/dense/vars/1", shape=3, dtype="f4", external=[(str(outside), 0, 12)])


def virtual(path):
    layout = h5py.VirtualLayout(3, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(3,))
    with h5py.File(path, "r+") as content:
        del content["layers/dense/vars/1"]
        content.create_virtual_dataset("layers/dense/vars/1", layout)


BIAS = "layers/dense/vars/1"
NO_FILE = "expected a complete .weights.h5 file of Keras 3, but it is none, or damaged"
IN_ONE_PIECE = f"{BIAS} must be stored in one piece and whole, as Keras stores it"
LINK = f"{BIAS} is a link, which Keras does not write"
BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), NO_FILE),
    "text": (lambda path: path.write_text("layers"), NO_FILE),
    "half": (damaged, NO_FILE),
    "another shape": (
        lambda path: replaced(path, BIAS, shape=2**40, dtype="f4"),
        f"{BIAS} must be (3,) for 'bias' of Dense 'dense', is (1099511627776,)",
    ),
    "words": (
        lambda path: replaced(path, BIAS, data=["a", "b", "c"]),
        f"{BIAS} must be real numbers for 'bias' of Dense 'dense', is object",
    ),
    "a number that is too large": (
        lambda path: replaced(path, BIAS, data=np.full(3, 1e300)),
        "'dense.bias' holds numbers too large for float32",
    ),
    "chunks": (
        lambda path: replaced(
            path, BIAS, shape=3, maxshape=(None,), chunks=(2**28,), dtype="f4", compression="gzip"
        ),
        IN_ONE_PIECE,
    ),
    "a chunk": (
        lambda path: replaced(path, BIAS, data=np.zeros(3, "f4"), chunks=(3,)),
        IN_ONE_PIECE,
    ),
    "nothing written": (lambda path: replaced(path, BIAS, shape=3, dtype="f4"), IN_ONE_PIECE),
    "in another file": (kept_elsewhere, IN_ONE_PIECE),
    "virtual": (virtual, IN_ONE_PIECE),
    "a link": (lambda path: linked(path, h5py.SoftLink("/layers/dense/vars/0")), LINK),
    "a link out": (lambda path: linked(path, h5py.ExternalLink("other.h5", "/x")), LINK),
    "a group": (
        lambda path: linked(path, h5py.File(path, "r+")["layers/dense"]),
        f"{BIAS}, 'bias' of Dense 'dense', is missing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_keras_would_not_write_is_refused(file, case):
    how, expected = BROKEN[case]
    how(file)
    model = randomize(small_model())
    before = model.state_dict()
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: ") as raised:
        minidl.weights_from_keras(model, file)
    assert expected in str(raised.value)
    for name, values in model.state_dict().items():
        assert_array_equal(values, before[name])


@pytest.mark.parametrize(
    ("twin", "expected"),
    [
        (
            lambda: small_twin(last=layers.Dense(3, use_bias=False)),
            ["layers/dense/vars/1, 'bias' of Dense 'dense', is missing"],
        ),
        (
            lambda: small_twin(layers.Conv2D(2, 2), last=layers.EinsumDense("ab,bc->ac", 3)),
            [
                "layers/einsum_dense has no counterpart",
                (
                    "layers/conv2d/vars/0 must be (3, 3, 1, 2) for 'kernel' of Conv2D 'conv2d', "
                    "is (2, 2, 1, 2)"
                ),
                "layers/dense/vars/0, 'kernel' of Dense 'dense', is missing",
                "layers/dense/vars/1, 'bias' of Dense 'dense', is missing",
            ],
        ),
        (
            lambda: small_twin(more=[keras.Sequential([layers.Dense(2)]), layers.Dense(2)]),
            ["layers/dense_1 has no counterpart", "layers/sequential has no counterpart"],
        ),
    ],
)
def test_everything_that_differs_in_a_file_is_named(tmp_path, twin, expected):
    path = tmp_path / "model.weights.h5"
    twin().save_weights(path)
    with pytest.raises(ValueError, match="the file does not hold the weights of") as raised:
        minidl.weights_from_keras(small_model(), path)
    assert str(raised.value).partition("Sequential: ")[2].split("; ") == expected


def test_a_bias_too_many_in_a_file_is_named(file):
    with pytest.raises(ValueError, match=r"Sequential: layers/dense/vars/1 has no counterpart$"):
        minidl.weights_from_keras(small_model(use_bias=False), file)


def test_pipes_and_paths_without_a_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.weights\.h5"):
        minidl.weights_from_keras(small_model(), tmp_path / "missing.weights.h5")
    pipe = tmp_path / "pipe.weights.h5"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="expected a file, got a pipe or a device"):
        minidl.weights_from_keras(small_model(), pipe)


# Without the libraries


def test_a_missing_library_is_named(monkeypatch, file):
    model, twin = small_model(), small_twin()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "h5py", None)
        with pytest.raises(ImportError, match=r"read with h5py .*; pip install h5py$"):
            minidl.weights_from_keras(model, file)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "keras", None)
        with pytest.raises(ImportError, match=r"need Keras 3 .*; pip install \"keras>=3\" torch$"):
            minidl.weights_to_keras(model, twin)
        minidl.weights_from_keras(model, twin.get_weights())
        minidl.weights_from_keras(model, file)
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    with pytest.raises(ImportError, match=r"need Keras 3, not 2\.15\.0"):
        minidl.weights_to_keras(model, twin)


def test_a_file_is_read_without_keras(file):
    code = f"""if True:
        import sys, minidl
        sys.modules["keras"] = None
        model = minidl.Sequential(
            [minidl.Conv2D(2, 3), minidl.BatchNorm(), minidl.MaxPool(2), minidl.Flatten(),
             minidl.Dense(3)], input_shape=(6, 6, 1))
        minidl.weights_from_keras(model, {str(file)!r})
        print(float(model[1].running_variance.data.sum()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 2
