"""IDX files: what is written comes back, what others wrote is read, what is damaged is refused."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.data import load_idx, save_idx
from minidl.data.idx import parse_idx, read_idx_bytes

# Type code, dtype, and the letter by which struct packs one element.
TYPES = [
    (0x08, np.uint8, "B"),
    (0x09, np.int8, "b"),
    (0x0B, np.int16, "h"),
    (0x0C, np.int32, "i"),
    (0x0D, np.float32, "f"),
    (0x0E, np.float64, "d"),
]
DTYPES = [np.dtype(dtype) for _, dtype, _ in TYPES]


def idx_bytes(code, shape, letter, values):
    """An IDX file made byte by byte, without any help from the code under test."""
    content = bytes([0, 0, code, len(shape)])
    for length in shape:
        content += struct.pack(">I", length)
    for value in values:
        content += struct.pack(">" + letter, value)
    return content


def write(path, content, packed):
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


# -- reading what someone else wrote -----------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("code", "dtype", "letter"), TYPES)
def test_reads_each_type_as_specified(tmp_path, code, dtype, letter, packed):
    values = [0, 1, 2, 100, 3, 127]
    if np.dtype(dtype).kind != "u":
        values[1] = -1
    # The content decides about gzip, so both are written under a name that says nothing.
    path = write(tmp_path / "data", idx_bytes(code, (2, 3), letter, values), packed)

    array = load_idx(path)

    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.flags.aligned
    np.testing.assert_array_equal(array, np.array(values, dtype).reshape(2, 3))


def test_gzip_is_told_by_content_even_against_the_name(tmp_path):
    content = idx_bytes(0x08, (2,), "B", [7, 9])
    assert load_idx(write(tmp_path / "packed", content, True)).tolist() == [7, 9]
    assert load_idx(write(tmp_path / "plain.gz", content, False)).tolist() == [7, 9]


def test_a_rank_of_zero_is_one_number(tmp_path):
    array = load_idx(write(tmp_path / "x", idx_bytes(0x0C, (), "i", [-5]), False))
    assert array.shape == ()
    assert array == -5


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [1015, 1016, 1017, 2**20 - 8, 2**20 - 7, 2**20 + 1])
def test_lengths_around_the_internal_block_sizes(tmp_path, length, packed):
    payload = bytes(i % 251 for i in range(length))
    content = idx_bytes(0x08, (length,), "B", []) + payload
    array = load_idx(write(tmp_path / "x", content, packed))
    assert array.tobytes() == payload


def test_a_gzip_file_of_several_members_is_one_file(tmp_path):
    content = idx_bytes(0x08, (4,), "B", [1, 2, 3, 4])
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content[:9]) + gzip.compress(content[9:]))
    assert load_idx(path).tolist() == [1, 2, 3, 4]


def test_bytes_can_be_had_first_and_parsed_later(tmp_path):
    content = idx_bytes(0x0B, (3,), "h", [1, -2, 300])
    path = write(tmp_path / "x.gz", content, True)
    assert read_idx_bytes(path) == content
    array = parse_idx(content, path)
    assert array.tolist() == [1, -2, 300]
    array[0] = 7  # an array of its own: the bytes stay as they were
    assert content == idx_bytes(0x0B, (3,), "h", [1, -2, 300])


# -- writing -----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=6, min_side=0))
    ),
    suffix=st.sampled_from(["", ".gz", ".idx"]),
    big_endian=st.booleans(),
    transposed=st.booleans(),
)
def test_what_is_written_comes_back(folder, array, suffix, big_endian, transposed):
    if big_endian:
        array = array.astype(array.dtype.newbyteorder(">"))
    if transposed:
        array = array.T
    path = folder / f"array{suffix}"
    save_idx(path, array)

    back = load_idx(path)

    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    # Bytes, not values: a NaN must come back as the same NaN, and -0.0 as -0.0.
    assert back.tobytes() == array.astype(back.dtype).tobytes()
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".gz")
    assert [entry.name for entry in folder.iterdir() if entry.name.endswith(".part")] == []


@pytest.mark.parametrize(("code", "dtype", "letter"), TYPES)
def test_writes_each_type_as_specified(tmp_path, code, dtype, letter):
    save_idx(tmp_path / "x", np.array([[1, 2], [3, 4]], dtype))
    expected = idx_bytes(code, (2, 2), letter, [1, 2, 3, 4])
    assert (tmp_path / "x").read_bytes() == expected
    save_idx(tmp_path / "x.gz", np.array([[1, 2], [3, 4]], dtype))
    assert gzip.decompress((tmp_path / "x.gz").read_bytes()) == expected


def test_every_other_element_of_a_larger_array(tmp_path):
    save_idx(tmp_path / "x", np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::-3])
    assert load_idx(tmp_path / "x").tolist() == [[5, 2], [17, 14]]


def test_gzip_bytes_are_reproducible(tmp_path):
    array = np.arange(100, dtype=np.uint8)
    save_idx(tmp_path / "first.gz", array)
    save_idx(tmp_path / "second.gz", array)
    first = (tmp_path / "first.gz").read_bytes()
    assert first == (tmp_path / "second.gz").read_bytes()
    assert first[4:8] == b"\0\0\0\0"  # no time of writing
    assert first[3] == 0  # no name


@pytest.mark.parametrize("name", ["x.idx", "x.gz"])
def test_a_failure_while_writing_keeps_the_old_file(tmp_path, monkeypatch, name):
    path = tmp_path / name
    save_idx(path, np.array([1, 2, 3], np.uint8))
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_idx(path, np.zeros(1000, np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype=np.int64),
        np.array([True]),
        np.zeros(2, np.float16),
        np.zeros(2, np.uint16),
        np.zeros(2, complex),
        np.array(["text"]),
        [1, 2, 3],
    ],
    ids=lambda array: str(np.asarray(array).dtype),
)
def test_refuses_to_write_other_types(tmp_path, array):
    with pytest.raises(TypeError, match=r"x\.idx.*uint8, int8, int16.*got dtype.*astype"):
        save_idx(tmp_path / "x.idx", array)
    assert list(tmp_path.iterdir()) == []


def test_refuses_an_axis_longer_than_32_bits_can_say(tmp_path):
    huge = np.broadcast_to(np.uint8(0), (2**32, 0))
    with pytest.raises(ValueError, match=r"x\.idx.*4294967295.*got shape \(4294967296, 0\)"):
        save_idx(tmp_path / "x.idx", huge)


def test_says_that_the_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        save_idx(tmp_path / "nowhere" / "x.idx", np.zeros(2, np.uint8))


# -- refusing what is not a whole IDX file -----------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_is_refused(tmp_path, packed):
    content = idx_bytes(0x0B, (2, 3), "h", range(6))
    whole = gzip.compress(content) if packed else content
    path = tmp_path / "cut"
    path.write_bytes(whole)
    assert load_idx(path).size == 6
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut: "):
            load_idx(path)


def test_every_truncation_inside_whole_gzip_is_refused(tmp_path):
    content = idx_bytes(0x0B, (2, 3), "h", range(6))
    for length in range(len(content)):
        path = write(tmp_path / "cut", content[:length], True)
        with pytest.raises(ValueError, match=r"cut: .*(too short|cut short)"):
            load_idx(path)


@pytest.mark.parametrize("packed", [False, True])
def test_tells_how_much_is_missing(tmp_path, packed):
    path = write(tmp_path / "x", idx_bytes(0x0C, (10,), "i", range(9)), packed)
    with pytest.raises(ValueError, match=r"x: cut short: expected 48 bytes, .*, got 44;"):
        load_idx(path)


@pytest.mark.parametrize("extra", [1, 2000])
@pytest.mark.parametrize("length", [3, 5000])
@pytest.mark.parametrize("packed", [False, True])
def test_bytes_left_over_are_refused(tmp_path, packed, length, extra):
    content = idx_bytes(0x08, (length,), "B", [1] * length)
    path = write(tmp_path / "x", content + b"\0" * extra, packed)
    with pytest.raises(ValueError, match=rf"x: expected {length + 8} bytes, .* but more follow"):
        load_idx(path)


@pytest.mark.parametrize("length", [3, 5000])
def test_the_checksum_at_the_end_of_gzip_is_looked_at(tmp_path, length):
    whole = bytearray(gzip.compress(idx_bytes(0x08, (length,), "B", [1] * length)))
    whole[-8] ^= 1
    (tmp_path / "x").write_bytes(whole)
    with pytest.raises(ValueError, match=r"x: expected complete gzip data.*CRC"):
        load_idx(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"too short for an IDX header: expected at least 4 bytes, got 0"),
        (b"\0\0\x08", r"too short for an IDX header: expected at least 4 bytes, got 3"),
        (b"\0\0\x08\x02\0\0\0\1", r"2 axes need 12 bytes, got 8"),
        (b"<html></html>", r"first two bytes to be 00 00, got 3c 68"),
        (b"\0\1\x08\x01\0\0\0\1\0", r"first two bytes to be 00 00, got 00 01"),
        (b"\0\0\x0a\x01\0\0\0\1\0", r"type code \(08, .*\), got 0a"),
        (b"\0\0\0\x01\0\0\0\1\0", r"type code \(08, .*\), got 00"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_idx_is_refused(tmp_path, content, message, packed):
    path = write(tmp_path / "x.idx", content, packed)
    with pytest.raises(ValueError, match=r"x\.idx: .*" + message):
        load_idx(path)


def test_damage_anywhere_in_gzip_is_never_read_as_other_numbers(tmp_path):
    content = idx_bytes(0x08, (64,), "B", [i * 37 % 256 for i in range(64)])
    whole = gzip.compress(content, mtime=0)
    path = tmp_path / "x.gz"
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            array = load_idx(path)
        except ValueError as error:
            refused += 1
            assert "x.gz: " in str(error)  # noqa: PT017 - some damage is harmless, see below
        else:
            # Only time, flags without effect and the like may differ.
            assert array.tobytes() == content[8:]
            assert position < 10
    assert refused >= len(whole) - 10


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_lies_costs_no_memory(tmp_path, packed):
    content = idx_bytes(0x0E, (2**32 - 1, 28, 28), "d", [0.0] * 100)
    path = write(tmp_path / "liar", content, packed)
    declared = 16 + (2**32 - 1) * 28 * 28 * 8
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"cut short: expected {declared} bytes"):
            load_idx(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_gzip_is_not_unpacked_beyond_what_its_header_declares(tmp_path):
    bomb = idx_bytes(0x08, (3,), "B", [1, 2, 3]) + bytes(64 * 2**20)
    path = write(tmp_path / "bomb", bomb, True)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"expected 11 bytes, .* but more follow"):
            load_idx(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_more_axes_than_numpy_has(tmp_path):
    path = write(tmp_path / "x", idx_bytes(0x08, (1,) * 64, "B", [5]), False)
    assert load_idx(path).shape == (1,) * 64
    path = write(tmp_path / "x", idx_bytes(0x08, (1,) * 255, "B", [5]), False)
    with pytest.raises(ValueError, match=r"x: valid IDX, but NumPy cannot hold its shape"):
        load_idx(path)


def test_an_empty_array_of_impossible_shape(tmp_path):
    shape = (0, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    path = write(tmp_path / "x", idx_bytes(0x08, shape, "B", []), False)
    with pytest.raises(ValueError, match=r"x: valid IDX, but NumPy cannot hold its shape"):
        load_idx(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.idx: expected an IDX file.*check"):
        load_idx(tmp_path / "absent.idx")


def test_a_path_may_be_text(tmp_path):
    save_idx(str(tmp_path / "x.gz"), np.array([1], np.uint8))
    assert load_idx(str(tmp_path / "x.gz")).tolist() == [1]
