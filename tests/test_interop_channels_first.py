"""Weights where channels come first: what moves where, and what cannot be moved."""

import numpy as np
import pytest
from generated import SEEDS, generated
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import minidl
from minidl.interop.channels_first import flattened_order, layer_weights


def counting(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def weights_of(model):
    """All weights of a model where channels come first, by the layer's name and theirs."""
    return {
        f"{layer.name}.{name}": weight
        for layer, weights in layer_weights(model)
        for name, weight in weights.items()
    }


def test_the_order_of_features_by_hand():
    # Two rows, three columns, two channels: features 0, 2, 4 and 6, 8, 10 are the first channel.
    order = flattened_order((5, 2, 3, 2))
    assert_array_equal(order, [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11])
    assert flattened_order((5, 2, 3, 1)) is flattened_order((5, 1, 1, 3)) is None


def test_a_dense_weight_by_hand():
    model = minidl.Sequential([minidl.Dense(2)], input_shape=(3,))
    model[0].weight.data[...] = counting(3, 2)
    weight = weights_of(model)["dense.weight"]
    assert_array_equal(weight.channels_first(), [[0, 2, 4], [1, 3, 5]])
    assert weight.shape == (2, 3)


def test_a_dense_weight_after_flattened_images_by_hand():
    model = minidl.Sequential([minidl.Flatten(), minidl.Dense(1)], input_shape=(1, 2, 3))
    model[1].weight.data[...] = counting(6, 1)
    weight = weights_of(model)["dense.weight"]
    assert_array_equal(weight.channels_first(), [[0, 3, 1, 4, 2, 5]])
    weight.assign(np.array([[0, 30, 10, 40, 20, 50]]))
    assert_array_equal(model[1].weight.data[:, 0], [0, 10, 20, 30, 40, 50])


def test_filters_by_hand():
    model = minidl.Sequential([minidl.Conv2D(2, (1, 3))], input_shape=(4, 4, 2))
    model[0].weight.data[...] = counting(1, 3, 2, 2)
    weight = weights_of(model)["conv2d.weight"]
    expected = [[[[0, 4, 8]], [[2, 6, 10]]], [[[1, 5, 9]], [[3, 7, 11]]]]
    assert_array_equal(weight.channels_first(), expected)
    weight.assign(10 * np.array(expected))
    assert_array_equal(model[0].weight.data, 10 * counting(1, 3, 2, 2))


def test_a_batch_normalisation_after_flattened_images_by_hand():
    layers = [minidl.Flatten(), minidl.BatchNorm(), minidl.Dropout(0.5), minidl.Dense(1)]
    model = minidl.Sequential(layers, input_shape=(1, 2, 2))
    state = {name: counting(*array.shape) for name, array in model.state_dict().items()}
    model.load_state_dict(state)
    for name, weight in weights_of(model).items():
        expected = [0, 2, 1, 3] if name != "dense.bias" else [0]
        assert_array_equal(weight.channels_first().ravel(), expected, name)


@generated
@given(sizes=st.tuples(*[st.integers(1, 4)] * 4), units=st.integers(1, 3), seed=SEEDS)
def test_flattening_where_channels_come_first_gives_the_same_outputs(sizes, units, seed):
    minidl.seed(seed)
    model = minidl.Sequential([minidl.Flatten(), minidl.Dense(units)], input_shape=sizes[1:])
    x = np.random.default_rng(seed).normal(size=sizes).astype(np.float32)
    there = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    weight = weights_of(model)["dense.weight"].channels_first()
    assert_allclose(there @ weight.T, model(x).numpy(), atol=1e-5)


def cnn():
    minidl.seed(0)
    return minidl.Sequential(
        [
            minidl.Conv2D(3, 2, activation="relu"),
            minidl.BatchNorm(),
            minidl.MaxPool(2),
            minidl.Flatten(),
            minidl.BatchNorm(),
            minidl.Dense(5),
            minidl.Tanh(),
            minidl.Dense(4, use_bias=False),
        ],
        input_shape=(6, 6, 2),
    )


def test_what_is_assigned_comes_back_and_fits_in_shape_and_memory():
    model, other = cnn(), cnn()
    rng = np.random.default_rng(0)
    ours, theirs = weights_of(model), weights_of(other)
    assert ours.keys() == model.state_dict().keys()
    for name, weight in ours.items():
        values = rng.normal(size=weight.shape)  # float64, which the model stays out of
        weight.assign(values)
        there = weight.channels_first()
        assert_array_equal(there, values.astype(np.float32))
        assert there.dtype == np.float32
        assert there.flags.c_contiguous
        theirs[name].assign(there)
        there[...] = 0
        assert weight.tensor.data.all()
    for name, values in model.state_dict().items():
        assert_array_equal(other.state_dict()[name], values)


@pytest.mark.usefixtures("device")
def test_weights_on_a_device_come_from_there_and_go_there():
    here, model = weights_of(cnn()), cnn().to("gpu")
    for name, weight in weights_of(model).items():
        values = weight.channels_first()
        assert_array_equal(values, here[name].channels_first())
        data = weight.tensor.data
        weight.assign(values + 1)
        assert weight.tensor.data is data
        assert weight.tensor.device == "gpu"
        assert_array_equal(weight.channels_first(), values + 1)


def test_looking_at_the_layers_leaves_modes_and_running_statistics_as_they_were():
    model = cnn()
    model[1].training = False
    before = model.state_dict()
    layer_weights(model)
    assert [layer.training for layer in model.layers] == [i != 1 for i in range(len(model))]
    for name, values in model.state_dict().items():
        assert_array_equal(values, before[name])


def test_layers_follow_one_another_through_models_inside():
    images = minidl.Sequential([minidl.Conv2D(2, 1), minidl.Flatten()])
    features = minidl.Sequential([minidl.Dropout(0.5), minidl.Dense(2)])
    model = minidl.Sequential([images, features], input_shape=(2, 2, 1))
    (conv, _), (dense, weights) = layer_weights(model)
    assert (conv, dense) == (images[0], features[1])
    assert_array_equal(weights["weight"].order, [0, 2, 4, 6, 1, 3, 5, 7])


def test_flattening_again_changes_nothing():
    layers = [minidl.Flatten(), minidl.Flatten(), minidl.Dense(3)]
    model = minidl.Sequential(layers, input_shape=(1, 2, 2))
    assert_array_equal(weights_of(model)["dense.weight"].order, [0, 2, 1, 3])


def test_one_dropout_in_two_places_does_not_hide_the_images():
    dropout = minidl.Dropout(0.5)
    model = minidl.Sequential(
        [minidl.Conv2D(2, 1), dropout, minidl.Flatten(), minidl.Dense(3), dropout, minidl.Dense(2)],
        input_shape=(2, 1, 1),
    )
    assert_array_equal(weights_of(model)["dense.weight"].order, [0, 2, 1, 3])


@pytest.mark.parametrize(
    "layers",
    [
        [minidl.Dense(2), minidl.Flatten(), minidl.Dense(3)],
        [minidl.Flatten(), minidl.Dense(3), minidl.Flatten(), minidl.Dense(3)],
    ],
)
def test_what_is_no_image_lies_the_same_way(layers):
    model = minidl.Sequential(layers, input_shape=(4, 5))
    assert all(weight.order is None for weight in weights_of(model).values())


def test_features_have_an_order_of_their_own_up_to_the_first_dense():
    orders = {name: weight.order is not None for name, weight in weights_of(cnn()).items()}
    assert [name for name, moved in orders.items() if moved] == [
        "batch_norm_1.gamma",
        "batch_norm_1.beta",
        "batch_norm_1.running_mean",
        "batch_norm_1.running_variance",
        "dense.weight",
    ]


class Gelu(minidl.Layer):
    def forward(self, x):
        return x * minidl.sigmoid(1.702 * x)


class Scale(minidl.Layer):
    def build(self, x):
        self.factor = minidl.new_parameter("ones", x.shape[-1:], 1, 1, like=x)

    def forward(self, x):
        return x * self.factor


class Unroll(minidl.Layer):
    def forward(self, x):
        return x.reshape(len(x), -1)


class FirstHalf(minidl.Layer):
    def forward(self, x):
        return x[..., : x.shape[-1] // 2]


class Upsample(minidl.Layer):
    def forward(self, x):
        return minidl.concatenate([x, x], axis=1)


class Shifted(minidl.Dense):
    def build(self, x):
        super().build(x)
        self.shift = minidl.new_parameter("zeros", (self.units,), 1, 1, like=x)


def test_layers_of_ones_own_without_weights_may_stand_between():
    layers = [Gelu(), Upsample(), FirstHalf(), minidl.Flatten(), Gelu(), minidl.Dense(2)]
    model = minidl.Sequential(layers, input_shape=(2, 2, 4))
    assert_array_equal(weights_of(model)["dense.weight"].order, flattened_order((1, 4, 2, 2)))
    model = minidl.Sequential([minidl.Dense(4), FirstHalf(), minidl.Dense(2)], input_shape=(3,))
    assert len(layer_weights(model)) == 2


@pytest.mark.parametrize(
    ("layers", "shape", "expected"),
    [
        ([minidl.Dense(2)], (4, 4, 3), r"Dense 'dense' works on the channels.*Conv2D\(2, 1\)"),
        ([minidl.BatchNorm()], (4, 4), "BatchNorm 'batch_norm' works on the last of 3 axes"),
        ([Scale(), minidl.Dense(2)], (4,), "Scale 'scale' has weights without a counterpart"),
        ([Shifted(2)], (4,), r"Shifted 'shifted' has weights without.*\['shift'\]"),
        ([minidl.Dense(2, activation=Scale())], (4,), r"Dense 'dense' has .*'activation.factor'"),
        ([Unroll(), minidl.Dense(2)], (4, 4, 3), r"Unroll 'unroll' makes \(1, 48\) of \(1, 4, 4,"),
        ([minidl.Flatten(), FirstHalf(), minidl.Dense(2)], (4, 4, 3), "FirstHalf 'first_half'"),
        ([minidl.Conv2D(2, 1), minidl.Flatten()], (4, 4, 3), "let a Dense follow"),
        ([minidl.Conv2D(2, 1), minidl.Flatten(), Gelu()], (4, 4, 3), "let a Dense follow"),
    ],
)
def test_what_would_not_compute_the_same_is_refused_by_name(layers, shape, expected):
    model = minidl.Sequential(layers, input_shape=shape)
    with pytest.raises(ValueError, match=expected):
        layer_weights(model)


def test_shared_weights_are_refused():
    twice = minidl.Dense(4)
    model = minidl.Sequential([twice, minidl.ReLU(), twice], input_shape=(4,))
    with pytest.raises(ValueError, match="share weights"):
        layer_weights(model)
    model = minidl.Sequential([minidl.Dense(4), minidl.Dense(4)], input_shape=(4,))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="share weights"):
        layer_weights(model)


def test_a_model_that_has_seen_nothing_says_what_to_do():
    model = minidl.Sequential([minidl.Flatten(), minidl.Dense(2)])
    with pytest.raises(RuntimeError, match=r"has not seen the shape of its input.*input_shape"):
        layer_weights(model)
    model(np.zeros((3, 2, 2, 2), np.float64))
    assert len(layer_weights(model)) == 1


def test_a_model_without_weights_has_none():
    model = minidl.Sequential([minidl.ReLU(), minidl.MaxPool(2)], input_shape=(4, 4, 1))
    assert layer_weights(model) == []
