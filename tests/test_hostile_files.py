"""Hostile and broken files: an error that names the file, soon and without much memory.

What breaks the promise of `fuzz.py` is looked for here for a short time. What was found in the long
run is kept in the folder `regressions`, where a file's name begins with that of its parser.
"""

import gzip
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from minidl.data import cifar10, load_csv, load_idx, save_csv, save_idx
from minidl.data.idx import read_idx_bytes

if not sys.platform.startswith("linux"):
    pytest.skip("measures memory as Linux tells it", allow_module_level=True)

import fuzz
from fuzzing import PARSERS, Parser, blind
from fuzzing.models import SAVED
from fuzzing.pictures import png_chunk
from fuzzing.tables import idx_file

REGRESSIONS = sorted((Path(__file__).parent / "regressions").iterdir())
MEBI = 2**20


def outcome(parser, path, content=None):
    """What became of one file, which must keep the promise; nothing is written, if None."""
    (one,) = fuzz.tried(parser, path, [content])
    assert one.fault == ""
    return one


def refusal(parser, path, content=None):
    """The message for a file, which must be refused in keeping with the promise."""
    assert outcome(parser, path, content).answer != "accepted"
    # Again and in this process, now that it is known to do no harm.
    with pytest.raises(ValueError) as caught:  # noqa: PT011  compared by the caller
        parser.read(path)
    return str(caught.value)


@pytest.fixture
def place(tmp_path):
    """Where a file for a parser is expected."""
    return lambda name: (PARSERS[name], tmp_path / PARSERS[name].file)


# -- many files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARSERS)
def test_broken_files_are_read_or_refused(name, tmp_path):
    done = fuzz.fuzz(PARSERS[name], 400, seed=2, folder=tmp_path / "findings")
    assert done.findings == []
    assert done.inputs == 400
    assert 0 < done.answers["accepted"] < 400


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.name)
def test_what_was_found_stays_mended(path, place):
    outcome(*place(path.name.partition("--")[0]), path.read_bytes())


@pytest.mark.parametrize("name", PARSERS)
def test_the_same_seed_gives_the_same_files(name):
    parser = PARSERS[name]
    made = [
        [fuzz.make_input(parser, list(parser.seeds), seed, n) for n in range(20)]
        for seed in (5, 5, 6)
    ]
    assert made[0] == made[1] != made[2]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["idx", "csv", "model", "weights", "checkpoint", "picture"])
def test_a_pipe_and_a_device_are_no_files(name, place):
    parser, path = place(name)
    os.mkfifo(path)
    assert "expected a file, got a pipe or a device" in refusal(parser, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "expected a file, got a pipe or a device" in refusal(parser, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "cifar-10-binary.tar.gz")
    with pytest.raises(ValueError, match="expected a file, got a pipe or a device"):
        cifar10(tmp_path)


# -- the promise itself ------------------------------------------------------------------------


def allocate(_):
    np.ones(30 * MEBI // 2)


def fill_the_memory(_):
    np.empty(10**9, np.uint8)


def wait(_):
    while True:
        pass


def warn(_):
    np.float32(1e30) * np.float32(1e30)


def at_length(path):
    raise ValueError(f"{path}: {'x' * 4000}")


def raises(error):
    def read(_):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (allocate, r"1\d\d MB; accepted"),
        (fill_the_memory, "MemoryError: "),
        (wait, "the process ended with -14"),
        (warn, "a warning: overflow"),
        (raises(KeyError("BF16")), "KeyError: 'BF16'"),
        (raises(ValueError("no path")), "ValueError without the path: no path"),
        (at_length, "a message of [0-9]{4} characters: "),
        (lambda _: os._exit(3), "the process ended with 3"),
    ],
)
def test_what_breaks_the_promise_is_told(tmp_path, monkeypatch, read, fault):
    monkeypatch.setattr(fuzz, "HANGING", 1)
    parser = Parser("bad", "file", (b"",), blind, read)
    (one,) = fuzz.tried(parser, tmp_path / "file", [b"content"])
    assert re.match(fault, one.fault)


def test_what_comes_after_a_fault_is_tried_too(tmp_path):
    def read(path):
        if path.read_bytes() == b"2":
            os._exit(1)

    parser = Parser("bad", "file", (b"1",), lambda rng, _: rng.choice((b"1", b"2")), read)
    done = fuzz.fuzz(parser, 50, seed=0, folder=tmp_path / "findings")
    assert done.inputs == 50
    assert len(done.findings) == len(list((tmp_path / "findings").iterdir())) > 1
    assert {path.read_bytes() for path in (tmp_path / "findings").iterdir()} == {b"2"}


def test_what_takes_longer_than_allowed_is_a_finding(tmp_path):
    parser = PARSERS["idx"]
    done = fuzz.fuzz(parser, 5, seed=0, folder=tmp_path / "findings", seconds=0.0)
    assert [finding.fault for finding in done.findings] == ["0.0 seconds"] * 5
    assert len(list((tmp_path / "findings").iterdir())) == 5


# -- gzip that unpacks without end -------------------------------------------------------------


READERS = {
    "idx": Parser("idx", "images.idx", (), blind, load_idx),
    "csv": Parser("csv", "images.csv", (), blind, lambda path: load_csv(path, label=0)),
}
LINE = b"0," * 784 + b"0\n"


def packed(start, more, count):
    """Gzip of something, and then of something else many times over."""
    return gzip.compress(start) + gzip.compress(more) * count


BOMBS = {
    # One gigabyte each, in a thousandth of that.
    "idx": packed(idx_file(0x08, (2**30, 1), b""), bytes(16 * MEBI), 64),
    "csv": packed(LINE, LINE * 10_000, 64),
}


@pytest.mark.parametrize("name", BOMBS)
def test_gzip_that_unpacks_to_far_more_than_it_is_long(tmp_path, name):
    message = refusal(READERS[name], tmp_path / "bomb", BOMBS[name])
    assert "made to fill the memory" in message
    assert "unpack it with gunzip" in message


LARGE = {"idx": idx_file(0x08, (80, MEBI), bytes(80 * MEBI)), "csv": LINE * 13_000}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_not_unpacked_here_can_be_read_unpacked(tmp_path, name):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(LARGE[name]))
    with pytest.raises(ValueError, match="unpack it with gunzip"):
        READERS[name].read(path)
    path.write_bytes(LARGE[name])
    READERS[name].read(path)


def test_gzip_that_is_nearly_as_long_as_declared(tmp_path):
    parser = Parser("idx", "images.idx", (), blind, read_idx_bytes)
    start = idx_file(0x08, (60 * MEBI + 1,), b"")
    message = refusal(parser, tmp_path / "x", packed(start, bytes(20 * MEBI), 3))
    assert f"cut short: expected {60 * MEBI + 9} bytes" in message


def test_empty_images_in_gzip_are_read(tmp_path):
    save_idx(tmp_path / "x.gz", np.zeros((60_000, 28, 28), np.uint8))
    assert load_idx(tmp_path / "x.gz").shape == (60_000, 28, 28)
    save_csv(tmp_path / "y.gz", np.zeros((5_000, 28, 28), np.uint8))
    assert load_csv(tmp_path / "y.gz", label=None).shape == (5_000, 28, 28)


# -- tables ------------------------------------------------------------------------------------

LONG_LINES = {
    "a header of a million names": (b"a," * MEBI, "line 1: longer than 262144 bytes"),
    "as many names as may be": (b"a," * (MEBI // 8 - 9) + b"a\n1,2\n", "line 1: expected a column"),
    "a line of a million numbers": (b"1,2,3,4,5\n" + b"1," * MEBI, "line 2: "),
    "a line without end, packed": (gzip.compress(b"1" * 2**26), "line 1: longer than"),
    "the last line of many": (b"1,2,3,4,5\n" * 100_000 + b"1,2,3,4,x\n", "line 100001: expected a"),
    "a short line after many": (b"1,2,3,4,5\n" * 100_000 + b"1,2\n", "line 100001: expected 5 c"),
}


@pytest.mark.parametrize(("content", "message"), LONG_LINES.values(), ids=LONG_LINES)
def test_tables_of_long_lines_and_of_many(tmp_path, content, message):
    label = "label" if message.startswith("line 1:") else 0
    parser = Parser("csv", "x", (), blind, lambda path: load_csv(path, label=label, shape=(2, 2)))
    assert message in refusal(parser, tmp_path / "x", content)


# -- files that are longer than the memory -----------------------------------------------------

TEN_GIGABYTES = 10**10


def tensors(offset, length, name="dense.bias"):
    """A safetensors file with one tensor of so many bytes, but for the tensor."""
    header = f'{{"{name}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{offset},{length}]}}}}'
    return struct.pack("<Q", len(header)) + header.encode()


SPARSE = {
    "idx, of which most is not declared": ("idx", idx_file(0x08, (3,), b"abc"), "but more follow"),
    "csv of zeros": ("csv", b"label,a,b,c,d\n", "longer than"),
    "weights of another model": ("weights", tensors(0, TEN_GIGABYTES), "missing 'conv2d.weight'"),
    "weights after a model": ("weights", SAVED, "expected a complete safetensors file"),
    "a model, and more": ("model", SAVED, "expected a complete safetensors file"),
    "a header of 90 MB": ("weights", struct.pack("<Q", 90_000_000), "a header of 90000000 bytes"),
    "a header of 2**60": ("model", struct.pack("<Q", 2**60), f"a header of {2**60} bytes"),
    "an archive": ("cifar10-binary", b"", "not a gzip|BadGzip|Not a gzipped"),
    "a picture, and more": ("picture", PARSERS["picture"].seeds[0], "more than 80000000 bytes"),
}


@pytest.mark.parametrize(("name", "start", "message"), SPARSE.values(), ids=SPARSE)
def test_files_longer_than_the_memory(place, name, start, message):
    parser, path = place(name)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + TEN_GIGABYTES)
    assert any(part in refusal(parser, path) for part in message.split("|"))


def test_an_archive_longer_than_any_is_not_read_for_its_checksum(tmp_path):
    import minidl

    path = tmp_path / "cifar-10-binary.tar.gz"
    with path.open("wb") as file:
        file.truncate(TEN_GIGABYTES)
    parser = Parser("cifar10", path.name, (), blind, lambda p: minidl.data.cifar10(p.parent))
    assert "not the published cifar-10-binary.tar.gz: expected at most 268435456 bytes, got" in (
        refusal(parser, path)
    )


# -- models ------------------------------------------------------------------------------------

LIES = {
    "overlapping": ({"a": (4, 0, 16), "b": (4, 8, 24)}, 24),
    "beyond the file": ({"a": (4, 0, 16)}, 15),
    "far beyond": ({"a": (2**60, 0, 2**62)}, 15),
    "backwards": ({"a": (4, 16, 0)}, 16),
    "another length than its shape": ({"a": (5, 0, 16)}, 16),
}


@pytest.mark.parametrize(("places", "length"), LIES.values(), ids=LIES)
def test_tensors_that_are_not_where_they_are_said_to_be(place, places, length):
    entries = ",".join(
        f'"{name}":{{"dtype":"F32","shape":[{count}],"data_offsets":[{first},{last}]}}'
        for name, (count, first, last) in places.items()
    )
    header = f"{{{entries}}}".encode()
    content = struct.pack("<Q", len(header)) + header + bytes(length)
    for name in ("weights", "model"):
        assert "expected a complete safetensors file, but it is none, or" in (
            refusal(*place(name), content)
        )


def test_a_header_of_many_tensors_gives_a_short_message(place):
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"tensor{n}":{entry}' for n in range(40_000)) + "}").encode()
    content = struct.pack("<Q", len(header)) + header
    message = refusal(*place("weights"), content)
    assert "unknown 'tensor" in message
    assert message.endswith(" ...")


# -- pictures ----------------------------------------------------------------------------------


def png(width, height, kind, lines, depth=8):
    """A PNG file of that size with that many lines of zeros in it."""
    channels = {0: 1, 2: 3, 6: 4}[kind]
    packer = zlib.compressobj(9)
    line = bytes(1 + width * channels * depth // 8)
    data = b"".join(packer.compress(line) for _ in range(lines)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def gif(width, height):
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + struct.pack(
        "<HHHHB", 0, 0, width, height, 0
    ) + b"\x08\x02\x4c\x01\0;"  # fmt: skip


DECLARED = {
    "PNG of 100,000 x 100,000": png(100_000, 100_000, 2, 0),
    "PNG of 8,000 x 10,000": png(8_000, 10_000, 6, 1),
    "PNG of 8,000 x 10,000, all there": png(8_000, 10_000, 0, 10_000),
    "PNG of 5,000 x 5,000, all there": png(5_000, 5_000, 0, 5_000),
    "GIF of 65,535 x 65,535": gif(65_535, 65_535),
    "GIF of 8,000 x 9,000": gif(8_000, 9_000),
}


@pytest.mark.parametrize("content", DECLARED.values(), ids=DECLARED)
def test_pictures_of_more_pixels_than_a_file_is_trusted_with(place, content):
    message = refusal(*place("picture"), content)
    assert "pixels" in message.partition("cannot be read: ")[2]


@pytest.mark.parametrize("kind", [0, 2, 6])
def test_as_many_pixels_as_any_file_may_have(place, kind):
    one = outcome(*place("picture"), png(2_000, 2_000, kind, 2_000))
    assert one.answer == "accepted"
