"""Image tables in CSV: what others wrote is read, what is written comes back, the rest is refused.

The tables are written and read a second time here by plain Python, cell by cell.
"""

import csv
import gzip
import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from generated import generated
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from minidl.data import csv_tables, load_csv, save_csv


def write(path, text, packed=False):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def refusal(path, text, **options):
    """The error message for a file with that text."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_csv(write(path, text), **options)
    return str(caught.value).removeprefix(str(path)).removeprefix(", ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("csv")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.csv"


@pytest.fixture
def small_blocks(monkeypatch):
    """Lines are parsed a few at a time, as those of a large file are."""
    monkeypatch.setattr(csv_tables, "_BLOCK", 16)


# -- reading what someone else wrote -----------------------------------------------------------

KAGGLE = "label,pixel1,pixel2,pixel3,pixel4\n9,0,1,254,255\n0,17,0,0,3\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_reads_what_kaggle_offers(path, packed, end):
    # The content decides about gzip: the name says nothing of it.
    write(path, KAGGLE.replace("\n", end), packed)

    images, labels = load_csv(path, shape=(2, 2))

    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert images.tolist() == [[[0, 1], [254, 255]], [[17, 0], [0, 3]]]
    assert labels.tolist() == [9, 0]
    assert images.flags.writeable
    assert images.flags.c_contiguous


def test_all_columns_are_pixels(path):
    images = load_csv(write(path, "pixel0,pixel1\n1,2\n3,4\n5,6\n"), label=None, shape=(2,))
    assert images.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_images_are_28_by_28_unless_said_otherwise(path):
    write(path, ",".join(["label"] + ["x"] * 784) + "\n" + ",".join(["1"] * 785))
    images, labels = load_csv(path)
    assert images.shape == (1, 28, 28)
    assert labels.shape == (1,)


values = st.one_of(
    st.integers(0, 255),
    st.integers(-300, 300),
    st.decimals(-1000, 1000, places=2),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@st.composite
def tables(draw):
    """Cells as text, in lines, and where the labels are; most have bytes for pixels."""
    columns, rows = draw(st.integers(2, 9)), draw(st.integers(1, 12))
    pixel = draw(st.sampled_from([st.integers(0, 255), st.integers(0, 255), values]))
    column = draw(st.none() | st.integers(-columns, columns - 1))
    lines = [[str(draw(pixel)) for _ in range(columns)] for _ in range(rows)]
    if column is not None:
        for line in lines:
            line[column] = draw(st.sampled_from(["0", "7", "9", "123456789", "3.0", "1e1"]))
    return lines, column


@generated
@given(
    table=tables(),
    header=st.booleans(),
    by_name=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    last_end=st.booleans(),
    packed=st.booleans(),
    block=st.sampled_from([1, 2, 7, 32, 2**20]),
)
def test_every_table_is_read_as_plain_python_reads_it(
    folder, table, header, by_name, end, last_end, packed, block
):
    lines, column = table
    names = [f"column {number}" for number in range(len(lines[0]))]
    text = end.join(",".join(line) for line in ([names] if header else []) + lines)
    path = write(folder / "table", text + (end if last_end else ""), packed)
    label = names[column] if header and by_name and column is not None else column
    pixels = len(names) - (column is not None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_tables, "_BLOCK", block)
        result = load_csv(path, label=label, shape=(pixels, 1))

    images = result if column is None else result[0]
    expected = [[float(cell) for cell in line] for line in lines]
    if column is not None:
        labels = [int(line.pop(column)) for line in expected]
        assert result[1].dtype == np.int64
        assert result[1].tolist() == labels
    small = all(value in range(256) for line in expected for value in line)
    assert images.dtype == (np.uint8 if small else np.float32)
    assert images.shape == (len(lines), pixels, 1)
    assert_array_equal(images[..., 0], np.array(expected).astype(images.dtype))


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ("0,255", np.uint8),
        ("0.0,2.55e2", np.uint8),
        ("0,256", np.float32),
        ("0,-1", np.float32),
        ("0,0.5", np.float32),
    ],
)
@pytest.mark.parametrize("row", [0, 1, 39])
@pytest.mark.usefixtures("small_blocks")
def test_one_pixel_decides_about_the_type_of_all(path, cells, dtype, row):
    lines = ["7,8"] * 40
    lines[row] = cells
    images = load_csv(write(path, "\n".join(lines)), label=None, shape=(2,))
    assert images.dtype == dtype
    assert images[row].tolist() == [float(cell) for cell in cells.split(",")]
    assert np.delete(images, row, axis=0).tolist() == [[7, 8]] * 39


def test_labels_need_not_fit_a_float32(path):
    _, labels = load_csv(write(path, f"{2**24 + 1},0\n{2**53},1\n"), label=0, shape=(1,))
    assert labels.tolist() == [2**24 + 1, 2**53]


# -- the header --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        ("label,pixel1", True),
        ('"label","pixel 1"', True),
        ('"label, of course",pixel1', True),
        (" label , pixel1 ", True),
        (",pixel1", True),
        ("1,2", False),
        (" 1 , 2.5", False),
        ("+1,-2e3", False),
    ],
)
def test_a_first_line_without_any_number_is_a_header(path, first, is_header):
    images = load_csv(write(path, f"{first}\n3,4\n"), label=None, shape=(2,))
    assert len(images) == (1 if is_header else 2)
    assert images[-1].tolist() == [3, 4]


def test_a_name_in_quotes_or_between_spaces_or_after_a_byte_order_mark(path):
    for header in ('"label","pixel1"', "\ufefflabel,pixel1", " label , pixel1"):
        assert load_csv(write(path, f"{header}\n3,4\n"), shape=(1,))[1].tolist() == [3]


def test_a_byte_order_mark_does_not_make_a_number_a_name(path):
    assert load_csv(write(path, "\ufeff1,2\n"), label=None, shape=(2,)).tolist() == [[1, 2]]


def test_a_header_of_numbers_must_be_said_to_be_one(path):
    write(path, "0,1,2\n3,4,5\n")
    assert load_csv(path, label=None, shape=(3,)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert load_csv(path, label=None, shape=(3,), header=True).tolist() == [[3, 4, 5]]
    images, labels = load_csv(path, label="1", shape=(2,), header=True)
    assert (images.tolist(), labels.tolist()) == ([[3, 5]], [4])


def test_a_first_line_with_some_numbers_is_refused_until_its_meaning_is_said(path):
    mixed = "label,0,1\n3,4,5\n"
    message = refusal(path, mixed, label=0, shape=(2,))
    assert message.startswith("line 1: expected a number in column 0, counted from 0, got 'label';")
    assert "say header=True" in message
    assert "say header=True" in refusal(path, mixed, shape=(2,))
    assert load_csv(path, shape=(2,), header=True)[0].tolist() == [[4, 5]]


def test_a_header_that_is_said_to_be_none(path):
    message = refusal(path, "a,b\n1,2\n", label=None, shape=(2,), header=False)
    assert message.startswith("line 1: expected a number in column 0, counted from 0, got 'a'")


# -- refusing what is no table of images, with the line ----------------------------------------


@pytest.mark.parametrize("header", ["", "label,a,b\n"])
@pytest.mark.parametrize("row", [1, 2, 30])
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1,2", "expected 3 cells, as the first line has, got 2"),
        ("1,2,3,4", "expected 3 cells, as the first line has, got 4"),
        ("1,2,3,", "expected 3 cells, as the first line has, got 4"),
        ("", "expected 3 numbers, got an empty line"),
        ("1,two,3", "expected a number in column 1, counted from 0, got 'two'"),
        ("1,2,", "expected a number in column 2, counted from 0, got ''"),
        ("1,2, ", "expected a number in column 2, counted from 0, got ' '"),
        ("1,2 3,4", "expected a number in column 1, counted from 0, got '2 3'"),
        ("1,2,3 # note", "expected a number in column 2, counted from 0, got '3 # note'"),
        ("1,2\r,3", r"expected a number in column 1, counted from 0, got '2\r'"),
        ("1,2,\u0663", "expected a number in column 2, counted from 0, got"),
        ("1,0x10,3", "expected a number in column 1, counted from 0, got '0x10'"),
        ("1,1_0,3", "expected a number in column 1, counted from 0, got '1_0'"),
        ("1,nan,3", "expected finite numbers that float32 can hold, got nan"),
        ("1,2,-inf", "expected finite numbers that float32 can hold, got -inf"),
        ("1,1e39,3", "expected finite numbers that float32 can hold, got 1e+39"),
        ("nan,2,3", "expected a label, a whole number from 0 on, got nan"),
        ("-1,2,3", "expected a label, a whole number from 0 on, got -1.0"),
        ("16777216.5,2,3", "expected a label, a whole number from 0 on, got 16777216.5"),
        ("1e30,2,3", "expected a label, a whole number from 0 on, got 1e+30"),
    ],
)
@pytest.mark.parametrize("block", [16, 2**20])
def test_the_line_that_does_not_fit_is_named(path, monkeypatch, header, row, line, fault, block):
    monkeypatch.setattr(csv_tables, "_BLOCK", block)
    lines = ["5,6,7"] * 40
    lines[row] = line
    text = header + "\n".join(lines) + "\n"
    message = refusal(path, text, label=0, shape=(2,))
    number = text.split("\n").index(line) + 1
    assert message.startswith(f"line {number}: {fault}")


@pytest.mark.parametrize("block", [1, 2**20])
def test_lines_that_end_in_two_bytes(path, monkeypatch, block):
    monkeypatch.setattr(csv_tables, "_BLOCK", block)
    for line, fault in (("", "got an empty line"), ("1,", "got ''"), ("1,x", "got 'x'")):
        message = refusal(path, f"1,2\r\n3,4\r\n{line}\r\n", label=None, shape=(2,))
        assert message.startswith("line 3: expected ")
        assert fault in message


@pytest.mark.parametrize("block", [1, 2**20])
def test_an_empty_line_at_the_end(path, monkeypatch, block):
    monkeypatch.setattr(csv_tables, "_BLOCK", block)
    message = refusal(path, "1,2\n3,4\n\n", label=None, shape=(2,))
    assert message == "line 3: expected 2 numbers, got an empty line; remove it"


def test_the_first_line_that_does_not_fit_is_named(path):
    message = refusal(path, "1,2\n3,4\nx,4\n3\n", label=None, shape=(2,))
    assert message.startswith("line 3: ")


def test_a_label_column_of_pixels_is_refused(path):
    message = refusal(path, "0.5,1\n", label=0, shape=(1,))
    assert "check that column 0, counted from 0, holds the labels" in message
    message = refusal(path, "1,0.5\n", label=-1, shape=(1,))
    assert "check that column 1, counted from 0, holds the labels" in message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", ["", "\n", "\r\n", "  \n1,2\n"])
def test_a_file_that_is_empty_or_begins_so(path, text, packed):
    write(path, text, packed)
    with pytest.raises(ValueError, match=r"table\.csv, line 1: .*got an empty line or file"):
        load_csv(path)


def test_a_header_and_nothing_else(path):
    message = refusal(path, "label,pixel1\n", shape=(1,))
    assert message == ": expected images, got a header and nothing else"


def test_a_label_column_that_is_not_there(path):
    assert refusal(path, "class,a,b,c\n1,2,3,4\n").startswith(
        "line 1: expected a column 'label', got class, a, b, ...; name the one that holds"
    )
    assert refusal(path, "1,2,3\n").startswith(
        "line 1: expected a header with a column 'label', got numbers; "
    )
    for number in (3, -4):
        assert refusal(path, "1,2,3\n", label=number).startswith(
            f"line 1: expected a label column {number}, but there are 3 columns"
        )


@pytest.mark.parametrize("label", [True, False])
def test_a_label_is_no_bool(path, label):
    with pytest.raises(TypeError, match=f"name or number of a column, or None; got {label}"):
        load_csv(write(path, "1,2,3\n"), label=label, shape=(2,))


@pytest.mark.parametrize("shape", [(28, 28), (1,), (3,), (2, 0), (-2, -1), (-1, 2)])
def test_a_shape_that_does_not_fit(path, shape):
    message = refusal(path, "label,a,b\n1,2,3\n", shape=shape)
    assert message.startswith(f"line 1: expected {math.prod(shape)} pixels besides the label")
    assert message.endswith("got 2; check `shape` and `label`")


def test_a_shape_that_forgets_that_there_are_labels(path):
    message = refusal(path, "label,a,b\n1,2,3\n", label=None, shape=(2,))
    assert message.startswith("line 1: expected 2 pixels, for images of shape (2,), got 3;")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(200_000), b"<html>"])
def test_what_is_no_table(path, content):
    assert refusal(path, content).startswith("line 1: expected ")


def test_damaged_gzip(path):
    path.write_bytes(gzip.compress(KAGGLE.encode())[:-9])
    with pytest.raises(ValueError, match=r"table\.csv: expected complete gzip data"):
        load_csv(path, shape=(2, 2))


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"table\.csv: expected a CSV file, but there is"):
        load_csv(path)


def test_a_line_without_end_costs_no_memory(path, monkeypatch):
    monkeypatch.setattr(csv_tables, "_LONGEST_LINE", 2**16)
    for start, number in (("", 1), ("1,2\n3,4\n", 2)):
        write(path, start.encode() + b"1" * 2**26, packed=True)
        tracemalloc.start()
        try:
            with pytest.raises(
                ValueError, match=rf"line {number + bool(start)}: longer than 65536"
            ):
                load_csv(path, label=None, shape=(2,))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20


def test_a_large_table_needs_little_more_memory_than_its_images(path):
    rows, pixels = 4000, 784
    line = ",".join(["100"] * pixels)
    write(path, f"{line}\n" * rows)
    tracemalloc.start()
    try:
        images = load_csv(path, label=None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.nbytes == rows * pixels
    # The images twice, when their blocks are put together, and what one block of lines needs.
    assert peak < 2 * images.nbytes + 8 * 2**20


# -- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_writes_what_kaggle_offers(tmp_path, name):
    images = np.array([[[0, 1], [254, 255]], [[17, 0], [0, 3]]], np.uint8)
    save_csv(tmp_path / name, images, np.array([9, 0]))
    content = (tmp_path / name).read_bytes()
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == KAGGLE.encode()
    save_csv(tmp_path / name, images)
    content = (tmp_path / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    assert text == "pixel1,pixel2,pixel3,pixel4\n0,1,254,255\n17,0,0,3\n"


@generated
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from([np.uint8, np.float32]),
    seed=st.integers(0, 100),
    labelled=st.booleans(),
    suffix=st.sampled_from(["csv", "csv.gz"]),
)
def test_what_is_written_comes_back(folder, shape, dtype, seed, labelled, suffix):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, shape, np.uint32)
    if dtype == np.uint8:
        images = bits.astype(np.uint8)
    else:  # float32 numbers of every size
        images = np.nan_to_num(bits.view(np.float32), nan=0.1, posinf=1.0, neginf=-1.0)
    images = images.transpose(0, 2, 1)
    labels = rng.integers(0, 2**53, len(images), np.int64, endpoint=True)
    path = folder / f"back.{suffix}"
    save_csv(path, images, labels if labelled else None)

    back = load_csv(path, label="label" if labelled else None, shape=images.shape[1:])

    if labelled:
        back, back_labels = back
        assert_array_equal(back_labels, labels)
    assert back.dtype == dtype
    assert_array_equal(back, images)
    with (gzip.open if suffix.endswith("gz") else open)(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(images) + 1
    pixels = [[np.float32(cell) for cell in row[labelled:]] for row in rows[1:]]
    assert_array_equal(pixels, images.reshape(len(images), -1))


def test_the_same_table_gives_the_same_bytes(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for name in ("first.csv.gz", "second.csv.gz"):
        save_csv(tmp_path / name, images, np.array([1, 2], np.uint8))
    first, second = ((tmp_path / f"{name}.csv.gz").read_bytes() for name in ("first", "second"))
    assert first == second


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_failure_while_writing_keeps_the_old_file(tmp_path, monkeypatch, name):
    path = tmp_path / name
    save_csv(path, np.zeros((1, 2), np.uint8))
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_csv(path, np.ones((3, 2), np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


ONE = np.zeros((1, 2), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "kind", "message"),
    [
        (np.zeros((1, 2)), None, TypeError, "dtype uint8 or float32, got float64; convert"),
        (np.zeros((1, 2), int), None, TypeError, "dtype uint8 or float32, got int64"),
        (np.zeros((1, 2), bool), None, TypeError, "dtype uint8 or float32, got bool"),
        (np.zeros((0, 2), np.uint8), None, ValueError, r"at least one, got \(0, 2\)"),
        (np.zeros((2, 0), np.uint8), None, ValueError, r"at least one, got \(2, 0\)"),
        (np.zeros(2, np.uint8), None, ValueError, r"images \(N, ...\), at least one, got \(2,\)"),
        (np.array([[1, np.nan]], np.float32), None, ValueError, "finite pixels, got nan or inf"),
        (np.array([[1, np.inf]], np.float32), None, ValueError, "finite pixels, got nan or inf"),
        (ONE, np.zeros(1), TypeError, "labels of an integer dtype, got float64"),
        (ONE, np.zeros(1, bool), TypeError, "labels of an integer dtype, got bool"),
        (ONE, np.zeros(2, int), ValueError, r"a label for each of 1 images, got \(2,\)"),
        (ONE, np.zeros((1, 1), int), ValueError, r"each of 1 images, got \(1, 1\)"),
        (ONE, np.array([-1]), ValueError, "labels from 0 to 9007199254740992, got -1 to -1"),
        (ONE, np.array([2**53 + 1]), ValueError, "labels from 0 to 9007199254740992, got 9"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path, images, labels, kind, message):
    with pytest.raises(kind, match=rf"x\.csv: .*{message}"):
        save_csv(tmp_path / "x.csv", images, labels)
    assert list(tmp_path.iterdir()) == []


def test_says_that_the_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        save_csv(tmp_path / "nowhere" / "x.csv", ONE)


def test_a_path_may_be_text(tmp_path):
    save_csv(str(tmp_path / "x.csv"), ONE)
    assert load_csv(str(tmp_path / "x.csv"), label=None, shape=(2,)).tolist() == [[0, 0]]
