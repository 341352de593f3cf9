"""What is told how training goes, and what it then does."""

import csv
import json
import math

import numpy as np
import pytest

import minidl
from minidl import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    WeightAverage,
)


def fit(*callbacks, epochs=1, validate=True, lr=0.01, **options):
    """A small model with batch normalisation, trained with some callbacks."""
    minidl.seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 5)).astype(np.float32), rng.integers(0, 3, 48)
    model = minidl.Sequential([minidl.BatchNorm(), minidl.Dense(3)], input_shape=(5,))
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters(), lr=lr))
    if validate:
        options["validation_data"] = (x[:16], y[:16])
    trainer.fit(x, y, epochs, 16, callbacks=callbacks, verbose=0, **options)
    return trainer


class Script(Callback):
    """Replaces a measure by given values, before the callbacks after this one see it."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_epoch_end(self, trainer, epoch, measures):
        measures[self.name] = self.values[epoch - 1]


class Weights(Callback):
    """Remembers the weights after each epoch."""

    def on_train_begin(self, trainer):
        self.after = []

    def on_epoch_end(self, trainer, epoch, measures):
        self.after.append(trainer.model.state_dict())


def same(state, other):
    return all(np.array_equal(array, other[name]) for name, array in state.items())


def test_callbacks_hear_of_everything_in_order():
    heard = []

    class Listener(Callback):
        def on_train_begin(self, trainer):
            heard.append("train begin")

        def on_epoch_begin(self, trainer, epoch):
            heard.append(f"epoch {epoch} begin")

        def on_batch_end(self, trainer):
            heard.append("batch")

        def on_epoch_end(self, trainer, epoch, measures):
            assert len(trainer.history) == epoch
            assert set(measures) == {"loss", "accuracy", "val_loss", "val_accuracy"}
            heard.append(f"epoch {epoch} end")

        def on_train_end(self, trainer):
            heard.append("train end")

    fit(Listener(), epochs=2)
    epochs = [[f"epoch {n} begin", *["batch"] * 3, f"epoch {n} end"] for n in (1, 2)]
    assert heard == ["train begin", *epochs[0], *epochs[1], "train end"]


def test_a_function_is_called_after_each_epoch_and_may_end_training():
    heard = []

    def stop(trainer, epoch, measures):
        heard.append((epoch, measures["loss"]))
        trainer.stop_training = epoch == 2

    trainer = fit(stop, epochs=5)
    assert heard == list(enumerate(trainer.history["loss"], 1))
    assert len(heard) == 2


@pytest.mark.parametrize("wrong", [EarlyStopping, "early stopping", None])
def test_what_is_no_callback_is_refused(wrong):
    with pytest.raises(TypeError, match="instances of Callback or functions"):
        fit(wrong)


@pytest.mark.parametrize(
    ("monitor", "options", "values", "epochs", "best"),
    # How many epochs there are for a patience of 0, 1 and 2 is what Keras 3.15 does.
    [
        ("val_loss", {}, [3, 2, 4, 4, 4, 4, 4], 3, 2),
        ("val_loss", {"patience": 1}, [3, 2, 4, 4, 4, 4, 4], 3, 2),
        ("val_loss", {"patience": 2}, [3, 2, 4, 4, 4, 4, 4], 4, 2),
        ("val_loss", {"patience": 2}, [3, 2, 4, 1, 2, 1, 0], 6, 4),
        ("val_loss", {"min_delta": 0.5}, [3, 2, 1.6, 0], 3, 2),
        ("val_accuracy", {}, [0.1, 0.5, 0.4, 0.9], 3, 2),
        ("val_accuracy", {"mode": "min"}, [0.5, 0.4, 0.45, 0.1], 3, 2),
        ("val_loss", {"mode": "max"}, [1, 2, 1.5, 3], 3, 2),
        ("val_loss", {"patience": 2}, [math.nan, 2, math.nan, 1, math.nan, 3, 0], 6, 4),
        ("val_loss", {"patience": 9}, [3, 1, 2, 2], 4, 2),
        ("top_3", {"mode": "max"}, [0.69, 0.75, 0.7], 3, 2),
    ],
)
def test_early_stopping_ends_with_the_best_weights(monitor, options, values, epochs, best):
    weights, stopping = Weights(), EarlyStopping(monitor, **options)
    trainer = fit(Script(monitor, values), weights, stopping, epochs=len(values))
    assert len(trainer.history) == epochs
    assert stopping.best_epoch == best
    assert same(trainer.model.state_dict(), weights.after[best - 1])
    assert not same(trainer.model.state_dict(), weights.after[epochs - 1])


def test_early_stopping_can_leave_the_last_weights_and_be_used_again():
    weights, script = Weights(), Script("val_loss", [1, 2, 3])
    stopping = EarlyStopping(restore_best_weights=False)
    for _ in range(2):
        trainer = fit(script, weights, stopping, epochs=3)
        assert len(trainer.history) == 2
        assert stopping.best_epoch == 1
        assert same(trainer.model.state_dict(), weights.after[1])
        script.values = [5, 6, 7]  # the best of which is worse than any before


def test_what_is_kept_for_a_training_is_let_go_with_it():
    stopping, average = EarlyStopping(patience=9), WeightAverage()
    fit(stopping, average, epochs=2)
    assert not stopping._weights
    assert not average._averages
    assert not average._tensors


def test_early_stopping_without_a_number_ends_and_changes_nothing():
    weights = Weights()
    trainer = fit(Script("val_loss", [math.nan] * 3), weights, EarlyStopping(), epochs=3)
    assert len(trainer.history) == 1
    assert same(trainer.model.state_dict(), weights.after[0])


def test_a_measure_that_is_not_there_is_named():
    message = r"no measure is called 'val_loss'; there are loss, accuracy \(val_ ones need valida"
    with pytest.raises(ValueError, match=message):
        fit(EarlyStopping(), validate=False)


@pytest.mark.parametrize(("mode", "best"), [("auto", 2), ("min", 1)])
def test_the_best_weights_are_on_disk(tmp_path, mode, best):
    weights, script = Weights(), Script("val_accuracy", [0.2, 0.7, 0.3])
    path = tmp_path / "best.safetensors"
    checkpoint = ModelCheckpoint(path, "val_accuracy", mode=mode)
    for _ in range(2):
        trainer = fit(script, weights, checkpoint, epochs=3)
        minidl.load_weights(trainer.model, path)
        assert same(trainer.model.state_dict(), weights.after[best - 1])
        path.unlink()
        middle = 0.45  # the same order, but neither more nor less than all before
        script.values = [middle + (value - middle) / 9 for value in script.values]


def test_a_checkpoint_of_each_epoch_is_named_after_it(tmp_path):
    path = str(tmp_path / "{epoch:02d}-{val_loss:.1f}.safetensors")
    fit(Script("val_loss", [1, 2.25]), ModelCheckpoint(path, save_best_only=False), epochs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "01-1.0.safetensors",
        "02-2.2.safetensors",
    ]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fit(ModelCheckpoint(tmp_path / "absent" / "w.safetensors"))
    for name in ("{vale_loss}", "{", "{}"):
        with pytest.raises(ValueError, match="expected epoch or one of loss, accuracy, val_loss"):
            fit(ModelCheckpoint(tmp_path / name))


def test_the_learning_rate_follows_a_function_of_the_epoch():
    rates = []

    def note(trainer, *_):
        rates.append(trainer.optimizer.current_lr)

    fit(LearningRateScheduler(lambda epoch, lr: lr / epoch), note, epochs=3, lr=0.6)
    assert rates == pytest.approx([0.6, 0.3, 0.1])


@pytest.mark.parametrize(
    "callback",
    [LearningRateScheduler(lambda _, lr: lr), ReduceLROnPlateau()],
    ids=lambda c: type(c),
)
def test_a_schedule_of_the_optimizer_is_not_overruled(callback):
    with pytest.raises(ValueError, match="lr is a schedule, CosineDecay, which sets"):
        fit(callback, lr=minidl.CosineDecay(0.1, 10))


def test_the_learning_rate_falls_on_a_plateau():
    rates = []

    def note(trainer, *_):
        rates.append(trainer.optimizer.current_lr)

    plateau = ReduceLROnPlateau(patience=2, factor=0.5, min_lr=0.1)
    script = Script("val_loss", [3, 3, 3, 2, 2, 2, 2, 2])
    for _ in range(2):
        fit(script, plateau, note, epochs=8, lr=0.6)
        assert rates == pytest.approx([0.6, 0.6, 0.3, 0.3, 0.3, 0.15, 0.15, 0.1])
        rates.clear()
        script.values = [value + 9 for value in script.values]


@pytest.mark.parametrize(
    ("options", "values", "falls"),
    [
        ({}, [3] * 12, 11),
        ({"patience": 0}, [3, 3], 2),
        ({"patience": 1}, [3, 2.99995], 2),  # better by less than 1e-4
        ({"patience": 1, "min_delta": 0}, [3, 2.99995, 3], 3),
        ({"patience": 1, "mode": "max"}, [3, 4, 3], 3),
    ],
)
def test_when_the_learning_rate_falls(options, values, falls):
    rates = []

    def note(trainer, *_):
        rates.append(trainer.optimizer.current_lr)

    fit(Script("val_loss", values), ReduceLROnPlateau(**options), note, epochs=len(values), lr=0.6)
    assert [rate < 0.6 for rate in rates].index(True) == falls - 1
    assert rates[falls - 1] == pytest.approx(0.06)


def test_a_learning_rate_below_the_lowest_is_left_alone():
    plateau = ReduceLROnPlateau(patience=1, min_lr=0.1)
    trainer = fit(Script("val_loss", [3, 3, 3]), plateau, epochs=3, lr=0.01)
    assert trainer.optimizer.current_lr == 0.01


def test_a_line_of_measures_for_each_epoch(tmp_path):
    path, lines = tmp_path / "log.csv", []

    def read(*_):
        lines.append(len(path.read_text().splitlines()))

    trainer = fit(CSVLogger(path), read, epochs=3)
    assert lines == [2, 3, 4]
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", *trainer.history, "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name in trainer.history:
        assert [float(row[name]) for row in rows] == trainer.history[name]


def test_a_history_is_saved_as_csv_or_json(tmp_path):
    history = fit(epochs=2).history
    history.save(tmp_path / "history.json")
    saved = json.loads((tmp_path / "history.json").read_text())
    assert saved == {**history.history, "seconds": history.seconds}
    with pytest.raises(ValueError, match=r"history\.txt: a history is saved as \.csv or \.json"):
        history.save(tmp_path / "history.txt")


def test_the_average_of_the_weights_is_that_of_the_formula():
    states = []

    class Steps(Callback):
        def on_train_begin(self, trainer):
            states.append(trainer.model.state_dict())

        def on_batch_end(self, trainer):
            states.append(trainer.model.state_dict())

    trainer = fit(Steps(), WeightAverage(decay=0.3), epochs=2)
    assert len(states) == 7
    averages = states[0]
    for step, state in enumerate(states[1:], 1):
        decay = min(0.3, (1 + step) / (10 + step))
        averages = {n: decay * averages[n] + (1 - decay) * state[n] for n in state}
    for name, array in trainer.model.state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, averages[name], rtol=1e-5)
    assert "batch_norm.running_mean" in averages


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(patience=-1), "patience must be an integer >= 1, got -1"),
        (lambda: EarlyStopping(patience=math.nan), "patience must be an integer >= 1, got nan"),
        (lambda: EarlyStopping("val_top_2"), "mode cannot be told from the name 'val_top_2'"),
        (lambda: CSVLogger("log.txt"), r"log\.txt: expected a path that ends in \.csv"),
        (lambda: EarlyStopping(mode="up"), 'mode must be "auto", "min" or "max", got \'up\''),
        (lambda: EarlyStopping(min_delta=-1), "min_delta must not be negative"),
        (lambda: ReduceLROnPlateau(factor=1.0), "factor must be between 0 and 1, got 1"),
        (lambda: WeightAverage(1.0), "decay must be between 0 and 1, got 1"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
