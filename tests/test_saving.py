"""Models on disk: what is saved comes back to the last bit, what would be lost or lies is refused.

Files that no `save` wrote are made here byte by byte: the length of a header, the header in JSON
with the model's description inside, and the numbers.
"""

import copy
import functools
import inspect
import json
import re
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from generated import generated
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import numbers

import minidl
from minidl import (
    AvgPool,
    BatchNorm,
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
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    backend,
)
from minidl.layers.activation import ACTIVATIONS
from minidl.layers.module import new_buffer, new_parameter, shapes_only
from minidl.training.description import INSTEAD, LAYERS

IMAGE = 9, 8, 3

# Every layer with arguments that are not its defaults, and the shape of a sample.
LAYER_CASES = [
    (lambda: AvgPool((3, 2), strides=(2, 1), padding="same", name="mean"), IMAGE),
    (lambda: BatchNorm(momentum=0.7, eps=0.01), IMAGE),
    (lambda: BatchNorm(np.float32(0.5), np.float64(0.125), name="norm"), (6,)),
    (
        lambda: Conv2D(
            5,
            (3, 2),
            (2, 1),
            ((1, 0), (2, 1)),
            (1, 2),
            "tanh",
            use_bias=False,
            kernel_initializer="he_normal",
        ),
        IMAGE,
    ),
    (
        lambda: Conv2D(
            4, 2, padding="same", activation=LeakyReLU(0.3), bias_initializer="ones", name="c"
        ),
        IMAGE,
    ),
    (
        lambda: Dense(
            7, "log_softmax", kernel_initializer="pytorch", bias_initializer="pytorch", name="out"
        ),
        (4, 6),
    ),
    (lambda: Dense(np.int64(2), Softmax(axis=1), use_bias=False), (3, 5)),
    (lambda: Dropout(np.float32(0.25), generator=Generator(5), name="drop"), IMAGE),
    (lambda: Flatten(name="flat"), IMAGE),
    (lambda: GlobalAvgPool(name="pooled"), IMAGE),
    (lambda: LeakyReLU(0.2, name="leaky"), IMAGE),
    (lambda: MaxPool((2, 3), strides=1, padding=((1, 0), (0, 1)), name="most"), IMAGE),
    (lambda: ReLU(name="a.b c"), IMAGE),
    (lambda: Sequential([Flatten(), Dense(3), Sequential([Tanh()])]), IMAGE),
    (lambda: Sigmoid(name="s"), (5,)),
    (lambda: Softmax(axis=1, name="soft"), (3, 4)),
    (lambda: Softmax(np.int64(1)), (3, 4)),
    (lambda: Tanh(name="\N{GREEK SMALL LETTER TAU}"), (3, 4)),
]


def is_given(kind, argument):
    """Whether an argument of a layer is left to no default in any case above."""
    parameters = inspect.signature(kind).parameters
    needed = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    for layer in (make() for make, _ in LAYER_CASES):
        if type(layer) is kind:
            plain = kind(**{name: getattr(layer, name) for name in needed})
            if argument in needed or getattr(layer, argument) != getattr(plain, argument):
                return True
    return False


def saved(model, path, **more):
    """The model again, by way of a file."""
    minidl.save(model, path, **more)
    return minidl.load(path)


def made(make, shape, dtype=np.float32):
    """A model of one layer, with a state that no layer begins with."""
    model = Sequential([make()])
    model(numbers((2, *shape), 0).astype(dtype))
    with_values(model)
    return model


def with_values(model):
    for n, (_, t) in enumerate([*model.named_parameters(), *model.named_buffers()]):
        t.data[...] = np.abs(numbers(t.shape, n)) + 0.125
    return model


def assert_same(model, other, x):
    """Assert that two models are the same in all that a file holds."""
    for one, two in zip(model.modules(), other.modules(), strict=True):
        assert type(one) is type(two)
        assert one.name == two.name
        assert one.output_shape == two.output_shape
        for argument in set(inspect.signature(type(one)).parameters) - {"generator", "layers"}:
            before, after = getattr(one, argument), getattr(two, argument)
            assert before == after or isinstance(before, Module), argument
            assert type(after) is type(before) or isinstance(before, np.generic)
    before, after = model.state_dict(), other.state_dict()
    assert list(before) == list(after)
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        assert_array_equal(after[name], array)
    with minidl.no_grad(), model.mode(training=False):
        assert model(x).data.tobytes() == other(x).data.tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


# What is saved comes back


def test_the_table_knows_every_layer():
    kinds, found = [Module], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("minidl.") and not kind.__name__.startswith("_"):
            found.add(kind)
    assert set(LAYERS.values()) == found - {Module, Layer}
    assert {type(make()) for make, _ in LAYER_CASES} == set(LAYERS.values())


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
def test_every_argument_is_tried_with_another_value_than_its_default(kind):
    for argument in inspect.signature(kind).parameters:
        if argument != "input_shape":  # which every model here has
            assert is_given(kind, argument), argument


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("make", "shape"), LAYER_CASES)
def test_every_layer_comes_back(tmp_path, make, shape, dtype):
    model = made(make, shape, dtype)
    other = saved(model, tmp_path / "model")
    assert_same(model, other, numbers((3, *shape), 7).astype(dtype))
    assert other.input_shape == shape
    assert other.class_names is None


@pytest.mark.parametrize("activation", [None, "linear", *ACTIVATIONS])
def test_every_activation_comes_back(tmp_path, activation):
    model = Sequential([Dense(3, activation)], input_shape=(4,))
    other = saved(model, tmp_path / "model")
    assert other.layers[0].activation is model.layers[0].activation


@pytest.mark.parametrize("name", minidl.init.INITIALIZERS)
def test_every_initializer_comes_back(tmp_path, name):
    model = Sequential([Dense(3, kernel_initializer=name)], input_shape=(4,))
    other = saved(model, tmp_path / "model")
    assert other.layers[0].kernel_initializer is minidl.init.INITIALIZERS[name]


def trained():
    """A small network after some training, whose running statistics have moved."""
    minidl.seed(1)
    model = Sequential(
        [
            Conv2D(4, 3, padding="same", activation="relu"),
            BatchNorm(momentum=0.5),
            MaxPool(2),
            Sequential([Flatten(), Dropout(0.5), Dense(6, LeakyReLU(0.1), name="inner")]),
            Dense(3),
        ],
        input_shape=(6, 6, 1),
    )
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters()))
    trainer.fit(numbers((12, 6, 6, 1), 0), np.arange(12) % 3, epochs=2, batch_size=4, verbose=0)
    return model


def test_a_trained_model_predicts_the_same_and_can_be_trained_on(tmp_path):
    model = trained()
    statistics = model.layers[1].running_mean.data
    assert np.abs(statistics).min() > 0
    other = saved(model, tmp_path / "model")
    assert_same(model, other, numbers((5, 6, 6, 1), 3).astype(np.float32))
    before = other.state_dict()
    trainer = minidl.Trainer(other, minidl.cross_entropy, minidl.Adam(other.parameters()))
    trainer.fit(numbers((12, 6, 6, 1), 0), np.arange(12) % 3, verbose=0)
    for name, array in other.state_dict().items():
        assert not np.array_equal(array, before[name]), name


def test_a_loaded_model_is_in_evaluation_mode_and_has_its_class_names(tmp_path):
    model = trained()
    names = ["a", "b c", "\N{LATIN SMALL LETTER E WITH ACUTE}"]
    other = saved(model, tmp_path / "model", class_names=names)
    assert not any(module.training for module in other.modules())
    assert other.class_names == tuple(names)
    assert saved(other, tmp_path / "again").class_names == tuple(names)
    assert saved(other, tmp_path / "again", class_names=("x", "y", "z")).class_names == tuple("xyz")


def test_a_loaded_model_shows_a_summary(tmp_path, capsys):
    model = trained()
    model.summary()
    expected = capsys.readouterr().out
    saved(model, tmp_path / "model").summary()
    assert capsys.readouterr().out == expected


def test_the_first_batch_is_remembered_as_well_as_a_given_shape(tmp_path):
    model = Sequential([Flatten(), Dense(2)])
    assert model.input_shape is None
    with pytest.raises(TypeError, match="float32 or float64"):
        model(np.ones((3, 4, 2), np.int32))
    assert model.input_shape is None
    model(np.ones((3, 4, 2), np.float32))
    model(np.ones((5, 8, 1), np.float32))
    assert model.input_shape == (4, 2)
    assert saved(model, tmp_path / "model").input_shape == (4, 2)
    assert Sequential([Dense(2)], input_shape=[5]).input_shape == (5,)
    of_any_size = Sequential([GlobalAvgPool(), Dense(2)], input_shape=(4, 4, 1))
    of_any_size.build((8, 6, 1))
    assert of_any_size.input_shape == (8, 6, 1)


def test_weights_are_read_by_name_too(tmp_path):
    model, other = trained(), trained()
    with_values(other)
    minidl.save(model, tmp_path / "model")
    minidl.load_weights(other, tmp_path / "model")
    for name, array in model.state_dict().items():
        assert_array_equal(other.state_dict()[name], array)


def test_nothing_is_drawn_from_a_generator(tmp_path):
    model = trained()
    before = copy.deepcopy(backend.default_generator.host.bit_generator.state)
    saved(model, tmp_path / "model")
    after = backend.default_generator.host.bit_generator.state
    assert str(after) == str(before)


@pytest.mark.usefixtures("device")
def test_a_model_of_the_device_is_saved_and_loaded_on_the_cpu(tmp_path):
    model = trained()
    expected = model.state_dict()
    other = saved(model.to("gpu"), tmp_path / "model")
    for name, array in other.state_dict().items():
        assert_array_equal(array, expected[name])
    assert all(parameter.device == "cpu" for parameter in other.parameters())


def test_one_file_is_left_and_a_failure_keeps_the_older_one(tmp_path):
    path = tmp_path / "model"
    minidl.save(trained(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=INSTEAD):
        minidl.save(Sequential([Dense(3, activation=lambda x: x)], input_shape=(2,)), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@st.composite
def models(draw):
    """Small models of images, nested here and there."""
    rate = st.floats(0, 0.9)
    activations = st.one_of(
        st.sampled_from([None, *ACTIVATIONS]), rate.map(LeakyReLU), st.just(0).map(lambda _: Tanh())
    )
    two = st.integers(1, 2)
    pairs = st.tuples(two, two)
    paddings = st.one_of(
        st.just("same"),
        two,
        st.tuples(st.tuples(two, two), st.tuples(two, two)),
    )
    of_images = st.one_of(
        st.builds(
            Conv2D,
            st.integers(1, 3),
            pairs,
            two,
            paddings,
            pairs,
            activations,
            st.booleans(),
            bias_initializer=st.sampled_from(["ones", "pytorch"]),
        ),
        st.builds(MaxPool, st.just(2), st.sampled_from([None, 1]), st.sampled_from(["same", 1])),
        st.builds(AvgPool, st.just(2), two, st.sampled_from(["same", 1])),
    )
    of_anything = st.one_of(
        st.builds(BatchNorm, rate),
        st.builds(Dropout, rate),
        st.builds(LeakyReLU, rate),
        st.builds(ReLU),
        st.builds(Sigmoid),
        st.builds(Dense, st.integers(1, 4), activations, st.booleans()),
    )
    layers = draw(st.lists(st.one_of(of_images, of_anything), max_size=3))
    layers.append(draw(st.sampled_from([Flatten, GlobalAvgPool]))())
    rest = draw(st.lists(of_anything, min_size=1, max_size=3))
    layers += [Sequential(rest)] if draw(st.booleans()) else rest
    model = Sequential(layers)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shape = draw(st.tuples(st.integers(5, 8), st.integers(5, 8), st.integers(1, 3)))
    model.eval()
    model(numbers((1, *shape), 0).astype(dtype))
    return with_values(model), dtype


@generated
@given(models())
def test_random_models_come_back(folder, case):
    model, dtype = case
    path = folder / "model"
    other = saved(model, path)
    assert_same(model, other, numbers((3, *model.input_shape), 1).astype(dtype))
    content = path.read_bytes()
    minidl.save(other, path)
    assert path.read_bytes() == content


# What a file cannot hold


class Twice(Layer):
    def forward(self, x):
        return x * 2


class OwnDense(Dense):
    pass


class Branches(Module):
    def __init__(self):
        self.left, self.right = Dense(2), Dense(2)

    def forward(self, x):
        return self.left(x) + self.right(x)


def double(x):
    return x * 2


def thirds(shape, *_):
    return np.full(shape, 1 / 3)


def named_as_one_of_ours():
    return type("ReLU", (Twice,), {})()


def with_a_forward_of_its_own():
    layer = Dense(2)
    layer.forward = lambda x: x
    return layer


OWN = [
    (lambda: Dense(2, activation=double), "Dense 'dense': activation is <function double"),
    (
        lambda: Dense(2, activation=functools.partial(minidl.leaky_relu, slope=0.3)),
        "Dense 'dense': activation is functools.partial",
    ),
    (lambda: Dense(2, activation=Twice()), "Twice is no layer of minidl's own"),
    (lambda: Dense(2, kernel_initializer=thirds), "kernel_initializer is <function thirds"),
    (lambda: Dense(2, bias_initializer=thirds), "bias_initializer is <function thirds"),
    (Twice, "Twice 'twice' is no layer of minidl's own"),
    (lambda: OwnDense(2), "OwnDense 'own_dense' is no layer of minidl's own"),
    (named_as_one_of_ours, "ReLU 're_lu' is no layer of minidl's own"),
    (with_a_forward_of_its_own, "Dense 'dense' is no layer of minidl's own"),
    (lambda: Sequential([Branches()]), "Branches 'branches' is no layer of minidl's own"),
    (lambda: type("Mine", (Sequential,), {})([Dense(2)]), "Mine 'mine' is no layer"),
]


@pytest.mark.parametrize(("make", "message"), OWN)
def test_what_is_the_users_own_is_named_and_what_to_do(tmp_path, make, message):
    model = Sequential([make()], input_shape=(3,))
    path = tmp_path / "model"
    with pytest.raises(ValueError) as caught:  # noqa: PT011  compared below
        minidl.save(model, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert str(caught.value).endswith(INSTEAD)
    assert not path.exists()


@pytest.mark.parametrize("model", [Branches(), Dense(2), [Dense(2)], None], ids=repr)
def test_only_a_sequential_is_saved(tmp_path, model):
    with pytest.raises(ValueError, match=f"expected a Sequential, got {type(model).__name__}: "):
        minidl.save(model, tmp_path / "model")


def shared_layer():
    layer = ReLU()
    return Sequential([layer, Dense(2), layer], input_shape=(2,))


def tied_weights():
    model = Sequential([Dense(2), Dense(2)], input_shape=(2,))
    model.layers[1].weight = model.layers[0].weight
    return model


def another_shape():
    model = Sequential([Dense(2)], input_shape=(2,))
    model.layers[0].bias = minidl.Parameter(np.ones(3, np.float32))
    return model


def one_parameter_more():
    model = Sequential([Dense(2)], input_shape=(2,))
    model.layers[0].scale = minidl.Parameter(np.ones(3, np.float32))
    return model


def names_that_meet():
    inner = Sequential([Dense(2, name="b")])
    inner.name = "a"
    return Sequential([inner, Dense(2, name="a.b")], input_shape=(2,))


def two_dtypes():
    model = Sequential([Dense(2), Dense(2)], input_shape=(2,))
    model.layers[0].astype(np.float64)
    return model


def infinite():
    model = Sequential([LeakyReLU()], input_shape=(2,))
    model.layers[0].slope = float("inf")
    return model


def layer_added_later():
    model = Sequential([Dense(2)], input_shape=(2,))
    model.layers.append(Dense(3, name="late"))
    return model


UNFIT = [
    (shared_layer, "ReLU 're_lu' is in the model twice: make a layer for each place"),
    (tied_weights, "the weights do not fit the layers: missing 'dense_1.weight'"),
    (another_shape, r"'dense.bias' expects float32 \(2,\), got float32 \(3,\)"),
    (one_parameter_more, "unknown 'dense.scale'"),
    (names_that_meet, "two tensors of Sequential are named 'a.b.weight'"),
    (two_dtypes, r"parameters of float32 and float64; convert it with \.astype"),
    (infinite, "not JSON compliant"),
    (layer_added_later, "Dense 'late' has no output shape yet"),
    (
        lambda: Sequential([Dense(2, activation=BatchNorm())], input_shape=(2,)),
        "Dense 'dense': expected an activation without parameters, got BatchNorm; make it the next",
    ),
    (
        lambda: Sequential([Dense(2, activation=Sequential([ReLU()]))], input_shape=(2,)),
        "Dense 'dense': expected an activation without parameters, got Sequential",
    ),
    (lambda: Sequential([Dense(2)]), "Sequential has no output shape yet; give Sequential an"),
    (lambda: trained()[1:], "Sequential has no output shape yet"),
]


@pytest.mark.parametrize(("make", "message"), UNFIT)
def test_a_model_that_would_not_come_back_is_refused(tmp_path, make, message):
    path = tmp_path / "model"
    with pytest.raises(ValueError, match=message) as caught:
        minidl.save(make(), path)
    assert str(caught.value).startswith(f"{path}: ")
    assert not path.exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], "the model has 3 outputs, got 2 class names"),
        ("abc", "class_names must be a list of names in printable letters, got 'abc'"),
        ([1, 2, 3], "class_names must be a list of names"),
        (["a", "b", ""], "class_names must be a list of names"),
        (["a", "b", "\x1b[2J"], "class_names must be a list of names"),
        ([], "the model has 3 outputs, got 0 class names"),
    ],
)
def test_class_names_that_do_not_suit_the_model_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message) as caught:
        minidl.save(trained(), tmp_path / "model", names)
    assert str(caught.value).startswith(f"{tmp_path / 'model'}: ")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        minidl.save(trained(), tmp_path / "no" / "model")


# Files that lie


def small():
    """A model whose file is short: a convolution, a normalisation and a dense layer."""
    return Sequential(
        [Conv2D(2, 2, activation=LeakyReLU()), BatchNorm(), MaxPool(2), Flatten(), Dense(3)],
        input_shape=(5, 5, 1),
    )


def taken_apart(path):
    """Header, description and numbers of a file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["minidl"]), content[8 + length :]


def put_together(path, header, description, data):
    """Write a file of these parts; a description that is text already is taken as it is."""
    text = description if isinstance(description, str) else json.dumps(description)
    header = {**header, "__metadata__": {"minidl": text}}
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def refusal(path):
    """What `load` says of a file, which must be a ValueError that names the file."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  compared by the caller
        minidl.load(path)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


@pytest.fixture
def path(tmp_path):
    """The file of a small model."""
    path = tmp_path / "model"
    minidl.save(small(), path, ["a", "b", "c"])
    return path


def test_a_file_put_together_by_hand_is_read(path):
    before = minidl.load(path)
    put_together(path, *taken_apart(path))
    assert_same(before, minidl.load(path), numbers((2, 5, 5, 1), 0).astype(np.float32))


def set_in(description, *place_and_value):
    """Put a value into a description, at a place that keys and indices lead to."""
    *place, last, value = place_and_value
    for key in place:
        description = description[key]
    description[last] = value


CONV, NORM, POOL, FLAT, DENSE = (("model", "arguments", "layers", n) for n in range(5))
HUGE = 10**9
BEYOND = 10**30
LIES = [
    # another format, or another version of it
    (("format", "keras"), "format 'minidl', version 1, got 'keras', version 1"),
    (("version", 2), "version 1, got 'minidl', version 2"),
    (("version", "1"), "version 1, got 'minidl', version '1'"),
    (("version", None), "version 1, got 'minidl', version None"),
    (("dtype", "float16"), "float32 or float64, got 'float16'"),
    (("dtype", ["float32"]), r"float32 or float64, got \['float32'\]"),
    (("dtype", "float64"), r"'conv2d.weight' expects float64 \(2, 2, 1, 2\), got float32"),
    (("more", 1), "expected of the model the entries"),
    # layers and their entries
    (("model", None), "expected of a layer the entries"),
    (("model", {}), "expected of a layer the entries"),
    (("model", []), "expected of a layer the entries"),
    ((*DENSE, "class", "Transformer"), "one of the layers AvgPool, .*, got 'Transformer'"),
    ((*DENSE, "class", "Module"), "one of the layers AvgPool, .*, got 'Module'"),
    ((*DENSE, "class", "_Pool"), "one of the layers"),
    ((*DENSE, "class", "os.system"), "one of the layers"),
    ((*DENSE, "class", ["Dense"]), "one of the layers"),
    ((*DENSE, "class", None), "one of the layers"),
    ((*DENSE, "class", "Softmax"), "Softmax 'dense' has no argument 'units'"),
    ((*DENSE, "code", "print()"), "expected of a layer the entries"),
    ((*DENSE, "name", ""), "Dense: expected a name, got ''"),
    ((*DENSE, "name", 5), "Dense: expected a name, got 5"),
    ((*DENSE, "name", None), "each of its layers must have a name"),
    ((*DENSE, "name", "flatten"), "two layers are named 'flatten'"),
    ((*DENSE, "name", "other"), "missing 'other.weight'.*unknown 'dense.bias'"),
    ((*DENSE, "output_shape", None), "Dense 'dense': output_shape must be a list of integers"),
    ((*DENSE, "output_shape", [-1]), "output_shape must be a list of integers"),
    ((*DENSE, "output_shape", [2.0]), "output_shape must be a list of integers"),
    ((*DENSE, "output_shape", [True]), "output_shape must be a list of integers"),
    ((*FLAT, "output_shape", [7]), r"'dense.weight' expects float32 \(7, 3\), got float32 \(8, 3"),
    (("model", "arguments", "layers", []), "expects at least one layer"),
    (("model", "arguments", "layers", {}), "layers must be a list"),
    (("model", "arguments", "layers", [7]), "expected of a layer the entries"),
    (("model", "arguments", "input_shape", None), "input_shape must be a list"),
    (("model", "arguments", "input_shape", [5, 5]), "expects images"),
    (("model", "arguments", "input_shape", [5, 5, 0]), "would need a parameter of shape"),
    (("model", "arguments", "name", "x"), "Sequential has no argument 'name'"),
    (("model", "arguments", {}), "expected of its arguments the entries"),
    # arguments
    ((*DENSE, "arguments", []), "Dense 'dense': expected arguments by name"),
    ((*DENSE, "arguments", {}), "missing 1 required positional argument: 'units'"),
    ((*DENSE, "arguments", "secret", 1), "Dense 'dense' has no argument 'secret'"),
    ((*DENSE, "arguments", "name", "x"), "Dense 'dense' has no argument 'name'"),
    ((*DENSE, "arguments", "self", "x"), "Dense 'dense' has no argument 'self'"),
    ((*DENSE, "arguments", "units", "3"), "units must be of type int, got '3'"),
    ((*DENSE, "arguments", "units", True), "units must be of type int, got True"),
    ((*DENSE, "arguments", "units", 3.0), "units must be of type int, got 3.0"),
    ((*DENSE, "arguments", "units", None), "units must be of type int, got None"),
    ((*DENSE, "arguments", "units", 0), "units must be an integer >= 1, got 0"),
    ((*DENSE, "arguments", "units", 4), r"'dense.weight' expects float32 \(8, 4\)"),
    ((*DENSE, "arguments", "use_bias", "no"), "use_bias must be of type bool, got 'no'"),
    ((*DENSE, "arguments", "use_bias", False), "unknown 'dense.bias'"),
    ((*DENSE, "arguments", "activation", "gelu"), "unknown activation 'gelu'"),
    ((*DENSE, "arguments", "activation", ["relu"]), "Dense 'dense': "),
    ((*DENSE, "arguments", "activation", 5), "unknown activation 5"),
    ((*DENSE, "arguments", "activation", {}), "expected of a layer the entries"),
    ((*DENSE, "arguments", "kernel_initializer", "numpy.load"), "unknown initializer"),
    ((*DENSE, "arguments", "kernel_initializer", {}), "Dense 'dense': "),
    ((*DENSE, "arguments", "kernel_initializer", None), "unknown initializer None"),
    ((*CONV, "arguments", "kernel_size", "22"), "kernel_size must be an integer"),
    ((*CONV, "arguments", "kernel_size", [2]), "kernel_size must be an integer"),
    ((*CONV, "arguments", "strides", [0, 1]), "strides must be an integer"),
    ((*CONV, "arguments", "padding", "full"), "padding must be"),
    ((*CONV, "arguments", "padding", -1), "padding must be"),
    ((*CONV, "arguments", "padding", [[[1]]]), "padding must be"),
    ((*CONV, "arguments", "activation", "arguments", "slope", "0"), "slope must be of type float"),
    ((*CONV, "arguments", "activation", "arguments", "slope", [1]), "slope must be of type float"),
    ((*CONV, "arguments", "activation", "class", "BatchNorm"), "has no argument 'slope'"),
    ((*CONV, "arguments", "activation", "name", 1), "expected a name, got 1"),
    ((*NORM, "arguments", "momentum", "0.9"), "momentum must be of type float"),
    ((*NORM, "arguments", "momentum", 2), "momentum from 0 to 1, got 2"),
    ((*NORM, "arguments", "eps", 0), "eps > 0"),
    # class names
    (("class_names", ["a", "b"]), "the model has 3 outputs, got 2 class names"),
    (("class_names", "abc"), "class_names must be a list"),
    (("class_names", ["a", "b", 3]), "class_names must be a list"),
    (("class_names", ["a", "b", "\x1b]0;"]), "class_names must be a list"),
    (("class_names", {}), "class_names must be a list"),
    # sizes that no file could hold
    ((*DENSE, "arguments", "units", HUGE), r"'dense.weight' expects float32 \(8, 1000000000\)"),
    ((*DENSE, "arguments", "units", BEYOND), "Dense 'dense': Maximum allowed dimension"),
    ((*CONV, "arguments", "filters", HUGE), "'conv2d.weight' expects"),
    ((*CONV, "arguments", "kernel_size", [HUGE, HUGE]), r"\(1000000000, 1000000000, 1, 2\)"),
    ((*CONV, "output_shape", [4, 4, HUGE]), r"'batch_norm.gamma' expects float32 \(1000000000,\)"),
    ((*CONV, "output_shape", [HUGE, HUGE, HUGE]), "BatchNorm 'batch_norm': array is too big"),
    ((*CONV, "output_shape", [BEYOND]), "BatchNorm 'batch_norm': Maximum allowed dimension"),
    ((*CONV, "output_shape", [1] * 100), "BatchNorm 'batch_norm': maximum supported dimension"),
    ((*FLAT, "output_shape", [HUGE]), r"'dense.weight' expects float32 \(1000000000, 3\)"),
    (("model", "arguments", "input_shape", [5, 5, HUGE]), "'conv2d.weight' expects"),
]


@pytest.mark.parametrize(("lie", "message"), LIES)
def test_a_description_that_lies_is_refused_before_memory_is_taken(path, lie, message):
    header, description, data = taken_apart(path)
    set_in(description, *lie)
    put_together(path, header, description, data)
    tracemalloc.start()
    try:
        said = refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.search(message, said), said
    assert peak < 2**20


@pytest.mark.parametrize("layer", [POOL, CONV])
def test_shapes_that_no_parameter_depends_on_cost_nothing(path, layer):
    header, description, data = taken_apart(path)
    if layer is POOL:
        set_in(description, *POOL, "output_shape", [HUGE, HUGE])
    else:
        set_in(description, *CONV, "arguments", "padding", HUGE)
    put_together(path, header, description, data)
    tracemalloc.start()
    try:
        minidl.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("null", "got None, version None"),
        ("[]", "got None, version None"),
        ('{"format": "minidl", "version": 1', "Expecting"),
        ("[" * 100_000, "nested too deeply"),
        ("NaN", "holds NaN, which is no number"),
        ("-Infinity", "holds -Infinity, which is no number"),
        ("9" * 5000, "."),
    ],
)
def test_what_is_no_description_is_refused(path, text, message):
    header, _, data = taken_apart(path)
    put_together(path, header, text, data)
    assert re.search(message, refusal(path))


@pytest.mark.parametrize("depth", [10, 300, 3000])
def test_a_model_nested_too_deeply_is_refused(path, depth):
    """Or read, where it is not too deep; it then has not the parameters that are there."""
    header, description, data = taken_apart(path)
    text = json.dumps(description)
    inner = json.dumps(description["model"]["arguments"]["layers"])
    before, after = (
        '{"class": "Sequential", "name": "s", "arguments": {"layers": [',
        '], "input_shape": [5, 5, 1]}, "output_shape": [3]}',
    )
    deep = f"[{before * depth}{inner[1:-1]}{after * depth}]"
    assert text.count(inner) == 1
    put_together(path, header, text.replace(inner, deep), data)
    assert re.search("nested too deeply|missing 's.s.s.s.s.s.s.s.s.s", refusal(path))


@pytest.mark.parametrize("argument", ["units", "output_shape", "version", "slope", "shape"])
def test_numbers_that_are_none_are_refused(path, argument):
    """In the description, or in the header around it, which JSON does not allow."""
    content = path.read_bytes()
    names = {
        "units": rb'\\"units\\": 3',
        "output_shape": rb'\\"output_shape\\": \[3\]',
        "version": rb'\\"version\\": 1',
        "slope": rb'\\"slope\\": 0.01',
        "shape": rb'"shape":\[3\]',
    }
    start, end = re.search(names[argument], content).span()
    lie = re.sub(rb"[0-9.]+", b"NaN", content[start:end])
    (length,) = struct.unpack("<Q", content[:8])
    length += len(lie) - (end - start)
    path.write_bytes(struct.pack("<Q", length) + content[8:start] + lie + content[end:])
    assert "NaN" in refusal(path) or argument == "shape"


def test_tensors_that_do_not_fit_the_layers_are_named(path):
    parts = taken_apart(path)
    header, description, data = copy.deepcopy(parts)
    header["dense.wait"] = header.pop("dense.weight")
    put_together(path, header, description, data)
    assert "missing 'dense.weight'; unknown 'dense.wait'" in refusal(path)

    header, description, data = copy.deepcopy(parts)
    header["more"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    put_together(path, header, description, data + b"abcd")
    assert refusal(path).endswith("the weights do not fit the layers: unknown 'more'")

    header, description, data = copy.deepcopy(parts)
    header["dense.weight"]["shape"].reverse()
    put_together(path, header, description, data)
    assert "'dense.weight' expects float32 (8, 3), got float32 (3, 8)" in refusal(path)


@pytest.mark.parametrize(
    ("dtype", "width", "called"), [("I32", 4, "int32"), ("BF16", 2, "BF16"), ("F64", 8, "float64")]
)
def test_tensors_of_another_type_are_named(path, dtype, width, called):
    header, description, data = taken_apart(path)
    start, end = header["dense.bias"]["data_offsets"]
    rest = {name: entry for name, entry in header.items() if name[0] != "_"}
    shift = 3 * width - (end - start)
    for entry in rest.values():
        first, last = entry["data_offsets"]
        if first >= end:
            entry["data_offsets"] = [first + shift, last + shift]
    rest["dense.bias"] = {"dtype": dtype, "shape": [3], "data_offsets": [start, end + shift]}
    put_together(path, rest, description, data[:start] + bytes(3 * width) + data[end:])
    assert f"'dense.bias' expects float32 (3,), got {called} (3,)" in refusal(path)


def test_a_file_cut_short_anywhere_is_refused(path):
    content = path.read_bytes()
    for length in [*range(0, len(content) - 1, 37), len(content) - 1]:
        path.write_bytes(content[:length])
        refusal(path)


@pytest.mark.parametrize("length", [0, 1, 50_000_000, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_another_length_than_it_says_is_refused(path, length):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refusal(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    minidl.save_weights(small(), path)
    assert "read them with minidl.load_weights" in refusal(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    refusal(path)
    path.write_bytes(b"")
    refusal(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        minidl.load(tmp_path / "absent")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        minidl.load(tmp_path)


def test_nobody_unpickles(path):
    header, description, data = taken_apart(path)
    set_in(description, *DENSE, "arguments", "activation", "cos\nsystem\n(S'exit 1'\ntR.")
    put_together(path, header, description, data)
    assert "unknown activation" in refusal(path)


def places(value):
    """Every place in a description, as `set_in` takes it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inside in pairs:
        yield (key,)
        if isinstance(inside, (dict, list)):
            yield from ((key, *rest) for rest in places(inside))


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from([HUGE, BEYOND, -HUGE, 0.5, 1e300, 10**400]),
        st.sampled_from(["relu", "same", "he_normal", "float64", "a", "", *LAYERS]),
    ),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3),
        st.dictionaries(st.sampled_from(["class", "name", "units", "arguments"]), inside),
    ),
    max_leaves=5,
)


@settings(generated, max_examples=300)
@given(data=st.data())
def test_whatever_a_description_says_a_model_comes_back_or_an_error_that_names_the_file(
    folder, data
):
    path = folder / "lying"
    minidl.save(small(), path, ["a", "b", "c"])
    header, description, content = taken_apart(path)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(sorted(places(description), key=str)))
        set_in(description, *place, data.draw(ANYTHING))
    put_together(path, header, description, content)
    tracemalloc.start()
    try:
        model = minidl.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017  or no error at all
    else:
        assert sum(array.nbytes for array in model.state_dict().values()) == len(content)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**21


# Parameters without values


def test_shapes_without_values_need_no_memory_and_hold_for_one_thread():
    like = minidl.Tensor(np.ones((1, 2)))
    shape = 10**6, 10**6
    with shapes_only():
        parameter, buffer = (
            new_parameter("he_normal", shape, 1, 1, like=like),
            new_buffer("ones", shape, like=like),
        )
        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(new_parameter, "ones", (3,), 1, 1, like).result()
        with shapes_only():
            pass
        assert new_parameter("ones", (3,), 1, 1, like).data.tolist() == [0, 0, 0]
    assert elsewhere.data.tolist() == [1, 1, 1]
    assert new_buffer("ones", (3,), like).data.tolist() == [1, 1, 1]
    for t in (parameter, buffer):
        assert t.shape == shape
        assert t.dtype == np.float64
        assert t.data.strides == (0, 0)
    assert parameter.requires_grad
    assert not buffer.requires_grad
