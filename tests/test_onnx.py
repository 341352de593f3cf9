"""ONNX files: what others compute from them, what comes back, and what is refused."""

import copy
import itertools
import json
import re
import sys
import tracemalloc

import numpy as np
import onnx
import onnxruntime
import pytest
from full_disk import full_disk
from generated import cases, generated
from hypothesis import given, settings
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import minidl
from minidl import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    export_onnx,
    load_onnx,
)
from minidl.interop.onnx import format, load, tensors

onnxruntime.set_default_logger_severity(3)

ABSENT_IN_FLOAT64 = {"Conv", "AveragePool", "GlobalAveragePool"}  # from onnxruntime on a CPU


def drawn(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def randomized(model, seed=0):
    """The model with biases, scales and statistics that no layer starts with."""
    rng = np.random.default_rng(seed)
    state = model.state_dict()
    for name, values in state.items():
        if values.ndim == 1:
            state[name] = rng.uniform(0.5, 2, values.shape)
    model.load_state_dict(state)
    return model


def run(content, x):
    """What others compute from a file: onnxruntime, or the reference where that cannot."""
    graph = onnx.load_model_from_string(content).graph
    if x.dtype == np.float64 and ABSENT_IN_FLOAT64 & {node.op_type for node in graph.node}:
        return ReferenceEvaluator(onnx.load_model_from_string(content)).run(None, {"input": x})[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def check(model, path, dtype=np.float32):
    """Export a model; others and what is loaded again must compute the same from the file."""
    model = randomized(model).astype(dtype).train()
    dtype = dtype if model.parameters() else np.float32
    export_onnx(model, path)
    assert model.training
    checker.check_model(onnx.load(path), full_check=True)
    loaded = load_onnx(path)
    assert not loaded.training
    assert loaded.input_shape == model.input_shape
    shape = loaded.output_shape
    for batch in (1, 5):
        x = drawn((batch, *model.input_shape), dtype, seed=batch)
        expected = model.eval()(x).numpy()
        out = run(path.read_bytes(), x)
        assert out.dtype == expected.dtype == dtype
        assert_allclose(out, expected, atol=1e-5)
        again = loaded(x)
        assert again.dtype == dtype
        assert_allclose(again.numpy(), expected, atol=1e-5)
        assert shape == (None, *expected.shape[1:])
    return loaded


def cnn():
    minidl.seed(0)
    return Sequential(
        [
            Conv2D(4, 3, padding="same", activation="relu"),
            BatchNorm(),
            MaxPool(2),
            Dropout(0.3),
            Conv2D(3, 3, use_bias=False),
            ReLU(),
            Flatten(),
            Dense(5, activation="tanh"),
            Dense(3, activation="softmax"),
        ],
        input_shape=(9, 8, 2),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


# -- what is written ---------------------------------------------------------------------------

IMAGE = (7, 6, 3)
LAYERS = {
    "conv": ([Conv2D(4, 3)], IMAGE),
    "conv same": ([Conv2D(4, (4, 3), 2, "same")], IMAGE),
    "conv numbers": ([Conv2D(4, 3, (1, 2), (1, 2))], IMAGE),
    "conv asymmetric": ([Conv2D(4, (3, 2), 2, ((0, 2), (1, 3)))], IMAGE),
    "conv dilated": ([Conv2D(4, 2, padding="same", dilation=(2, 3), use_bias=False)], IMAGE),
    "conv relu": ([Conv2D(4, 2, activation="relu")], IMAGE),
    "conv leaky": ([Conv2D(4, 2, activation="leaky_relu")], IMAGE),
    "conv softmax": ([Conv2D(4, 2, activation="softmax")], IMAGE),
    "conv log_softmax": ([Conv2D(4, 2, activation="log_softmax")], IMAGE),
    "conv layer": ([Conv2D(4, 2, activation=LeakyReLU(0.3))], IMAGE),
    "max pool": ([MaxPool((2, 3))], IMAGE),
    "max pool padded": ([MaxPool(3, 2, ((1, 2), (0, 1)))], IMAGE),
    "max pool same": ([MaxPool(2, 3, "same")], IMAGE),
    "avg pool": ([AvgPool(2)], IMAGE),
    "avg pool padded": ([AvgPool((3, 2), 1, ((2, 1), (0, 1)))], IMAGE),
    "avg pool same": ([AvgPool(3, 2, "same")], IMAGE),
    "global pool": ([GlobalAvgPool()], IMAGE),
    "whole pool": ([Conv2D(2, 1), GlobalAvgPool(), Dense(3)], IMAGE),
    "flatten": ([Flatten()], IMAGE),
    "flatten features": ([Flatten(), Flatten()], (4,)),
    "conv flatten": ([Conv2D(4, 2), Flatten(), BatchNorm(), Dense(2)], IMAGE),
    "batch norm": ([BatchNorm(momentum=0.9, eps=0.3)], (4,)),
    "batch norm of images": ([BatchNorm()], IMAGE),
    "batch norm of sequences": ([BatchNorm(), Dense(3), BatchNorm()], (5, 4)),
    "batch norm of five axes": ([BatchNorm(), Dense(3), Flatten()], (2, 3, 2, 4)),
    "dense": ([Dense(3)], (4,)),
    "dense without bias": ([Dense(3, use_bias=False)], (4,)),
    "dense sigmoid": ([Dense(3, activation="sigmoid")], (4,)),
    "dense log_softmax": ([Dense(3, activation="log_softmax")], (4,)),
    "dense function": ([Dense(3, activation=minidl.tanh)], (4,)),
    "dense on sequences": ([Dense(3, activation="softmax"), Dense(2, use_bias=False)], (5, 4)),
    "dense on images": ([Conv2D(4, 2), Dense(3, activation="relu"), Conv2D(2, 1)], IMAGE),
    "dropout": ([Dropout(0.5), Dense(3), Dropout(0.5)], (4,)),
    "softmax": ([Softmax()], (4,)),
    "softmax of rows": ([Conv2D(4, 2), Softmax(1), Softmax(-2)], IMAGE),
    "softmax of columns": ([MaxPool(2), Softmax(2), Softmax(-1)], IMAGE),
    "softmax of the input": ([Softmax(1), Conv2D(2, 1)], IMAGE),
    "activations": ([ReLU(), LeakyReLU(0.3), Sigmoid(), Tanh(), LeakyReLU(-0.5)], (4,)),
    "activations of images": ([Tanh(), Conv2D(2, 1), Sigmoid(), LeakyReLU(), ReLU()], IMAGE),
    "nested": ([Sequential([Conv2D(2, 2), Sequential([MaxPool(2)])]), Flatten(), Dense(2)], IMAGE),
    "one channel": ([Conv2D(1, 2), Flatten()], (4, 4, 1)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_others_compute_the_same_and_so_does_what_comes_back(name, dtype, path):
    layers, shape = LAYERS[name]
    check(Sequential(copy.deepcopy(layers), input_shape=shape), path, dtype)


@settings(generated, max_examples=25)
@given(case=cases())
def test_any_window_of_a_convolution(case, tmp_path_factory):
    window = case.window
    layer = Conv2D(case.filters, window.size, window.strides, window.padding, window.dilation)
    model = Sequential([layer], input_shape=case.x.shape[1:])
    check(model, tmp_path_factory.getbasetemp() / "convolution.onnx")


@settings(generated, max_examples=25)
@given(case=cases(dilate=False))
def test_any_window_of_a_pooling(case, tmp_path_factory):
    for kind in (MaxPool, AvgPool):
        layer = kind(case.window.size, case.window.strides, case.window.padding)
        model = Sequential([layer], input_shape=case.x.shape[1:])
        check(model, tmp_path_factory.getbasetemp() / "pooling.onnx")


def test_a_whole_network_and_the_operators_it_becomes(path):
    loaded = check(cnn(), path)
    assert operators(path) == [
        *("Transpose", "Conv", "Relu", "BatchNormalization", "MaxPool", "Conv", "Relu"),
        *("Transpose", "Flatten", "Gemm", "Tanh", "Gemm", "Softmax"),
    ]
    kinds = [Conv2D, BatchNorm, MaxPool, Conv2D, Flatten, Dense, Dense]
    assert [type(layer) for layer in loaded.layers] == kinds
    assert loaded[3].activation is minidl.relu
    assert (loaded[1].eps, loaded[1].momentum) == (1e-3, 0.99)
    found = onnx.load(path)
    assert found.ir_version == 8
    assert [(entry.domain, entry.version) for entry in found.opset_import] == [("", 17)]
    (batch, *rest) = found.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "N"
    assert [length.dim_value for length in rest] == [9, 8, 2]
    weights = [tensor.name for tensor in found.graph.initializer]
    assert sorted(weights) == sorted(cnn().state_dict())


def test_what_is_loaded_can_be_trained_saved_and_exported_again(path, tmp_path):
    loaded = check(cnn(), path)
    x = drawn((4, 9, 8, 2))
    before = loaded(x).numpy()
    minidl.save(loaded, tmp_path / "model")
    assert_array_equal(minidl.load(tmp_path / "model")(x).numpy(), before)
    optimizer = minidl.SGD(loaded.train().parameters(), 0.1)
    minidl.cross_entropy(loaded(x), np.zeros(4, int)).backward()
    optimizer.step()
    assert np.abs(loaded.eval()(x).numpy() - before).max() > 1e-4
    check(loaded, tmp_path / "again.onnx")


def test_a_layer_in_two_places_shares_its_weights_in_the_file(path):
    twice = Dense(4)
    loaded = check(Sequential([twice, ReLU(), twice], input_shape=(4,)), path)
    assert len(onnx.load(path).graph.initializer) == 2
    assert loaded[0].weight is not loaded[1].weight


def test_a_model_on_a_device_is_written_as_one_on_the_cpu(path, device):
    model = cnn()
    export_onnx(model, path)
    content = path.read_bytes()
    export_onnx(model.to(device), path)
    assert path.read_bytes() == content


def test_class_names_come_back(path):
    model, names = cnn(), ("T-shirt", "Süß", "靴")
    export_onnx(model, path, class_names=names)
    loaded = load_onnx(path)
    assert loaded.class_names == names
    export_onnx(loaded, path)
    assert load_onnx(path).class_names == names
    export_onnx(model, path)
    assert load_onnx(path).class_names is None
    with pytest.raises(ValueError, match=r"model.onnx: the model has 3 outputs, got 2 class names"):
        export_onnx(model, path, class_names=["a", "b"])


class Gelu(minidl.Layer):
    def forward(self, x):
        return x * minidl.sigmoid(1.702 * x)


class Doubled(Dense):
    def forward(self, x):
        return 2 * super().forward(x)


def half(x):
    return x * 0.5


def mixed():
    model = Sequential([Dense(3), Dense(2)], input_shape=(4,))
    model[0].astype("float64")
    return model


def patched():
    model = Sequential([Dense(3)], input_shape=(4,))
    model[0].forward = half
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Sequential([Dense(3), Gelu()], input_shape=(4,)),
            "Gelu 'gelu' is no layer of mini",
        ),
        (lambda: Sequential([Doubled(3)], input_shape=(4,)), "Doubled 'doubled' is no layer"),
        (lambda: Sequential([Dense(3, activation=Gelu())], input_shape=(4,)), "Gelu is no layer"),
        (
            lambda: Sequential([Dense(3, activation=half)], input_shape=(4,)),
            "Dense 'dense': activation is <function half",
        ),
        (lambda: Dense(3), "expected a Sequential, got Dense"),
        (lambda: Sequential([Dense(3)]), "Sequential has not seen the shape of its input"),
        (lambda: Sequential([Dropout(0.5)], input_shape=(4,)), "computes nothing in evaluation"),
        (lambda: Sequential([Dense(3)], input_shape=()), "Dense 'dense' expects samples with feat"),
        (patched, "Dense 'dense' is no layer of minidl's own"),
        (mixed, "parameters of float32 and float64"),
    ],
)
def test_what_has_no_graph_is_refused_by_name(make, message, path):
    path.write_text("before")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*({message})"):
        export_onnx(make(), path)
    assert path.read_text() == "before"


def test_more_than_a_file_can_hold_is_refused(path, monkeypatch):
    monkeypatch.setattr("minidl.interop.onnx.export.MOST_BYTES", 100)
    with pytest.raises(ValueError, match="an ONNX file holds at most 100 bytes"):
        export_onnx(cnn(), path)


def test_a_full_disk_leaves_the_old_file(path):
    export_onnx(cnn(), path)
    before = path.read_bytes()
    big = Sequential([Dense(100)], input_shape=(100,))
    with full_disk(), pytest.raises(OSError, match=re.escape(str(path))):
        export_onnx(big, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# -- what others write -------------------------------------------------------------------------


def file_of(nodes, weights, shape, opset=18, output=None, kind=TensorProto.FLOAT, **more):
    """The bytes of a file with this graph, the shape of whose input is one of a batch."""
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info(output or nodes[-1].output[0], kind, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    found = helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)
    return found.SerializeToString()


def node(operator, *names, **attributes):
    """A node from the names of its inputs and, last, of its output."""
    return helper.make_node(operator, names[:-1], names[-1:], name=f"/{names[-1]}", **attributes)


def loaded_from(content, path):
    path.write_bytes(content)
    return load_onnx(path)


def conv_node(x, weight, bias, out, **more):
    """Conv as PyTorch writes it, with every attribute."""
    given = {"dilations": [1, 1], "group": 1, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return node("Conv", x, weight, bias, out, **{**given, "strides": [1, 1], **more})


@pytest.mark.parametrize("ending", ["flatten", "reshape", "global pool", "normalized"])
def test_a_network_as_pytorch_writes_it(ending, path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    body = [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
    ]
    head = {
        "flatten": [nn.Flatten(), nn.Linear(18, 5), nn.Softmax(1)],
        "reshape": [nn.Flatten(), nn.Linear(18, 5), nn.LogSoftmax(1)],
        "global pool": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)],
        "normalized": [nn.Flatten(), nn.BatchNorm1d(18), nn.Tanh(), nn.Linear(18, 5)],
    }[ending]
    there = nn.Sequential(*body, *head).eval()
    for name, tensor in [*there.named_parameters(), *there.named_buffers()]:
        if tensor.ndim == 1:
            nn.init.uniform_(tensor, 0.5, 2)
        assert "." in name
    state = {name: t.numpy() for name, t in there.state_dict().items() if t.ndim}
    nodes = [
        conv_node("input", "0.weight", "0.bias", "a"),
        node(
            *("BatchNormalization", "a", "1.weight", "1.bias", "1.running_mean"),
            *("1.running_var", "b"),
            epsilon=1e-5,
            momentum=0.9,
            training_mode=0,
        ),
        node("Relu", "b", "c"),
        node(
            *("MaxPool", "c", "d"),
            ceil_mode=0,
            dilations=[1, 1],
            kernel_shape=[2, 2],
            pads=[0] * 4,
            strides=[2, 2],
        ),
        conv_node("d", "4.weight", "4.bias", "e", strides=[2, 2]),
        node("LeakyRelu", "e", "f", alpha=0.2),
    ]
    linear = {"alpha": 1.0, "beta": 1.0, "transB": 1}
    shape = numpy_helper.from_array(np.array([-1, 18]))
    nodes += {
        "flatten": lambda: [
            node("Flatten", "f", "g", axis=1),
            node("Gemm", "g", "7.weight", "7.bias", "h", **linear),
            node("Softmax", "h", "i", axis=1),
        ],
        "reshape": lambda: [
            node("Constant", "shape", value=shape),
            node("Reshape", "f", "shape", "g", allowzero=0),
            node("Identity", "7.bias", "bias"),
            node("Gemm", "g", "7.weight", "bias", "h", **linear),
            node("LogSoftmax", "h", "i", axis=1),
        ],
        "global pool": lambda: [
            node("GlobalAveragePool", "f", "g"),
            node("Flatten", "g", "h", axis=1),
            node("Gemm", "h", "8.weight", "8.bias", "i", **linear),
        ],
        "normalized": lambda: [
            node("Flatten", "f", "g", axis=1),
            node(
                *("BatchNormalization", "g", "7.weight", "7.bias", "7.running_mean"),
                *("7.running_var", "h"),
            ),
            node("Tanh", "h", "i"),
            node("Identity", "i", "j"),
            node("Gemm", "j", "9.weight", "9.bias", "k", **linear),
        ],
    }[ending]()
    content = file_of(nodes, state, ["batch", 2, 6, 12], opset=17)
    x = drawn((3, 2, 6, 12))
    expected = there(torch.tensor(x)).detach().numpy()
    assert_allclose(run(content, x), expected, atol=1e-5)  # the graph is right
    model = loaded_from(content, path)
    assert model.input_shape == (6, 12, 2)
    assert_allclose(model(x.transpose(0, 2, 3, 1)).numpy(), expected, atol=1e-5)
    assert [type(layer) for layer in model.layers].count(GlobalAvgPool) == (ending == "global pool")


GRAPHS = {
    "a perceptron on images": (
        [
            node("Flatten", "input", "a"),
            node("Gemm", "a", "w", "y", transB=1),
        ],
        {"w": drawn((4, 12))},
        [1, 1, 3, 4],
    ),
    "a pooling of counted places without padding": (
        [node("AveragePool", "input", "y", kernel_shape=[2, 2], count_include_pad=1)],
        {},
        [None, 2, 3, 4],
    ),
    "padding by name": (
        [
            node("Conv", "input", "w", "a", auto_pad="SAME_UPPER", strides=[2, 2]),
            node("MaxPool", "a", "y", auto_pad="VALID", kernel_shape=[2, 2]),
        ],
        {"w": drawn((3, 2, 2, 3))},
        [None, 2, 5, 6],
    ),
    "a Linear on sequences": (
        [
            node("MatMul", "input", "w", "a"),
            node("Add", "b", "a", "c"),
            node("Relu", "c", "y"),
        ],
        {"w": drawn((4, 3)), "b": drawn(3)},
        ["N", 5, 4],
    ),
    "what lies around a Transpose": (
        [
            node("Softmax", "input", "s", axis=3),
            node("Transpose", "s", "a", perm=[0, 3, 1, 2]),
            node("Conv", "a", "w", "b"),
            node("Relu", "b", "c"),
            node("Transpose", "c", "d", perm=[0, 2, 3, 1]),
            node("Softmax", "d", "y"),
        ],
        {"w": drawn((3, 2, 2, 3))},
        [None, 5, 6, 2],
    ),
    "a pooled image that stays one": (
        [
            node("GlobalAveragePool", "input", "a"),
            node("Relu", "a", "b"),
            node("Conv", "b", "w", "c"),
            node("Reshape", "c", "to", "y"),
        ],
        {"w": drawn((3, 2, 1, 1)), "to": np.array([0, -1])},
        [None, 2, 5, 6],
    ),
    "a Transpose that moves nothing": (
        [
            node("Transpose", "input", "a", perm=[0, 1]),
            node("MatMul", "a", "w", "y"),
        ],
        {"w": drawn((4, 3))},
        [None, 4],
    ),
    "dropout in evaluation": (
        [
            node("Dropout", "input", "ratio", "mode", "a"),
            node("Relu", "a", "y"),
        ],
        {"ratio": np.float32(0.3), "mode": np.array(False)},
        [None, 4],
    ),
}


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_other_hands(name, opset, path):
    nodes, weights, shape = GRAPHS[name]
    content = file_of(nodes, weights, shape, opset)
    x = drawn((shape[0] if isinstance(shape[0], int) else 3, *shape[1:]))
    model = loaded_from(content, path)
    first = "perceptron" not in name and "Transpose" not in name and len(shape) == 4
    ours = x.transpose(0, 2, 3, 1) if first else x
    assert model.input_shape == ours.shape[1:]
    out, expected = model(ours).numpy(), run(content, x)
    if out.ndim == 4 and first:
        out = out.transpose(0, 3, 1, 2)
    assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("opset", "axes", "weights", "attributes"),
    [
        (17, (), {}, {"axes": [2, 3]}),
        (18, ("axes",), {"axes": np.array([-1, -2])}, {}),
        (20, ("axes",), {"axes": np.array([2, 3])}, {"noop_with_empty_axes": 0}),
    ],
)
def test_a_mean_over_images_is_a_pooling(opset, axes, weights, attributes, keepdims, path):
    nodes = [node("ReduceMean", "input", *axes, "a", keepdims=keepdims, **attributes)]
    if keepdims:
        nodes.append(node("Reshape", "a", "to", "b", allowzero=1))
        weights = {**weights, "to": np.array([-1, 2])}
    content = file_of(nodes, weights, [None, 2, 3, 4], opset)
    model = loaded_from(content, path)
    assert [type(layer) for layer in model.layers] == [GlobalAvgPool]
    x = drawn((5, 2, 3, 4))
    assert_allclose(model(x.transpose(0, 2, 3, 1)).numpy(), run(content, x), atol=1e-6)


def test_numbers_that_are_not_packed_are_read(path):
    tensor = helper.make_tensor("w", TensorProto.FLOAT, (2, 3), np.arange(6.0))
    assert not tensor.HasField("raw_data")
    found = onnx.ModelProto.FromString(file_of([node("Gemm", "input", "w", "y")], {}, [None, 2]))
    found.graph.initializer.append(tensor)
    model = loaded_from(found.SerializeToString(), path)
    assert_array_equal(model[0].weight.data, [[0, 1, 2], [3, 4, 5]])


def test_equal_weights_that_nodes_share_become_two(path):
    nodes = [
        node("BatchNormalization", "input", "s", "s", "s", "s", "a"),
        node("BatchNormalization", "a", "s", "s", "s", "s", "y"),
    ]
    model = loaded_from(file_of(nodes, {"s": np.ones(4, np.float32)}, [None, 4]), path)
    data = [t.data for t in (*model.parameters(), *(b for _, b in model.named_buffers()))]
    data[0][...] = 7
    assert all((values == 1).all() for values in data[1:])


# -- what is refused ---------------------------------------------------------------------------

W3 = {"w": drawn((3, 2, 3, 3)), "b": drawn(3)}
IMAGES = [None, 2, 6, 6]
DENSE = {"w": drawn((4, 3)), "b": drawn(3)}
VECTORS = {name: np.ones(2, np.float32) for name in "abcd"}
NORM = ("BatchNormalization", "input", *"abcd", "y")


REFUSED = {
    "operator": (
        [node("Erf", "input", "y")],
        {},
        [None, 4],
        "node '/y' of type 'Erf': no layer",
    ),
    "group": ([node("Conv", "input", "w", "y", group=2)], W3, IMAGES, "group must be 1, got 2"),
    "kernel": (
        [node("Conv", "input", "w", "y", kernel_shape=[2, 2])],
        *(W3, IMAGES, r"kernel_shape must be \(3, 3\)"),
    ),
    "lower": (
        [node("Conv", "input", "w", "y", auto_pad="SAME_LOWER")],
        *(W3, IMAGES, "auto_pad must be NOTSET, VALID or SAME_UPPER, got 'SAME_LOWER'"),
    ),
    "pads": ([node("Conv", "input", "w", "y", pads=[1, 1])], W3, IMAGES, "four numbers"),
    "negative pads": ([node("Conv", "input", "w", "y", pads=[-1] * 4)], W3, IMAGES, "padding must"),
    "strides": ([node("Conv", "input", "w", "y", strides=[0, 1])], W3, IMAGES, "strides must be"),
    "type": ([node("Conv", "input", "w", "y", strides=1.0)], W3, IMAGES, "'strides' is unknown or"),
    "channels": ([node("Conv", "input", "w", "y")], W3, [None, 3, 6, 6], r"\(C_out, 3, KH, KW\)"),
    "no images": ([node("Conv", "input", "w", "y")], W3, [None, 2, 6], r"expects images"),
    "too small": ([node("Conv", "input", "w", "y")], W3, [None, 2, 2, 6], "does not fit on images"),
    "bias": ([node("Conv", "input", "w", "w", "y")], W3, IMAGES, r"'w' must be of shape \(3,\)"),
    "ceil": (
        [node("MaxPool", "input", "y", kernel_shape=[2, 2], ceil_mode=1)],
        *({}, IMAGES, "node '/y' of type 'MaxPool': ceil_mode must be 0, got 1"),
    ),
    "dilations": (
        [node("MaxPool", "input", "y", kernel_shape=[2, 2], dilations=[2, 1])],
        *({}, IMAGES, r"dilations must be \(1, 1\), got \(2, 1\)"),
    ),
    "indices": (
        [helper.make_node("MaxPool", ["input"], ["y", "i"], kernel_shape=[2, 2])],
        *({}, IMAGES, "expected one output in use"),
    ),
    "no kernel": ([node("MaxPool", "input", "y")], {}, IMAGES, "pool_size must be"),
    "only pads": (
        [node("MaxPool", "input", "y", kernel_shape=[2, 2], pads=[2, 0, 0, 0])],
        *({}, IMAGES, "windows with padding alone"),
    ),
    "counted": (
        [
            node(
                *("AveragePool", "input", "y"),
                kernel_shape=[2, 2],
                pads=[1, 0, 0, 0],
                count_include_pad=1,
            )
        ],
        *({}, IMAGES, "count_include_pad must be 0"),
    ),
    "flatten all": ([node("Flatten", "input", "y", axis=0)], {}, IMAGES, "axis must be 1, got 0"),
    "flatten at the end": (
        [node("MaxPool", "input", "a", kernel_shape=[1, 1]), node("Flatten", "a", "y")],
        *({}, IMAGES, "let a Gemm follow"),
    ),
    "reshape": (
        [node("Reshape", "input", "to", "y")],
        *({"to": np.array([6, -1])}, [None, 2, 6], r"expects the shape \(N, 12\), got \[6, -1\]"),
    ),
    "reshape to images": (
        [node("Reshape", "input", "to", "y")],
        *({"to": np.array([-1, 2, 2])}, [None, 4], r"expects the shape \(N, 4\)"),
    ),
    "reshape to nothing": (
        [node("Reshape", "input", "to", "y", allowzero=1)],
        *({"to": np.array([0, 4])}, [None, 4], r"expects the shape \(N, 4\), got \[0, 4\]"),
    ),
    "reshape to a number": (
        [node("Reshape", "input", "to", "y")],
        *({"to": np.array(4)}, [None, 4], r"expects the shape \(N, 4\), got 4"),
    ),
    "mean of channels": (
        [node("ReduceMean", "input", "axes", "y")],
        *(
            {"axes": np.array([1, 2])},
            IMAGES,
            r"the axes of height and width, \[2, 3\], got \[1, 2",
        ),
    ),
    "mean of an axis": (
        [node("ReduceMean", "input", "axes", "y")],
        *({"axes": np.array(2)}, IMAGES, r"the axes of height and width, \[2, 3\], got \[2\]"),
    ),
    "alpha": ([node("Gemm", "input", "w", "y", alpha=2.0)], DENSE, [None, 4], "alpha must be 1.0"),
    "beta": ([node("Gemm", "input", "w", "b", "y", beta=0.5)], DENSE, [None, 4], "beta must be 1"),
    "trans A": ([node("Gemm", "input", "w", "y", transA=1)], DENSE, [None, 4], "transA must be 0"),
    "features": ([node("Gemm", "input", "w", "y")], DENSE, [None, 5], "a weight for 5 features"),
    "gemm on images": (
        [node("Gemm", "input", "w", "y")],
        DENSE,
        IMAGES,
        r"expects features \(N, C",
    ),
    "from the left": ([node("MatMul", "w", "input", "y")], DENSE, [None, 4], "got .'w', 'input'.;"),
    "matmul channels first": (
        [node("MaxPool", "input", "a", kernel_shape=[1, 1]), node("MatMul", "a", "w", "y")],
        *(DENSE, IMAGES, "works on the last axis"),
    ),
    "add": ([node("Add", "input", "b", "y")], DENSE, [None, 3], "adds to something else"),
    "two biases": (
        [node("Gemm", "input", "w", "b", "a"), node("Add", "a", "b", "y")],
        *(DENSE, [None, 4], "adds to something else"),
    ),
    "add number": (
        [node("MatMul", "input", "w", "a"), node("Add", "a", "w", "y")],
        *(DENSE, [None, 4], r"'w' must be of shape \(3,\)"),
    ),
    "training": ([node(*NORM, training_mode=1)], VECTORS, [None, 2], "training_mode must be 0"),
    "epsilon": ([node(*NORM, epsilon=0.0)], VECTORS, [None, 2], "BatchNorm expects eps > 0"),
    "momentum": ([node(*NORM, momentum=2.0)], VECTORS, [None, 2], "BatchNorm expects momentum"),
    "vectors": ([node(*NORM)], VECTORS, [None, 3], r"'a' must be of shape \(3,\), got \(2,\)"),
    "normalized last": (
        [node("Transpose", "input", "t", perm=[0, 1, 2, 3]), node(*NORM[:1], "t", *NORM[2:])],
        *(VECTORS, IMAGES, "works on the second axis"),
    ),
    "weights": (
        [node("BatchNormalization", "input", "a", "y")],
        VECTORS,
        [None, 2],
        "expects 4 to",
    ),
    "perm": (
        [node("Transpose", "input", "y", perm=[0, 2, 1, 3])],
        *({}, IMAGES, r"perm must bring channels from one end"),
    ),
    "softmax axis": (
        [node("Softmax", "input", "y", axis=2)],
        {},
        [None, 4],
        "axis must be one of 2",
    ),
    "log softmax": ([node("LogSoftmax", "input", "y")], {}, [None, 4], "only as the activation of"),
    "dropping": (
        [node("Dropout", "input", "ratio", "mode", "y")],
        {"ratio": np.float32(0.3), "mode": np.array(True)},
        *([None, 4], "training_mode must be false"),
    ),
    "rate": (
        [node("Dropout", "input", "ratio", "y")],
        *({"ratio": np.float32(1.5)}, [None, 4], "Dropout expects a rate from 0 to 1"),
    ),
    "ratios": (
        [node("Dropout", "input", "ratio", "y")],
        *({"ratio": np.float32([0.5, 0.5])}, [None, 4], "expects one ratio, got 2"),
    ),
    "residual": (
        [node("Relu", "input", "a"), node("Add", "a", "input", "y")],
        *(
            {},
            [None, 4],
            r"node '/y' of type 'Add': expected as inputs 'a'.*one node follows another",
        ),
    ),
    "named twice": ([node("Relu", "input", "w")], DENSE, [None, 4], "a weight named 'w'"),
    "domain": (
        [helper.make_node("Relu", ["input"], ["y"], domain="com.example")],
        *({}, [None, 4], "no layer of minidl stands for this operator"),
    ),
    "open sizes": ([node("Relu", "input", "y")], {}, [None, 2, None, 6], "only the first length"),
    "no batch": ([node("Relu", "input", "y")], {}, [4], "only the first length"),
    "nothing": ([node("Identity", "input", "y")], {}, [None, 4], "at least one layer"),
    "weight type": (
        [node("Gemm", "input", "w", "y")],
        *({"w": drawn((4, 3), np.float64)}, [None, 4], "'w' must be float32, got type 11"),
    ),
    "half": (
        [node("Gemm", "input", "w", "y")],
        *({"w": drawn((4, 3), np.float16)}, [None, 4], "'w' must be float32, got type 10"),
    ),
    "empty": (
        [node("Gemm", "input", "w", "y")],
        *({"w": drawn((4, 0))}, [None, 4], r"'w' of shape \(4, 0\) must hold numbers"),
    ),
    "constant": (
        [node("Constant", "w", value_floats=[1.0]), node("Gemm", "input", "w", "y")],
        *({}, [None, 1], "'Constant': expected a tensor as its value"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layer_stands_for_is_refused_by_name(name, path):
    nodes, weights, shape, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*({message})"):
        loaded_from(file_of(nodes, weights, shape), path)


def gemm():
    """A small graph to spoil."""
    return onnx.ModelProto.FromString(
        file_of([node("Gemm", "input", "w", "b", "y")], DENSE, [None, 4])
    )


def spoil_shape(found):
    found.graph.initializer[0].dims[:] = [2**40, 2**40]


def spoil_negative(found):
    found.graph.initializer[0].dims[:] = [-4, -3]


def spoil_external(found):
    tensor = found.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def spoil_sparse(found):
    found.graph.sparse_initializer.add()


def spoil_functions(found):
    found.functions.add(name="Gemm")


def spoil_opset(found):
    found.opset_import[0].version = 11


def spoil_no_opset(found):
    del found.opset_import[:]


def spoil_outputs(found):
    found.graph.output.add(name="z")


def spoil_output(found):
    found.graph.output[0].name = "w"


def spoil_input_type(found):
    found.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def spoil_nodes(found):
    for _ in range(load.MOST_NODES):
        found.graph.node.add(op_type="Relu")


def spoil_names(found):
    found.metadata_props.add(key=format.CLASS_NAMES, value=json.dumps(["a", "b"]))


def spoil_json(found):
    found.metadata_props.add(key=format.CLASS_NAMES, value="a")


def spoil_deep_json(found):
    found.metadata_props.add(key=format.CLASS_NAMES, value="[" * 200_000)


def spoil_text(found):
    content = found.SerializeToString()
    return content.replace(b"Gemm", b"\xff\xfe\xfd\xfc")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_shape, r"'w' of shape \(1099511627776, 1099511627776\) must hold .* got 48"),
        (spoil_negative, r"'w' of shape \(-4, -3\) must hold"),
        (spoil_external, "'w' is in another file, which is not read"),
        (spoil_sparse, "sparse weights"),
        (spoil_functions, "defines operators of its own .'Gemm'"),
        (spoil_opset, r"from set 13 to 28, got \[11\]"),
        (spoil_no_opset, "from set 13 to 28, got none"),
        (spoil_outputs, "expected one input and one output, got 1 and 2"),
        (spoil_output, "the output is 'w', expected what the last node gives, 'y'"),
        (spoil_input_type, "input 'input': expected float32 or float64, got type 10"),
        (spoil_nodes, "expected at most 4096 nodes, got 4097"),
        (spoil_names, "the model has 3 outputs, got 2 class names"),
        (spoil_json, "Expecting value"),
        (spoil_deep_json, "nested too deeply"),
        (spoil_text, "xff.*no layer of minidl"),
    ],
)
def test_spoiled_files_are_refused(spoil, message, path):
    found = gemm()
    content = spoil(found) or found.SerializeToString()
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*({message})"):
        loaded_from(content, path)


@pytest.mark.parametrize("content", [b"", b"no model" * 9, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04"])
def test_what_is_no_onnx_file_is_refused(content, path):
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: expected an ONNX file"):
        loaded_from(content, path)


def test_files_that_cannot_be_read_are_told(path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        load_onnx(path)
    export_onnx(cnn(), path)
    monkeypatch.setattr(load, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"model.onnx: expected at most 100 bytes"):
        load_onnx(path)


def test_one_weight_for_many_nodes_does_not_fill_the_memory(path):
    count, size = 1000, 400
    names = ["input", *(f"a{i}" for i in range(count))]
    nodes = [node("Gemm", x, "w", y) for x, y in itertools.pairwise(names)]
    content = file_of(nodes, {"w": np.zeros((size, size), np.float32)}, [None, size])
    tracemalloc.start()
    with pytest.raises(ValueError, match="shared with other nodes, take far more than the file"):
        loaded_from(content, path)
    assert tracemalloc.get_traced_memory()[1] < 2 * tensors.BYTES_OF_ANY_FILE
    tracemalloc.stop()


def test_huge_images_take_no_memory(path):
    shape = [None, 2, 2**30, 2**30]
    nodes = [
        node("MaxPool", "input", "a", kernel_shape=[2**29, 2**29], strides=[1, 1]),
        node("Flatten", "a", "f"),
        node("Gemm", "f", "w", "y"),
    ]
    path.write_bytes(file_of(nodes, DENSE, shape))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"a weight for {2 * (2**29 + 1) ** 2} features"):
        load_onnx(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_damaged_files_are_read_or_refused_and_nothing_else(path):
    export_onnx(cnn(), path, class_names=["a", "b", "c"])
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        end = len(content) if rng.random() < 0.7 else rng.integers(0, len(content))
        try:
            loaded_from(bytes(content[:end]), path)
        except ValueError as error:
            messages.append(str(error))
    assert all(message.startswith(f"{path}: ") for message in messages)
    assert 50 < len(messages) < 300


def test_without_the_library_it_is_said_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: export_onnx(cnn(), path), lambda: load_onnx(path)):
        with pytest.raises(ImportError, match="pip install onnx"):
            call()
    assert not path.exists()
