"""Training whose loss or gradients become nan or infinite: when it stops, and what it says."""

import math
import re

import numpy as np
import pytest

import minidl
from minidl import NonFiniteError
from minidl.training.means import Means

X = np.random.default_rng(0).random((100, 5), dtype=np.float32)
Y = np.arange(100) % 3


@pytest.fixture(autouse=True)
def silent():
    """NumPy warns of what these tests are about."""
    with np.errstate(all="ignore"):
        yield


class Root(minidl.Layer):
    """Finite, with a slope that is infinite where the input is not positive."""

    def forward(self, x):
        return minidl.sqrt((x + abs(x)) * 0.5)


class Overflow(minidl.Layer):
    """Finite for a number of batches, and then infinite."""

    def __init__(self, good=0):
        super().__init__()
        self.left = good

    def forward(self, x):
        self.left -= self.training
        return minidl.exp(x * self.factor())

    def factor(self):
        return 1.0 if self.left >= 0 else 1e5


class Watch(minidl.Callback):
    """Keeps the state of the model after each step."""

    def on_train_begin(self, trainer):
        self.states = [trainer.model.state_dict()]

    def on_batch_end(self, trainer):
        self.states.append(trainer.model.state_dict())


def trainer_of(*layers, optimizer=minidl.Adam, **options):
    minidl.seed(0)
    model = minidl.Sequential([*layers, minidl.Dense(3)], input_shape=(5,))
    return minidl.Trainer(model, minidl.cross_entropy, optimizer(model.parameters()), **options)


def check_as_after_the_last_step(trainer, watch, steps):
    assert len(watch.states) == steps + 1
    for name, array in trainer.model.state_dict().items():
        assert np.array_equal(array, watch.states[-1][name]), name
        assert np.isfinite(array).all(), name
    assert trainer.optimizer.step_count == steps
    assert all(param.grad is None for param in trainer.model.parameters())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shuffle", [False, True])
def test_data_that_are_not_finite_are_named_by_their_sample(number, shuffle):
    x = X.copy()
    x[57, 2] = number
    trainer, watch = trainer_of(minidl.BatchNorm(), minidl.Dense(4)), Watch()
    with pytest.raises(NonFiniteError, match="the loss is nan; the inputs of sample 57 hold ") as e:
        trainer.fit(x, Y, 3, 10, shuffle=shuffle, callbacks=[watch], verbose=0)
    step = int(re.match(r"epoch 1, step (\d+) of 10: ", str(e.value))[1])
    if not shuffle:
        assert step == 6
    check_as_after_the_last_step(trainer, watch, step - 1)


def test_labels_that_are_not_finite_are_named_by_their_sample():
    minidl.seed(0)
    model = minidl.Sequential([minidl.Dense(1)], input_shape=(5,))
    trainer = minidl.Trainer(model, minidl.mse, minidl.SGD(model.parameters()))
    y = X[:, :1].copy()
    y[31] = np.inf
    message = "epoch 1, step 4 of 10: the loss is inf; the labels of sample 31 hold nan or infinity"
    with pytest.raises(NonFiniteError, match=message):
        trainer.fit(X, y, batch_size=10, shuffle=False, verbose=0)


def test_labels_outside_the_classes_leave_the_model_usable():
    trainer, twin = trainer_of(minidl.Dense(4)), trainer_of(minidl.Dense(4))
    with pytest.raises(ValueError, match=r"expected labels from 0 to 2 for 3 classes, got .* to 5"):
        trainer.fit(X, Y + 3, verbose=0)
    states = []
    for each in (trainer, twin):
        minidl.seed(1)
        each.fit(X, Y, verbose=0)
        states.append({name: a.tobytes() for name, a in each.model.state_dict().items()})
    assert states[0] == states[1]


def test_a_loss_that_is_not_finite_names_the_layer_and_the_operation():
    trainer = trainer_of(minidl.Dense(4, activation="relu"), minidl.BatchNorm(), Overflow(13))
    watch = Watch()
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(X, Y, 3, 10, callbacks=[watch], verbose=0)
    assert re.fullmatch(
        r"epoch 2, step 4 of 10: the loss is (nan|inf); it began in Overflow 'overflow': exp: "
        r"the value is nan or infinite in \d+ of 40 places, first inf at \[\d+, \d+\]; "
        "its inputs are finite; no checkpoint was written",
        str(caught.value),
    )
    check_as_after_the_last_step(trainer, watch, 13)
    assert len(trainer.history) == 1
    assert not trainer.history.history.keys() - {"loss", "accuracy"}


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_traced_to_its_layer(clip_norm):
    trainer = trainer_of(minidl.Dense(4), minidl.Dense(4), Root(), clip_norm=clip_norm)
    watch = Watch()
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(X, Y, 3, 10, callbacks=[watch], verbose=0)
    assert re.fullmatch(
        r"epoch 1, step 1 of 10: the gradient of 'dense_1.bias' is nan or infinite in \d of 4 "
        r"places, first \S+ at \[\d\]; it began in Root 'root': sqrt, backward: the gradient of "
        r"its input is nan .*; the gradient of its value is finite; no checkpoint was written",
        str(caught.value),
    )
    check_as_after_the_last_step(trainer, watch, 0)


def test_large_gradients_are_no_infinite_ones():
    minidl.seed(0)
    model = minidl.Sequential([minidl.Dense(1)], input_shape=(5,))
    optimizer = minidl.SGD(model.parameters(), lr=1e-30)
    trainer = minidl.Trainer(model, lambda out, _: (out * 1e20).mean(), optimizer)
    trainer.train_step(minidl.Tensor(X), minidl.Tensor(Y))
    grad = model.layers[0].bias.grad
    assert np.isfinite(grad).all()
    assert math.isinf(grad @ grad)


def test_an_update_that_spoils_the_weights_is_found_at_the_next_step():
    class Spoiler(minidl.Callback):
        def on_batch_end(self, trainer):
            trainer.model.layers[1].weight.data[2, 1] = np.inf

    trainer = trainer_of(minidl.Dense(4))
    message = (
        r"step 2 of 4: the loss is \S+; an update has spoilt 'dense_1.weight', which is nan or "
    )
    with pytest.raises(NonFiniteError, match=message) as caught:
        trainer.fit(X, Y, callbacks=[Spoiler()], verbose=0)
    assert "in 1 of 12 places, first inf at [2, 1]; a smaller learning rate" in str(caught.value)


def test_the_last_update_of_an_epoch_is_looked_at_before_it_is_saved(tmp_path):
    path = tmp_path / "w.safetensors"
    trainer = trainer_of(optimizer=lambda p: minidl.SGD(p, lr=1e38, momentum=0.9))
    saver = minidl.ModelCheckpoint(path, "loss", save_best_only=False)
    message = r"epoch 1, step 1 of 1: an update has spoilt 'dense\.weight', .* no checkpoint was wr"
    with pytest.raises(NonFiniteError, match=message):
        trainer.fit(100 * X, Y, 5, 100, callbacks=[saver], verbose=0)
    assert not path.exists()
    assert len(trainer.history) == 0


def test_the_last_checkpoint_is_named_and_can_be_trained_on(tmp_path):
    path = str(tmp_path / "weights-{epoch}.safetensors")
    trainer = trainer_of(minidl.Dense(4), Overflow(25))
    saver = minidl.ModelCheckpoint(path, "loss", save_best_only=False)
    with pytest.raises(NonFiniteError, match="epoch 3, step 6 of 10: ") as caught:
        trainer.fit(X, Y, 3, 10, callbacks=[saver], verbose=0)
    assert str(caught.value).endswith(f"; the last checkpoint is {path.format(epoch=2)}")
    trainer.model.layers[1].left = 10
    minidl.load_weights(trainer.model, saver.last_saved)
    assert math.isfinite(trainer.fit(X, Y, 1, 10, verbose=0)["loss"][-1])
    with pytest.raises(NonFiniteError, match="no checkpoint was written"):
        trainer.fit(X, Y, 1, 10, callbacks=[saver], verbose=0)  # in this training


def test_a_step_by_itself_is_not_taken_either():
    trainer = trainer_of(minidl.BatchNorm(), Overflow())
    before = trainer.model.state_dict()
    with pytest.raises(NonFiniteError, match=r"^the loss is nan; it began in Overflow 'overflow'"):
        trainer.train_step(minidl.Tensor(X), minidl.Tensor(Y))
    for name, array in trainer.model.state_dict().items():
        assert np.array_equal(array, before[name])
    x = X.copy()
    x[7] = np.nan
    with pytest.raises(NonFiniteError, match="the inputs of sample 7 of the batch hold nan"):
        trainer.train_step(minidl.Tensor(x), minidl.Tensor(Y))


def test_chance_is_told_where_a_second_look_finds_nothing():
    class Once(Overflow):
        def factor(self):
            return 1e5 if self.left == -1 else 1.0

    trainer = trainer_of(Once(2))
    with pytest.raises(NonFiniteError, match="computed once more, all of it was finite: chance"):
        trainer.fit(X, Y, verbose=0)


def test_anomaly_mode_says_where_and_fit_says_when():
    trainer, watch = trainer_of(minidl.BatchNorm(), Root()), Watch()
    with pytest.raises(NonFiniteError, match=r"^epoch 1, step 1 of 4: Root 'root': sqrt, backwa"):
        minidl.detect_anomaly()(trainer.fit)(X - 0.5, Y, callbacks=[watch], verbose=0)
    check_as_after_the_last_step(trainer, watch, 0)


def test_validation_and_predictions_may_be_anything():
    x = X.copy()
    x[3] = np.nan
    trainer = trainer_of()
    history = trainer.fit(X, Y, 2, validation_data=(x, Y), verbose=0)
    assert math.isnan(history["val_loss"][0])
    assert np.isnan(trainer.predict(x)[3]).all()


# On a device


def test_on_a_device_the_step_is_told_when_its_loss_is_fetched(device, monkeypatch):
    monkeypatch.setattr(Means, "MOST_BATCHES", 4)
    x = X.copy()
    x[57] = np.nan
    trainer, watch = trainer_of(minidl.BatchNorm()), Watch()
    trainer.model.to(device)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(x, Y, 1, 10, shuffle=False, callbacks=[watch], verbose=0)
    assert str(caught.value).startswith(
        "epoch 1, step 8 of 10: the loss of step 6 was nan or infinite; the inputs of sample 57 "
    )
    assert "the weights have been changed since; no checkpoint was written" in str(caught.value)
    assert len(watch.states) == 8


def test_on_a_device_the_end_of_an_epoch_is_looked_at_too(device):
    trainer = trainer_of(Overflow(7))
    trainer.model.to(device)
    message = (
        r"epoch 1, step 10 of 10: the loss of step 8 was .*; detect_anomaly\(\) around a train"
    )
    with pytest.raises(NonFiniteError, match=message):
        trainer.fit(X, Y, 1, 10, verbose=0)


def test_means_know_the_first_batch_that_was_not_finite(monkeypatch):
    monkeypatch.setattr(Means, "MOST_BATCHES", 3)
    means = Means({})
    for number in range(9):
        loss = minidl.Tensor(np.float32(np.nan if number in (4, 5, 7) else 1))
        means.add(loss, minidl.Tensor(X), minidl.Tensor(Y))
        assert means.not_finite == (None if number < 5 else 4)
    means = Means({})
    means.add(minidl.Tensor(np.float32(np.inf)), minidl.Tensor(X), minidl.Tensor(Y))
    means.values()
    assert means.not_finite == 0
