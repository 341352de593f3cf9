"""The program that reproduces published results, its table, and the table's place in the README."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import best  # noqa: E402
import classical  # noqa: E402
import gallery  # noqa: E402
import reproduce  # noqa: E402
import rows  # noqa: E402
import systems  # noqa: E402
from systems import Data, Figure  # noqa: E402


def run(*arguments):
    command = [sys.executable, str(ROOT / "examples" / "reproduce.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)


def pictures(count=60, shape=(28, 28, 1)):
    """A data set of noise."""
    rng = np.random.default_rng(0)
    x, y = rng.random((count, *shape), dtype=np.float32), rng.integers(0, 10, count)
    return Data(x, y, x[:20], y[:20], minidl.FASHION_MNIST_CLASSES)


def shape_of(name):
    return {"dense-last-axis": (28, 28), "cifar10-cnn": (32, 32, 3)}.get(name, (28, 28, 1))


@pytest.mark.parametrize("name", rows.TRAINED)
def test_a_system_has_its_parameters_and_trains(tmp_path, name):
    data = pictures(shape=shape_of(name))
    row = reproduce.train(name, data, seed=0, device="cpu", folder=tmp_path / "made", epochs=1)
    assert row["parameters"] == rows.TRAINED[name].parameters
    assert set(row["figures"]) == {figure.label for figure in rows.TRAINED[name].figures}
    folder = tmp_path / "made"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "checkpoint.safetensors",
        "history.csv",
        "curves.png",
        "predictions.png",
        "predictions.csv",
    }
    model = minidl.load(folder / "model.safetensors")
    outputs = model(data.x_test.astype(np.float32)).numpy()
    with (folder / "predictions.csv").open() as file:
        said = list(csv.DictReader(file))
    classes = list(data.class_names)
    assert [classes.index(line["predicted"]) for line in said] == outputs.argmax(1).tolist()
    assert [classes.index(line["class"]) for line in said] == data.y_test.tolist()
    assert all(0.1 <= float(line["confidence"]) <= 1 for line in said)


def test_the_gallery_draws_every_picture_of_a_saved_model(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)  # Graphviz may be there or not
    data = pictures()
    minidl.seed(0)
    for layers, more in (
        (systems.cnn_2x2(), {"filters", "feature-maps"}),
        (systems.sgd_dnn(), set()),
    ):
        model = minidl.Sequential(layers, input_shape=(28, 28, 1))
        minidl.save(model, tmp_path / "model.safetensors", class_names=data.class_names)
        drawn = dict(gallery.pictures(minidl.load(tmp_path / "model.safetensors"), data))
        assert set(drawn) == {"images", "predictions", "probabilities", "confusion", *more}
        for figure in drawn.values():
            figure.savefig(tmp_path / "picture.png")
        matrix = drawn["confusion"].axes[0]
        assert sum(int(text.get_text()) for text in matrix.texts) == len(data.x_test)


def test_a_figure_is_that_of_its_epoch():
    measures = {"val_accuracy": [0.5, 0.7, 0.6]}
    assert reproduce.value(measures, Figure("last")) == 0.6
    assert reproduce.value(measures, Figure("second", epoch=2)) == 0.7
    assert reproduce.value(measures, Figure("fourth", epoch=4)) is None


def test_the_classical_row_has_the_accuracy_of_each_classifier():
    # In a process of its own, because scikit-learn brings another BLAS along, which stays.
    code = f"""if True:
        import json, sys
        sys.path[:0] = [{str(ROOT / "examples")!r}, {str(ROOT / "tests")!r}]
        import classical
        from test_reproduce import pictures
        data = pictures(200)
        # Labels that cannot be known from the pictures: right on those it has seen, and no others.
        others = data._replace(y_test=(data.y_test + 1) % 10)
        print(json.dumps([classical.run(d, seed=0)["figures"] for d in (data, others)]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    on_seen, on_others = json.loads(done.stdout.splitlines()[-1])
    assert set(on_seen) == {figure.label for figure in classical.ENTRY.figures}
    assert on_seen["DecisionTree"] == on_seen["RandomForest"] == 1
    assert on_others["DecisionTree"] == on_others["RandomForest"] == 0


# The program, as users start it


def test_the_list_names_every_system():
    done = run("--list")
    assert done.returncode == 0, done.stderr
    for name in rows.ENTRIES:
        assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name a system, or --all, --list or --readme"),
        (["resnet"], "unknown system 'resnet'; known: dense-tutorial"),
        (["dense-tutorial", "--data-dir", "no/such/folder"], "no/such/folder"),
        (["cifar10-cnn", "--data-dir", "no/such/folder"], "no/such/folder"),
    ],
)
def test_a_bad_argument_ends_in_a_message(tmp_path, arguments, expected):
    done = run(*arguments, "--out", tmp_path, "--results", tmp_path / "results.json")
    assert done.returncode != 0
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_on_the_real_data_prints_its_row(tmp_path):
    results = tmp_path / "results.json"
    done = run("dense-tutorial", "--seeds", 1, 2, "--out", tmp_path, "--results", results)
    assert done.returncode == 0, done.stderr
    assert "0.8749" in done.stdout
    written = json.loads(results.read_text())["rows"]
    assert [row["seed"] for row in written] == [1, 2]
    for row in written:
        assert row["figures"]["test"] > 0.86  # several seeds gave 0.869 to 0.875
        assert row["run"]["command"] == (
            "python examples/reproduce.py dense-tutorial --seeds 1 2 "
            f"--out {tmp_path} --results {results}"
        )
    means = re.search(r"test (0\.\d+)\s+\((0\.\d+)-(0\.\d+)\)", done.stdout)
    figures = sorted(row["figures"]["test"] for row in written)
    assert [float(text) for text in means.groups()] == pytest.approx(
        [sum(figures) / 2, *figures], abs=6e-5
    )


def test_a_run_that_was_interrupted_is_resumed_to_the_last_bit(tmp_path):
    def arguments(name, *seeds):
        results = tmp_path / f"{name}.json"
        return "dense-tutorial", "--seeds", *seeds, "--out", tmp_path / name, "--results", results

    assert run(*arguments("whole", 1)).returncode == 0
    interrupt(*arguments("parts", 1, 2), when="Epoch 3/5")
    done = run(*arguments("parts", 1, 2), "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Epoch 3/5") == 1  # that of the second seed
    whole, parts = (tmp_path / name / "dense-tutorial" / "seed-1" for name in ("whole", "parts"))
    for file in ("model.safetensors", "predictions.csv"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes()
    written = json.loads((tmp_path / "parts.json").read_text())["rows"]
    assert [row["seed"] for row in written] == [1, 2]
    assert not any("--resume" in row["run"]["command"] for row in written)


def interrupt(*arguments, when):
    """Start the program and interrupt it after a line that begins so."""
    command = [sys.executable, "-u", str(ROOT / "examples" / "reproduce.py")]
    command += map(str, arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)
    while not process.stdout.readline().startswith(when):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert error == f"Interrupted; to go on: python {shlex.join(command[2:])} --resume\n"


def test_a_shorter_run_gets_no_row(tmp_path):
    results = tmp_path / "results.json"
    done = run("dense-tutorial", "--epochs", 1, "--out", tmp_path, "--results", results)
    assert done.returncode == 0, done.stderr
    assert not results.exists()


# The table


def row(system="sgd-dnn", seed=0, device="cpu", seconds=1.0, **figures):
    machine = {
        "processor": "P",
        "cores": 2,
        "threads": {"minidl": 2, "blas": [{"kernels": "K"}]},
        "python": "3",
        "numpy": "2",
        "blas": "B",
    }
    return {
        "system": system,
        "seed": seed,
        "device": device,
        "epochs": rows.TRAINED[system].epochs,
        "seconds_an_epoch": seconds,
        "figures": figures,
        "run": {"command": "python", "minidl": "0", **machine},
    }


def test_rows_of_one_run_replace_each_other_and_others_stay(tmp_path):
    path = tmp_path / "folder" / "results.json"
    rows.record([row(seed=1, a=0.1), row(seed=0, a=0.2)], path)
    rows.record([row("dense-tutorial", a=0.3), row(seed=1, a=0.4)], path)
    kept = [(r["system"], r["seed"], r["figures"]["a"]) for r in rows.load(path)]
    assert kept == [("dense-tutorial", 0, 0.3), ("sgd-dnn", 0, 0.2), ("sgd-dnn", 1, 0.4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected rows that reproduce.py has written"),
        ('{"rows": 3}', "expected rows that reproduce.py has written"),
        ("[]", "expected rows that reproduce.py has written"),
        ('{"rows": [{"system": "gone"}]}', "rows of unknown systems: gone"),
    ],
)
def test_a_results_file_that_is_none_is_refused_before_anything_is_trained(tmp_path, text, message):
    results = tmp_path / "results.json"
    results.write_text(text)
    done = run("dense-tutorial", "--readme", "--results", results, "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"reproduce.py: {results}: {message}")
    assert "Epoch" not in done.stdout
    assert results.read_text() == text


def test_a_full_disk_leaves_the_rows_that_were_there(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    rows.record([row(a=0.1)], path)
    before = path.read_text()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        rows.record([row(seed=1, a=0.1)], path)
    assert path.read_text() == before


def test_a_line_of_the_table_is_the_mean_of_its_seeds():
    (line,) = rows.table(
        [row(seed=0, seconds=1.0, a=0.5, b=0.25), row(seed=2, seconds=3.0, a=0.7, b=None)]
    )
    named = dict(zip(rows.COLUMNS, line, strict=True))
    assert named == {
        "python examples/": "reproduce.py sgd-dnn --seeds 0 2",
        "published": "test after 1 0.6920, after 2 0.7745, after 3 0.7962, after 30 0.8663",
        "minidl": "a 0.6000 (0.5000-0.7000), b 0.2500",
        "epochs": "30",
        "seconds an epoch": "2",
    }
    (gpu,) = rows.table([row(device="gpu", a=0.5)])
    assert gpu[0] == "reproduce.py sgd-dnn --seeds 0 --device gpu"


def test_the_readme_gets_the_table_between_its_marks(tmp_path):
    path = tmp_path / "README.md"
    marks = [rows.START.format(program) for program in ("reproduce.py", "best.py")]
    path.write_text("".join(f"before\n{mark}\nold\n{rows.END}\nafter\n" for mark in marks))
    rows.write_readme([row(a=0.5)], path)
    text = path.read_text()
    assert text.startswith(f"before\n{marks[0]}\n")
    assert "| nothing |" in text.partition(marks[1])[2]
    assert text.endswith(f"{rows.END}\nafter\n")
    assert "old" not in text
    assert "| `reproduce.py sgd-dnn --seeds 0` | Flatten, Dense 256 relu," in text
    assert re.search(r"\| `reproduce.py cifar10-cnn` \| .* \| not run on real data \| 15 \|", text)
    rows.write_readme([row(a=0.5)], path)
    assert path.read_text() == text
    path.write_text("no marks")
    with pytest.raises(ValueError, match="expected the marks"):
        rows.write_readme([], path)


def test_the_readme_shows_the_rows_of_the_results_file():
    text = (ROOT / "README.md").read_text()
    tables = {
        "reproduce.py": rows.markdown(rows.load(reproduce.RESULTS)),
        "best.py": best.markdown(),
    }
    for program, table in tables.items():
        shown = text.partition(rows.START.format(program))[2].partition(rows.END)[0]
        assert shown.strip() == table


def test_a_part_of_the_recipe_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(best, "BATCH_SIZE", 20)
    data = pictures(60)
    outcome = [best.validate(without, data, epochs=1, seed=0) for without in (None, *best.PARTS)]
    assert len({row["validation"] for row in outcome} | {row["without"] for row in outcome}) > 6
    for row in outcome:
        assert 0 <= row["validation"] <= 1
        assert 0 <= row["validation of averaged weights"] <= 1
    layers = [type(layer).__name__ for layer in best.system(1, "batch normalisation").layers()]
    assert "BatchNorm" not in layers
    assert best.system(1, "augmentation").transform is None
    best.save(outcome, tmp_path / "best.json")
    table = best.markdown(tmp_path / "best.json")
    assert "| nothing |" in table
    assert "| label smoothing: by 0.1 |" in table


def test_every_row_is_a_whole_run():
    for recorded in rows.load(reproduce.RESULTS):
        entry = rows.ENTRIES[recorded["system"]]
        assert recorded["epochs"] == entry.epochs
        assert set(recorded["figures"]) == {figure.label for figure in entry.figures}
        assert None not in recorded["figures"].values()
        assert "reproduce.py" in recorded["run"]["command"]
