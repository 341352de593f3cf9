"""Training that was interrupted goes on as if nothing had happened, to the last bit."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from resumable_training import EPOCHS, STEPS, outcome, train

import minidl
from minidl import Callback, EarlyStopping, ReduceLROnPlateau, WeightAverage

PROGRAM = Path(__file__).parent / "resumable_training.py"
A_MINUTE = 60


class SignalAt(Callback):
    """Sends this process a signal after so many steps, or at the end of an epoch."""

    def __init__(self, step=None, epoch=None, number=signal.SIGINT):
        self.step, self.epoch, self.number = step, epoch, number

    def on_batch_end(self, trainer):
        if trainer.optimizer.step_count == self.step:
            signal.raise_signal(self.number)

    def on_epoch_end(self, trainer, epoch, measures):
        if epoch == self.epoch:
            signal.raise_signal(self.number)


class Silent(Callback):
    """In the place of a `SignalAt`, for a checkpoint knows which callbacks there were."""


SignalAt.__qualname__ = Silent.__qualname__ = "AtTimes"


@pytest.mark.parametrize("adam", [True, False])
@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 2, EPOCHS * STEPS])
def test_a_training_that_was_interrupted_ends_where_it_would_have(tmp_path, step, adam):
    path = tmp_path / "training.safetensors"
    whole = outcome(train(0, Silent(), adam=adam))
    batches = rf"after {(step - 1) % STEPS + 1} of {STEPS} batches; fit\(\.\.\., resume='.*training"
    with pytest.raises(minidl.Interrupted, match=batches):
        train(0, SignalAt(step), adam=adam, checkpoint=path)
    assert outcome(train(7, Silent(), adam=adam, resume=path)) == whole


def test_it_may_be_interrupted_again_and_again(tmp_path):
    path = tmp_path / "training.safetensors"
    whole = outcome(train(0, Silent()))
    with pytest.raises(minidl.Interrupted):
        train(0, SignalAt(2), checkpoint=path)
    for step in range(3, EPOCHS * STEPS + 1, 3):
        with pytest.raises(minidl.Interrupted):
            train(step, SignalAt(step), resume=path)
    assert outcome(train(99, Silent(), resume=path)) == whole


def test_a_signal_between_two_epochs_is_heard(tmp_path):
    path = tmp_path / "training.safetensors"
    whole = outcome(train(0, Silent()))
    for epoch in (1, EPOCHS):
        with pytest.raises(minidl.Interrupted):
            train(0, SignalAt(epoch=epoch), checkpoint=path)
        assert outcome(train(7, Silent(), resume=path)) == whole


def test_a_training_goes_on_for_more_epochs(tmp_path):
    path = tmp_path / "training.safetensors"
    train(0, epochs=2, checkpoint=path)
    assert outcome(train(7, resume=path)) == outcome(train(0))
    longer = train(8, epochs=EPOCHS + 1, resume=path)  # the file holds all four by now
    assert len(longer.history) == EPOCHS + 1
    assert {len(values) for values in longer.history.history.values()} == {EPOCHS + 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping("val_loss", patience=3),
        lambda: EarlyStopping("val_loss", mode="max", patience=2),
        lambda: WeightAverage(0.9),
        lambda: minidl.ReduceLROnPlateau("loss", mode="max", patience=1, factor=0.5),
    ],
)
@pytest.mark.parametrize("step", [STEPS + 2, 2 * STEPS, 3 * STEPS + 1])
def test_callbacks_know_again_what_they_knew(tmp_path, make, step):
    path = tmp_path / "training.safetensors"
    adam = not isinstance(make(), ReduceLROnPlateau)
    whole = outcome(train(0, make(), Silent(), adam=adam))
    with pytest.raises(minidl.Interrupted):
        train(0, make(), SignalAt(step), adam=adam, checkpoint=path)
    assert outcome(train(7, make(), Silent(), adam=adam, resume=path)) == whole


def test_the_best_file_is_not_replaced_by_a_worse_one_after_going_on(tmp_path):
    path, best = tmp_path / "training.safetensors", tmp_path / "best.safetensors"

    def checkpoint():
        return minidl.ModelCheckpoint(best, "val_loss")

    train(0, checkpoint(), Silent())
    whole = best.read_bytes()
    with pytest.raises(minidl.Interrupted):
        train(0, checkpoint(), SignalAt(3 * STEPS + 1), checkpoint=path)
    train(7, checkpoint(), Silent(), resume=path)
    assert best.read_bytes() == whole


def test_without_a_checkpoint_ctrl_c_is_what_it_always_is():
    with pytest.raises(KeyboardInterrupt) as caught:
        train(0, SignalAt(2))
    assert not isinstance(caught.value, minidl.Interrupted)


def test_a_handler_of_the_program_is_left_alone_and_ours_goes_with_the_training(tmp_path):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        train(0, SignalAt(2), checkpoint=tmp_path / "t.safetensors")
        assert heard == [1]
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(minidl.Interrupted):
        train(0, SignalAt(2), checkpoint=tmp_path / "t.safetensors")
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_training_in_another_thread_writes_checkpoints_too(tmp_path):
    path = tmp_path / "training.safetensors"
    done = []
    thread = threading.Thread(target=lambda: done.append(train(0, epochs=2, checkpoint=path)))
    thread.start()
    thread.join()
    assert outcome(train(7, resume=path)) == outcome(train(0))


# What is no checkpoint of the training


def checkpoint(path, *callbacks, **options):
    train(0, *callbacks, epochs=1, checkpoint=path, **options)
    return path


@pytest.mark.parametrize(
    ("callbacks", "options", "message"),
    [
        ([], {"adam": False}, "learning rate was a schedule, here it is a number"),
        ([WeightAverage()], {}, "the callbacks were none, here they are WeightAverage"),
    ],
)
def test_a_checkpoint_of_another_training_changes_nothing(tmp_path, callbacks, options, message):
    path = checkpoint(tmp_path / "training.safetensors")
    named = r"training\.safetensors: not a checkpoint of this training"
    with pytest.raises(ValueError, match=f"{named}: .*{message}"):
        train(0, *callbacks, resume=path, **options)


def test_other_data_or_another_model_are_named(tmp_path):
    path = checkpoint(tmp_path / "training.safetensors")

    def resume(width=3, count=40, **options):
        x = np.zeros((count, 2), np.float32)
        model = minidl.Sequential([minidl.Dense(width)], input_shape=(2,))
        before = model.state_dict()
        optimizer = minidl.Adam(model.parameters(), lr=minidl.CosineDecay(0.01, 20))
        trainer = minidl.Trainer(model, minidl.cross_entropy, optimizer)
        try:
            trainer.fit(x, np.zeros(count, int), 2, verbose=0, resume=path, **options)
        finally:
            assert all(np.array_equal(a, before[n]) for n, a in model.state_dict().items())
            assert optimizer.step_count == 0
            assert len(trainer.history) == 0

    with pytest.raises(ValueError, match=r"went through \{'samples': 40, .* this one .*: 41"):
        resume(count=41, batch_size=8)
    with pytest.raises(ValueError, match=r"'batch_size': 8, .* 'batch_size': 9"):
        resume(batch_size=9)
    with pytest.raises(ValueError, match=r"unknown 'conv2d\.weight'"):
        resume(batch_size=8)


def test_a_broken_checkpoint_is_named(tmp_path):
    path = checkpoint(tmp_path / "training.safetensors")
    whole = path.read_bytes()
    for broken in (b"", whole[:100], whole[:-1], b"\xff" + whole[1:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"training\.safetensors: expected a complete"):
            train(0, resume=path)
    minidl.save_weights(minidl.Sequential([minidl.Dense(2)], input_shape=(2,)), path)
    with pytest.raises(ValueError, match="expected a checkpoint of fit, got weights alone"):
        train(0, resume=path)
    with pytest.raises(FileNotFoundError):
        train(0, resume=tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        train(0, checkpoint=tmp_path / "absent" / "t.safetensors")


# Real signals to real processes


def start(path, *options):
    command = [sys.executable, str(PROGRAM), str(path), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ}, **pipes)


def after_steps(process, count):
    for _ in range(count):
        assert process.stdout.readline() == "step\n"
    return process


def finish(process):
    out, error = process.communicate(timeout=A_MINUTE)
    return process.returncode, [line for line in out.splitlines() if line != "step"], error


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "training.safetensors"
    status, (line,), _ = finish(start(path))
    assert status == 0
    return line


@pytest.mark.parametrize("steps", [2, STEPS + 3, 3 * STEPS])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_process_that_was_ended_is_continued(tmp_path, undisturbed, number, status, steps):
    path = tmp_path / "training.safetensors"
    process = after_steps(start(path), steps)
    process.send_signal(number)
    ended, lines, error = finish(process)
    assert ended == status
    assert lines == []
    assert "Traceback" not in error
    if number is not signal.SIGKILL:
        (said,) = error.splitlines()
        assert f"fit(..., resume={str(path)!r}) goes on from there" in said
    options = ["--resume"] if path.exists() else []  # killed in the first epoch, it starts anew
    status, (line,), _ = finish(start(path, *options))
    assert status == 0
    assert line == undisturbed


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    process = after_steps(start(tmp_path / "training.safetensors"), 1)
    process.send_signal(signal.SIGSTOP)  # so that both come before the step ends
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    ended, _, _ = finish(process)
    assert ended == 130
    code = (
        "import signal, minidl\n"
        "from minidl.training.interruption import interruptible\n"
        "with interruptible() as block:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    assert block.signal == signal.SIGINT\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('not reached')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert "KeyboardInterrupt" in done.stderr


def test_a_training_with_validation_data_does_not_go_on_without_or_the_other_way_round(tmp_path):
    x = np.linspace(0, 1, 12, dtype=np.float32)[:, None]

    def fit(epochs, **options):
        model = minidl.Sequential([minidl.Dense(1)], input_shape=(1,))
        trainer = minidl.Trainer(model, minidl.mse, minidl.SGD(model.parameters()))
        return trainer.fit(x, x, epochs, verbose=0, **options)

    for name, options in {"with": {"validation_data": (x, x)}, "without": {}}.items():
        path = tmp_path / name
        fit(1, checkpoint=path, **options)
        assert len(fit(2, resume=path, **options)) == 2
        other = {} if options else {"validation_data": (x, x)}
        with pytest.raises(ValueError, match=r"it recorded loss.*; this one would record loss"):
            fit(3, resume=path, **other)


class Told(Callback):
    """Has something to say, and keeps what it is told."""

    def __init__(self, told=None):
        self.told, self.found = told, None

    def state_dict(self):
        return self.told

    def load_state_dict(self, state):
        self.found = state


def found_by_a_callback(path, told):
    """What a callback finds in the checkpoint of a training in which one told it."""
    train(0, Told(told), epochs=1, checkpoint=path)
    again = Told()
    train(0, again, resume=path)
    return again.found


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"best": np.float32(0.5), "epoch": np.int64(3)}, {"best": 0.5, "epoch": 3}),
        ({"array": "0"}, {"array": "0"}),
        ({"array": {"array": [{"array": 1}]}}, {"array": {"array": [{"array": 1}]}}),
        ({"array": np.int64(7), "of": ()}, {"array": 7, "of": []}),
    ],
    ids=["NumPy's numbers", "a key like ours", "such keys inside", "one of two keys"],
)
def test_what_a_callback_tells_comes_back(tmp_path, told, known):
    assert found_by_a_callback(tmp_path / "training.safetensors", told) == known


def test_an_array_that_a_callback_tells_comes_back(tmp_path):
    found = found_by_a_callback(tmp_path / "training.safetensors", {"array": np.arange(3)})
    assert found["array"].tolist() == [0, 1, 2]


def test_a_checkpoint_is_no_model_and_says_what_it_is(tmp_path):
    path = checkpoint(tmp_path / "training.safetensors")
    with pytest.raises(ValueError, match=r"is a checkpoint of fit, not a model; fit\(\.\.\., res"):
        minidl.load(path)
