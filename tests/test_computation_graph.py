"""The graph of operations as text, parsed, and its picture, drawn by a stand-in for Graphviz."""

import io
import os
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave
from numpy.testing import assert_allclose
from pictures import convolutional_model

import minidl
from minidl import Parameter, Tensor, computation_graph, plot_computation_graph
from minidl.ops import elementwise, images, normalization, probability, products, regularization

STATEMENT = re.compile(
    r"""\ {4}(?:
        (?P<node>\w+)\ \[label="(?P<label>(?:[^"\\]|\\.)*)",\ fillcolor="(?P<color>\#\w{6})"\]
        | (?P<source>\w+)\ ->\ (?P<target>\w+)(?:\ \[label="\ (?P<shape>\([\d,\ ]*\))"\])?
        | (?:node|edge)\ \[[^\]]*\]
    )""",
    re.VERBOSE,
)


def parse(text):
    """Labels and colours by node, and arrows (source, target, shape), from the text of a graph."""
    first, *statements, last = text.removesuffix("\n").split("\n")
    assert (first, last) == ("digraph {", "}")
    labels, colors, arrows = {}, {}, []
    for statement in statements:
        found = STATEMENT.fullmatch(statement)
        assert found, statement
        if found["node"]:
            assert found["node"] not in labels
            name = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], found["label"])
            labels[found["node"]], colors[found["node"]] = name, found["color"]
        elif found["source"]:
            arrows.append((found["source"], found["target"], found["shape"]))
    assert {node for source, target, _ in arrows for node in (source, target)} == set(labels)
    return labels, colors, arrows


def arrows(text):
    """All arrows by the labels of their ends, sorted."""
    labels, _, found = parse(text)
    return sorted((labels[source], labels[target], shape or "") for source, target, shape in found)


def operation(output):
    """The name of the operation that a tensor is the result of."""
    labels, _, found = parse(computation_graph(output))
    ((source,),) = [[s for s, target, _ in found if target == "result"]]
    return labels[source]


def perceptron():
    minidl.seed(0)
    layers = [minidl.Flatten(), minidl.Dense(4, activation="relu"), minidl.Dense(3)]
    return minidl.Sequential(layers, input_shape=(2, 3))


X = np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 12


# The text


def test_the_graph_of_a_small_network():
    model = perceptron()
    text = computation_graph(minidl.cross_entropy(model(X), [0, 2]), model)
    assert arrows(text) == [
        ("dense", "dense", "(2, 4)"),
        ("dense", "softmax_cross_entropy", "(2, 3)"),
        ("dense.bias\n(4,)", "dense", ""),
        ("dense.weight\n(6, 4)", "dense", ""),
        ("dense_1.bias\n(3,)", "dense", ""),
        ("dense_1.weight\n(4, 3)", "dense", ""),
        ("softmax_cross_entropy", "loss", ""),
    ]
    labels, colors, _ = parse(text)
    kinds = {label: colors[node] for node, label in labels.items()}
    assert kinds["dense.weight\n(6, 4)"] == kinds["dense_1.bias\n(3,)"] == "#dbe7f6"
    assert kinds["dense"] == kinds["softmax_cross_entropy"] == "#ffffff"
    assert kinds["loss"] == "#f9dcdc"


def test_without_a_model_tensors_go_by_their_kind():
    x = Tensor(X.reshape(4, 3), requires_grad=True)
    text = computation_graph(x @ Parameter(np.ones((3, 2), np.float32)))
    assert arrows(text) == [
        ("Parameter\n(3, 2)", "matmul", ""),
        ("Tensor\n(4, 3)", "matmul", ""),
        ("matmul", "output", "(4, 2)"),
    ]


def test_every_parameter_of_a_model_is_there_by_name():
    model = convolutional_model()
    out = model(np.zeros((2, 12, 10, 1), np.float32))
    labels, _, _ = parse(computation_graph(minidl.cross_entropy(out, [0, 1]), model))
    expected = {f"{name}\n{p.shape}" for name, p in model.named_parameters()}
    assert len(expected) == 8
    assert expected <= set(labels.values())


def test_frozen_parameters_and_what_has_no_gradient_are_not_there():
    model = perceptron()
    model.layers[1].weight.requires_grad = False
    found = arrows(computation_graph(model(X), model))
    assert found == [
        ("dense", "dense", "(2, 4)"),
        ("dense", "output", "(2, 3)"),
        ("dense.bias\n(4,)", "dense", ""),
        ("dense_1.bias\n(3,)", "dense", ""),
        ("dense_1.weight\n(4, 3)", "dense", ""),
    ]


def test_what_is_used_several_times_is_one_node_with_several_arrows():
    x = Tensor(np.ones(2), requires_grad=True)
    y = x * x
    assert arrows(computation_graph(y + y * x)) == [
        ("Tensor\n(2,)", "multiply", ""),
        ("Tensor\n(2,)", "multiply", ""),
        ("Tensor\n(2,)", "multiply", ""),
        ("add", "output", "(2,)"),
        ("multiply", "add", "(2,)"),
        ("multiply", "add", "(2,)"),
        ("multiply", "multiply", "(2,)"),
    ]
    assert len(parse(computation_graph(y + y * x))[0]) == 5


def test_shapes_are_those_before_broadcasting():
    x, y = (Tensor(np.ones(shape), requires_grad=True) for shape in [(3, 1), (4,)])
    found = arrows(computation_graph(minidl.exp(x) + minidl.exp(y)))
    assert ("exp", "add", "(3, 1)") in found
    assert ("exp", "add", "(4,)") in found
    assert ("add", "output", "(3, 4)") in found


def test_a_tensor_that_no_operation_made_is_a_graph_of_its_own():
    x = Parameter(np.ones((2, 3), np.float32))
    assert arrows(computation_graph(x)) == [("Parameter\n(2, 3)", "output", "(2, 3)")]


def test_names_may_hold_anything():
    names = ['a "quoted" name', "back\\slash \\n", "curly {brace} [x]; -> <b>"]
    model = minidl.Sequential([minidl.Dense(2, name=n) for n in names], input_shape=(2,))
    labels, _, _ = parse(computation_graph(model(np.ones((1, 2), np.float32)), model))
    for name in names:
        assert f"{name}.weight\n(2, 2)" in labels.values()


def test_a_deep_graph_needs_no_recursion():
    x = Tensor(np.ones(1), requires_grad=True)
    for _ in range(5000):
        x = x + 1.0
    assert len(parse(computation_graph(x))[0]) == 5002


def test_looking_at_a_graph_leaves_it_as_it_is():
    gradients = []
    for look in (False, True):
        model = perceptron()
        loss = minidl.cross_entropy(model(X), [0, 2])
        if look:
            assert computation_graph(loss, model) == computation_graph(loss, model)
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, looked_at in zip(*gradients, strict=True):
        assert np.array_equal(plain, looked_at)


# Names of operations


def tensors(*shapes):
    return [Tensor(np.full(shape, 0.5), requires_grad=True) for shape in shapes]


A, B = tensors((2, 3), (2, 3))
IMAGE, FILTERS = tensors((1, 4, 4, 2), (3, 3, 2, 5))
UNARY = ["negative", "abs", "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "leaky_relu"]
BINARY = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum"]
OTHER = {
    "where": lambda: minidl.where(np.ones((2, 3), bool), A, B),
    "clip": lambda: minidl.clip(A, 0.1, 0.2),
    "astype": lambda: A.astype(np.float32),
    "matmul": lambda: A @ B.transpose(),
    "dense": lambda: products.dense(A, B.transpose().detach()),
    "transpose": lambda: A.transpose(1, 0),
    "reshape": lambda: A.reshape(6),
    "getitem": lambda: A[0],
    "pad": lambda: minidl.pad(A, 1),
    "concatenate": lambda: minidl.concatenate([A, B]),
    "stack": lambda: minidl.stack([A, B]),
    "softmax_cross_entropy": lambda: minidl.cross_entropy(A, [0, 1]),
    "cross_entropy_of_probabilities": lambda: minidl.cross_entropy(
        A, [0, 1], from_logits=False, reduction="none"
    ),
    "sigmoid_cross_entropy": lambda: probability.sigmoid_cross_entropy(A, B.data),
    "binary_cross_entropy_of_probabilities": lambda: (
        probability.binary_cross_entropy_of_probabilities(A, B.data)
    ),
    "conv2d": lambda: images.conv2d(IMAGE, FILTERS, relu=True),
    "max_pool": lambda: minidl.max_pool(IMAGE),
    "avg_pool": lambda: minidl.avg_pool(IMAGE),
    "dropout": lambda: regularization.dropout(A, 0.5, minidl.Generator(0)),
    "batch_norm": lambda: normalization.batch_norm(A, *tensors(3, 3), eps=1e-3)[0],
}
OPERATIONS = {
    **{name: lambda n=name: getattr(elementwise, n)(A) for name in UNARY},
    **{name: lambda n=name: getattr(elementwise, n)(A, B) for name in BINARY},
    **{name: lambda n=name: getattr(minidl, n)(A) for name in ("softmax", "log_softmax")},
    **{
        name: lambda n=name: getattr(minidl, n)(A, axis=1)
        for name in ("sum", "mean", "var", "max", "min", "logsumexp")
    },
    **OTHER,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_goes_by_the_name_of_its_function(name):
    assert operation(OPERATIONS[name]()) == name


@pytest.mark.parametrize("name", [*BINARY, "concatenate", "stack", "where", "matmul", "batch_norm"])
@pytest.mark.parametrize("frozen", [A, B])
def test_it_does_so_whichever_input_has_a_gradient(name, frozen):
    frozen.requires_grad = False
    try:
        assert operation(OPERATIONS[name]()) == name
    finally:
        frozen.requires_grad = True


def doubled(x):
    return minidl.record(x.data * 2, (x, lambda g: g * 2))


class Tripled(minidl.Layer):
    def forward(self, x):
        def rule(g, wanted):
            assert wanted == (True,)
            return [g * 3]

        return minidl.tensor.record_jointly(x.data * 3, [x], rule)


def twice(g):
    return g * 2


class Twice:
    def __call__(self, g):
        return g * 2


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (lambda: doubled(A), "doubled"),
        (lambda: Tripled()(A), "Tripled.forward"),
        (lambda: minidl.record(A.data, *[(A, lambda g: g) for _ in range(1)]), "operation"),
        (lambda: minidl.record(A.data * 2, (A, twice)), "twice"),
        (lambda: minidl.record(A.data * 2, (A, Twice())), "Twice"),
    ],
)
def test_operations_of_ones_own_have_names_too(output, name):
    assert operation(output()) == name


def test_an_operation_inside_a_function_goes_by_its_own_name():
    def inner(x):
        return minidl.record(x.data, (x, lambda g: g))

    assert operation(inner(A)) == "inner"


# What has no graph


def test_a_tensor_without_a_graph_is_refused():
    model = perceptron()
    with minidl.no_grad():
        outside = model(X)
    for tensor in (outside, Tensor(X), model(X).detach()):
        with pytest.raises(ValueError, match="a tensor that gradients flow to"):
            computation_graph(tensor, model)


def test_a_graph_that_was_let_go_is_refused():
    model = perceptron()
    out = model(X)
    loss = minidl.cross_entropy(out, [0, 2])
    loss.backward()
    for tensor in (loss, out, out * 2):
        with pytest.raises(ValueError, match=r"backward\(\) has let this graph go"):
            computation_graph(tensor, model)


def test_a_model_without_parameters_yet_is_refused():
    with pytest.raises(RuntimeError, match="no parameters yet"):
        computation_graph(A * 2, minidl.Sequential([minidl.Dense(2)]))


# The picture


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
PICTURE[..., 3] = 255


@pytest.fixture
def dot(tmp_path, monkeypatch):
    """A program named dot that keeps what it is asked and gives a picture."""
    imsave(tmp_path / "picture.png", PICTURE)
    program = tmp_path / "dot"
    program.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\necho "$@" > arguments\ncat > text\ncat picture.png\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_dot_draws_the_text_and_its_picture_is_shown_pixel_by_pixel(dot):
    model = minidl.Sequential([minidl.Dense(2, name="größe")], input_shape=(3,))
    out = model(np.ones((1, 3), np.float32))
    figure = plot_computation_graph(out, model)
    assert (dot / "text").read_text(encoding="utf-8") == computation_graph(out, model)
    assert (dot / "arguments").read_text().split() == ["-Tpng", "-Gdpi=150"]
    assert type(figure) is Figure
    assert len(figure.axes) == 1
    written = io.BytesIO()
    figure.savefig(written, format="png")
    written.seek(0)
    assert_allclose(imread(written), PICTURE / 255, atol=1 / 255)


def test_without_graphviz_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = r"program dot of Graphviz.*apt-get install graphviz.*computation_graph\(\) gives"
    with pytest.raises(FileNotFoundError, match=message):
        plot_computation_graph(A * 2)


def test_what_dot_complains_about_is_passed_on(dot):
    (dot / "dot").write_text("#!/bin/sh\necho 'no such format' >&2\nexit 1\n")
    with pytest.raises(OSError, match=r"dot could not draw the graph: no such format"):
        plot_computation_graph(A * 2)


def test_the_picture_of_what_has_no_graph_is_refused(dot):
    with pytest.raises(ValueError, match="a tensor that gradients flow to"):
        plot_computation_graph(Tensor(X))
    assert not (dot / "text").exists()
