"""The mode that finds the operation from which nan and infinity come."""

import threading
import weakref

import numpy as np
import pytest

import minidl
from minidl import NonFiniteError, Tensor, anomaly, computation_graph, detect_anomaly
from minidl.ops import normalization, probability, products, regularization
from minidl.tensor import record_jointly

HUGE = 3e38


@pytest.fixture(autouse=True)
def silent():
    """NumPy warns of what these tests are about."""
    with np.errstate(all="ignore"):
        yield


def leaf(*values, dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


def huge(*shape):
    return Tensor(np.full(shape, HUGE, np.float32), requires_grad=True)


def overflowing():
    """Operations on finite numbers whose values are not, by name."""
    big, image = huge(2, 2), huge(1, 2, 2, 1)
    return {
        "add": lambda: big + big,
        "subtract": lambda: big - -big,
        "multiply": lambda: big * big,
        "divide": lambda: big / leaf(1.0, 0.0),
        "power": lambda: big**2,
        "exp": lambda: minidl.exp(big),
        "log": lambda: minidl.log(leaf(0.0)),
        "sqrt": lambda: minidl.sqrt(leaf(4.0, -1.0)),
        "matmul": lambda: big @ big,
        "dense": lambda: products.dense(big, big),
        "conv2d": lambda: minidl.conv2d(image, huge(1, 1, 1, 1)),
        "sum": lambda: big.sum(),
        "mean": lambda: big.mean(),
        "var": lambda: big.var(),
        "avg_pool": lambda: minidl.avg_pool(image),
        "batch_norm": lambda: normalization.batch_norm(big, huge(2), huge(2), 1e-3)[0],
        "dropout": lambda: regularization.dropout(huge(9, 9), 0.9, minidl.Generator(0)),
        "softmax_cross_entropy": lambda: probability.softmax_cross_entropy(
            leaf([HUGE, -HUGE]), np.array([1])
        ),
    }


@pytest.mark.parametrize("name", overflowing())
@pytest.mark.parametrize("recording", [True, False])
def test_the_operation_whose_value_is_not_finite_is_named(name, recording):
    compute = overflowing()[name]
    compute()  # nothing is looked at
    watched = detect_anomaly()(compute if recording else minidl.no_grad()(compute))
    with pytest.raises(NonFiniteError) as caught:
        watched()
    assert str(caught.value).startswith(f"{name}: the value is ")
    assert str(caught.value).endswith("; its inputs are finite")


SLOPES = {  # the way back is what goes wrong
    "sqrt": lambda: minidl.sqrt(leaf(0.0, 4.0)),
    "log": lambda: minidl.log(leaf(1.0, 1e-45)),
    "power": lambda: leaf(0.0, 4.0) ** 0.5,
    "divide": lambda: 1e-9 / leaf(1e-30, 1.0),
    "where": lambda: minidl.where(np.array([False]), leaf(1.0), minidl.sqrt(leaf(0.0))),
}


@pytest.mark.parametrize("name", SLOPES)
def test_the_operation_whose_gradient_is_not_finite_is_named(name):
    SLOPES[name]().sum().backward()
    with detect_anomaly():
        loss = SLOPES[name]().sum()
    culprit = "sqrt" if name == "where" else name
    with pytest.raises(
        NonFiniteError, match=rf"^{culprit}, backward: the gradient of its inp"
    ) as e:
        loss.backward()  # after the block: what was computed inside is looked at
    assert str(e.value).endswith("; the gradient of its value is finite")
    (note,) = e.value.__notes__
    assert note.startswith(f"{culprit} was computed here:\n")
    assert "test_anomaly.py" in note
    assert "SLOPES[name]()" in note
    assert "in record" not in note


def test_a_joint_rule_is_looked_at_too():
    x, w = leaf([1.0, 1.0]), leaf([HUGE], [1.0])
    with detect_anomaly():
        out = products.dense(x * 1e-10, w)
    with pytest.raises(
        NonFiniteError, match=r"^dense, backward: .* in 1 of 2 places, first inf at"
    ):
        out.backward(np.full((1, 1), 10, np.float32))
    assert x.grad is None


def test_gradients_that_nobody_wants_are_not_looked_at():
    def both(x, y):
        def rule(g, _):
            return [g, g * np.nan]

        return record_jointly(x.data + y.data, [x, y], rule)

    x, y = leaf(1.0), leaf(2.0)
    with detect_anomaly():
        both(x, y.detach()).backward()
        assert x.grad == 1
        with pytest.raises(NonFiniteError, match=r"^both, backward"):
            both(x, y).backward()


def test_what_was_not_finite_before_is_no_fault_of_the_operation():
    with detect_anomaly():
        with pytest.raises(NonFiniteError, match=r"^exp: .*; not all of its inputs are f"):
            minidl.exp(leaf(np.nan, 1.0))
        out = minidl.exp(leaf(1.0, 2.0))
        with pytest.raises(NonFiniteError, match=r"^exp, backward: .* value was not finite before"):
            out.backward([1.0, np.inf])


def test_how_much_is_not_finite_and_where_is_told():
    x = leaf([1.0, 2.0], [0.0, 3.0], [0.0, -1.0])
    with detect_anomaly():
        message = r"is nan or infinite in 3 of 6 places, first -inf at \[1, 0\]"
        with pytest.raises(NonFiniteError, match=message):
            minidl.log(x)
        with pytest.raises(NonFiniteError, match=r"^log: the value is -inf; its"):
            minidl.log(x[1, 0])


def test_the_innermost_layer_is_named_in_both_directions():
    class Root(minidl.Layer):
        def forward(self, x):
            return minidl.sqrt(minidl.relu(x))

    class Net(minidl.Module):
        def __init__(self):
            self.inside = minidl.Sequential([minidl.Flatten(), Root(name="first")])

        def forward(self, x):
            return self.inside(x) / 0.0

    model = Net()
    x = Tensor(-np.ones((3, 2), np.float32), requires_grad=True)
    with detect_anomaly():
        out = model.inside(x).sum()
        with pytest.raises(
            NonFiniteError, match=r"^Net: divide: the value is nan or infinite in 6"
        ):
            model(x)
    with pytest.raises(NonFiniteError, match=r"^Root 'first': sqrt, backward: "):
        out.backward()


def test_operations_of_your_own_are_found():
    def reciprocal(x):
        data = x.data
        return minidl.record(1 / data, (x, lambda g: -g / data**2))

    with detect_anomaly():
        with pytest.raises(NonFiniteError, match=r"^reciprocal: the value is inf; its"):
            reciprocal(leaf(0.0)[0])
        out = reciprocal(leaf(1e-25, 1.0))
        with pytest.raises(NonFiniteError, match=r"^reciprocal, backward: "):
            out.sum().backward()
        with pytest.raises(NonFiniteError, match=r"^operation: the value is nan; its inputs"):
            minidl.record(np.float32(np.nan))


def test_training_inside_is_what_it_is_outside():
    results = []
    for watched in (False, True):
        minidl.seed(0)
        layers = [
            minidl.Conv2D(4, 3, activation="relu"),
            minidl.MaxPool(2),
            minidl.BatchNorm(),
            minidl.Dropout(0.2),
            minidl.Flatten(),
            minidl.Dense(3, activation="softmax"),
        ]
        model = minidl.Sequential(layers, input_shape=(8, 8, 1))
        trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters()))
        x = np.random.default_rng(0).random((40, 8, 8, 1), dtype=np.float32)
        fit = detect_anomaly()(trainer.fit) if watched else trainer.fit
        fit(x, np.arange(40) % 3, epochs=2, batch_size=16, verbose=0)
        results.append({name: a.tobytes() for name, a in model.state_dict().items()})
    assert results[0] == results[1]


def test_it_is_off_after_the_block_and_may_be_nested():
    assert anomaly.blocks == 0
    with detect_anomaly():
        with pytest.raises(NonFiniteError), detect_anomaly():
            minidl.log(leaf(0.0))
        with pytest.raises(NonFiniteError):
            minidl.log(leaf(0.0))
    assert anomaly.blocks == 0
    assert minidl.log(leaf(0.0)).data == -np.inf


def test_it_holds_in_every_thread():
    errors = []

    def work():
        try:
            with np.errstate(all="ignore"):
                minidl.log(leaf(0.0))
        except NonFiniteError as error:
            errors.append(error)

    with detect_anomaly():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(errors) == 1


def test_no_more_is_kept_than_without():
    with detect_anomaly():
        x = leaf(1.0, 2.0)
        inner = x + 1.0
        out = inner * 2.0
    freed = weakref.ref(inner.data)
    del inner
    assert freed() is None
    assert '"add"' in computation_graph(out)
    assert '"multiply"' in computation_graph(out)


@pytest.mark.usefixtures("device")
def test_arrays_of_a_device_are_looked_at_there():
    x = leaf(0.0, 4.0).to("gpu").detach()
    x.requires_grad = True
    spoilt = leaf(1.0, np.inf).to("gpu")
    with detect_anomaly():
        with pytest.raises(NonFiniteError, match=r"^log: .* in 1 of 2 places, first -inf at \[0\]"):
            minidl.log(x)
        with pytest.raises(NonFiniteError, match=r"^add: .*; not all of its inputs are finite"):
            x + spoilt
        out = minidl.sqrt(x).sum()
        with pytest.raises(NonFiniteError, match=r"^sqrt, backward: "):
            out.backward()
