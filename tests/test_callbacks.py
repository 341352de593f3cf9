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
    [
        ("val_loss", {}, [3, 2, 1, 4, 0], 4, 3),
        ("val_loss", {"patience": 1}, [3, 2, 4, 1, 2, 1, 0], 6, 4),
        ("val_loss", {"min_delta": 0.5}, [3, 2, 1.6, 0], 3, 2),
        ("val_accuracy", {}, [0.1, 0.5, 0.4, 0.9], 3, 2),
        ("val_accuracy", {"mode": "min"}, [0.5, 0.4, 0.45, 0.1], 3, 2),
        ("val_loss", {"mode": "max"}, [1, 2, 1.5, 3], 3, 2),
        ("val_loss", {"patience": 1}, [math.nan, 2, math.nan, 1, math.nan, 3, 0], 6, 4),
        ("val_loss", {"patience": 9}, [3, 1, 2, 2], 4, 2),
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
    weights = Weights()
    stopping = EarlyStopping(restore_best_weights=False)
    for _ in range(2):
        trainer = fit(Script("val_loss", [1, 2, 3]), weights, stopping, epochs=3)
        assert len(trainer.history) == 2
        assert same(trainer.model.state_dict(), weights.after[1])


def test_early_stopping_without_a_number_ends_and_changes_nothing():
    weights = Weights()
    trainer = fit(Script("val_loss", [math.nan] * 3), weights, EarlyStopping(), epochs=3)
    assert len(trainer.history) == 1
    assert same(trainer.model.state_dict(), weights.after[0])


def test_a_measure_that_is_not_there_is_named():
    message = r"no measure is called 'val_loss'; there are loss, accuracy \(val_ ones need valida"
    with pytest.raises(ValueError, match=message):
        fit(EarlyStopping(), validate=False)


def test_the_best_weights_are_on_disk(tmp_path):
    weights, path = Weights(), tmp_path / "best.safetensors"
    trainer = fit(
        Script("val_accuracy", [0.1, 0.7, 0.3]),
        weights,
        ModelCheckpoint(path, "val_accuracy"),
        epochs=3,
    )
    minidl.load_weights(trainer.model, path)
    assert same(trainer.model.state_dict(), weights.after[1])


def test_a_checkpoint_of_each_epoch_is_named_after_it(tmp_path):
    path = str(tmp_path / "{epoch:02d}-{val_loss:.1f}.safetensors")
    fit(Script("val_loss", [1, 2.25]), ModelCheckpoint(path, save_best_only=False), epochs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "01-1.0.safetensors",
        "02-2.2.safetensors",
    ]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fit(ModelCheckpoint(tmp_path / "absent" / "w.safetensors"))


def test_the_learning_rate_follows_a_function_of_the_epoch():
    rates = []

    def note(trainer, *_):
        rates.append(trainer.optimizer.current_lr)

    fit(LearningRateScheduler(lambda epoch, lr: lr / epoch), note, epochs=3, lr=0.6)
    assert rates == pytest.approx([0.6, 0.3, 0.1])


def test_the_learning_rate_falls_on_a_plateau():
    rates = []

    def note(trainer, *_):
        rates.append(trainer.optimizer.current_lr)

    plateau = ReduceLROnPlateau(patience=1, factor=0.5, min_lr=0.2)
    fit(Script("val_loss", [3, 3, 3, 2, 2, 2, 2, 2]), plateau, note, epochs=8, lr=0.6)
    assert rates == pytest.approx([0.6, 0.6, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2])


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
        (lambda: EarlyStopping(patience=-1), "patience must not be negative, got -1"),
        (lambda: EarlyStopping(mode="up"), 'mode must be "auto", "min" or "max", got \'up\''),
        (lambda: EarlyStopping(min_delta=-1), "min_delta must not be negative"),
        (lambda: ReduceLROnPlateau(factor=1.0), "factor must be between 0 and 1, got 1"),
        (lambda: WeightAverage(1.0), "decay must be between 0 and 1, got 1"),
    ],
)
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
