"""The trainer, its history, what it shows, and the files it leaves."""

import functools
import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minidl
from minidl.training import progress as progress_module


def clusters(samples=200, classes=3, seed=0):
    """Points around `classes` corners, which a small model separates."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    corners = 3 * np.eye(classes, 5)
    return (corners[labels] + rng.normal(0, 0.5, (samples, 5))).astype(np.float32), labels


def small_model(last=None):
    layers = [minidl.Dense(16, activation="relu"), minidl.Dense(3, activation=last)]
    return minidl.Sequential(layers, input_shape=(5,))


def small_trainer(seed=0, last=None, **kwargs):
    minidl.seed(seed)
    model = small_model(last)
    optimizer = minidl.Adam(model.parameters(), lr=0.01)
    return minidl.Trainer(model, minidl.cross_entropy, optimizer, **kwargs)


def test_fit_learns_and_records_every_epoch():
    x, y = clusters()
    trainer = small_trainer()
    history = trainer.fit(x, y, epochs=10, validation_data=clusters(seed=1), verbose=0)
    assert len(history) == len(history.seconds) == 10
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(history[name]) == 10 for name in history)
    assert history["loss"][-1] < history["loss"][0] / 3
    assert history["val_accuracy"][-1] > 0.95


def test_one_batch_trains_to_zero_loss():
    rng = np.random.default_rng(0)
    x = rng.random((32, 8, 8, 1), dtype=np.float32)
    y = rng.integers(0, 10, 32)
    minidl.seed(0)
    model = minidl.Sequential(
        [
            minidl.Conv2D(8, 3, padding="same", activation="relu"),
            minidl.MaxPool(2),
            minidl.Flatten(),
            minidl.Dense(32, activation="relu"),
            minidl.Dense(10),
        ],
        input_shape=(8, 8, 1),
    )
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters(), lr=0.01))
    trainer.fit(x, y, epochs=200, verbose=0)
    result = trainer.evaluate(x, y)
    assert result["loss"] < 1e-3
    assert result["accuracy"] == 1


def test_two_runs_with_one_seed_are_bit_identical():
    def run():
        minidl.seed(7)
        model = minidl.Sequential(
            [
                minidl.Conv2D(4, 3, padding="same", activation="relu"),
                minidl.BatchNorm(),
                minidl.Dropout(0.3),
                minidl.MaxPool(2),
                minidl.Flatten(),
                minidl.Dense(3),
            ],
            input_shape=(6, 6, 1),
        )
        x = np.random.default_rng(0).random((70, 6, 6, 1), dtype=np.float32)
        y = np.arange(70) % 3
        trainer = minidl.Trainer(
            model, minidl.cross_entropy, minidl.SGD(model.parameters(), momentum=0.9)
        )
        history = trainer.fit(x, y, epochs=3, verbose=0)
        return history.history, {n: a.tobytes() for n, a in model.state_dict().items()}

    assert run() == run()


def test_the_seed_decides_weights_and_order():
    x, y = clusters()
    losses = {seed: small_trainer(seed).fit(x, y, verbose=0)["loss"] for seed in (0, 1)}
    assert losses[0] != losses[1]


def test_fit_sees_every_sample_once_an_epoch_shuffled_or_not():
    x = np.arange(10, dtype=np.float32)[:, None]
    seen = []

    class Recorder(minidl.Module):
        def __init__(self):
            self.weight = minidl.Parameter(np.zeros((1, 1), np.float32))

        def forward(self, batch):
            seen.append(batch.numpy()[:, 0].tolist())
            return batch @ self.weight

    model = Recorder()
    trainer = minidl.Trainer(model, minidl.mse, minidl.SGD(model.parameters()))
    trainer.fit(x, x, batch_size=4, shuffle=False, verbose=0)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    seen.clear()
    trainer.fit(x, x, epochs=2, batch_size=4, verbose=0)
    epochs = [[*a, *b, *c] for a, b, c in (seen[:3], seen[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_the_last_smaller_batch_weighs_by_its_samples():
    x, y = clusters(samples=50)
    trainer = small_trainer()
    by_parts = trainer.evaluate(x, y, batch_size=32)
    at_once = trainer.evaluate(x, y, batch_size=50)
    assert by_parts == pytest.approx(at_once, rel=1e-6)


def test_a_hand_written_loop_gives_what_the_trainer_gives():
    x, y = clusters(samples=96)
    trainer = small_trainer()
    trainer.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    minidl.seed(0)
    model = small_model()
    optimizer = minidl.Adam(model.parameters(), lr=0.01)
    for start in range(0, 96, 32):
        loss = minidl.cross_entropy(model(x[start : start + 32]), y[start : start + 32])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, array in trainer.model.state_dict().items():
        assert np.array_equal(array, model.state_dict()[name]), name


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float32])
def test_inputs_of_every_dtype_train_in_the_models_dtype(dtype):
    x = np.random.default_rng(0).integers(0, 200, (20, 5)).astype(dtype)
    trainer = small_trainer()
    trainer.fit(x, np.arange(20) % 3, verbose=0)
    assert trainer.predict(x).dtype == np.float32
    assert all(p.dtype == np.float32 for p in trainer.model.parameters())


def test_a_model_that_ends_in_softmax_trains_like_one_that_does_not():
    x, y = clusters()
    plain = small_trainer().fit(x, y, epochs=2, verbose=0)
    by_activation = small_trainer(last="softmax").fit(x, y, epochs=2, verbose=0)
    assert by_activation["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    minidl.seed(0)
    layers = [*small_model().layers, minidl.Softmax()]
    model = minidl.Sequential([minidl.Sequential(layers)])
    optimizer = minidl.Adam(model.parameters(), lr=0.01)
    by_layer = minidl.Trainer(model, minidl.cross_entropy, optimizer).fit(x, y, 2, verbose=0)
    assert by_layer["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_one_hot_labels_and_columns_of_labels_train_alike():
    x, y = clusters()
    expected = small_trainer().fit(x, y, verbose=0).history
    column = small_trainer().fit(x, y[:, None].astype(np.uint8), verbose=0).history
    assert column == expected
    one_hot = small_trainer().fit(x, np.eye(3, dtype=np.float32)[y], verbose=0).history
    assert one_hot["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert one_hot["accuracy"] == expected["accuracy"]


def test_modes_are_those_of_before_and_dropout_is_off_in_evaluation():
    model = minidl.Sequential([minidl.Dropout(0.5), minidl.Dense(3)], input_shape=(5,))
    model.layers[0].training = False  # a layer that the user froze
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.SGD(model.parameters()))
    x, y = clusters()
    assert np.array_equal(trainer.predict(x), trainer.predict(x))
    trainer.fit(x, y, verbose=0)
    assert not model.layers[0].training
    assert model.training


def test_fit_trains_in_training_mode_and_evaluates_without_a_graph():
    seen = []

    class Watched(minidl.Layer):
        def forward(self, x):
            seen.append((self.training, x.requires_grad))
            return x

    model = minidl.Sequential([minidl.Dense(4), Watched(), minidl.Dense(3)], input_shape=(5,))
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.SGD(model.parameters()))
    x, y = clusters(samples=32)
    seen.clear()
    trainer.fit(x, y, verbose=0)
    assert seen == [(True, True)]
    trainer.evaluate(x, y)
    trainer.predict(x)
    assert seen[1:] == [(False, False)] * 2


def test_threads_that_predict_with_one_trainer_all_get_the_right_outputs():
    model = minidl.Sequential([minidl.Dense(64), minidl.Dropout(0.5)], input_shape=(5,))
    trainer = minidl.Trainer(model, minidl.mse, minidl.SGD(model.parameters()))
    x, _ = clusters(samples=2000)
    expected = trainer.predict(x, batch_size=10)
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: trainer.predict(x, batch_size=10), range(8)))
    assert all(np.array_equal(out, expected) for out in outputs)


def test_softmax_is_applied_once_however_it_is_written():
    x, y = clusters()
    losses = []
    for last, loss in (
        ("softmax", minidl.cross_entropy),
        (minidl.Softmax(), minidl.cross_entropy),
        (None, functools.partial(minidl.cross_entropy, label_smoothing=0.0)),
        ("softmax", functools.partial(minidl.cross_entropy, label_smoothing=0.0)),
    ):
        minidl.seed(0)
        model = small_model(last)
        trainer = minidl.Trainer(model, loss, minidl.SGD(model.parameters()))
        history = trainer.fit(x, y, verbose=0)
        assert "accuracy" in history
        losses.append(history["loss"][0])
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


def test_a_history_that_was_interrupted_is_kept():
    x, y = clusters()

    class Stop(Exception):  # noqa: N818
        pass

    trainer = small_trainer()
    calls = iter(range(10))

    def metric(outputs, labels):
        if next(calls) == 2:  # one call an epoch
            raise Stop
        return minidl.accuracy(outputs, labels)

    trainer.metrics = {"accuracy": metric}
    with pytest.raises(Stop):
        trainer.fit(x, y, epochs=9, batch_size=100, verbose=0)
    assert len(trainer.history) == 2
    assert dict(trainer.history).keys() == {"loss", "accuracy"}


def test_validation_changes_nothing_that_is_learned():
    x, y = clusters()
    states = []
    for validation_data in (None, clusters(seed=1)):
        trainer = small_trainer()
        trainer.fit(x, y, 2, validation_data=validation_data, verbose=0)
        states.append(trainer.model.state_dict())
    for name, array in states[0].items():
        assert np.array_equal(array, states[1][name])


def test_clip_norm_bounds_the_step():
    x, y = clusters()
    minidl.seed(0)
    model = small_model()
    before = model.state_dict()
    trainer = minidl.Trainer(
        model, minidl.cross_entropy, minidl.SGD(model.parameters(), lr=1.0), clip_norm=0.01
    )
    trainer.fit(x, y, batch_size=len(x), verbose=0)
    moved = sum(((a - before[n]) ** 2).sum() for n, a in model.state_dict().items()) ** 0.5
    assert moved == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "metrics", [{"loss": minidl.accuracy}, {"seconds": minidl.accuracy}, ["accuracy"]]
)
def test_metrics_without_names_of_their_own_are_refused(metrics):
    with pytest.raises(ValueError, match="functions by names other than loss and seconds"):
        small_trainer(metrics=metrics)


def test_looking_at_the_measures_does_not_change_them(monkeypatch):
    x, y = clusters()
    quiet = small_trainer().fit(x, y, batch_size=7, verbose=0)
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_module.Bar, "EVERY", 0.0)
    assert small_trainer().fit(x, y, batch_size=7, verbose=1).history == quiet.history


def test_outputs_wait_for_being_measured_only_up_to_some_bytes(monkeypatch):
    monkeypatch.setattr(minidl.training.means.Means, "MOST_BYTES", 3 * 7 * 4)
    calls = []

    def metric(outputs, labels):
        calls.append(len(labels))
        return minidl.accuracy(outputs, labels)

    x, y = clusters(samples=70)
    small_trainer(metrics={"accuracy": metric}).fit(x, y, batch_size=7, verbose=0)
    assert calls == [7] * 10


def test_a_training_that_was_stopped_does_not_stop_the_next():
    x, y = clusters()
    trainer = small_trainer()

    def stop(trainer, *_):
        trainer.stop_training = True

    assert len(trainer.fit(x, y, epochs=3, callbacks=[stop], verbose=0)) == 1
    assert len(trainer.fit(x, y, epochs=3, verbose=0)) == 3


def test_a_batch_has_32_samples_unless_said():
    sizes = []

    def count(outputs, labels):
        sizes.append(len(outputs))
        return minidl.cross_entropy(outputs, labels)

    x, y = clusters(samples=70)
    model = small_model()
    minidl.Trainer(model, count, minidl.SGD(model.parameters())).fit(x, y, verbose=0)
    assert sizes == [32, 32, 6]


def test_metrics_of_the_user_are_measured():
    x = np.random.default_rng(0).random((20, 5), dtype=np.float32)
    model = minidl.Sequential([minidl.Dense(1)], input_shape=(5,))

    def mean_error(outputs, targets):
        return minidl.abs(outputs - targets).mean()

    trainer = minidl.Trainer(
        model, minidl.mse, minidl.SGD(model.parameters()), metrics={"mae": mean_error}
    )
    assert set(trainer.fit(x, x[:, :1], verbose=0)) == {"loss", "mae"}


def test_accuracy_of_known_outputs():
    outputs = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]], np.float32)
    assert minidl.accuracy(outputs, [1, 0, 0, 0]).item() == 0.75
    assert minidl.accuracy(outputs, np.eye(2, dtype=np.float32)[[1, 0, 0, 0]]).item() == 0.75
    with pytest.raises(ValueError, match=r"accuracy expects outputs \(N, C\) .* got shape \(4,\)"):
        minidl.accuracy(outputs[:, 0], [1, 0, 0, 0])


# What it shows


def test_silence_on_demand(capsys):
    x, y = clusters()
    small_trainer().fit(x, y, epochs=2, verbose=0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [2, "auto"])
def test_one_line_an_epoch_where_there_is_no_terminal(capsys, verbose):
    x, y = clusters()
    small_trainer().fit(x, y, epochs=2, validation_data=(x, y), verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2/2 - ")
    for name in ("loss: ", " accuracy: ", "val_loss: ", "val_accuracy: "):
        assert name in lines[1]


class Terminal(io.StringIO):
    """Somewhere to print that says it is a terminal."""

    def isatty(self):
        return True


def test_a_bar_with_the_time_left_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_module.Bar, "EVERY", 0.0)
    x, y = clusters()
    small_trainer().fit(x, y, epochs=2, batch_size=2)
    text = terminal.getvalue()
    assert "/100" in text  # batches done, of all
    assert re.search(r"--:--|\d\d:\d\d", text)  # the time left
    assert "Epoch 2/2 - " in text  # the line that stays


@pytest.mark.parametrize(("every", "fetched"), [(0.0, 10), (3600.0, 1)])
def test_the_bar_fetches_numbers_only_when_it_shows_them(monkeypatch, every, fetched):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(progress_module.Bar, "EVERY", every)
    calls = []
    with progress_module.progress(1, 1, 10) as shown:
        shown.start(1)
        for _ in range(10):
            shown.advance(lambda: calls.append(1) or {})
    assert len(calls) == fetched


def test_the_line_of_an_epoch_is_not_broken_on_a_narrow_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    x, y = clusters()
    small_trainer().fit(x, y, validation_data=(x, y), verbose=1)
    (line,) = re.findall(r"Epoch 1/1 - [^\r\n]*", terminal.getvalue())[-1:]
    assert re.search(r"val_loss: \d\.\d{4} - val_accuracy: \d\.\d{4}", line)


def test_an_error_takes_the_bar_away(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    x, y = clusters()
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        small_trainer().fit(x, y + 7, verbose=1)
    small_trainer().fit(x, y, verbose=1)  # a second bar would refuse if the first were alive


# What goes wrong


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 5)), np.zeros(0, int), r"at least one sample of inputs, got shape \(0, 5\)"),
        (np.zeros((4, 5)), np.zeros(3, int), "got 4 inputs and 3 labels"),
        (np.float32(3), np.zeros(3, int), "at least one sample"),
        (np.zeros((4, 5)), np.full(4, 3), r"labels from 0 to 2 for 3 classes"),
        (np.zeros((4, 5)), np.full(4, -1), r"got labels from -1 to -1"),
        (np.zeros((4, 6)), np.zeros(4, int), r"Dense 'dense': expects input \(\.\.\., 5\)"),
    ],
)
def test_bad_data_is_refused_with_what_was_expected_and_what_came(x, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small_trainer().fit(np.asarray(x), y, verbose=0)


def test_lists_are_refused_with_a_way_out():
    with pytest.raises(TypeError, match=r"got list; convert it with numpy\.asarray"):
        small_trainer().fit([[1.0] * 5], [0])


def test_bad_arguments_are_named():
    x, y = clusters()
    trainer = small_trainer()
    with pytest.raises(ValueError, match="epochs must be an integer >= 1, got 0"):
        trainer.fit(x, y, epochs=0)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        trainer.fit(x, y, batch_size=0, verbose=0)
    with pytest.raises(ValueError, match="verbose must be 0, 1, 2"):
        trainer.fit(x, y, verbose=3)
    for wrong in ((x, y, y), x, [x]):
        with pytest.raises(ValueError, match=r"validation_data must be a pair, \(inputs, labels\)"):
            trainer.fit(x, y, validation_data=wrong, verbose=0)
    with pytest.raises(ValueError, match="validation_data: expected as many labels"):
        trainer.fit(x, y, validation_data=(x, y[:5]), verbose=0)


# Weights and pictures


def test_weights_come_back_as_they_were(tmp_path):
    model, other = small_model(), small_model()
    minidl.save_weights(model, tmp_path / "weights.safetensors")
    minidl.load_weights(other, tmp_path / "weights.safetensors")
    for name, array in model.state_dict().items():
        assert np.array_equal(array, other.state_dict()[name])
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "weights.safetensors"
    wide = minidl.Sequential([minidl.Dense(17), minidl.Dense(3)], input_shape=(5,))
    minidl.save_weights(wide, path)
    model = small_model()
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"weights\.safetensors: .*'dense\.weight' expects shape"):
        minidl.load_weights(model, path)
    assert all(np.array_equal(a, before[n]) for n, a in model.state_dict().items())


def test_weights_of_another_precision_are_converted_unless_they_are_too_large(tmp_path):
    path = tmp_path / "weights.safetensors"
    wide, model = small_model().astype(np.float64), small_model()
    wide.load_state_dict({name: array + 1e-3 for name, array in wide.state_dict().items()})
    minidl.save_weights(wide, path)
    minidl.load_weights(model, path)
    before = model.state_dict()
    for name, array in wide.state_dict().items():
        assert before[name].dtype == np.float32
        assert np.array_equal(before[name], array.astype(np.float32))
    last = list(before)[-1]
    huge = {name: array.astype(np.float64) for name, array in before.items()}
    huge[last] += 1e39
    wide.load_state_dict(huge)
    minidl.save_weights(wide, path)
    with pytest.raises(
        ValueError, match=rf"s\.safetensors: '{last}' holds numbers too large for fl"
    ):
        minidl.load_weights(model, path)
    assert all(np.array_equal(a, before[n]) for n, a in model.state_dict().items())


def test_a_broken_weight_file_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    minidl.save_weights(small_model(), path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"weights\.safetensors"):
        minidl.load_weights(small_model(), path)
    with pytest.raises(FileNotFoundError):
        minidl.load_weights(small_model(), tmp_path / "absent")


def test_saving_that_fails_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    minidl.save_weights(small_model(), path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        minidl.save_weights(small_model(), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_explicit_from_logits_is_left_as_it_is():
    model = small_model("softmax")
    loss = functools.partial(minidl.cross_entropy, from_logits=True)
    trainer = minidl.Trainer(model, loss, minidl.SGD(model.parameters()))
    assert trainer.loss is loss


def test_names_of_metrics_are_shown_as_they_are(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    x, y = clusters()
    trainer = small_trainer(metrics={"acc[top1]": minidl.accuracy, "[/x]": minidl.accuracy})
    trainer.fit(x, y, verbose=1)
    assert "acc[top1]: " in terminal.getvalue()
    assert "[/x]: " in terminal.getvalue()


def test_accuracy_of_whole_numbers_is_no_whole_number():
    assert minidl.accuracy(np.array([[1, 0], [0, 1]]), [0, 0]).item() == 0.5


def test_what_cannot_be_written_or_monitored_is_refused_before_the_first_step(tmp_path):
    x, y = clusters()
    nowhere = tmp_path / "no folder"
    every = functools.partial(minidl.ModelCheckpoint, save_best_only=False)
    wrong = [
        ({"checkpoint": nowhere / "x"}, FileNotFoundError, "there is no folder"),
        ({"callbacks": [minidl.CSVLogger(nowhere / "x.csv")]}, FileNotFoundError, "is no folder"),
        ({"callbacks": [every(nowhere / "x")]}, FileNotFoundError, "there is no folder"),
        ({"callbacks": [every(tmp_path)]}, IsADirectoryError, "this is a folder"),
        ({"callbacks": [minidl.ModelCheckpoint("x")]}, ValueError, "need validation_data"),
        ({"callbacks": [minidl.EarlyStopping()]}, ValueError, "need validation_data"),
        ({"callbacks": [minidl.ReduceLROnPlateau()]}, ValueError, "need validation_data"),
        ({"callbacks": minidl.EarlyStopping("loss")}, TypeError, r"write \[callback\]"),
    ]
    for options, kind, message in wrong:
        trainer = small_trainer()
        with pytest.raises(kind, match=message):
            trainer.fit(x, y, 1, verbose=0, **options)
        assert trainer.optimizer.step_count == 0


def test_a_loss_of_one_number_may_have_an_axis():
    def loss(outputs, labels):
        return ((outputs - labels) ** 2).mean(axis=0)

    x = np.linspace(0, 1, 70, dtype=np.float32)[:, None]
    model = minidl.Sequential([minidl.Dense(1)], input_shape=(1,))
    trainer = minidl.Trainer(model, loss, minidl.SGD(model.parameters()))
    history = trainer.fit(x, x, 2, 32, verbose=0)
    assert len(history["loss"]) == 2


def test_a_metric_of_several_numbers_is_named():
    x, y = clusters()
    trainer = small_trainer(metrics={"table": minidl.confusion_matrix})
    with pytest.raises(ValueError, match=r"metric 'table' must return a single number, got \("):
        trainer.fit(x, y, 1, verbose=0)


def test_a_metric_is_not_named_as_one_of_validation_data():
    with pytest.raises(ValueError, match="which do not begin with val_"):
        small_trainer(metrics={"val_loss": minidl.accuracy})
