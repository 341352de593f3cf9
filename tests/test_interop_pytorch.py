"""Weights to PyTorch and back: the same outputs, the same gradients, and errors that name all."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
from generated import SEEDS, generated
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import minidl

torch = pytest.importorskip("torch")
nn = torch.nn

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def as_torch(x):
    """Images (N, H, W, C) as PyTorch takes them, (N, C, H, W); all else as it is."""
    return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)


def drawn(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def randomize(model, seed=0):
    """Biases, scales and statistics as no layer starts them; weights are random already."""
    rng = np.random.default_rng(seed)
    state = model.state_dict()
    for values in state.values():
        if values.ndim == 1:
            values += rng.uniform(0, 0.3, values.shape)
    model.load_state_dict(state)
    return model


def shake(twin, seed=0):
    """The same for a model of PyTorch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            if tensor.ndim == 1:
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return twin


def assert_same_outputs(model, twin, x):
    """In evaluation mode, to 1e-5, or closer in float64."""
    with torch.no_grad(), model.mode(training=False):
        there = twin.eval()(as_torch(x)).numpy()
        here = model(x).numpy()
    if here.ndim == 4:
        there = there.transpose(0, 2, 3, 1)
    assert here.dtype == there.dtype == x.dtype
    assert np.ptp(here) > 0.01  # outputs that differ, of which there is something to compare
    assert_allclose(there, here, rtol=0, atol=TOLERANCE[x.dtype.type])


def assert_same_gradients(model, twin, x, labels, training):
    """Those of one step of the cross-entropy, to 1e-5, or closer in float64."""
    model.train(training)
    twin.train(training)
    minidl.cross_entropy(model(x), labels).backward()
    nn.functional.cross_entropy(twin(as_torch(x)), torch.tensor(labels)).backward()
    gradients, there = copy.deepcopy(model), copy.deepcopy(twin)
    with torch.no_grad():
        for target, source in zip(there.parameters(), twin.parameters(), strict=True):
            target.copy_(source.grad)
    minidl.weights_from_pytorch(gradients, there)  # gradients lie as their weights do
    found = dict(gradients.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        expected = found[name].data
        tolerance = TOLERANCE[x.dtype.type]
        assert_allclose(parameter.grad, expected, rtol=0, atol=tolerance, err_msg=name)


def benchmark(digit):
    """One of the eight models of the benchmarks, here and in PyTorch."""
    import minidl_models
    import pytorch_models
    from models import MODELS

    model = list(MODELS.values())[digit - 1]
    minidl.seed(digit)
    here = minidl_models.build(model)
    return here, pytorch_models.build(model, channels_last=False), model.input_shape


def with_batch_norm(_=None):
    """Batch normalisation of images, and of the features that Flatten makes of them."""
    minidl.seed(0)
    here = minidl.Sequential(
        [
            minidl.Conv2D(4, 3, padding=1, activation="relu", use_bias=False),
            minidl.BatchNorm(),
            minidl.MaxPool(2),
            minidl.Conv2D(6, (2, 3), strides=(1, 2), dilation=(2, 1)),
            minidl.BatchNorm(eps=1e-5),
            minidl.LeakyReLU(0.1),
            minidl.Flatten(),
            minidl.BatchNorm(),
            minidl.Dense(8, activation="tanh"),
            minidl.Dense(10),
        ],
        input_shape=(10, 12, 2),
    )
    twin = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, (2, 3), stride=(1, 2), dilation=(2, 1)),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.BatchNorm1d(36, eps=1e-3),
        nn.Linear(36, 8),
        nn.Tanh(),
        nn.Linear(8, 10),
    )
    return here, twin, (10, 12, 2)


def with_averages(_=None):
    """Average pooling, and no Flatten here where PyTorch needs one."""
    minidl.seed(0)
    here = minidl.Sequential(
        [
            minidl.Conv2D(4, 3, activation="relu"),
            minidl.AvgPool(3, strides=2, padding=1),
            minidl.Conv2D(8, 1, activation="sigmoid"),
            minidl.GlobalAvgPool(),
            minidl.Dense(10),
        ],
        input_shape=(9, 7, 3),
    )
    twin = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.Conv2d(4, 8, 1),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    return here, twin, (9, 7, 3)


CASES = [*((benchmark, digit) for digit in range(1, 9)), (with_batch_norm, 0), (with_averages, 0)]
every_model = pytest.mark.parametrize(("make", "digit"), CASES)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def pair(make, digit, dtype, monkeypatch):
    """A model, its twin in PyTorch, both in one dtype, and inputs."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    torch.manual_seed(0)
    model, twin, shape = make(digit)
    twin = shake(twin.to(getattr(torch, np.dtype(dtype).name)))
    return randomize(model.astype(dtype)), twin, drawn((5, *shape), dtype)


@every_model
@both_dtypes
def test_outputs_in_pytorch_are_ours(pair):
    model, twin, x = pair
    before = model.state_dict()
    minidl.weights_to_pytorch(model, twin)
    assert_same_outputs(model, twin, x)
    for name, values in model.state_dict().items():
        assert_array_equal(values, before[name])


@every_model
@both_dtypes
def test_outputs_here_are_those_of_pytorch(pair):
    model, twin, x = pair
    before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    minidl.weights_from_pytorch(model, twin)
    assert_same_outputs(model, twin, x)
    for name, tensor in twin.state_dict().items():
        assert torch.equal(tensor, before[name])


@every_model
@both_dtypes
def test_there_and_back_is_the_same_to_the_last_bit(pair):
    model, twin, _ = pair
    other = copy.deepcopy(model)
    other.load_state_dict({name: 0 * values for name, values in other.state_dict().items()})
    minidl.weights_to_pytorch(model, twin)
    minidl.weights_from_pytorch(other, twin)
    for name, values in model.state_dict().items():
        assert_array_equal(other.state_dict()[name], values, name)


@every_model
@both_dtypes
def test_one_step_has_the_same_gradients(pair, make):
    model, twin, x = pair
    minidl.weights_to_pytorch(model, twin)
    labels = np.arange(len(x)) % 10
    assert_same_gradients(model, twin, x, labels, training=make is with_batch_norm)


def test_running_statistics_of_a_trained_model_go_along():
    model, twin, shape = with_batch_norm()
    x, labels = 3 + 2 * drawn((64, *shape)), np.arange(64) % 10
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters()))
    trainer.fit(x, labels, epochs=3, batch_size=16, verbose=0)
    minidl.weights_to_pytorch(model, twin)
    assert_same_outputs(model, twin, x)


def test_running_statistics_of_a_model_trained_in_pytorch_come_along():
    model, twin, shape = with_batch_norm()
    x, labels = 3 + 2 * drawn((64, *shape)), torch.arange(64) % 10
    for _ in range(12):
        twin.zero_grad()
        nn.functional.cross_entropy(twin(as_torch(x)), labels).backward()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.sub_(0.1 * parameter.grad)
    minidl.weights_from_pytorch(model, twin)
    assert_same_outputs(model, twin, x)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("size", [2, 3, 4, (2, 3), (5, 4)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_is_pytorchs_also_with_even_filters(size, dilation):
    conv = minidl.Conv2D(3, size, padding="same", dilation=dilation)
    model = randomize(minidl.Sequential([conv], input_shape=(9, 8, 2)))
    twin = nn.Sequential(nn.Conv2d(2, 3, size, padding="same", dilation=dilation))
    minidl.weights_to_pytorch(model, twin)
    assert_same_outputs(model, twin, drawn((2, 9, 8, 2)))


@st.composite
def convolutional_pairs(draw):
    """Models of one to three blocks with all that can stand in them, here and in PyTorch."""
    here, there = [], []
    shape = draw(st.tuples(st.integers(7, 10), st.integers(7, 10), st.integers(1, 3)))
    channels = shape[2]
    for _ in range(draw(st.integers(1, 3))):
        filters = draw(st.integers(1, 4))
        size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        (top, bottom), (left, right) = sides = draw(
            st.tuples(*[st.tuples(st.integers(1, 2), st.integers(1, 2))] * 2)
        )
        bias = draw(st.booleans())
        here.append(minidl.Conv2D(filters, size, strides, sides, use_bias=bias))
        there.append(nn.ZeroPad2d((left, right, top, bottom)))
        there.append(nn.Conv2d(channels, filters, size, strides, bias=bias))
        channels = filters
        if draw(st.booleans()):
            here.append(minidl.BatchNorm(eps=0.01))
            there.append(nn.BatchNorm2d(channels, eps=0.01))
        if draw(st.booleans()):
            here.append(minidl.Tanh())
            there.append(nn.Tanh())
        if draw(st.booleans()):
            here.append(minidl.Dropout(0.5))
            there.append(nn.Dropout2d())
    if draw(st.booleans()):
        here.append(minidl.GlobalAvgPool())
        there += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        here.append(minidl.Flatten())
        there.append(nn.Flatten())
    features = minidl.Sequential(here, input_shape=shape)[-1].output_shape[1]
    if draw(st.booleans()):
        here.append(minidl.BatchNorm(eps=0.01))
        there.append(nn.BatchNorm1d(features, eps=0.01))
    for units in draw(st.lists(st.integers(2, 5), min_size=1, max_size=2)):
        here.append(minidl.Dense(units))
        there.append(nn.Linear(features, units))
        features = units
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    model = minidl.Sequential(here, input_shape=shape).astype(dtype)
    twin = nn.Sequential(*there).to(getattr(torch, np.dtype(dtype).name))
    return model, twin, drawn((3, *shape), dtype)


@generated
@given(pair=convolutional_pairs(), seed=SEEDS)
def test_generated_models_give_the_same_outputs_both_ways(pair, seed):
    model, twin, x = pair
    minidl.weights_to_pytorch(randomize(model, seed), twin)
    assert_same_outputs(model, twin, x)
    minidl.weights_from_pytorch(model, shake(twin, seed))
    assert_same_outputs(model, twin, x)


class Network(nn.Module):
    """Modules in the order of the layers, under names of their own and inside one another."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, eps=1e-3))
        self.head = nn.ModuleDict({"hidden": nn.Linear(32, 5), "last": nn.Linear(5, 3)})

    def forward(self, x):
        x = torch.relu(self.stem(x)).flatten(1)
        return self.head["last"](torch.relu(self.head["hidden"](x)))


def model_of_network():
    layers = [
        minidl.Sequential([minidl.Conv2D(2, 3), minidl.BatchNorm(), minidl.ReLU()]),
        minidl.Flatten(),
        minidl.Dense(5, activation="relu"),
        minidl.Dense(3),
    ]
    return minidl.Sequential(layers, input_shape=(6, 6, 1))


def test_any_module_will_do_whose_parts_come_in_the_same_order():
    model, twin = randomize(model_of_network()), Network()
    minidl.weights_to_pytorch(model, twin)
    assert_same_outputs(model, twin, drawn((4, 6, 6, 1)))
    minidl.weights_from_pytorch(model, shake(twin))
    assert_same_outputs(model, twin, drawn((4, 6, 6, 1)))


def test_a_single_module_will_do():
    model = randomize(minidl.Sequential([minidl.Dense(3)], input_shape=(4,)))
    twin = nn.Linear(4, 3)
    minidl.weights_to_pytorch(model, twin)
    assert_same_outputs(model, twin, drawn((2, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_each_side_keeps_its_dtype(dtype):
    model, twin = model_of_network(), Network().to(dtype)
    minidl.weights_from_pytorch(model, shake(twin))
    assert_array_equal(model[3].weight.data, twin.head["last"].weight.detach().float().numpy().T)
    assert all(values.dtype == np.float32 for values in model.state_dict().values())
    minidl.weights_to_pytorch(randomize(model), twin)
    assert all(parameter.dtype == dtype for parameter in twin.parameters())
    expected = torch.tensor(model[3].weight.data.T).to(dtype)
    assert torch.equal(twin.head["last"].weight, expected)


def test_what_holds_the_parameters_goes_on_holding_them():
    model, twin = model_of_network(), Network()
    ours, theirs = [p.data for p in model.parameters()], list(twin.parameters())
    minidl.weights_to_pytorch(model, twin)
    minidl.weights_from_pytorch(model, twin)
    assert all(p.data is data for p, data in zip(model.parameters(), ours, strict=True))
    assert all(p is q and p.requires_grad for p, q in zip(twin.parameters(), theirs, strict=True))
    twin.head["last"].weight.data += 1
    assert not np.array_equal(twin.head["last"].weight.detach().numpy().T, model[3].weight.data)


def small_model(**last):
    return minidl.Sequential(
        [minidl.Conv2D(2, 3), minidl.BatchNorm(), minidl.Flatten(), minidl.Dense(3, **last)],
        input_shape=(4, 4, 1),
    )


def small_twin(*more, conv=None, norm=None, last=None):
    return nn.Sequential(
        conv or nn.Conv2d(1, 2, 3),
        norm or nn.BatchNorm2d(2, eps=1e-3),
        nn.Flatten(),
        last or nn.Linear(8, 3),
        *more,
    )


def test_the_small_ones_fit():
    model, twin = randomize(small_model()), small_twin()
    minidl.weights_to_pytorch(model, twin)
    assert_same_outputs(model, twin, drawn((3, 4, 4, 1)))


@pytest.mark.parametrize(
    ("twin", "expected"),
    [
        (small_twin(nn.ReLU(), nn.Linear(3, 2)), ["Linear '5' has no counterpart"]),
        (small_twin(last=nn.Identity()), ["Dense 'dense' has no counterpart"]),
        (
            small_twin(conv=nn.Conv2d(1, 4, (3, 2)), last=nn.Linear(3, 8)),
            [
                "'weight' of Conv2d '0' must be (2, 1, 3, 3) for Conv2D 'conv2d', is (4, 1, 3, 2)",
                "'bias' of Conv2d '0' must be (2,) for Conv2D 'conv2d', is (4,)",
                "'weight' of Linear '3' must be (3, 8) for Dense 'dense', is (8, 3)",
                "'bias' of Linear '3' must be (3,) for Dense 'dense', is (8,)",
            ],
        ),
        (
            small_twin(
                conv=nn.Conv2d(1, 2, 3, bias=False), norm=nn.BatchNorm2d(2, 1e-3, affine=False)
            ),
            [
                "Conv2d '0' lacks 'bias' of Conv2D 'conv2d'",
                "BatchNorm2d '1' lacks 'weight' of BatchNorm 'batch_norm'",
                "BatchNorm2d '1' lacks 'bias' of BatchNorm 'batch_norm'",
            ],
        ),
        (
            small_twin(norm=nn.BatchNorm2d(2, 1e-3, track_running_stats=False)),
            [
                "BatchNorm2d '1' lacks 'running_mean' of BatchNorm 'batch_norm'",
                "BatchNorm2d '1' lacks 'running_var' of BatchNorm 'batch_norm'",
            ],
        ),
        (
            small_twin(conv=nn.Conv2d(1, 2, 3, stride=2, dilation=(1, 2)), norm=nn.BatchNorm2d(2)),
            [
                "'stride' of Conv2d '0' must be (1, 1) for Conv2D 'conv2d', is (2, 2)",
                "'dilation' of Conv2d '0' must be (1, 1) for Conv2D 'conv2d', is (1, 2)",
                "'eps' of BatchNorm2d '1' must be 0.001 for BatchNorm 'batch_norm', is 1e-05",
            ],
        ),
        (
            small_twin(conv=nn.ConvTranspose2d(2, 1, 3), norm=nn.InstanceNorm2d(2, affine=True)),
            [
                "Conv2D 'conv2d' expects Conv2d, got ConvTranspose2d '0'",
                "BatchNorm 'batch_norm' expects BatchNorm1d or BatchNorm2d, got InstanceNorm2d '1'",
            ],
        ),
        (
            nn.Linear(8, 3),
            [
                "Conv2D 'conv2d' expects Conv2d, got Linear",
                "BatchNorm 'batch_norm' has no counterpart",
                "Dense 'dense' has no counterpart",
            ],
        ),
    ],
)
@pytest.mark.parametrize("copy_weights", [minidl.weights_to_pytorch, minidl.weights_from_pytorch])
def test_everything_that_differs_is_named_and_nothing_changes(copy_weights, twin, expected):
    model = randomize(small_model())
    ours = model.state_dict()
    theirs = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    with pytest.raises(ValueError, match="is not the same as Sequential: ") as raised:
        copy_weights(model, twin)
    assert str(raised.value).partition(": ")[2].split("; ") == expected
    for name, values in model.state_dict().items():
        assert_array_equal(values, ours[name])
    for name, tensor in twin.state_dict().items():
        assert torch.equal(tensor, theirs[name])


def test_a_bias_that_only_pytorch_has_is_named():
    with pytest.raises(ValueError, match=r"Dense 'dense' lacks 'bias' of Linear '3'$"):
        minidl.weights_to_pytorch(small_model(use_bias=False), small_twin())


def test_weights_that_only_pytorch_shares_are_refused():
    model = minidl.Sequential([minidl.Dense(4), minidl.Dense(4)], input_shape=(4,))
    linear = nn.Linear(4, 4)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    for twin in (nn.Sequential(linear, linear), tied):
        with pytest.raises(ValueError, match="modules of the PyTorch model share weights"):
            minidl.weights_from_pytorch(model, twin)


@pytest.mark.parametrize("copy_weights", [minidl.weights_to_pytorch, minidl.weights_from_pytorch])
def test_what_is_no_model_is_refused_by_its_type(copy_weights):
    model, twin = small_model(), small_twin()
    with pytest.raises(TypeError, match=re.escape("expected a Sequential of minidl first")):
        copy_weights(twin, model)
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module second, got OrderedDict"):
        copy_weights(model, twin.state_dict())


@pytest.mark.usefixtures("device")
def test_weights_on_a_device_are_copied_through_the_host():
    model, twin, x = small_model(), small_twin(), drawn((3, 4, 4, 1))
    expected = model.eval()(x).numpy()
    minidl.weights_to_pytorch(model.to("gpu"), twin)
    assert_allclose(twin.eval()(as_torch(x)).detach().numpy(), expected, atol=1e-5)
    minidl.weights_from_pytorch(model, shake(twin))
    assert model[0].weight.device == "gpu"
    assert_same_outputs(model.to("cpu"), twin, x)
