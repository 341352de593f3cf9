"""CIFAR-10: both archives are read as published, and nothing false, damaged or hostile passes.

The archives here are made by the tests in the two published formats, with a few pictures a batch
and checksums of their own. A server on this machine stands for the authors' address.
"""

# ruff: noqa: ARG001 - a fixture may work by being asked for alone

import gzip
import hashlib
import importlib
import io
import os
import pickle
import re
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import python2_pickles
from numpy.testing import assert_array_equal
from web_server import Server

from minidl.data import CIFAR10_CLASSES, cifar10
from minidl.data.cifar10 import parse_binary_batch, parse_python_batch

# The function of the same name hides the module from a plain import.
room = importlib.import_module("minidl.data.cifar10")

BINARY, PYTHON = ARCHIVES = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
BATCHES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]
BATCHES.append("test_batch")


def pictures(seed, count):
    """Planes of red, green and blue for some pictures, and their labels, as plain lists."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072)).tolist(), rng.integers(0, 10, count).tolist()


# Batches of different sizes, so that none can be taken for another.
DATA = {name: pictures(seed, 2 + seed) for seed, name in enumerate(BATCHES)}


def channels_last(planes):
    """An image, pixel by pixel: row, column, then red, green and blue."""
    return [
        [[planes[colour * 1024 + row * 32 + column] for colour in range(3)] for column in range(32)]
        for row in range(32)
    ]


def binary_batch(pixels, labels):
    return b"".join(bytes([label, *row]) for row, label in zip(pixels, labels, strict=True))


def python_batch(pixels, labels, dumps=python2_pickles.dumps, order="C", key=str.encode):
    return dumps(
        {
            key("batch_label"): b"training batch 1 of 5",
            key("labels"): labels,
            key("data"): np.array(pixels, np.uint8, order=order),
            key("filenames"): [b"picture_%06d.png" % number for number in range(len(labels))],
        }
    )


def members(archive):
    """The files of an archive, by name, as they are published."""
    if archive == BINARY:
        files = {f"cifar-10-batches-bin/{n}.bin": binary_batch(*DATA[n]) for n in BATCHES}
        return {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", **files}
    files = {f"cifar-10-batches-py/{name}": python_batch(*DATA[name]) for name in BATCHES}
    # Read by nobody: it would be refused.
    return {**files, "cifar-10-batches-py/batches.meta": b"cos\nsystem\n."}


def member_of(archive, name):
    return (
        f"cifar-10-batches-bin/{name}.bin" if archive == BINARY else f"cifar-10-batches-py/{name}"
    )


def entry(name, content=b"", **more):
    """A tar header and the content that follows it."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for attribute, value in more.items():
        setattr(header, attribute, value)
    padding = bytes(-len(content) % 512)
    return header.tobuf(tarfile.GNU_FORMAT) + content + padding


def packed(files):
    """A gzipped tar archive: of files by name, or of entries already made."""
    entries = files if isinstance(files, list) else [entry(*file) for file in files.items()]
    return gzip.compress(b"".join(entries) + bytes(1024), compresslevel=1, mtime=0)


WHOLE = {archive: packed(members(archive)) for archive in ARCHIVES}


def check(data):
    """These are the stand-ins, in the promised order and form."""
    (x_train, y_train), (x_test, y_test) = data
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert x_train.shape == (sum(range(2, 7)), 32, 32, 3)
    assert x_test.shape == (7, 32, 32, 3)
    train = [DATA[name] for name in BATCHES[:5]]
    expected = [channels_last(planes) for pixels, _ in train for planes in pixels]
    assert_array_equal(x_train, np.array(expected))
    assert y_train.tolist() == [label for _, labels in train for label in labels]
    assert_array_equal(
        x_test, np.array([channels_last(planes) for planes in DATA["test_batch"][0]])
    )
    assert y_test.tolist() == DATA["test_batch"][1]
    for array in (x_train, y_train, x_test, y_test):
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.owndata


def put(folder, archive=BINARY, content=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive
    path.write_bytes(WHOLE[archive] if content is None else content)
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The stand-ins are the published archives; nothing is anywhere, and nothing answers."""
    cache = tmp_path / "cache"
    published = {name: hashlib.sha256(content).hexdigest() for name, content in WHOLE.items()}
    monkeypatch.setattr(room, "SHA256", published)
    monkeypatch.setattr(room, "_cache_folder", lambda: cache)
    monkeypatch.setattr(room, "ADDRESSES", ())
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return cache


@pytest.fixture
def server(cache, monkeypatch):
    server = Server(WHOLE)
    monkeypatch.setattr(room, "ADDRESSES", (f"{server.address}/kriz/",))
    yield server
    server.close()


# -- the two formats ---------------------------------------------------------------------------


@pytest.mark.parametrize("archive", ARCHIVES)
def test_both_archives(cache, tmp_path, archive):
    check(cifar10(put(tmp_path / "mine", archive).parent))
    assert not cache.exists()


@pytest.mark.parametrize("archive", ARCHIVES)
def test_batches_may_come_in_any_order_with_other_files_between(cache, tmp_path, archive):
    content = packed(dict(reversed(members(archive).items())))
    room.SHA256[archive] = hashlib.sha256(content).hexdigest()
    check(cifar10(put(tmp_path / "mine", archive, content).parent))


DUMPS = {
    "Python 2": python2_pickles.dumps,
    "Python 2, protocol 1": lambda value: python2_pickles.dumps(value, 1),
    "Python 3": lambda value: pickle.dumps(value, 2),
    "Python 3, protocol 1": lambda value: pickle.dumps(value, 1),
}


@pytest.mark.parametrize("key", [str.encode, str], ids=["bytes keys", "text keys"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dumps", DUMPS.values(), ids=DUMPS)
def test_pickled_batches_of_every_origin(dumps, order, key):
    pixels, labels = DATA["test_batch"]
    content = python_batch(pixels, labels, dumps, order, key)
    images, read_labels = parse_python_batch(content, "batch")
    assert_array_equal(images, np.array([channels_last(planes) for planes in pixels]))
    assert read_labels.tolist() == labels
    assert images.dtype == read_labels.dtype == np.uint8


def test_a_batch_as_python_2_wrote_it_opcode_by_opcode():
    pixels = [number * 7 % 256 for number in range(2 * 3072)]
    content = (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
        b"U\x06labelsq\x04]q\x05(K\x06K\x09e"
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08"
        b"K\x00\x85q\x09U\x01b\x87Rq\x0a(K\x01K\x02M\x00\x0c\x86q\x0b"
        b"cnumpy\ndtype\nq\x0cU\x02u1q\x0dK\x00K\x01\x87q\x0eRq\x0f"
        b"(K\x03U\x01|q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(pixels)) + bytes(pixels) + b"q\x11tb"
        b"U\x09filenamesq\x12]q\x13(U\x05a.pngq\x14U\x05b.pngq\x15eu."
    )
    # It is what it seems to be.
    loaded = pickle.loads(content, encoding="bytes")
    assert loaded[b"data"].tolist() == [pixels[:3072], pixels[3072:]]
    assert loaded[b"filenames"] == [b"a.png", b"b.png"]

    images, labels = parse_python_batch(content, "batch")

    assert images.tolist() == [channels_last(pixels[:3072]), channels_last(pixels[3072:])]
    assert labels.tolist() == [6, 9]


def test_a_batch_in_binary_byte_by_byte():
    images, labels = parse_binary_batch(
        bytes([9]) + bytes([1, 2] * 512) + bytes([3] * 1024) + bytes([5] * 1024), "batch"
    )
    assert labels.tolist() == [9]
    assert images.shape == (1, 32, 32, 3)
    assert images[0, 0, :3].tolist() == [[1, 3, 5], [2, 3, 5], [1, 3, 5]]


def test_a_batch_of_full_length():
    rng = np.random.default_rng(0)
    labels, pixels = rng.integers(0, 10, 10_000), rng.integers(0, 256, (10_000, 3072), np.uint8)
    content = python2_pickles.dumps(
        {
            b"data": pixels,
            b"labels": labels.tolist(),
            b"filenames": [b"leptodactylus_pes_s_%06d.png" % number for number in range(10_000)],
        }
    )
    assert len(content) < room.LARGEST_BATCH
    images, read_labels = parse_python_batch(content, "batch")
    assert_array_equal(images[::1000, 5, 9, 2], pixels[::1000, 2048 + 5 * 32 + 9])
    assert_array_equal(read_labels, labels)


def test_images_do_not_hang_on_what_they_were_read_from():
    content = bytearray(binary_batch(*DATA["test_batch"]))
    images, labels = parse_binary_batch(content, "batch")
    before = images.copy(), labels.copy()
    content[:] = bytes(len(content))
    assert_array_equal(images, before[0])
    assert_array_equal(labels, before[1])


def test_the_classes():
    assert len(set(CIFAR10_CLASSES)) == 10
    assert CIFAR10_CLASSES[6] == "frog"  # the first picture of every tutorial
    assert CIFAR10_CLASSES[9] == "truck"  # and the second


def test_the_checksums_are_two():
    assert tuple(room.SHA256) == ARCHIVES
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in room.SHA256.values())
    assert len(set(room.SHA256.values())) == 2


# -- where an archive comes from ---------------------------------------------------------------


def test_the_binary_archive_is_preferred(cache, tmp_path):
    put(tmp_path / "mine", PYTHON, b"never looked at")
    check(cifar10(str(put(tmp_path / "mine", BINARY).parent)))


def test_environment_variable(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(put(tmp_path / "mine", PYTHON).parent))
    check(cifar10())


def test_data_dir_comes_before_the_environment_variable(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "nowhere"))
    check(cifar10(put(tmp_path / "mine").parent))


def test_what_data_dir_lacks_is_an_error_and_is_not_fetched(cache, server, tmp_path):
    put(cache)
    server.offer("kriz")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        cifar10(tmp_path / "mine")
    assert str(caught.value) == (
        f"the folder {tmp_path / 'mine'} (given as data_dir) lacks {BINARY} or {PYTHON}. Put the "
        "files of CIFAR-10 there, or leave data_dir out to have them found or fetched"
    )
    assert server.asked == []


def test_cache(cache, server, capsys):
    put(cache)
    check(cifar10())
    assert capsys.readouterr() == ("", "")
    assert server.asked == []


def test_the_python_archive_in_the_cache(cache, server):
    put(cache, PYTHON)
    check(cifar10())
    assert server.asked == []


def test_the_cache_is_pooch_s():
    import pooch

    assert room._cache_folder() == Path(pooch.os_cache("minidl")) / "cifar-10"


def test_fetches_the_binary_archive_into_the_cache(cache, server):
    server.offer("kriz")
    check(cifar10())
    assert names_in(cache) == [BINARY]
    check(cifar10())  # from the cache now
    assert server.asked == [f"/kriz/{BINARY}"]


def test_the_address_is_the_authors():
    assert room.ADDRESSES == ("https://www.cs.toronto.edu/~kriz/",)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (404, "HTTPError: 404"),
        (b"<html>please log in</html>", f"this is not the published {BINARY}: expected SHA-256"),
        (WHOLE[PYTHON], f"this is not the published {BINARY}: expected SHA-256"),
        (("cut", WHOLE[BINARY]), "IncompleteRead"),
    ],
    ids=["not found", "web page", "other archive", "cut short"],
)
def test_what_is_fetched_wrong_does_not_enter_the_cache(cache, server, answer, reason):
    server.answers[f"/kriz/{BINARY}"] = answer
    with pytest.raises(FileNotFoundError) as caught:
        cifar10()
    message = str(caught.value)
    assert message.startswith(f"CIFAR-10 is not complete: {BINARY} or {PYTHON} could not be found")
    assert f"  - the folder {cache}: does not hold {BINARY} or {PYTHON}\n" in message
    assert f"  - {server.address}/kriz/{BINARY}: {reason}" in message
    assert "MINIDL_DATA" in message
    assert names_in(cache) == []


def test_a_damaged_cache_is_told_and_replaced(cache, server, capsys):
    path = put(cache, BINARY, WHOLE[BINARY][:-9])
    server.offer("kriz")
    check(cifar10())
    assert capsys.readouterr().err.startswith(f"minidl: not used: {path}: this is not the publ")
    assert path.read_bytes() == WHOLE[BINARY]


# -- nothing passes that is not the published archive ------------------------------------------


@pytest.mark.parametrize("archive", ARCHIVES)
def test_a_wrong_archive_is_refused_before_it_is_looked_into(cache, tmp_path, monkeypatch, archive):
    content = packed({**members(archive), "more": b""})
    path = put(tmp_path / "mine", archive, content)
    monkeypatch.setattr(tarfile, "open", None)
    with pytest.raises(
        ValueError, match=r"not the published cifar-10.*put the published"
    ) as caught:
        cifar10(path.parent)
    assert str(caught.value).startswith(f"{path}: ")
    assert f"got {hashlib.sha256(content).hexdigest()};" in str(caught.value)
    assert path.read_bytes() == content


def refusal(tmp_path, archive, content):
    """The error for an archive that has the right checksum, and is wrong all the same."""
    room.SHA256[archive] = hashlib.sha256(content).hexdigest()
    path = put(tmp_path / "mine", archive, content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: ") as caught:
        cifar10(path.parent)
    message = str(caught.value)
    assert names_in(tmp_path) == ["mine"]  # nothing was unpacked, here or there
    assert names_in(tmp_path / "mine") == [archive]
    return message.removeprefix(f"{path}: ")


both = pytest.mark.parametrize("archive", ARCHIVES)


@both
@pytest.mark.parametrize("name", BATCHES)
def test_a_missing_batch(cache, tmp_path, archive, name):
    files = members(archive)
    del files[member_of(archive, name)]
    message = refusal(tmp_path, archive, packed(files))
    assert message == f"expected {member_of(archive, name)} in it, but there is none"


@both
@pytest.mark.parametrize("prefix", ["/", "../", "./../", "other/"])
def test_other_paths_are_not_taken_for_a_batch(cache, tmp_path, archive, prefix):
    files = {f"{prefix}{name}": content for name, content in members(archive).items()}
    message = refusal(tmp_path, archive, packed(files))
    assert message.startswith(f"expected {member_of(archive, 'data_batch_1')}, ")
    assert message.endswith("in it, but there is none")


@both
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_batch_that_is_no_file(cache, tmp_path, archive, kind):
    name = member_of(archive, "data_batch_2")
    entries = [entry(*file) for file in members(archive).items() if file[0] != name]
    target = member_of(archive, "data_batch_1")
    for linkname in (target, "/etc/passwd"):
        content = packed([*entries, entry(name, type=kind, linkname=linkname)])
        message = refusal(tmp_path, archive, content)
        assert message == f"{name}: expected a plain file, got a link or a folder"


@both
@pytest.mark.parametrize("size", [2**25 + 1, 2**33, 2**60])
def test_a_batch_that_claims_to_be_large_costs_no_memory(cache, tmp_path, archive, size):
    name = member_of(archive, "data_batch_1")
    content = packed([entry(name, size=size), entry("rest", b"x" * 1000)])
    tracemalloc.start()
    try:
        message = refusal(tmp_path, archive, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message == f"{name}: expected at most 33554432 bytes, got {size}"
    assert peak < 2**20


@both
def test_a_batch_shorter_than_it_says(cache, tmp_path, archive):
    name = member_of(archive, "data_batch_1")
    content = gzip.compress(entry(name, b"x" * 2000)[:1500])
    assert refusal(tmp_path, archive, content) == "unexpected end of data"


def test_an_archive_that_unpacks_without_end(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LARGEST_ARCHIVE", 2**20)
    for name in ("anything", member_of(BINARY, "data_batch_1")):
        message = refusal(tmp_path, BINARY, packed({name: bytes(2**22)}))
        assert message == "expected at most 1048576 bytes when unpacked, got more"
    # A header that is as long, as names can be.
    long_name = tarfile.TarInfo("x" * 2**22).tobuf(tarfile.GNU_FORMAT)
    message = refusal(tmp_path, BINARY, gzip.compress(long_name))
    assert message == "expected at most 1048576 bytes when unpacked, got more"


def test_the_published_archives_are_within_the_limits():
    # 170 MB of pixels, of which noise hardly gets smaller: the sizes that are published.
    assert room.LARGEST_ARCHIVE > 6 * 10_000 * 3073 + 2**20
    assert room.LARGEST_ARCHIVE > 6 * 31_035_999 + 2**20
    assert max(10_000 * 3073, 31_035_999) < room.LARGEST_BATCH


@both
def test_every_truncation_is_refused(cache, tmp_path, archive):
    whole = WHOLE[archive]
    for length in range(0, len(whole), len(whole) // 40):
        refusal(tmp_path, archive, whole[:length])
    refusal(tmp_path, archive, whole[:-1])


@both
def test_a_truncated_tar_inside_whole_gzip_is_refused(cache, tmp_path, archive):
    unpacked = gzip.decompress(WHOLE[archive])
    for length in range(0, len(unpacked) - 4096, len(unpacked) // 40):
        refusal(tmp_path, archive, gzip.compress(unpacked[:length], 1))


@both
def test_damage_anywhere_is_refused_or_gives_as_many_pictures(cache, tmp_path, archive):
    unpacked = gzip.decompress(WHOLE[archive])
    rng = np.random.default_rng(0)
    headers = [unpacked.index(name.encode()) for name in members(archive)]
    refused = 0
    for header in headers:
        for place in rng.integers(header, header + 512, 25):
            damaged = bytearray(unpacked)
            damaged[place] ^= 1 << int(rng.integers(8))
            content = gzip.compress(damaged, 1)
            room.SHA256[archive] = hashlib.sha256(content).hexdigest()
            path = put(tmp_path / "mine", archive, content)
            try:
                (x_train, _), (x_test, _) = cifar10(path.parent)
            except ValueError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017 - some damage is harmless
                refused += 1
            else:
                assert (len(x_train), len(x_test)) == (20, 7)
    assert refused > len(headers) * 10  # a tar header has a checksum


NO_ARCHIVES = {
    "empty": b"",
    "not gzip": b"<html>",
    "nothing packed": gzip.compress(b""),
    "not tar": gzip.compress(b"x" * 999),
    "damaged gzip": gzip.compress(b"")[:10] + b"\xff" * 99,
}


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive(cache, tmp_path, content):
    refusal(tmp_path, BINARY, content)


@both
def test_gzip_damaged_in_the_middle(cache, tmp_path, archive):
    stream = zlib.compressobj(wbits=31)
    content = stream.compress(entry(member_of(archive, "test_batch"), bytes(500_000))[:400_000])
    content += stream.flush(zlib.Z_SYNC_FLUSH) + b"\xff" * 99  # where a block begins
    assert "while decompressing data" in refusal(tmp_path, archive, content)


# -- batches that are not what they should be --------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x01", bytes(3072), bytes(3074), bytes(2 * 3073 - 1)])
def test_binary_batches_of_no_whole_number_of_pictures(cache, tmp_path, content):
    name = member_of(BINARY, "data_batch_3")
    message = refusal(tmp_path, BINARY, packed({**members(BINARY), name: content}))
    assert message == f"{name}: expected 3073 bytes for each picture, got {len(content)} in all"


@both
@pytest.mark.parametrize("label", [10, 255])
def test_labels_out_of_range(cache, tmp_path, archive, label):
    name = member_of(archive, "test_batch")
    make = binary_batch if archive == BINARY else python_batch
    pixels, labels = DATA["test_batch"]
    batch = make(pixels, [*labels[:-1], label])
    message = refusal(tmp_path, archive, packed({**members(archive), name: batch}))
    assert message == f"{name}: expected labels from 0 to 9, got {label}"


ONE, LABEL = np.zeros((1, 3072), np.uint8), [3]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([ONE, LABEL], "expected a dict with the keys data and labels"),
        ({"data": ONE}, "expected a dict with the keys data and labels"),
        ({"labels": LABEL}, "expected a dict with the keys data and labels"),
        ({"data": LABEL, "labels": LABEL}, "data: expected a NumPy array, got a list"),
        ({"data": ONE.astype(int), "labels": LABEL}, "data: expected an array of uint8"),
        (
            {"data": ONE[:, 1:], "labels": LABEL},
            r"data: expected an array \(N, 3072\), got \(1, 30",
        ),
        ({"data": ONE[0], "labels": LABEL}, r"data: expected an array \(N, 3072\), got \(3072,\)"),
        ({"data": ONE[:0], "labels": []}, r"data: expected an array \(N, 3072\), got \(0, 3072\)"),
        (
            {"data": ONE.reshape(1, 3072, 1), "labels": LABEL},
            r"data: .*, got \(1, 3072, 1\)",
        ),
        ({"data": ONE, "labels": []}, "labels: expected a list, one for each of 1 images"),
        ({"data": ONE, "labels": [1, 2]}, "labels: expected a list, one for each of 1 images"),
        ({"data": ONE, "labels": (1,)}, "labels: expected a list, one for each of 1 images"),
        ({"data": ONE, "labels": {"": 1}}, "labels: expected a list, one for each of 1 images"),
        ({"data": ONE, "labels": [-1]}, "labels: expected whole numbers from 0 to 9, got others"),
        (
            {"data": ONE, "labels": [2**40]},
            "labels: expected whole numbers from 0 to 9, got others",
        ),
        ({"data": ONE, "labels": ["1"]}, "labels: expected whole numbers from 0 to 9, got others"),
        ({"data": ONE, "labels": [True]}, "labels: expected whole numbers from 0 to 9, got others"),
        ({"data": ONE, "labels": [None]}, "labels: expected whole numbers from 0 to 9, got others"),
        ({"data": ONE, "labels": [10]}, "expected labels from 0 to 9, got 10"),
    ],
)
def test_pickled_batches_of_another_form(batch, message):
    with pytest.raises(ValueError, match=f"^batch: {message}"):
        parse_python_batch(python2_pickles.dumps(batch), "batch")


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("key", ["data", "labels", "filenames", "more"])
def test_a_pickle_that_would_run_a_command(cache, tmp_path_factory, tmp_path, key):
    proof = tmp_path_factory.mktemp("proof") / "of having run"
    batch = {"data": ONE, "labels": LABEL, key: Hostile(f"touch '{proof}'")}
    content = pickle.dumps(batch, 2)
    name = member_of(PYTHON, "data_batch_4")
    message = refusal(tmp_path, PYTHON, packed({**members(PYTHON), name: content}))
    assert message.startswith(f"{name}: not a pickle that can be read safely")
    assert "it names 'posix.system', no array" in message
    assert not proof.exists()
    pickle.loads(content)
    assert proof.exists()  # it would have done it


def test_a_bomb_of_lists_beside_the_pictures_stays_folded(cache, tmp_path):
    bomb = []
    for _ in range(60):
        bomb = [bomb, bomb]
    pixels, labels = DATA["test_batch"]
    batch = {"bomb": bomb, "data": np.array(pixels, np.uint8), "labels": labels}
    content = io.BytesIO()
    pickle.dump(batch, content, 2)
    files = {**members(PYTHON), member_of(PYTHON, "test_batch"): content.getvalue()}
    archive = packed(files)
    room.SHA256[PYTHON] = hashlib.sha256(archive).hexdigest()
    check(cifar10(put(tmp_path / "mine", PYTHON, archive).parent))
    # As labels, it is not walked through.
    batch["labels"] = bomb
    with pytest.raises(ValueError, match="labels: expected a list, one for each"):
        parse_python_batch(pickle.dumps(batch, 2), "batch")
    batch["labels"] = [bomb] * len(labels)
    with pytest.raises(ValueError, match="labels: expected whole numbers from 0 to 9"):
        parse_python_batch(pickle.dumps(batch, 2), "batch")
