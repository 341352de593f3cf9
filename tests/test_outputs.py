"""Prediction and evaluation with a batch in each thread: what comes out is what one would get.

Where two threads have to be seen at work at once, they meet at a barrier, which one alone would
never pass. Where nobody but the caller may be at work, all that is shared is given to others. The
first batch is always computed by the caller, who sees how long it takes.
"""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from reference import numbers

import minidl
from minidl import Tensor, no_grad
from minidl.kernels import products, threads
from minidl.kernels.threads import share
from minidl.training import outputs
from minidl.training.outputs import BATCHES_A_THREAD, FEWEST_BATCHES, outputs_of

A_MINUTE = 60  # what nobody waits for unless something hangs
COUNTS = [1, 2, 3, 8]


class PlantedError(Exception):
    pass


@pytest.fixture(autouse=True)
def worth_sharing(monkeypatch):
    """However little time a batch takes."""
    monkeypatch.setattr(outputs, "WORTH_SHARING", -1.0)


def batches_for(count):
    """So many batches that each of so many threads has as many of those after the first."""
    return 1 + count * -(-FEWEST_BATCHES // count)


def meeting(count):
    """What so many threads have to reach at once."""
    return threading.Barrier(count, timeout=A_MINUTE)


def small_model(activation="tanh"):
    """A model of two Dense layers."""
    minidl.seed(0)
    layers = [minidl.Dense(4, activation=activation), minidl.Dense(3)]
    return minidl.Sequential(layers, input_shape=(5,))


def image_model():
    """A layer of every kind, whose products and convolutions are cut into pieces."""
    minidl.seed(0)
    model = minidl.Sequential(
        [
            minidl.Conv2D(8, 3, padding="same", activation="relu"),
            minidl.MaxPool(2),
            minidl.BatchNorm(),
            minidl.Conv2D(48, 3),
            minidl.AvgPool(2),
            minidl.Flatten(),
            minidl.Dropout(0.5),
            minidl.Dense(128, activation="tanh"),
            minidl.Dense(512, activation="relu"),
            minidl.Dense(512, activation="relu"),
            minidl.Dense(3),
        ],
        input_shape=(28, 28, 1),
    )
    normalization = model.layers[2]
    normalization.running_mean.data[...] = numbers((8,), 1)
    normalization.running_variance.data[...] = numbers((8,), 2) ** 2
    return model


def trainer_of(model, loss=minidl.cross_entropy, **more):
    return minidl.Trainer(model, loss, minidl.SGD(model.parameters()), **more)


def rows(samples):
    return numbers((samples, 5), 0).astype(np.float32)


def labels(samples):
    return np.arange(samples) % 3


def batch_by_batch(model, x, size):
    """The outputs of a model called with one batch after the other."""
    with model.mode(training=False), no_grad():
        return np.concatenate([model(x[i : i + size]).numpy() for i in range(0, len(x), size)])


def is_later(batch):
    """Whether this is the input of a model, of another batch of `rows` than the first."""
    return batch.shape[1] == 5 and bool((batch.data[0] != rows(1)[0]).any())


def watch_dense(monkeypatch, before):
    """Call a function with its input before every Dense layer; it is minidl's own all the same."""
    forward = minidl.Dense.forward

    def watched(self, x):
        before(x)
        return forward(self, x)

    monkeypatch.setattr(minidl.Dense, "forward", watched)


# The same outputs, in order


@pytest.mark.parametrize("batches", [1, 2, FEWEST_BATCHES - 1, FEWEST_BATCHES, 25])
def test_every_number_of_threads_predicts_the_same_bits(batches):
    x = numbers((64 * batches - 57, 28, 28, 1), 0).astype(np.float32)  # 7 in the last batch
    trainer = trainer_of(image_model())
    minidl.set_num_threads(1)
    expected = trainer.predict(x, batch_size=64)
    each = batch_by_batch(trainer.model, x, 64)
    for count in COUNTS:
        minidl.set_num_threads(count)
        assert trainer.predict(x, batch_size=64).tobytes() == expected.tobytes()
        assert batch_by_batch(trainer.model, x, 64).tobytes() == each.tobytes()
    if batches < FEWEST_BATCHES:
        assert_array_equal(expected, each)
    else:  # where products are whole, which may be rounded in another way than their parts
        np.testing.assert_allclose(expected, each, rtol=1e-5, atol=1e-5 * np.abs(each).max())


def test_products_are_whole_where_a_thread_has_a_batch_to_itself(monkeypatch):
    cut, way = [], products._way

    def noted(*shape):
        found = way(*shape)
        cut.append(found is not None and len(found.parts) > 1)
        return found

    monkeypatch.setattr(products, "_way", noted)
    wide = minidl.Sequential([minidl.Dense(1024)], input_shape=(1024,))
    x = np.ones((64 * FEWEST_BATCHES, 1024), np.float32)
    for count in COUNTS:
        minidl.set_num_threads(count)
        cut.clear()
        trainer_of(wide).predict(x, batch_size=64)
        assert cut == [True] + [False] * (FEWEST_BATCHES - 1)
        cut.clear()
        trainer_of(wide).predict(x[64:], batch_size=64)
        assert cut == [True] * (FEWEST_BATCHES - 1)
        with pytest.raises(PlantedError), threads.undivided():
            raise PlantedError
        assert threads.divides()


@pytest.mark.parametrize("samples", [1, 3, 4, 139, 400])
@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_outputs_are_those_of_their_samples_with_batches_of_any_size(samples, size):
    model, x = small_model(), rows(samples)
    expected = batch_by_batch(model, x, size)
    for count in COUNTS:
        minidl.set_num_threads(count)
        assert_array_equal(trainer_of(model).predict(x, batch_size=size), expected)


def test_outputs_are_in_order_when_one_is_ready_after_the_next(monkeypatch):
    model, x = small_model(), rows(4 * FEWEST_BATCHES)
    expected, third = batch_by_batch(model, x, 4), threading.Event()

    def turn_round(batch):
        if batch.shape == (4, 5) and (batch.data == x[8:12]).all():
            third.set()
        elif batch.shape == (4, 5) and (batch.data == x[4:8]).all():
            assert third.wait(A_MINUTE)

    watch_dense(monkeypatch, turn_round)
    minidl.set_num_threads(2)
    assert_array_equal(trainer_of(model).predict(x, batch_size=4), expected)


@pytest.mark.parametrize("batches", [1, 2, 7, 70])
def test_every_number_of_threads_evaluates_to_the_same_numbers(batches):
    samples = 4 * batches - 1
    x, y, model = rows(samples), labels(samples), small_model()
    trainer = trainer_of(model)
    minidl.set_num_threads(1)
    expected = trainer.evaluate(x, y, batch_size=4)
    for count in COUNTS:
        minidl.set_num_threads(count)
        assert trainer.evaluate(x, y, batch_size=4) == expected
    out = batch_by_batch(model, x, 4)
    measured = {"loss": minidl.cross_entropy(out, y), "accuracy": minidl.accuracy(out, y)}
    for name, value in measured.items():
        assert expected[name] == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_inputs_are_converted_to_the_dtype_of_the_model(dtype, count):
    x, y = np.abs(numbers((50, 5), 0) * 100).astype(dtype), labels(50)
    assert x.astype(np.float32).max() > 127
    minidl.set_num_threads(count)
    for own in (np.float32, np.float64):
        trainer = trainer_of(small_model().astype(own))
        out = trainer.predict(x, batch_size=8)
        assert out.dtype == own
        assert_array_equal(out, trainer.predict(x.astype(own), batch_size=8))
        result = trainer.evaluate(x, y, batch_size=8)
        assert result == trainer.evaluate(x.astype(own), y, batch_size=8)


def test_tensors_and_arrays_in_any_memory_order_are_predicted_alike():
    minidl.set_num_threads(3)
    x, trainer = rows(50), trainer_of(small_model())
    expected = trainer.predict(x, batch_size=8)
    backwards = np.ascontiguousarray(x[::-1])[::-1]
    backwards.flags.writeable = False
    for same in (Tensor(x), np.asfortranarray(x), backwards):
        assert_array_equal(trainer.predict(same, batch_size=8), expected)


# Who computes


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_so_many_threads_have_a_batch_each(monkeypatch, what, count):
    samples = 4 * batches_for(count)
    x, y, trainer = rows(samples), labels(samples), trainer_of(small_model())
    meet, threads = meeting(count), set()

    def note(batch):
        if is_later(batch):
            meet.wait()
            threads.add(threading.get_ident())

    watch_dense(monkeypatch, note)
    minidl.set_num_threads(count)
    if what == "predict":
        trainer.predict(x, batch_size=4)
    else:
        trainer.evaluate(x, y, batch_size=4)
    assert len(threads) == count
    assert threading.get_ident() in threads


def elsewhere(work, pieces, **_):
    """As `share`, but the caller itself takes no piece of several."""
    if len(pieces) == 1:
        work(pieces[0])
        return
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, pieces))


def threads_that_compute(monkeypatch, model, samples=40):
    """The threads that call Dense layers while batches of 4 are predicted."""
    threads = set()
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "share", elsewhere)
        watch_dense(patch, lambda _: threads.add(threading.get_ident()))
        trainer_of(model).predict(rows(samples), batch_size=4)
    return threads


class Users(minidl.Module):
    """A module of the user's around one of minidl's."""

    def __init__(self):
        self.inside = [minidl.Dense(3)]
        self.inside[0](rows(1))

    def forward(self, x):
        return self.inside[0](x)


class Identity(minidl.Layer):
    def forward(self, x):
        return x


class Chain(minidl.Sequential):
    pass


class Square:
    def __call__(self, x):
        return x * x


def of_layers(*layers, kind=minidl.Sequential):
    return kind([minidl.Dense(4), *layers, minidl.Dense(3)], input_shape=(5,))


def users_activation(function):
    return of_layers(minidl.Dense(4, activation=function))


USERS = {
    "module": Users,
    "layer": lambda: of_layers(Identity()),
    "layer inside": lambda: of_layers(minidl.Sequential([minidl.Sequential([Identity()])])),
    "kind of Sequential": lambda: of_layers(kind=Chain),
    "function": lambda: users_activation(lambda x: x * x),
    "object": lambda: users_activation(Square()),
    "partial": lambda: users_activation(functools.partial(minidl.leaky_relu, slope=0.1)),
    "layer as activation": lambda: users_activation(Identity()),
}


@pytest.mark.parametrize("name", USERS)
def test_what_is_not_minidls_is_called_by_the_caller_alone(monkeypatch, name):
    minidl.set_num_threads(3)
    assert threads_that_compute(monkeypatch, USERS[name]()) == {threading.get_ident()}


OWN = {
    "names": lambda: small_model("leaky_relu"),
    "function": lambda: small_model(minidl.sigmoid),
    "method": lambda: small_model(Tensor.tanh),
    "layer as activation": lambda: small_model(minidl.LeakyReLU(0.1)),
    "layers": lambda: of_layers(minidl.Sequential([minidl.Dropout(0.5), minidl.Softmax()])),
}


@pytest.mark.parametrize("name", OWN)
def test_what_is_minidls_alone_is_called_in_several_threads(monkeypatch, name):
    minidl.set_num_threads(3)
    assert threads_that_compute(monkeypatch, OWN[name]()) - {threading.get_ident()}


def test_few_batches_are_computed_by_the_caller(monkeypatch):
    minidl.set_num_threads(3)
    own, here, few = small_model(), {threading.get_ident()}, 4 * (FEWEST_BATCHES - 1)
    assert threads_that_compute(monkeypatch, own, samples=few) == here
    assert threads_that_compute(monkeypatch, own, samples=few + 1) != here


def test_batches_that_take_no_time_are_computed_by_the_caller(monkeypatch):
    minidl.set_num_threads(3)
    monkeypatch.setattr(outputs, "WORTH_SHARING", A_MINUTE)
    assert threads_that_compute(monkeypatch, small_model()) == {threading.get_ident()}


def test_a_forward_that_the_user_has_set_is_called_by_the_caller_alone(monkeypatch):
    minidl.set_num_threads(3)
    model = of_layers(minidl.ReLU())
    model.layers[1].forward = lambda x: x * x
    assert threads_that_compute(monkeypatch, model) == {threading.get_ident()}


@pytest.mark.parametrize("bytes_at_most", [outputs.MOST_BYTES, 9 * 12 + 11, 8 * 12 - 1, 1])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_batches_are_computed_ahead_and_one_where_the_user_has_a_part(
    monkeypatch, count, bytes_at_most
):
    minidl.set_num_threads(count)
    monkeypatch.setattr(outputs, "MOST_BYTES", bytes_at_most)  # outputs of a sample have 12
    x, taken = rows(100), []

    def take(number):
        taken.append(number)
        return Tensor(x[number : number + 1])

    fits = bytes_at_most // 12
    several = min(BATCHES_A_THREAD * count, fits) if count > 1 and fits >= FEWEST_BATCHES else 1
    for model, ahead in ((small_model(), several), (USERS["layer"](), 1)):
        taken.clear()
        for number, out in enumerate(outputs_of(model, range(100), take)):
            assert_array_equal(out.numpy(), model(x[number : number + 1]).numpy())
            rounds = -(-number // ahead)  # after the first batch, which is alone
            assert sorted(taken) == list(range(min(100, 1 + rounds * ahead)))
        assert number == 99


# Errors


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("error", [PlantedError, KeyboardInterrupt])
@pytest.mark.parametrize("place", [0, 20, 39])
def test_an_error_in_one_batch_is_raised_as_it_is_and_later_calls_work(
    monkeypatch, count, error, place
):
    minidl.set_num_threads(count)
    x, y, trainer = rows(160), labels(160), trainer_of(small_model())
    out, result = trainer.predict(x, batch_size=4), trainer.evaluate(x, y, batch_size=4)
    planted, wrong = error("in a batch"), x[4 * place]

    def fail(batch):
        if batch.shape[1] == 5 and (batch.data[0] == wrong).all():
            raise planted

    with monkeypatch.context() as patch:
        watch_dense(patch, fail)
        for call in (trainer.predict, functools.partial(trainer.evaluate, y=y)):
            with pytest.raises(error) as raised:
                call(x, batch_size=4)
            assert raised.value is planted
    assert_array_equal(trainer.predict(x, batch_size=4), out)
    assert trainer.evaluate(x, y, batch_size=4) == result


@pytest.mark.parametrize("count", [1, 3])
def test_inputs_that_do_not_fit_are_told_of_as_in_a_call_of_the_model(count):
    minidl.set_num_threads(count)
    model = small_model()
    x = numbers((40, 6), 0).astype(np.float32)
    with pytest.raises(ValueError, match="Dense 'dense': expects") as expected:
        model(x)
    with pytest.raises(ValueError, match="Dense 'dense': expects") as raised:
        trainer_of(model).predict(x, batch_size=4)
    assert str(raised.value) == str(expected.value).replace("(40, 6)", "(4, 6)")


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_of_the_loss_leaves_nothing_behind(count):
    minidl.set_num_threads(count)
    x, y, model = rows(160), labels(160), small_model()
    calls = []

    def loss(out, wanted):
        calls.append(len(out))
        if len(calls) == 30:
            raise PlantedError
        return minidl.cross_entropy(out, wanted)

    trainer = trainer_of(model, loss)
    expected = trainer_of(model).evaluate(x, y, batch_size=4)["loss"]
    with pytest.raises(PlantedError):
        trainer.evaluate(x, y, batch_size=4)
    assert model.training
    assert (Tensor([1.0], requires_grad=True) * 2).requires_grad
    assert trainer.evaluate(x, y, batch_size=4)["loss"] == expected


# Modes and graphs


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_modes_are_evaluation_inside_and_those_of_before_afterwards(
    monkeypatch, what, fails, count
):
    minidl.set_num_threads(count)
    model = of_layers(minidl.Dropout(0.5), minidl.BatchNorm())
    model.layers[1].training = False  # a layer that the user froze
    before, state, seen = modes(model), model.state_dict(), []

    def look(_):
        seen.append(modes(model))
        if fails and len(seen) > 20:
            raise PlantedError

    watch_dense(monkeypatch, look)
    trainer = trainer_of(model)
    call = (
        trainer.predict if what == "predict" else functools.partial(trainer.evaluate, y=labels(60))
    )
    try:
        call(rows(60), batch_size=4)
    except PlantedError:
        assert fails
    assert len(seen) >= 20 + fails
    assert not np.any(seen)
    assert modes(model) == before
    for name, array in model.state_dict().items():
        assert_array_equal(array, state[name])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_thread_records_a_graph_of_what_it_predicts(monkeypatch, count):
    minidl.set_num_threads(count)
    model, samples = small_model(), 4 * batches_for(count)
    x, meet, recorded, handed_on = rows(samples), meeting(count), [], []

    def look(batch):
        if is_later(batch):
            meet.wait()
        recorded.append((model.layers[0].weight * 2).requires_grad)

    def loss(out, wanted):
        handed_on.append((out + model.layers[1].bias).requires_grad)
        return minidl.cross_entropy(out, wanted)

    watch_dense(monkeypatch, look)
    trainer = trainer_of(model, loss)
    trainer.predict(x, batch_size=4)
    trainer.evaluate(x, labels(samples), batch_size=4)
    batches = np.split(x, batches_for(count))
    handed_on += [out.requires_grad for out in outputs_of(model, batches, Tensor)]
    assert recorded == [False] * (6 * len(batches))
    assert handed_on == [False] * (2 * len(batches))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("fails", [False, True])
def test_every_thread_records_graphs_again_afterwards(monkeypatch, fails):
    minidl.set_num_threads(3)
    model, meet, recorded = small_model(), meeting(3), []
    x = Tensor([1.0], requires_grad=True)

    def work(_):
        meet.wait()
        recorded.append((x * 2).requires_grad)

    def together(batch):
        if is_later(batch):
            meet.wait()
            if fails:
                raise PlantedError

    watch_dense(monkeypatch, together)
    try:
        trainer_of(model).predict(rows(4 * batches_for(3)), batch_size=4)
    except PlantedError:
        assert fails
    share(work, list(range(3)))
    assert recorded == [True] * 3


def test_a_model_trains_after_predictions_as_it_would_without():
    states = []
    for count in (1, 3):
        minidl.set_num_threads(count)
        model = small_model()
        trainer = trainer_of(model)
        x, y = rows(60), labels(60)
        for _ in range(2):
            trainer.fit(x, y, batch_size=4, shuffle=False, verbose=0)
            if count > 1:
                trainer.predict(x, batch_size=4)
                trainer.evaluate(x, y, batch_size=4)
        states.append(model.state_dict())
    for name, array in states[0].items():
        assert_array_equal(array, states[1][name])


def test_trainers_of_several_threads_of_the_user_predict_at_once():
    minidl.set_num_threads(3)
    x, start = rows(400), meeting(3)
    trainers = [trainer_of(small_model(activation)) for activation in ("tanh", "relu", None)]
    expected = [trainer.predict(x, batch_size=4) for trainer in trainers]

    def predict(trainer):
        start.wait()
        return [trainer.predict(x, batch_size=4) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        for results, wanted in zip(pool.map(predict, trainers), expected, strict=True):
            for result in results:
                assert_array_equal(result, wanted)
