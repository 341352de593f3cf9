"""The programs that users run, on the real data set, started as users start them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpiexec import mpiexec

import minidl

ROOT = Path(__file__).parent.parent


def run(program, *arguments, **environment):
    command = [sys.executable, str(ROOT / "examples" / program), *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("program", "parameters", "at_least"),
    # One epoch only. Several seeds gave 0.84 to 0.86, and 0.88 to 0.90: far from these bounds.
    [("fashion_mlp.py", "101,770", 0.80), ("fashion_cnn.py", "804,554", 0.85)],
)
def test_a_program_trains_and_leaves_its_results(tmp_path, program, parameters, at_least):
    done = run(program, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "deep" / "er")
    assert done.returncode == 0, done.stderr
    assert f"Total params: {parameters}" in done.stdout
    assert "Training on the cpu, 60,000 images, 10,000 to test" in done.stdout
    accuracy = re.search(r"Test loss \d\.\d+, test accuracy (\d\.\d+)", done.stdout)
    assert float(accuracy[1]) >= at_least
    assert {path.name for path in (tmp_path / "deep" / "er").iterdir()} == {
        "checkpoint.safetensors",
        "model.safetensors",
        "history.png",
        "predictions.png",
    }


def test_two_processes_train_and_leave_the_results_of_one(tmp_path):
    options = ["--epochs", 1, "--batch-size", 256, "--out", tmp_path, "--distributed"]
    done = mpiexec(2, ROOT / "examples" / "fashion_mlp.py", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Total params: 101,770") == 1
    assert done.stdout.count("Training on the cpu in 2 processes, 60,000 images") == 1
    together = re.findall(r"Test loss \d\.\d+, test accuracy (\d\.\d+)", done.stdout)
    assert len(together) == 1
    one = run("fashion_mlp.py", *options)
    alone = re.search(r"Test loss \d\.\d+, test accuracy (\d\.\d+)", one.stdout)
    # float32, and 235 steps for rounding to grow: 20 pictures of 10,000
    assert float(together[0]) == pytest.approx(float(alone[1]), abs=2e-3)
    assert "in 2 processes" not in one.stdout


def test_without_data_one_process_says_so_and_all_end(tmp_path):
    options = ["--data-dir", tmp_path, "--out", tmp_path, "--distributed"]
    done = mpiexec(2, ROOT / "examples" / "fashion_mlp.py", *options)
    assert done.returncode != 0
    assert done.stderr.count("fashion_mlp.py: ") == 1
    assert "the program of rank 0 has ended" in done.stderr


def test_the_saved_model_gives_the_printed_accuracy(tmp_path):
    done = run("fashion_mlp.py", "--epochs", 1, "--seed", 3, "--out", tmp_path)
    printed = float(re.search(r"test accuracy (\d\.\d+)", done.stdout)[1])
    model = minidl.load(tmp_path / "model.safetensors")
    _, (x_test, y_test) = minidl.fashion_mnist()
    outputs = model(x_test[..., None].astype(np.float32) / 255)
    assert minidl.accuracy(outputs, y_test).item() == pytest.approx(printed, abs=2e-4)
    assert model.class_names == minidl.FASHION_MNIST_CLASSES


def test_one_seed_gives_one_result_to_the_last_bit(tmp_path):
    weights = []
    for seed in (1, 1, 2):
        run("fashion_mlp.py", "--epochs", 1, "--seed", seed, "--out", tmp_path)
        weights.append((tmp_path / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_run_that_was_interrupted_is_resumed_to_the_last_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("fashion_mlp.py", "--epochs", 2, "--out", whole)
    command = [sys.executable, "-u", str(ROOT / "examples" / "fashion_mlp.py"), "--epochs", "2"]
    process = subprocess.Popen(
        [*command, "--out", parts], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not process.stdout.readline().startswith("Epoch 1/2"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # in the second epoch
    _, error = process.communicate()
    assert process.returncode == 130
    assert error.splitlines() == [
        f"Interrupted; to go on: python {command[2]} --epochs 2 --out {parts} --resume"
    ]
    done = run("fashion_mlp.py", "--epochs", 2, "--out", parts, "--resume")
    assert done.returncode == 0, done.stderr
    assert "Epoch 1/2" not in done.stdout
    model = "model.safetensors"
    assert (parts / model).read_bytes() == (whole / model).read_bytes()
    done = run("fashion_mlp.py", "--batch-size", 50, "--out", parts, "--resume")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"fashion_mlp.py: {parts / 'checkpoint.safetensors'}: not a checkpoint of this training: "
    )


def test_the_perceptron_reaches_the_accuracy_that_is_promised(tmp_path):
    done = run("fashion_mlp.py", "--out", tmp_path)  # five epochs; seeds gave 0.8776 to 0.8808
    assert float(re.search(r"test accuracy (\d\.\d+)", done.stdout)[1]) >= 0.868


def test_the_hand_written_loop_is_short_and_learns():
    source = (ROOT / "examples" / "training_loop.py").read_text()
    assert len(source.splitlines()) < 40
    done = run("training_loop.py")
    assert done.returncode == 0, done.stderr
    accuracies = [float(a) for a in re.findall(r"test accuracy (\d\.\d+)", done.stdout)]
    assert len(accuracies) == 2
    assert accuracies[-1] > 0.8


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data-dir", "no/such/folder"], "no/such/folder"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, got 0"),
        (["--batch-size", "many"], "argument --batch-size"),
        (["--lr", "-1"], "argument --lr: must be a positive number, got -1.0"),
        (["--lr", "nan"], "argument --lr: must be a positive number, got nan"),
        (["--seed", "-1"], "argument --seed: must be at least 0, got -1"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    ],
)
def test_a_bad_argument_ends_in_a_message_and_no_traceback(tmp_path, arguments, expected):
    done = run("fashion_mlp.py", "--out", tmp_path, *arguments)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_the_gpu_without_cupy_ends_in_one_sentence(tmp_path):
    # A folder earlier on the path with a package that cannot be imported stands for its absence.
    (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError('not here', name='cupy')")
    done = run("fashion_mlp.py", "--device", "gpu", PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.strip() == (
        "fashion_mlp.py: device 'gpu' needs CuPy, which is not installed here: "
        'pip install "cupy-cuda12x[ctk]" (or "cupy-cuda13x[ctk]").'
    )


def test_the_gpu_without_a_driver_ends_in_one_sentence(tmp_path):
    (tmp_path / "cupy.py").write_text(
        "__version__ = '14.0'\nclass cuda:\n    is_available = staticmethod(lambda: False)\n"
    )
    done = run("fashion_mlp.py", "--device", "gpu", PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert "CuPy 14.0 is installed, but it finds no NVIDIA driver or no GPU" in done.stderr


def test_auto_takes_the_cpu_where_there_is_no_gpu(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('not here')")
    done = run("fashion_mlp.py", "--epochs", 1, "--out", tmp_path, PYTHONPATH=str(tmp_path))
    assert "Training on the cpu" in done.stdout


def test_the_readme_and_the_continuous_check_run_the_same_command():
    command = 'pip install -e ".[test]" && pytest'
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".ci" / "run").read_text()


def python_blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("code", python_blocks(), ids=range(len(python_blocks())))
def test_the_code_in_the_readme_runs(code, tmp_path):
    if "import torch" in code:
        pytest.importorskip("torch")
    (tmp_path / "readme.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "readme.py"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
