"""Layers and modules: shapes, names, counts, state, modes, errors that say which layer and what.

Values and gradients are compared with PyTorch's, and with numbers worked out by hand.
"""

import copy
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pytorch import cases
from reference import eighths, numbers

import minidl
from minidl import (
    AvgPool,
    BatchNorm,
    Buffer,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Generator,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    MaxPool,
    Module,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    Tensor,
    new_parameter,
)
from minidl.kernels import convolution

# PyTorch's values are float64 sums of up to a hundred products of at most 4, in another order:
# sqrt(100) roundings of up to 400 * 2**-53 each at worst, and mostly of a tenth of that.
PYTORCH_TOLERANCE = 1e-13


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def row(*values):
    """One image of one row and one channel."""
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


def small_cnn(**arguments):
    layers = [Conv2D(2, 3), BatchNorm(), ReLU(), MaxPool(), Flatten(), Dense(3)]
    return Sequential(layers, **arguments)


# The models of tutorials


def one_block():
    convolution = Conv2D(32, 3, padding="same", activation="relu")
    return [convolution, MaxPool(), Flatten(), Dense(128, "relu"), Dense(10)]


def three_blocks():
    layers = []
    for filters in (32, 64, 128):
        layers += [Conv2D(filters, 3, padding="same", activation="relu"), MaxPool(), Dropout(0.3)]
    return [*layers, Flatten(), Dense(256, "relu"), Dropout(0.5), Dense(10)]


def dense_first():
    return [Dense(128, "relu"), Dense(64, "relu"), Flatten(), Dense(10)]


TUTORIALS = [
    (one_block, (28, 28, 1), 804_554),
    (three_blocks, (28, 28, 1), 390_410),
    (dense_first, (28, 28), 29_898),
]


@pytest.mark.parametrize(("layers", "shape", "count"), TUTORIALS)
def test_tutorial_models_have_the_parameters_that_keras_counts(layers, shape, count):
    model = Sequential(layers(), input_shape=shape)
    assert sum(parameter.size for parameter in model.parameters()) == count
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize(("layers", "shape", "count"), TUTORIALS)
def test_summary_tells_every_layer_and_the_totals(capsys, layers, shape, count):
    model = Sequential(layers(), input_shape=shape)
    model.summary()
    text = capsys.readouterr().out
    for layer in model.layers:
        own = sum(parameter.size for parameter in layer.parameters())
        cells = f"{layer.name} ({type(layer).__name__})", str(layer.output_shape), f"{own:,}"
        assert re.search(r".*".join(re.escape(cell) for cell in cells), text), cells
    assert f"Total params: {count:,} (" in text
    assert f"Trainable params: {count:,} (" in text
    assert "Non-trainable params: 0 (0.00 B)" in text


def test_summary_gives_sizes_in_memory(capsys):
    Sequential(three_blocks(), input_shape=(28, 28, 1)).summary()
    assert "Total params: 390,410 (1.49 MB)" in capsys.readouterr().out


def test_summary_counts_running_statistics_apart(capsys):
    Sequential([Dense(5), BatchNorm()], input_shape=(3,)).summary()
    text = capsys.readouterr().out
    assert "Total params: 40 (160.00 B)" in text
    assert "Trainable params: 30 (120.00 B)" in text
    assert "Non-trainable params: 10 (40.00 B)" in text
    assert re.search(r"batch_norm \(BatchNorm\).*\(None, 5\).* 20 ", text)


def test_summary_of_a_module_of_ones_own(capsys):
    class Net(Module):
        def __init__(self):
            self.first, self.rest = Dense(4), [Dense(3), Dense(2)]

        def forward(self, x):
            return self.rest[1](self.rest[0](self.first(x)))

    net = Net()
    net(zeros(1, 5))
    net.summary()
    text = capsys.readouterr().out
    assert "Model: Net" in text
    for name, count in (("first", 24), ("rest.0", 15), ("rest.1", 8)):
        assert re.search(rf"{name} \(Dense\).* {count} ", text)
    assert "Total params: 47 " in text


def test_summary_of_a_layer_alone(capsys):
    layer = Dense(4, name="only")
    layer(zeros(1, 5))
    layer.summary()
    text = capsys.readouterr().out
    assert "Model: Dense 'only'" in text
    assert re.search(r"\(Dense\).*\(None, 4\).* 24 ", text)


# Building


def test_the_first_batch_makes_the_weights_that_input_shape_makes():
    states = []
    for arguments in ({"input_shape": (8, 8, 1)}, {}):
        minidl.seed(1)
        model = small_cnn(**arguments)
        model(zeros(4, 8, 8, 1))
        states.append(model.state_dict())
    assert list(states[0]) == list(states[1])
    for name in ("conv2d.weight", "dense.weight", "dense.bias"):
        assert_array_equal(states[0][name], states[1][name])


def test_building_leaves_modes_and_running_statistics_as_they_were():
    layers = [Dense(3), BatchNorm(), Dropout(0.5)]
    layers[2].training = False
    model = Sequential(layers, input_shape=(4,))
    assert [layer.training for layer in (model, *layers)] == [True, True, True, False]
    assert_array_equal(layers[1].running_variance.data, np.ones(3))


def test_building_draws_nothing_from_dropout():
    weights = []
    for layers in ([Dropout(0.5), Dense(3)], [Dense(3)]):
        minidl.seed(1)
        weights.append(Sequential(layers, input_shape=(4,)).state_dict()["dense.weight"])
    assert_array_equal(*weights)


def test_building_leaves_no_gradients_behind():
    model = small_cnn(input_shape=(8, 8, 1))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_without_parameters_need_no_building():
    assert Sequential([Flatten(), ReLU()]).parameters() == []
    assert Sequential([Flatten(), Dropout(0.5)]).state_dict() == {}


@pytest.mark.parametrize("ask", ["parameters", "state_dict", "zero_grad"])
def test_what_needs_parameters_says_how_they_are_made(ask):
    model = Sequential([Flatten(), Dense(3, name="head")])
    with pytest.raises(RuntimeError, match=r"Dense 'head' has no parameters yet.*input_shape"):
        getattr(model, ask)()


def test_summary_of_layers_without_parameters_says_how_they_are_made():
    with pytest.raises(RuntimeError, match=r"Dense 'head' has no parameters yet.*input_shape"):
        Sequential([Dense(3, name="head"), Flatten()]).summary()


def test_summary_of_layers_that_have_seen_nothing_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"Flatten 'flatten' has no output shape.*input_shape"):
        Sequential([Flatten(), ReLU()]).summary()


def test_input_shape_that_does_not_fit_names_the_layer():
    with pytest.raises(ValueError, match=r"Conv2D 'conv2d': expects images.*x\[..., None\]"):
        Sequential([Conv2D(2, 3), Flatten()], input_shape=(28, 28))
    with pytest.raises(ValueError, match=r"MaxPool 'max_pool': .*5x5 pixels.*images of 2x2"):
        Sequential([Conv2D(2, 3), MaxPool(5)], input_shape=(4, 4, 1))


def test_input_shape_that_is_no_tuple_is_refused_by_name():
    with pytest.raises((TypeError, ValueError), match="input_shape"):
        Sequential([Dense(3)], input_shape=784)


@pytest.mark.parametrize(
    ("layer", "shape", "out"),
    [
        (Dense(3), (7,), (3,)),
        (Dense(3), (5, 7), (5, 3)),
        (Conv2D(3, 2), (5, 6, 1), (4, 5, 3)),
        (Conv2D(3, (2, 4), strides=(1, 2), padding="same"), (5, 7, 1), (5, 4, 3)),
        (Conv2D(3, 3, padding=2, dilation=2), (5, 6, 1), (5, 6, 3)),
        (Conv2D(3, 3, padding=(0, 1)), (5, 6, 1), (3, 6, 3)),
        (Conv2D(3, 3, padding=((1, 0), (0, 2))), (5, 6, 1), (4, 6, 3)),
        (MaxPool(), (5, 7, 2), (2, 3, 2)),
        (MaxPool(3, strides=2, padding="same"), (5, 7, 2), (3, 4, 2)),
        (AvgPool((2, 3)), (5, 7, 2), (2, 2, 2)),
        (GlobalAvgPool(), (5, 7, 2), (2,)),
        (Flatten(), (2, 3, 4), (24,)),
        (Flatten(), (), (1,)),
        (BatchNorm(), (3, 4, 5), (3, 4, 5)),
        (Dropout(0.5), (3, 4), (3, 4)),
        (ReLU(), (3, 4), (3, 4)),
        (Softmax(), (3, 4), (3, 4)),
    ],
)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_output_shapes(layer, shape, out, count):
    layer.eval()
    assert layer(zeros(count, *shape)).shape == (count, *out)
    assert layer.output_shape == (None, *out)


@pytest.mark.parametrize("layer", [Dense(3, use_bias=False), Conv2D(3, 2, use_bias=False)])
def test_layers_without_bias_have_none(layer):
    layer(zeros(1, 4, 4, 2))
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


# Names


def test_layers_are_named_after_their_class_and_counted():
    model = Sequential([Dense(2), ReLU(), Dense(2), LeakyReLU(), Conv2D(1, 1), GlobalAvgPool()])
    names = [layer.name for layer in model.layers]
    assert names == ["dense", "re_lu", "dense_1", "leaky_re_lu", "conv2d", "global_avg_pool"]


def test_names_that_users_gave_are_kept_and_avoided():
    model = Sequential([Dense(2), Dense(2, name="dense"), Dense(2, name="dense_1"), Dense(2)])
    assert [layer.name for layer in model.layers] == ["dense_2", "dense", "dense_1", "dense_3"]


def test_two_layers_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two layers are named 'head'"):
        Sequential([Dense(2, name="head"), Dense(3, name="head")])


def test_no_two_parameters_ever_have_one_name():
    # refused or renamed: a state_dict must not lose any of them
    try:
        model = Sequential([Dense(2, name=""), Dense(2, name="")], input_shape=(2,))
    except ValueError:
        return
    assert len(model.state_dict()) == 4


def test_a_layer_may_stand_in_a_model_twice():
    shared = Dense(4)
    model = Sequential([shared, ReLU(), shared], input_shape=(4,))
    assert len(model.parameters()) == 2
    assert list(model.state_dict()) == ["dense.weight", "dense.bias"]
    model(Tensor(np.ones((1, 4), np.float32))).sum().backward()
    assert shared.bias.grad.max() >= 1


def test_models_inside_models_have_dotted_names():
    inner = Sequential([Dense(2), BatchNorm()])
    model = Sequential([inner, Dense(3)], input_shape=(4,))
    assert list(model.state_dict()) == [
        "sequential.dense.weight",
        "sequential.dense.bias",
        "sequential.batch_norm.gamma",
        "sequential.batch_norm.beta",
        "sequential.batch_norm.running_mean",
        "sequential.batch_norm.running_variance",
        "dense.weight",
        "dense.bias",
    ]
    assert [name for name, _ in model.named_buffers()] == [
        "sequential.batch_norm.running_mean",
        "sequential.batch_norm.running_variance",
    ]


def test_sequential_is_a_list_of_layers():
    layers = [Flatten(), Dense(2)]
    model = Sequential(iter(layers))
    assert len(model) == 2
    assert model[0] is layers[0]
    assert model[-1] is layers[1]


def test_sequential_refuses_nothing_and_what_is_no_layer():
    with pytest.raises(ValueError, match="at least one layer"):
        Sequential([])
    with pytest.raises(TypeError, match=r"expects layers, got type.*parentheses: Flatten\(\)"):
        Sequential([Flatten])
    with pytest.raises(TypeError, match="expects layers, got function"):
        Sequential([Dense(2), minidl.relu])


# Errors name the layer, what it expected and what it got


@pytest.mark.parametrize(
    ("layer", "built", "shape", "expected"),
    [
        (Conv2D(2, 3), (1, 8, 8, 3), (1, 8, 8, 1), r"\(N, H, W, 3\), got \(1, 8, 8, 1\)"),
        (Conv2D(2, 3), (1, 8, 8, 3), (8, 8, 3), r"\(N, H, W, C\), got \(8, 8, 3\).*channel axis"),
        (Conv2D(2, 3), (1, 8, 8, 3), (8, 8), r"\(N, H, W, C\), got \(8, 8\)"),
        (Conv2D(2, 3), None, (1, 28, 28), r"got \(1, 28, 28\).*channel axis: x\[..., None\]"),
        (Conv2D(2, 9), None, (1, 8, 7, 1), "9x9 pixels does not fit on images of 8x7"),
        (Conv2D(2, 3, dilation=4), None, (1, 8, 9, 1), "9x9 pixels does not fit"),
        (Dense(2), (1, 4), (1, 5), r"\(..., 4\), got \(1, 5\)"),
        (Dense(2), (1, 4), (), r"\(..., 4\), got \(\)"),
        (Dense(2), None, (), "a single number"),
        (BatchNorm(), (2, 4), (2, 5), r"\(..., 4\), got \(2, 5\)"),
        (BatchNorm(), None, (4,), r"\(N, ..., C\), got \(4,\)"),
        (BatchNorm(), (2, 4), (0, 4), r"at least one sample to train on, got \(0, 4\)"),
        (MaxPool(3), None, (1, 2, 5, 1), "3x3 pixels does not fit on images of 2x5"),
        (MaxPool(), None, (1, 28, 28), r"\(N, H, W, C\), got \(1, 28, 28\)"),
        (AvgPool(), None, (28, 28), r"\(N, H, W, C\), got \(28, 28\)"),
        (AvgPool(2, padding=2), None, (1, 4, 4, 1), "pad by less than the window"),
        (GlobalAvgPool(), None, (1, 28, 28), r"\(N, H, W, C\), got \(1, 28, 28\)"),
        (Flatten(), None, (), "needs a batch axis"),
    ],
)
def test_a_wrong_shape_names_the_layer_what_it_expects_and_what_it_got(
    layer, built, shape, expected
):
    layer.name = "the_layer"
    if built:
        layer(zeros(*built))
    with pytest.raises(ValueError, match=f"^{type(layer).__name__} 'the_layer': .*{expected}"):
        layer(zeros(*shape))


@pytest.mark.parametrize("layer", [Dense(2), Conv2D(2, 3), BatchNorm(), Flatten(), Dropout(0.5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_input_that_is_not_floating_is_refused(layer, dtype):
    name = type(layer).__name__
    expected = rf"{name}.*: expects float32.* input, got {np.dtype(dtype)}; .*astype"
    with pytest.raises(TypeError, match=expected):
        layer(zeros(2, 8, 8, 1, dtype=dtype))


@pytest.mark.parametrize("layer", [Dense(2), Conv2D(2, 3), BatchNorm()])
def test_float64_input_to_a_float32_layer_is_refused(layer):
    layer(zeros(2, 8, 8, 1))
    with pytest.raises(TypeError, match=r"expects float32 input, got float64; .*\.astype\("):
        layer(zeros(2, 8, 8, 1, dtype=np.float64))


def test_errors_keep_the_name_of_each_model_around():
    model = Sequential([Sequential([Dense(2, name="inner")])], input_shape=(3,))
    with pytest.raises(ValueError, match=r"Dense 'inner': expects input \(..., 3\), got \(1, 4\)"):
        model(zeros(1, 4))


@pytest.mark.parametrize("number", [0, -1, 2.5, "10"])
def test_layers_of_no_units_are_refused(number):
    with pytest.raises(ValueError, match=f"units must be an integer >= 1, got {number!r}"):
        Dense(number)
    with pytest.raises(ValueError, match=f"filters must be an integer >= 1, got {number!r}"):
        Conv2D(number, 3)


@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation"])
@pytest.mark.parametrize("value", [0, -1, (1, 0), (1, 2, 3), (), "3", (2.0, 2)])
def test_windows_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1 or two of them, got"):
        Conv2D(2, **{"kernel_size": 3, name: value})


def test_windows_that_are_no_integers_are_refused_by_name():
    with pytest.raises((TypeError, ValueError), match="kernel_size must be an integer"):
        Conv2D(2, 3.0)


def test_windows_may_be_integers_of_numpy():
    size = np.int64(3)
    assert Conv2D(2, size, padding="same")(zeros(1, 4, 4, 1)).shape == (1, 4, 4, 2)
    assert Conv2D(2, (size, size))(zeros(1, 4, 4, 1)).shape == (1, 2, 2, 2)


@pytest.mark.parametrize("make", [MaxPool, AvgPool])
@pytest.mark.parametrize("value", [0, -2, (2, 0), (1, 2, 3)])
def test_pooling_windows_out_of_range_are_refused_by_name(make, value):
    with pytest.raises(ValueError, match="pool_size must be an integer >= 1"):
        make(value)
    with pytest.raises(ValueError, match="strides must be an integer >= 1"):
        make(2, value)


@pytest.mark.parametrize(
    "padding",
    [
        *("SAME", "full", "", "va", -1, 1.5, None, (1,), (1, 2, 3), (1, -1), (-1, 1)),
        *(((1, 2), (3,)), ((-1, 2), (0, 0)), ((1, -2), (0, 0)), ((0, 0), (-1, 2))),
    ],
)
@pytest.mark.parametrize("make", [lambda p: Conv2D(2, 3, padding=p), lambda p: MaxPool(padding=p)])
def test_unknown_paddings_are_refused_with_the_known_ones(make, padding):
    with pytest.raises(ValueError, match='padding must be "valid", "same", an integer >= 0'):
        make(padding)


@pytest.mark.parametrize("make", [Dense, lambda n, a: Conv2D(n, 3, activation=a)])
def test_unknown_activations_are_refused_with_the_known_ones(make):
    with pytest.raises(ValueError, match="unknown activation 'rleu'; known: relu, leaky_relu"):
        make(2, "rleu")


@pytest.mark.parametrize("name", ["kernel_initializer", "bias_initializer"])
def test_unknown_initializers_are_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match="unknown initializer 'he'; known: zeros, ones"):
        Sequential([Dense(2, **{name: "he"})], input_shape=(3,))


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_dropout_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match="Dropout expects a rate from 0 to 1, 1 excluded"):
        Dropout(rate)


def test_batch_norm_settings_out_of_range_are_refused():
    for momentum in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="BatchNorm expects momentum from 0 to 1"):
            BatchNorm(momentum)
    for eps in (0, -1e-3, float("nan")):
        with pytest.raises(ValueError, match="BatchNorm expects eps > 0"):
            BatchNorm(eps=eps)


def test_a_module_without_forward_says_so():
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty defines no forward\(\)"):
        Empty()(1)


# State


def changed(state):
    return {name: array + 1 for name, array in state.items()}


def test_state_goes_round():
    model, other = small_cnn(input_shape=(8, 8, 1)), small_cnn(input_shape=(8, 8, 1))
    x = numbers((4, 8, 8, 1), 0).astype(np.float32)
    model(x)  # running statistics are state too
    other.load_state_dict(model.state_dict())
    assert_array_equal(model.eval()(x).data, other.eval()(x).data)


def test_state_is_a_copy():
    model = small_cnn(input_shape=(8, 8, 1))
    state = model.state_dict()
    before = model.state_dict()
    for array in state.values():
        array += 1
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])


def test_loaded_state_is_a_copy_too_and_parameters_keep_their_arrays():
    model = Sequential([Dense(2)], input_shape=(3,))
    array = model.parameters()[0].data
    state = changed(model.state_dict())
    model.load_state_dict(state)
    assert model.parameters()[0].data is array
    assert_array_equal(array, state["dense.weight"])
    state["dense.weight"] += 1
    assert (array != state["dense.weight"]).all()


def test_loading_keeps_the_dtype():
    model = Sequential([Dense(2)], input_shape=(3,))
    model.load_state_dict({name: a.astype(np.float64) for name, a in model.state_dict().items()})
    assert {parameter.dtype for parameter in model.parameters()} == {np.dtype(np.float32)}


def test_loading_names_every_entry_that_does_not_fit_and_changes_nothing():
    model = small_cnn(input_shape=(8, 8, 1))
    before = model.state_dict()
    state = changed(before)
    del state["conv2d.bias"], state["batch_norm.running_mean"]
    state["old.weight"] = state["older"] = np.zeros(2)
    state["dense.weight"] = np.zeros((2, 2))
    state["dense.bias"] = np.zeros((3, 1))
    with pytest.raises(ValueError, match="state does not fit Sequential") as error:
        model.load_state_dict(state)
    for part in (
        "missing 'conv2d.bias'",
        "missing 'batch_norm.running_mean'",
        "unknown 'old.weight'",
        "unknown 'older'",
        "'dense.weight' expects shape (18, 3), got (2, 2)",
        "'dense.bias' expects shape (3,), got (3, 1)",
    ):
        assert part in str(error.value)
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])


def test_loading_changes_nothing_when_a_value_is_no_number():
    model = Sequential([Dense(2)], input_shape=(3,))
    before = model.state_dict()
    state = changed(before) | {"dense.bias": np.array(["a", "b"])}
    with pytest.raises((TypeError, ValueError)):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])


# Modules of one's own


class Tower(Module):
    """Parameters and modules in attributes, lists, tuples and dicts; one layer twice."""

    def __init__(self):
        self.scale = Parameter(np.ones(1, np.float32))
        self.table = {"mean": Buffer(np.zeros(2, np.float32)), "head": Dense(2)}
        self.blocks = [Dense(3), (Dense(3), Sequential([Dense(3)]))]
        self.again = self.blocks[0]
        self.constant = Tensor(np.ones(5))
        self.width = 3

    def forward(self, x):
        first, (second, third) = self.blocks
        return self.table["head"](self.again(third(second(first(x))))) * self.scale


def tower():
    module = Tower()
    module(zeros(2, 3))
    return module


def test_what_attributes_hold_is_found_and_what_is_shared_is_found_once():
    assert list(tower().state_dict()) == [
        "scale",
        "table.mean",
        "table.head.weight",
        "table.head.bias",
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.0.weight",
        "blocks.1.0.bias",
        "blocks.1.1.dense.weight",
        "blocks.1.1.dense.bias",
    ]
    assert len(tower().parameters()) == 9
    assert [name for name, _ in tower().named_buffers()] == ["table.mean"]


def test_modules_are_walked_each_once():
    module = tower()
    modules = list(module.modules())
    assert modules[0] is module
    assert len(modules) == len({id(m) for m in modules}) == 6


def test_modules_that_hold_each_other_are_walked_each_once():
    class Knot(Module):
        def __init__(self):
            self.weight = Parameter(np.ones(2))
            self.other = None

    one, two = Knot(), Knot()
    one.other, two.other = two, one
    assert list(one.state_dict()) == ["weight", "other.weight"]
    assert one.eval().training is two.training is False


def test_train_and_eval_reach_every_module_inside():
    module = tower()
    assert module.eval() is module
    assert not any(m.training for m in module.modules())
    assert module.train() is module
    assert all(m.training for m in module.modules())
    module.train(False)
    assert not any(m.training for m in module.modules())


def test_zero_grad_forgets_the_gradients_of_all_parameters():
    module = tower()
    module(np.ones((2, 3), np.float32)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_layer_of_ones_own_makes_its_parameters_in_build():
    class Scale(Layer):
        def build(self, x):
            self.factor = new_parameter("ones", x.shape[1:], 1, 1, like=x)

        def forward(self, x):
            if x.shape[1:] != self.factor.shape:
                raise ValueError(f"expects {self.factor.shape}, got {x.shape[1:]}")
            return x * self.factor

    layer = Scale("double")
    with pytest.raises(RuntimeError, match="Scale 'double' has no parameters yet"):
        layer.parameters()
    assert_array_equal(layer(np.full((2, 3), 5.0)).data, np.full((2, 3), 5.0))
    assert layer.factor.dtype == np.float64
    with pytest.raises(ValueError, match=r"^Scale 'double': expects \(3,\), got \(4,\)"):
        layer(np.ones((2, 4)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, "float64"])
def test_astype_converts_parameters_and_buffers(dtype):
    model = small_cnn(input_shape=(8, 8, 1))
    model(zeros(2, 8, 8, 1)).sum().backward()
    assert model.astype(dtype) is model
    assert {array.dtype for array in model.state_dict().values()} == {np.dtype(dtype)}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model(zeros(2, 8, 8, 1, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [np.int64, np.float16, bool])
def test_astype_refuses_what_is_neither_float32_nor_float64(dtype):
    model = Sequential([Dense(2)], input_shape=(3,))
    with pytest.raises((TypeError, ValueError), match="float32"):
        model.astype(dtype)
    assert model.parameters()[0].dtype == np.float32


def test_to_the_cpu_changes_nothing_there_but_lets_gradients_go():
    model = small_cnn(input_shape=(8, 8, 1))
    model(zeros(2, 8, 8, 1)).sum().backward()
    before = model.state_dict()
    assert model.to("cpu") is model
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="'cpu', 'gpu' or 'auto', got 'cuda'"):
        model.to("cuda")


# Dense and activations


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", minidl.relu),
        ("leaky_relu", minidl.leaky_relu),
        ("sigmoid", minidl.sigmoid),
        ("tanh", minidl.tanh),
        ("softmax", minidl.softmax),
        ("log_softmax", minidl.log_softmax),
        ("linear", lambda x: x),
        (None, lambda x: x),
        (minidl.abs, minidl.abs),
        (LeakyReLU(0.5), LeakyReLU(0.5)),
    ],
)
def test_activations_are_functions_of_the_linear_output(activation, function):
    for layer, x in (
        (Dense(3, activation), numbers((4, 5), 0)),
        (Conv2D(3, 2, activation=activation), numbers((2, 4, 4, 2), 0)),
    ):
        out = layer(x)
        layer.activation = None
        assert_array_equal(out.data, function(layer(x)).data)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (ReLU(), [0, 0, 2]),
        (LeakyReLU(), [-0.01, 0, 2]),
        (LeakyReLU(0.5), [-0.5, 0, 2]),
        (Sigmoid(), [0.2689414213699951, 0.5, 0.8807970779778823]),
        (Tanh(), [-0.7615941559557649, 0, 0.9640275800758169]),
        (Softmax(), [0.04201006613406605, 0.11419519938459449, 0.8437947344813395]),
        (Softmax(axis=0), [1, 1, 1]),
    ],
)
def test_activation_layers(layer, expected):
    out = layer(np.array([[-1.0, 0.0, 2.0]]))
    assert_allclose(out.data, [expected], rtol=4 * 2.0**-52)  # a few roundings, in float64


def test_dense_by_hand():
    layer = Dense(2)
    layer(zeros(1, 3))
    layer.load_state_dict({"weight": [[1, 2], [3, 4], [5, 6]], "bias": [10, 20]})
    x = np.array([[1, 0, 0], [0, 1, 1]], np.float32)
    assert layer(x).data.tolist() == [[11, 22], [18, 30]]
    assert layer(x[None]).data.tolist() == [[[11, 22], [18, 30]]]


def assert_as_pytorch(group, name, out, tensors):
    """Value and gradients against those in the reference file."""
    expected = cases.case(group, name)
    assert set(expected) == {"out", *tensors}
    out.backward(numbers(out.shape, 99))
    assert_allclose(out.data, expected["out"], rtol=0, atol=PYTORCH_TOLERANCE)
    for key, tensor in tensors.items():
        assert_allclose(tensor.grad, expected[key], rtol=0, atol=PYTORCH_TOLERANCE)


def variable(shape, seed):
    return Tensor(numbers(shape, seed), requires_grad=True)


def test_dense_is_that_of_pytorch():
    x, layer = variable((2, 3, 4), 1), Dense(5)
    layer(x)
    layer.load_state_dict({"weight": numbers((4, 5), 2), "bias": numbers((5,), 3)})
    tensors = {"x": x, "weight": layer.weight, "bias": layer.bias}
    assert_as_pytorch("dense", "plain", layer(x), tensors)


# Convolution


@pytest.mark.parametrize("name", cases.CONVOLUTIONS)
def test_convolutions_are_those_of_pytorch(name):
    case = cases.CONVOLUTIONS[name]
    size, filters = case["weight"][:2], case["weight"][3]
    more = {key: value for key, value in case.items() if key not in ("x", "weight")}
    x, layer = variable(case["x"], 1), Conv2D(filters, size, **more)
    layer(x)
    layer.load_state_dict({"weight": numbers(case["weight"], 2), "bias": numbers((filters,), 3)})
    tensors = {"x": x, "weight": layer.weight, "bias": layer.bias}
    assert_as_pytorch("conv2d", name, layer(x), tensors)


def ones_filter(size, **arguments):
    """A convolution that adds up what it sees."""
    return Conv2D(1, size, use_bias=False, kernel_initializer="ones", **arguments)


def test_same_with_an_even_filter_pads_on_the_right_first():
    out = ones_filter((1, 2), padding="same")(row(1, 2, 3, 4))
    assert out.data.ravel().tolist() == [3, 5, 7, 4]
    out = ones_filter((1, 4), padding="same")(row(1, 2, 3, 4))
    assert out.data.ravel().tolist() == [6, 10, 9, 7]


def test_same_with_an_even_filter_pads_below_first():
    x = row(1, 2, 3).reshape(1, 3, 1, 1)
    assert ones_filter((2, 1), padding="same")(x).data.ravel().tolist() == [3, 5, 3]


def test_same_with_strides_places_the_filter_as_keras_does():
    # an even length, stride 2, three taps: one zero, on the right
    out = ones_filter((1, 3), strides=(1, 2), padding="same")(row(1, 2, 3, 4, 5, 6))
    assert out.data.ravel().tolist() == [6, 12, 11]
    # an odd length: one zero on each side
    out = ones_filter((1, 3), strides=(1, 2), padding="same")(row(1, 2, 3, 4, 5))
    assert out.data.ravel().tolist() == [3, 9, 9]
    # a stride beyond the filter: no zeros
    out = ones_filter((1, 1), strides=(1, 3), padding="same")(row(1, 2, 3, 4, 5))
    assert out.data.ravel().tolist() == [1, 4]


def test_same_with_dilation_pads_for_the_whole_span():
    out = ones_filter((1, 2), dilation=(1, 3), padding="same")(row(1, 2, 3, 4))
    # a span of four pixels: one zero on the left, two on the right
    assert out.data.ravel().tolist() == [0 + 3, 1 + 4, 2 + 0, 3 + 0]


def test_a_convolution_is_a_cross_correlation():
    layer = Conv2D(1, (1, 3), use_bias=False)
    layer(row(0, 0, 0))
    layer.load_state_dict({"weight": np.array([1, 10, 100]).reshape(1, 3, 1, 1)})
    assert layer(row(1, 2, 3, 4)).data.ravel().tolist() == [321, 432]


@pytest.mark.parametrize("pooling", [[], [MaxPool(2)]])
def test_the_images_of_the_first_convolution_get_no_gradient(monkeypatch, pooling):
    compute = convolution.conv2d_gradients
    gradients = []

    def watched(*arguments, **options):
        gradients.append(compute(*arguments, **options))
        return gradients[-1]

    monkeypatch.setattr(convolution, "conv2d_gradients", watched)
    model = Sequential(
        [Conv2D(2, 3), *pooling, Conv2D(2, 1), Flatten(), Dense(2)], input_shape=(5, 5, 1)
    )
    model(np.ones((2, 5, 5, 1), np.float32)).sum().backward()
    second, first = gradients
    assert first[0] is None
    assert all(gradient is not None for gradient in (*first[1:], *second))
    assert model[0].weight.grad.shape == (3, 3, 1, 2)


# Convolution and pooling in one go


def eighths_of(layer):
    """Set a convolution's parameters to multiples of 1/8, of which float32 loses nothing."""
    layer.weight.data = eighths(layer.weight.shape, 1).astype(layer.weight.dtype)
    if layer.bias is not None:
        layer.bias.data = eighths(layer.bias.shape, 2).astype(layer.bias.dtype)


def one_by_one(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def results(forward, layers, images):
    """Output, gradients of images and parameters, and output shapes."""
    x = Tensor(images, requires_grad=True)
    out = forward(x)
    for layer in layers:
        layer.zero_grad()
    out.backward(eighths(out.shape, 3).astype(out.dtype))
    gradients = [p.grad for layer in layers for p in layer.parameters()]
    return [out.data, x.grad, *gradients], [layer.output_shape for layer in layers]


PAIRS = [
    (Conv2D(3, 3, padding="same", activation="relu"), MaxPool(2), (6, 8, 1)),
    (Conv2D(3, 3, activation="relu"), MaxPool(2), (7, 8, 2)),  # a row is left over
    (Conv2D(3, 3), MaxPool((1, 2)), (7, 8, 2)),
    (Conv2D(2, (2, 3), strides=(2, 1), use_bias=False), MaxPool((3, 2)), (15, 8, 3)),
    (Conv2D(2, 3, padding=1, dilation=2, activation="relu"), MaxPool(2), (8, 9, 20)),
    (Conv2D(4, 1, activation="relu"), MaxPool(3), (6, 7, 5)),
    (Conv2D(4, 2, activation="linear"), MaxPool(2, padding=0), (6, 7, 1)),
    (Conv2D(4, 2, activation="relu"), MaxPool(4, strides=4), (17, 17, 1)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("conv", "pool", "shape"), PAIRS)
def test_convolution_and_pooling_in_a_model_are_what_they_are_one_by_one(conv, pool, shape, dtype):
    layers = copy.deepcopy([conv, pool])
    model = Sequential(layers, input_shape=shape).astype(dtype)
    images = eighths((3, *shape), 0).astype(dtype)
    eighths_of(layers[0])
    expected, shapes = results(lambda x: one_by_one(layers, x), layers, images)
    found, found_shapes = results(model, layers, images)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert_array_equal(one, other)
    assert found_shapes == shapes
    # and of any numbers: bias and max(x, 0) after pooling, not before, round nothing differently,
    # but products are added up in another order
    images = numbers((3, *shape), 0).astype(dtype)
    layers[0].weight.data = numbers(layers[0].weight.shape, 1).astype(dtype) / 8
    expected, _ = results(lambda x: one_by_one(layers, x), layers, images)
    found, _ = results(model, layers, images)
    scale = max(np.abs(array).max() for array in expected)
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, rtol=0, atol=scale * (1e-6 if dtype == np.float32 else 1e-14))


class OwnConv2D(Conv2D):
    """A layer of the user's, which may do more."""


class OwnMaxPool(MaxPool):
    """Likewise."""


TOGETHER = [(Conv2D(2, 3), MaxPool(2)), (Conv2D(2, 3, activation="relu"), MaxPool((3, 1)))]
APART = [
    (OwnConv2D(2, 3), MaxPool(2)),
    (Conv2D(2, 3), OwnMaxPool(2)),
    (Conv2D(2, 3, activation="tanh"), MaxPool(2)),
    (Conv2D(2, 3, activation=lambda x: x * 2), MaxPool(2)),
    (Conv2D(2, 3), MaxPool(3, strides=2)),
    (Conv2D(2, 3), MaxPool(2, strides=3)),
    (Conv2D(2, 3), MaxPool(2, strides=(2, 1))),
    (Conv2D(2, 3), MaxPool(2, padding="same")),
    (Conv2D(2, 3), MaxPool(2, padding=((1, 0), (0, 0)))),
    (Conv2D(2, 3), AvgPool(2)),
    (Conv2D(2, 3), ReLU()),
]


@pytest.mark.parametrize(
    ("conv", "pool", "together"), [(*p, True) for p in TOGETHER] + [(*p, False) for p in APART]
)
def test_only_what_one_operation_can_do_is_done_in_one_go(monkeypatch, conv, pool, together):
    pooled = []
    compute = convolution.conv2d

    def watched(x, weight, bias, how, *more):
        pooled.append(how.pool != (1, 1))
        return compute(x, weight, bias, how, *more)

    monkeypatch.setattr(convolution, "conv2d", watched)
    layers = copy.deepcopy([conv, pool])
    model = Sequential(layers, input_shape=(9, 10, 2))
    eighths_of(layers[0])
    images = eighths((2, 9, 10, 2), 0).astype(np.float32)
    expected, shapes = results(lambda x: one_by_one(layers, x), layers, images)
    pooled.clear()
    found, found_shapes = results(model, layers, images)
    assert pooled == [together]
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)
    assert found_shapes == shapes


def test_a_convolution_that_several_layers_follow_is_done_with_the_first():
    layers = [Conv2D(2, 2), Conv2D(3, 2, activation="relu"), MaxPool(2), MaxPool(2), Conv2D(1, 1)]
    model = Sequential(layers, input_shape=(12, 13, 1))
    for layer in (layers[0], layers[1], layers[4]):
        eighths_of(layer)
    images = eighths((2, 12, 13, 1), 0).astype(np.float32)
    expected, shapes = results(lambda x: one_by_one(layers, x), layers, images)
    found, found_shapes = results(model, layers, images)
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)
    assert (
        found_shapes
        == shapes
        == [
            (None, 11, 12, 2),
            (None, 10, 11, 3),
            (None, 5, 5, 3),
            (None, 2, 2, 3),
            (None, 2, 2, 1),
        ]
    )


def test_the_output_shapes_of_both_follow_the_images():
    layers = [Conv2D(2, 3), MaxPool(2)]
    model = Sequential(layers, input_shape=(8, 8, 1))
    for shape in [(1, 10, 13, 1), (2, 4, 5, 1)]:
        one_by_one(layers, zeros(1, 20, 20, 1))
        model(zeros(*shape))
        rows, columns = shape[1] - 2, shape[2] - 2
        assert layers[0].output_shape == (None, rows, columns, 2)
        assert layers[1].output_shape == (None, rows // 2, columns // 2, 2)


def test_the_first_batch_gives_what_later_ones_give():
    minidl.seed(0)
    model = Sequential([Conv2D(2, 3, activation="relu"), MaxPool(2)])
    images = eighths((2, 8, 8, 1), 0).astype(np.float32)
    first = model(images).data  # makes the parameters
    assert_allclose(model(images).data, first, rtol=1e-6)


def test_pooling_in_one_go_takes_windows_of_any_size():
    layers = [Conv2D(2, 1), MaxPool(16)]
    model = Sequential(layers, input_shape=(33, 32, 1))
    images = eighths((2, 33, 32, 1), 0).astype(np.float32)
    assert_array_equal(model(images).data, one_by_one(layers, images).data)


@pytest.mark.parametrize("built", [False, True])
def test_images_too_small_for_the_pooling_are_refused_by_name(built):
    model = Sequential([Conv2D(2, 3), MaxPool(2)], input_shape=(8, 8, 1) if built else None)
    with pytest.raises(ValueError, match=r"(?i)pool.*2.*does not fit on.*1.*1|2x2.*not fit.*1x1"):
        model(zeros(1, 3, 3, 1))
    with pytest.raises(ValueError, match=r"Conv2D 'conv2d': a window that spans 3x3 pixels"):
        model(zeros(1, 2, 2, 1))


def test_images_too_small_for_the_pooling_name_the_pooling_layer():
    model = Sequential([Conv2D(2, 3), MaxPool(2, name="halves")], input_shape=(8, 8, 1))
    with pytest.raises(ValueError, match="halves"):
        model(zeros(1, 3, 3, 1))


def test_the_summary_is_the_same_before_and_after_a_batch_in_one_go(capsys):
    layers = [Conv2D(2, 3, padding="same"), MaxPool(2), Flatten()]
    model = Sequential(layers, input_shape=(9, 8, 1))
    one_by_one(layers, zeros(1, 9, 8, 1))
    model.summary()
    expected = capsys.readouterr().out
    model(zeros(2, 9, 8, 1))
    model.summary()
    assert capsys.readouterr().out == expected
    for shape in ("(None, 9, 8, 2)", "(None, 4, 4, 2)", "(None, 32)"):
        assert shape in expected


def test_a_frozen_convolution_passes_gradients_on_in_one_go():
    layers = [Conv2D(2, 1), Conv2D(3, 3, activation="relu"), MaxPool(2)]
    model = Sequential(layers, input_shape=(7, 8, 1))
    for layer in layers[:2]:
        eighths_of(layer)
    for p in layers[1].parameters():
        p.requires_grad = False
    images = eighths((2, 7, 8, 1), 0).astype(np.float32)
    expected, _ = results(lambda x: one_by_one(layers, x), layers, images)
    found, _ = results(model, layers, images)
    assert [array is None for array in found] == [False] * 4 + [True] * 2
    for one, other in zip(found[:4], expected[:4], strict=True):
        assert_array_equal(one, other)


# Pooling


@pytest.mark.parametrize("name", cases.POOLINGS)
@pytest.mark.parametrize(("kind", "group"), [(MaxPool, "max_pool"), (AvgPool, "avg_pool")])
def test_poolings_are_those_of_pytorch(kind, group, name):
    case = cases.POOLINGS[name]
    x = Tensor(cases.images(case["x"], 4), requires_grad=True)
    out = kind(case["pool_size"], case["strides"], case["padding"])(x)
    assert_as_pytorch(group, name, out, {"x": x})


def test_max_pool_leaves_out_what_does_not_fill_a_window():
    x = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    assert MaxPool()(x).data[0, :, :, 0].tolist() == [[6, 8], [16, 18]]
    assert MaxPool(padding="same")(x).data[0, :, :, 0].tolist() == [
        [6, 8, 9],
        [16, 18, 19],
        [21, 23, 24],
    ]


def test_max_pool_windows_may_overlap():
    x = Tensor(row(3, 1, 2, 5, 4), requires_grad=True)
    out = MaxPool((1, 3), strides=1)(x)
    assert out.data.ravel().tolist() == [3, 5, 5]
    out.backward(row(1, 10, 100))
    assert x.grad.ravel().tolist() == [1, 0, 0, 110, 0]


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
def test_padding_never_wins_and_never_counts(kind):
    x = np.full((1, 3, 3, 1), -5, np.float32)
    assert (kind(2, padding="same")(x).data == -5).all()
    assert (kind(2, padding=1)(x).data == -5).all()


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
def test_oblong_windows_may_be_padded_along_their_long_side(kind):
    x = np.full((1, 4, 6, 1), 5, np.float32)
    out = kind((1, 3), strides=1, padding="same")(x)
    assert_array_equal(out.data, x)


def test_global_average_by_hand():
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    assert GlobalAvgPool()(x).data.tolist() == [[5, 6]]


# Dropout


def test_dropout_of_nothing_and_dropout_in_evaluation_return_their_input():
    x = Tensor(np.ones((3, 4), np.float32))
    assert Dropout(0)(x) is x
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_keeps_its_share_and_scales_it(rate, dtype):
    x = Tensor(numbers((100, 1000), 0).astype(dtype) + 3, requires_grad=True)
    out = Dropout(rate, generator=Generator(0))(x)
    kept = out.data != 0
    # 100,000 draws: five deviations of sqrt(rate * (1 - rate) / 1e5)
    assert kept.mean() == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / 1e5) ** 0.5)
    # rates are rounded to multiples of 2**-16, half of one off at most
    assert_allclose(out.data[kept], x.data[kept] / (1 - rate), rtol=2.0**-17 / (1 - rate) + 1e-7)
    assert out.dtype == dtype
    out.sum().backward()
    assert_array_equal(x.grad != 0, kept)
    assert x.grad.dtype == dtype
    assert len(np.unique(x.grad)) == 2


def test_dropout_is_repeated_by_the_seed():
    x, layer = np.ones((10, 10), np.float32), Dropout(0.5)
    minidl.seed(3)
    first, second = layer(x).data, layer(x).data
    assert (first != second).any()
    minidl.seed(3)
    assert_array_equal(layer(x).data, first)
    assert_array_equal(Dropout(0.5)(x).data, second)


def test_dropout_with_a_generator_of_its_own_takes_no_notice_of_the_default():
    x = np.ones((10, 10), np.float32)
    outs = []
    for seed in (1, 2):
        minidl.seed(seed)
        outs.append(Dropout(0.5, generator=Generator(7))(x).data)
    assert_array_equal(*outs)
    minidl.seed(1)
    before = Dropout(0.5)(x).data
    minidl.seed(1)
    Dropout(0.5, generator=Generator(7))(x)
    assert_array_equal(Dropout(0.5)(x).data, before)
    assert (Dropout(0.5, generator=Generator(8))(x).data != outs[0]).any()


def test_dropout_leaves_its_input_as_it_was():
    x = np.ones((10, 10), np.float32)
    Dropout(0.5)(x)
    assert_array_equal(x, np.ones((10, 10)))


# Batch normalisation


def batch_norm_for(x, **arguments):
    layer = BatchNorm(eps=1e-3, **arguments)
    layer.eval()(x)
    return layer.train()


@pytest.mark.parametrize("name", ["train", "eval"])
def test_batch_norm_is_that_of_pytorch(name):
    x = variable((4, 3, 2, 3), 1)
    layer = batch_norm_for(x)
    state = {"gamma": numbers((3,), 2), "beta": numbers((3,), 3)}
    state |= {"running_mean": numbers((3,), 4), "running_variance": numbers((3,), 5) + 2.5}
    layer.load_state_dict(state)
    layer.train(name == "train")
    tensors = {"x": x, "gamma": layer.gamma, "beta": layer.beta}
    assert_as_pytorch("batch_norm", name, layer(x), tensors)


@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 3), (2, 4, 5, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_in_training_gives_mean_0_and_variance_1(shape, dtype):
    x = (numbers(shape, 0) * 5 + 7).astype(dtype)
    layer = BatchNorm(eps=1e-9)
    out = layer(x).data.reshape(-1, 3)
    assert out.dtype == dtype
    # a dozen roundings of numbers of about 10, in units of a deviation of about 5
    tolerance = 20 * np.finfo(dtype).eps
    assert_allclose(out.mean(axis=0), 0, rtol=0, atol=tolerance)
    assert_allclose(out.var(axis=0), 1, rtol=0, atol=tolerance + 1e-9)


def test_running_statistics_are_those_of_keras():
    x = np.array([[1, 10], [3, 10]], np.float64)
    layer = BatchNorm()
    layer(x)
    # momentum 0.99 from mean 0 and variance 1, with the biased variances 1 and 0 of the batch
    assert_allclose(layer.running_mean.data, [0.01 * 2, 0.01 * 10], rtol=1e-15)
    assert_allclose(layer.running_variance.data, [0.99 + 0.01 * 1, 0.99], rtol=1e-15)
    layer(x)
    assert_allclose(layer.running_mean.data, [0.0398, 0.199], rtol=1e-15)


def test_a_momentum_of_ones_own():
    layer = BatchNorm(momentum=0.5)
    layer(np.array([[2.0], [4.0]]))
    assert layer.running_mean.data.tolist() == [1.5]
    assert layer.running_variance.data.tolist() == [1.0]


def test_batch_norm_in_evaluation_uses_running_statistics_and_leaves_them():
    layer = batch_norm_for(zeros(1, 2))
    layer.load_state_dict(
        {"gamma": [2, 1], "beta": [1, 0], "running_mean": [1, 5], "running_variance": [0.999, 0]}
    )
    before = layer.state_dict()
    out = layer.eval()(np.array([[4, 5]], np.float32))
    assert_allclose(out.data, [[7, 0]], rtol=4 * 2.0**-23)  # a few roundings
    for name, array in layer.state_dict().items():
        assert_array_equal(array, before[name])


def test_running_statistics_are_no_parameters_and_get_no_gradient():
    layer = BatchNorm()
    layer(numbers((4, 2), 0)).sum().backward()
    assert [name for name, _ in layer.named_parameters()] == ["gamma", "beta"]
    assert layer.running_mean.grad is None
    assert not layer.running_variance.requires_grad


def test_float32_statistics_stay_float32():
    layer = BatchNorm(momentum=np.float64(0.9), eps=np.float64(1e-3))
    out = layer(numbers((4, 2), 0).astype(np.float32))
    assert out.dtype == layer.running_mean.dtype == layer.running_variance.dtype == np.float32
    assert layer.eval()(zeros(1, 2)).dtype == np.float32


@pytest.mark.parametrize(
    "make",
    [LeakyReLU, Dropout, lambda share: BatchNorm(share, share)],
    ids=["leaky", "drop", "norm"],
)
def test_numbers_of_numpy_compute_what_pythons_do(make):
    x = numbers((4, 2), 0).astype(np.float32)
    for training in (True, False):
        minidl.seed(0)
        expected = make(0.3).train(training)(x).data
        minidl.seed(0)
        out = make(np.float64(0.3)).train(training)(x).data
        assert out.dtype == np.float32
        assert_array_equal(out, expected)


# Arguments that look right


def test_an_activation_class_is_told_from_an_activation():
    with pytest.raises(TypeError, match=r"activation=ReLU is a class; write ReLU\(\)"):
        Dense(3, activation=ReLU)


@pytest.mark.parametrize("layer", [Dense, lambda n, **kw: Conv2D(n, 3, **kw)])
def test_an_unknown_initializer_is_refused_at_once(layer):
    with pytest.raises(ValueError, match="unknown initializer 'golrot'; known: "):
        layer(3, kernel_initializer="golrot")


@pytest.mark.parametrize(
    ("layer", "shape"), [(Dense(3), (2, 0)), (Conv2D(3, 1), (2, 4, 4, 0)), (BatchNorm(), (2, 0))]
)
def test_inputs_without_features_are_refused(layer, shape):
    with pytest.raises(ValueError, match="would need a parameter of shape"):
        layer(np.zeros(shape, np.float32))


def test_padding_may_be_an_array_of_two():
    assert Conv2D(3, 3, padding=np.array([1, 2])).padding == ((1, 1), (2, 2))


def test_the_summary_counts_what_a_module_holds_itself(capsys):
    layer = Dense(4, activation=ReLU())
    layer(np.zeros((1, 5), np.float32))
    layer.summary()
    table = capsys.readouterr().out
    assert re.search(r"activation \(ReLU\).* 0 ", table)
    assert re.search(r"dense \(Dense\).* 24 ", table)


def test_the_summary_counts_frozen_parameters_as_not_trainable(capsys):
    model = Sequential([Dense(4), Dense(2)], input_shape=(3,))
    for parameter in model.layers[0].parameters():
        parameter.requires_grad = False
    model.summary()
    table = capsys.readouterr().out
    assert " Trainable params: 10 " in table
    assert "Non-trainable params: 16 " in table


def test_values_that_are_not_real_numbers_are_not_loaded():
    model = Sequential([Dense(2)], input_shape=(3,))
    state = model.state_dict() | {"dense.bias": np.array([1j, 2])}
    with pytest.raises(ValueError, match=r"'dense\.bias' expects real numbers, got complex128"):
        model.load_state_dict(state)


@pytest.mark.parametrize("shape", [(None, 10), (784.0,), (-1,), (0, 3)])
def test_lengths_of_input_shape_are_checked(shape):
    with pytest.raises(ValueError, match="each length of input_shape must be an integer >= 1"):
        Sequential([Dense(3)], input_shape=shape)


def test_a_slice_of_a_model_is_a_model_that_shares_its_layers():
    model = Sequential([Dense(4), ReLU(), Dense(2)], input_shape=(3,))
    features = model[:2]
    assert isinstance(features, Sequential)
    assert features[0] is model[0]
    assert features(np.zeros((1, 3), np.float32)).shape == (1, 4)


def test_parameters_are_told_by_their_class_alone():
    class Scale(Module):
        def __init__(self):
            self.factor = Parameter(np.ones(3, np.float32))
            self.cached = Tensor(np.ones(3, np.float32), requires_grad=True)

    module = Scale()
    module.factor.requires_grad = False  # frozen, and still part of the state
    assert list(module.state_dict()) == ["factor"]


def test_pooling_names_itself_and_the_missing_channel_axis():
    with pytest.raises(ValueError, match=r"MaxPool: expects images .* x\[\.\.\., None\]"):
        MaxPool()(np.zeros((2, 4, 4), np.float32))


def test_layers_that_join_later_have_names_of_their_own():
    model = Sequential([Flatten()], input_shape=(2, 2))
    model.layers += [Dense(4), Dense(3)]
    x = np.ones((1, 2, 2), np.float32)
    expected = model(x).numpy().copy()
    names = ["dense.weight", "dense.bias", "dense_1.weight", "dense_1.bias"]
    assert list(model.state_dict()) == names
    state = model.state_dict()
    for parameter in model.parameters():
        parameter.data[...] = 7
    model.load_state_dict(state)
    np.testing.assert_array_equal(model(x).numpy(), expected)


def test_two_tensors_of_one_name_are_refused():
    class Both(Module):
        def __init__(self):
            self.b = {1: Parameter(np.zeros(1)), "1": Parameter(np.ones(1))}

    with pytest.raises(ValueError, match=r"two tensors of Both are named 'b\.1'"):
        Both().state_dict()


def test_a_parameter_that_is_there_before_the_first_batch_stays():
    first, second = Dense(3), Dense(3)
    x = np.ones((1, 3), np.float32)
    first(x)
    second.weight = first.weight
    np.testing.assert_array_equal(second(x).numpy(), first(x).numpy())
    assert second.weight is first.weight
    assert second.bias is not first.bias
    assert [name for name, _ in Sequential([first, second]).named_parameters()] == [
        "dense.weight",
        "dense.bias",
        "dense_1.bias",
    ]


def test_a_state_of_the_own_memory_is_loaded():
    model = Sequential([Dense(2), Dense(2)], input_shape=(2,))
    a, b = model.layers
    before = a.weight.numpy().copy(), b.weight.numpy().copy()
    state = {"dense.weight": b.weight.data, "dense_1.weight": a.weight.data}
    state |= {"dense.bias": b.bias.data, "dense_1.bias": a.bias.data}
    model.load_state_dict(state)
    np.testing.assert_array_equal(a.weight.numpy(), before[1])
    np.testing.assert_array_equal(b.weight.numpy(), before[0])


def test_nothing_is_loaded_where_an_array_is_read_only():
    model = Sequential([Dense(2), Dense(2)], input_shape=(2,))
    state = {name: np.full_like(values, 5) for name, values in model.state_dict().items()}
    model.layers[1].weight.data.flags.writeable = False
    before = model.layers[0].weight.numpy().copy()
    with pytest.raises(ValueError, match=r"'dense_1\.weight' cannot be changed: .* read-only"):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model.layers[0].weight.numpy(), before)
