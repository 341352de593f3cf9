"""The benchmarks start, measure and leave their results; how fast anything is, no test asks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mpiexec import AS_ROOT

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(program, *arguments, **environment):
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("program", "arguments", "row"),
    [
        ("kernels", ["--models", "3", "--seconds", "0.01"], "model 3: 2x2x16 on 32x28x28x1"),
        ("step_profile", ["--model", "5", "--seconds", "0.01"], "2 dense 128"),
        ("fit", ["--models", "57", "--samples", "500"], "7 deep-mlp-dropout"),
        ("distributed", ["--models", "5", "--steps", "4"], "5 dense-tutorial"),
    ],
)
def test_a_benchmark_leaves_table_result_and_chart(tmp_path, program, arguments, row):
    folder = tmp_path / "deep" / "er"
    done = run(f"{program}.py", "--rounds", 1, "--output", folder, *arguments, **AS_ROOT)
    assert done.returncode == 0, done.stderr
    assert row in done.stdout
    assert {path.name for path in folder.iterdir()} == {f"{program}.json", f"{program}.png"}
    result = json.loads((folder / f"{program}.json").read_text())
    assert result["run"]["threads"]["minidl"] >= 1
    assert row in json.dumps(result)


@pytest.mark.parametrize(
    ("program", "arguments", "row"),
    [("import_time", ["--rounds", 1], "difference"), ("convolution_memory", [], "peak of the")],
)
def test_a_benchmark_without_a_chart_leaves_table_and_result(tmp_path, program, arguments, row):
    done = run(f"{program}.py", "--output", tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert row in done.stdout
    assert json.loads((tmp_path / f"{program}.json").read_text())["run"]["minidl"]


@pytest.mark.parametrize(
    ("program", "arguments", "row"),
    [
        ("gpu", ["--models", "35", "--batch-sizes", "3", "4"], "5 dense-tutorial, batch 4"),
        ("gpu_kernels", ["--models", "3", "--batch-size", "2"], "step of Adam"),
    ],
)
def test_a_benchmark_for_gpus_runs_on_stand_ins(tmp_path, program, arguments, row):
    pytest.importorskip("torch")
    on_stand_ins = Path(__file__).with_name("gpu_benchmark.py")
    options = ["--rounds", 2, "--seconds", 0.001, "--output", tmp_path]
    done = run(on_stand_ins, f"{program}.py", *options, *arguments)
    assert done.returncode == 0, done.stderr
    assert row in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {f"{program}.json", f"{program}.png"}
    result = json.loads((tmp_path / f"{program}.json").read_text())
    assert result["gpu"]["card"] == "stand-in"
    assert row in json.dumps(result)


@pytest.mark.parametrize("program", ["gpu.py", "gpu_kernels.py"])
def test_without_a_gpu_a_benchmark_for_it_ends_in_one_sentence(tmp_path, program):
    (tmp_path / "torch.py").touch()
    (tmp_path / "cupy.py").write_text("raise ModuleNotFoundError('not here', name='cupy')")
    done = run(program, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.startswith(f"{program} measures on a GPU; device 'gpu' needs CuPy")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("program", ["train.py", "predict.py", "scaling.py"])
def test_without_pytorch_a_comparison_ends_in_one_sentence(tmp_path, program):
    # A module earlier on the path that cannot be imported stands for its absence.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('not here')")
    done = run(program, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert done.stderr.strip() == (
        f"{program} compares with PyTorch, which is not installed: pip install torch"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--models", "19"], "there are 1 cnn-three-blocks, 2 cnn-one-block"),
        (["--models", ""], "8 dense-last-axis"),
        (["--models", "5"], "none of these models has a convolution"),
        (["--rounds", "0"], "argument --rounds: must be at least 1, got 0"),
        (["--seconds", "nan"], "argument --seconds: must be a positive number, got nan"),
    ],
)
def test_a_bad_argument_ends_in_a_message_and_no_traceback(tmp_path, arguments, expected):
    done = run("kernels.py", "--output", tmp_path, *arguments)
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def pieces(monkeypatch):
    """The benchmarks' modules, to be imported by their own names."""
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("digit", "parameters"),
    [(1, 390_410), (2, 804_554), (3, 86_970), (4, 11_082), (5, 101_770), (8, 29_898)],
)
def test_the_models_have_the_published_numbers_of_parameters(digit, parameters):
    import minidl_models
    from models import MODELS

    model = list(MODELS.values())[digit - 1]
    built = minidl_models.build(model)
    assert sum(parameter.size for parameter in built.parameters()) == parameters
    shapes = [layer.output_shape[1:] for layer in built.layers]
    assert [model.input_shape, *shapes] == model.shapes()


@pytest.mark.usefixtures("pieces")
def test_the_arithmetic_of_a_step():
    from arithmetic import products, step_flops
    from models import MODELS

    one, *_, dense = MODELS.values()
    assert products(one, 64)[0] == (64 * 28 * 28, 3 * 3 * 1, 32)
    assert products(dense, 32)[:2] == [(32 * 28, 28, 128), (32 * 28, 128, 64)]
    assert step_flops(one, 64) / 64 == pytest.approx(46e6, rel=0.01)


@pytest.mark.usefixtures("pieces")
def test_what_is_to_be_expected_of_many_machines():
    from distributed import Link, efficiency, ring_seconds

    # Three messages there and three back, of 1/4 of 8 MB, at 1 GB/s and 1 ms each.
    assert ring_seconds(Link(8e9, 1e-3), 8e6, ranks=4) == pytest.approx(6 * (1e-3 + 2e-3))
    assert efficiency(step=3.0, exchange=1.0, overlapped=False) == 0.75
    assert efficiency(step=3.0, exchange=1.0, overlapped=True) == 1.0
    assert efficiency(step=3.0, exchange=3.0, overlapped=True) == 0.75


@pytest.mark.usefixtures("pieces")
def test_everyone_has_a_turn_in_every_round_in_an_order_that_shifts(monkeypatch):
    import turns

    monkeypatch.setattr(turns, "PAUSE", 0)
    order = []
    contenders = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    assert turns.take_turns(contenders, 2) == {"a": [1, 6], "b": [2, 4], "c": [3, 5]}
    assert "".join(order) == "abcbca"
