"""`python -m minidl` as users start it: what it prints, how it ends, and what it says of errors."""

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Dense, Flatten, Sequential

ROOT = Path(__file__).parent.parent
NAMES = ["wide", "tall", "neither", "never"]


def run(folder, *arguments):
    """The process of a command that was given in a folder, on a wide terminal without colours."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "minidl", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=env, cwd=folder, check=False
    )


def png(path, pixels):
    """Write bytes (H, W) as a grey picture, the file made by hand."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # no filter
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bar(kind, scale=1):
    """A light bar on a dark ground, lying or standing."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[11:17, 1:27] = 255
    return np.kron(pixels if kind == "wide" else pixels.T, np.ones((scale, scale), np.uint8))


def model(shape=(28, 28, 1)):
    """Tells lying from standing bars by their ends, made by hand."""
    made = Sequential([Flatten(), Dense(4, kernel_initializer="zeros")], input_shape=shape)
    ends = np.zeros((28, 28), np.float32)
    ends[9:19, :6] = ends[9:19, -6:] = 0.1
    weight = np.stack([ends, ends.T, np.full_like(ends, 1e-3), np.full_like(ends, -1)], axis=-1)
    made.layers[1].weight.data[...] = weight.reshape(made.layers[1].weight.shape)
    return made


@pytest.fixture
def folder(tmp_path):
    """Two pictures and a model of them."""
    png(tmp_path / "lying.png", bar("wide"))
    png(tmp_path / "standing.png", bar("tall", scale=9))
    minidl.save(model(), tmp_path / "bars.safetensors", NAMES)
    return tmp_path


def rows(done):
    """The cells of each row of the tables, but for the headers."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


# Pictures


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28)])
def test_pictures_are_told_with_confidence(folder, shape):
    minidl.save(model(shape), folder / "bars.safetensors", NAMES)
    done = run(folder, "predict", "lying.png", "standing.png", "--model", "bars.safetensors")
    table = rows(done)
    assert [row[0] for row in table] == ["lying.png", "", "", "standing.png", "", ""]
    assert [row[1] for row in table] == ["wide", "neither", "tall", "tall", "neither", "wide"]
    shares = [float(re.fullmatch(r"(\d+\.\d)%", row[2])[1]) for row in table]
    assert shares[0] > 90
    assert shares[3] > 90
    for three in (shares[:3], shares[3:]):
        assert sum(three) == pytest.approx(100, abs=0.2)


def test_classes_without_names_have_numbers(folder):
    minidl.save(model(), folder / "bars.safetensors")
    done = run(folder, "predict", "standing.png", "--model", "bars.safetensors")
    assert [row[1] for row in rows(done)] == ["class 1", "class 2", "class 0"]


def test_two_classes_have_two_rows(folder):
    two = Sequential([Flatten(), Dense(2)], input_shape=(7, 9))
    minidl.save(two, folder / "two.safetensors", ["[red]a", "b"])
    done = run(folder, "predict", "lying.png", "--model", "two.safetensors")
    assert {row[1] for row in rows(done)} == {"[red]a", "b"}


def test_names_are_shown_as_they_are(folder):
    name = "[bold]lying [x] :boot:.png"
    (folder / "lying.png").rename(folder / name)
    done = run(folder, "predict", name, "--model", "bars.safetensors")
    assert rows(done)[0][0] == name


# Lists


def test_the_list_has_data_sets_and_models(folder):
    (folder / "deeper").mkdir()
    minidl.save(model((28, 28)), folder / "deeper" / "plain.safetensors")
    minidl.save_weights(model(), folder / "weights.safetensors")
    (folder / "zero.safetensors").write_bytes(b"")
    for arguments, at in [((), folder), ((".",), folder), ((folder.name,), folder.parent)]:
        done = run(at, "list", *arguments)
        table = {row[0]: row[1:] for row in rows(done)}
        assert table["Fashion-MNIST"][0] == "minidl.fashion_mnist"
        for name in minidl.FASHION_MNIST_CLASSES:
            assert name in done.stdout
        assert table["bars.safetensors"] == ["Flatten, Dense", "3,140", "4: wide ... never"]
        plain = table[str(Path("deeper", "plain.safetensors"))]
        assert plain == ["Flatten, Dense", "3,140", ""]
        assert table["weights.safetensors"][0].startswith("holds weights without the layers")
        assert "header" in table["zero.safetensors"][0]


def test_a_folder_without_models_says_so(tmp_path):
    done = run(tmp_path, "list")
    assert done.stdout.endswith("No saved models in .\n")
    assert rows(done)


# Errors


def save_colour(folder):
    colour = Sequential([Flatten(), Dense(2)], input_shape=(32, 32, 3))
    minidl.save(colour, folder / "colour.safetensors")


def save_of_rows(folder):
    minidl.save(Sequential([Dense(2)], input_shape=(784,)), folder / "rows.safetensors")


def save_one_output(folder):
    one = Sequential([Flatten(), Dense(1, "sigmoid")], input_shape=(28, 28))
    minidl.save(one, folder / "one.safetensors")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["predict", "lying.png", "--model", "no.safetensors"], "no.safetensors: No such"),
        (None, ["predict", "lying.png", "--model", "lying.png"], "lying.png: expected a complete"),
        (None, ["predict", "no.png", "--model", "bars.safetensors"], "no.png: "),
        (
            None,
            ["predict", "lying.png", "bars.safetensors", "--model", "bars.safetensors"],
            "bars.safetensors: ",
        ),
        (
            save_colour,
            ["predict", "lying.png", "--model", "colour.safetensors"],
            "colour.safetensors: predict reads grey pictures",
        ),
        (
            save_of_rows,
            ["predict", "lying.png", "--model", "rows.safetensors"],
            "rows.safetensors: predict reads grey pictures, and so expects a model with input ",
        ),
        (
            save_one_output,
            ["predict", "lying.png", "--model", "one.safetensors"],
            "classify expects a model with outputs (N, C) for two classes or more",
        ),
        (None, ["list", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_an_error_ends_in_one_line_and_one(folder, prepare, arguments, message):
    if prepare:
        prepare(folder)
    done = run(folder, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"minidl: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["guess"], "invalid choice: 'guess'"),
        (["predict", "lying.png"], "arguments are required: --model"),
        (["predict", "--model", "bars.safetensors"], "arguments are required: PICTURE"),
        (["list", "--deep"], "unrecognized arguments: --deep"),
    ],
)
def test_wrong_usage_ends_in_two(folder, arguments, message):
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m minidl")
    assert message in done.stderr


def test_help_loads_no_optional_library():
    code = (
        "import sys, minidl.__main__\n"
        "try: minidl.__main__.main(['predict', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    help, _, modules = done.stdout.partition("loaded ")
    assert "--model FILE" in help
    loaded = {name.split(".")[0] for name in modules.split()}
    assert not loaded & {"PIL", "matplotlib", "rich", "safetensors"}
