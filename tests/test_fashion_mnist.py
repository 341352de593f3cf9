"""Fashion-MNIST: where it is looked for, how it is fetched, and that nothing false passes for it.

All tests but the last use small stand-ins for the four files, with their own checksums, a cache
of their own, and a server on this machine in place of the public addresses.
"""

# ruff: noqa: ARG001 - a fixture may work by being asked for alone

import gzip
import hashlib
import importlib
import io
import shlex
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from web_server import Server

from minidl.data import FASHION_MNIST_CLASSES, fashion_mnist, fetch, files, load_idx

# The function of the same name hides the module from a plain import.
room = importlib.import_module("minidl.data.fashion_mnist")

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def images(count):
    pixels = bytes(i * 7 % 256 for i in range(count * 6))
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 2, 3) + pixels


def labels(count):
    return bytes([0, 0, 8, 1]) + struct.pack(">I", count) + bytes(i % 10 for i in range(count))


CONTENT = {
    TRAIN_IMAGES: images(12),
    TRAIN_LABELS: labels(12),
    TEST_IMAGES: images(5),
    TEST_LABELS: labels(5),
}
PACKED = {name: gzip.compress(content) for name, content in CONTENT.items()}


def put(folder, names=NAMES, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(
            PACKED[name] if packed else CONTENT[name]
        )
    return folder


def check(data):
    """These are the stand-ins: four arrays, in the promised order."""
    (x_train, y_train), (x_test, y_test) = data
    assert [a.shape for a in (x_train, y_train, x_test, y_test)] == [
        (12, 2, 3),
        (12,),
        (5, 2, 3),
        (5,),
    ]
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert x_train.tobytes() == CONTENT[TRAIN_IMAGES][16:]
    assert y_test.tolist() == [0, 1, 2, 3, 4]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal():
    """The error message where no source has the data set."""
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist()
    return str(caught.value)


IN_CACHE = sorted(f"{name}.gz" for name in NAMES)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The stand-ins are the published files; nothing is anywhere, and nothing answers."""
    cache = tmp_path / "cache"
    published = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(room, "SHA256", published)
    monkeypatch.setattr(room, "_cache_folder", lambda: cache)
    monkeypatch.setattr(room, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(room, "ADDRESSES", ())
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return cache


# -- a folder the user names -------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_data_dir(cache, tmp_path, packed, as_text):
    folder = put(tmp_path / "mine", packed=packed)
    check(fashion_mnist(str(folder) if as_text else folder))
    assert not cache.exists()


def test_some_files_packed_and_some_not(cache, tmp_path):
    folder = put(tmp_path / "mine", (TRAIN_IMAGES, TEST_LABELS), packed=True)
    check(fashion_mnist(put(folder, (TRAIN_LABELS, TEST_IMAGES), packed=False)))


def test_environment_variable(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(put(tmp_path / "mine")))
    check(fashion_mnist())


def test_home_is_understood(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    put(tmp_path / "mine")
    check(fashion_mnist("~/mine"))


def test_data_dir_comes_before_the_environment_variable(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "nowhere"))
    check(fashion_mnist(put(tmp_path / "mine")))


def test_an_empty_environment_variable_names_nothing(cache, monkeypatch):
    put(cache)
    monkeypatch.setenv("MINIDL_DATA", "")
    check(fashion_mnist())


def test_what_data_dir_lacks_is_an_error_and_is_not_fetched(cache, tmp_path):
    put(cache)  # there to be had, but the user said where to look
    folder = put(tmp_path / "mine", (TRAIN_IMAGES, TEST_IMAGES))
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist(folder)
    message = str(caught.value)
    assert (
        f"the folder {folder} (given as data_dir) lacks {TRAIN_LABELS}, {TEST_LABELS} " in message
    )
    assert TRAIN_IMAGES not in message
    assert "leave data_dir out" in message


def test_a_named_folder_that_does_not_exist(cache, tmp_path, monkeypatch):
    put(cache)
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist()
    message = str(caught.value)
    assert "nowhere (named by MINIDL_DATA) is not an existing folder" in message
    assert "unset MINIDL_DATA" in message
    assert all(name in message for name in NAMES)


def test_a_file_given_for_a_folder(cache, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is not an existing folder; expected in it"):
        fashion_mnist(tmp_path / "file")


@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_file_of_the_user_is_an_error_and_stays(cache, tmp_path, packed):
    put(cache)
    folder = put(tmp_path / "mine", packed=packed)
    path = folder / (TEST_LABELS + (".gz" if packed else ""))
    wrong = CONTENT[TEST_LABELS][:-1] + b"\x09"
    path.write_bytes(gzip.compress(wrong) if packed else wrong)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"t10k-labels.*not Fashion-MNIST's.*SHA-256.*got"
    ) as caught:
        fashion_mnist(folder)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_cut_short_is_named(cache, tmp_path):
    folder = put(tmp_path / "mine")
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(PACKED[TRAIN_IMAGES][:-9])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: .*gzip.*cut short"):
        fashion_mnist(folder)


def test_train_and_test_files_exchanged(cache, tmp_path):
    folder = put(tmp_path / "mine", packed=False)
    (folder / TRAIN_LABELS).write_bytes(CONTENT[TEST_LABELS])
    with pytest.raises(ValueError, match="not Fashion-MNIST's train-labels"):
        fashion_mnist(folder)


# -- plain MNIST, which has the same names -----------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_mnist_is_refused_by_name(cache, tmp_path, monkeypatch, name):
    folder = put(tmp_path / "mine", packed=False)
    digits = CONTENT[name][:-1] + b"\x08"
    (folder / name).write_bytes(digits)
    monkeypatch.setattr(room, "MNIST_SHA256", {hashlib.sha256(digits).hexdigest()})
    with pytest.raises(
        ValueError, match=r"this is MNIST \(handwritten digits\), not Fash"
    ) as caught:
        fashion_mnist(folder)
    assert str(folder / name) in str(caught.value)


def test_the_checksums_of_the_two_data_sets_are_eight():
    both = [*room.SHA256.values(), *room.MNIST_SHA256]
    assert len(both) == len(set(both)) == 8
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in both)
    assert tuple(room.SHA256) == NAMES


# -- the cache and Debian's folder -------------------------------------------------------------


def test_cache(cache, capsys):
    put(cache)
    check(fashion_mnist())
    assert capsys.readouterr() == ("", "")


def test_debian_folder(cache, tmp_path, capsys):
    put(tmp_path / "debian")
    check(fashion_mnist())
    assert not cache.exists()
    assert capsys.readouterr() == ("", "")


def test_files_may_lie_in_different_places(cache, tmp_path):
    put(cache, (TRAIN_IMAGES,), packed=False)
    put(tmp_path / "debian", (TRAIN_LABELS, TEST_IMAGES, TEST_LABELS))
    check(fashion_mnist())


def test_each_file_is_read_once(cache, monkeypatch):
    put(cache)
    opened = Counter()
    open_file = files.open_file

    def counting(path):
        opened[path.name] += 1
        return open_file(path)

    monkeypatch.setattr(files, "open_file", counting)
    check(fashion_mnist())
    assert opened == dict.fromkeys(IN_CACHE, 1)


def test_the_cache_is_pooch_s():
    import pooch

    assert room._cache_folder() == Path(pooch.os_cache("minidl")) / "fashion-mnist"


# -- fetching from addresses -------------------------------------------------------------------


@pytest.fixture
def server(cache):
    server = Server({f"{name}.gz": packed for name, packed in PACKED.items()})
    yield server
    server.close()


@pytest.fixture
def addresses(server, monkeypatch):
    """Two addresses, "first" and "second", of which neither has anything yet."""
    both = (f"{server.address}/first/", f"{server.address}/second/")
    monkeypatch.setattr(room, "ADDRESSES", both)
    return both


def test_fetches_into_the_cache(cache, server, addresses, capsys):
    server.offer("first")
    check(fashion_mnist())
    assert names_in(cache) == IN_CACHE
    assert server.asked == [f"/first/{name}.gz" for name in NAMES]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"minidl: downloading {addresses[0]}{name}.gz" for name in NAMES]

    check(fashion_mnist())  # from the cache now
    assert len(server.asked) == 4


def test_fetches_only_what_is_missing(cache, server, addresses):
    put(cache, (TRAIN_IMAGES, TEST_IMAGES))
    server.offer("first")
    check(fashion_mnist())
    assert server.asked == [f"/first/{TRAIN_LABELS}.gz", f"/first/{TEST_LABELS}.gz"]


def test_a_server_may_send_the_file_unpacked(cache, server, addresses):
    server.offer("first")
    server.answers[f"/first/{TRAIN_IMAGES}.gz"] = CONTENT[TRAIN_IMAGES]
    check(fashion_mnist())
    check(fashion_mnist())


@pytest.mark.parametrize(
    "answer",
    [404, 500, b"<html>please log in</html>", PACKED[TEST_IMAGES], ("cut", PACKED[TRAIN_IMAGES])],
    ids=["not found", "server error", "web page", "wrong file", "cut short"],
)
def test_what_one_address_spoils_the_next_mends(cache, server, addresses, answer):
    server.offer("second")
    server.answers[f"/first/{TRAIN_IMAGES}.gz"] = answer
    check(fashion_mnist())
    assert names_in(cache) == IN_CACHE
    # The first address is asked once, and not again for the other three files.
    assert server.asked == [f"/first/{TRAIN_IMAGES}.gz"] + [f"/second/{n}.gz" for n in NAMES]


def test_a_silent_address_is_given_up(cache, server, addresses, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
    server.answers[f"/first/{TRAIN_IMAGES}.gz"] = "silent"
    message = refusal()
    assert f"  - {addresses[0]}{TRAIN_IMAGES}.gz: TimeoutError: timed out\n" in message
    assert f"  - {addresses[1]}{TRAIN_IMAGES}.gz: HTTPError: 404" in message


def test_a_wrong_file_is_told_with_its_address(cache, server, addresses):
    server.answers[f"/first/{TRAIN_IMAGES}.gz"] = PACKED[TEST_IMAGES]
    expected = f"  - {addresses[0]}{TRAIN_IMAGES}.gz: this is not Fashion-MNIST's {TRAIN_IMAGES}: "
    assert expected in refusal()


def test_a_dead_address_is_given_up(cache, server, addresses, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    monkeypatch.setattr(room, "ADDRESSES", (dead, addresses[0]))
    server.offer("first")
    check(fashion_mnist())


def test_an_address_that_fails_later_keeps_what_it_gave(cache, server, addresses):
    server.offer("first", [f"{name}.gz" for name in NAMES[:2]])
    server.offer("second", [f"{name}.gz" for name in NAMES[2:]])
    check(fashion_mnist())
    assert server.asked == [
        f"/first/{TRAIN_IMAGES}.gz",
        f"/first/{TRAIN_LABELS}.gz",
        f"/first/{TEST_IMAGES}.gz",
        f"/second/{TEST_IMAGES}.gz",
        f"/second/{TEST_LABELS}.gz",
    ]


@pytest.mark.parametrize("damage", ["cut short", "other numbers", "not gzip", "empty"])
def test_a_damaged_cache_is_told_and_replaced(cache, server, addresses, capsys, damage):
    put(cache)
    server.offer("first")
    path = cache / f"{TEST_LABELS}.gz"
    whole = PACKED[TEST_LABELS]
    path.write_bytes(
        {
            "cut short": whole[: len(whole) // 2],
            "other numbers": gzip.compress(CONTENT[TEST_LABELS][:-1] + b"\x09"),
            "not gzip": b"rubbish",
            "empty": b"",
        }[damage]
    )
    check(fashion_mnist())
    assert server.asked == [f"/first/{TEST_LABELS}.gz"]
    told, fetching = capsys.readouterr().err.splitlines()
    assert told.startswith(f"minidl: not used: {path}: ")
    assert "downloading" in fetching
    assert load_idx(path).tolist() == [0, 1, 2, 3, 4]
    assert names_in(cache) == IN_CACHE


def test_a_damaged_cache_stays_where_nothing_better_is_found(cache):
    put(cache)
    path = cache / f"{TEST_LABELS}.gz"
    path.write_bytes(b"rubbish")
    with pytest.raises(
        FileNotFoundError, match="not complete: t10k-labels-idx1-ubyte could not be"
    ):
        fashion_mnist()
    assert path.read_bytes() == b"rubbish"


def test_a_progress_bar_on_a_terminal(cache, server, addresses, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    server.offer("second")
    check(fashion_mnist())
    shown = terminal.getvalue()
    size = len(PACKED[TRAIN_IMAGES])
    assert f"{addresses[1]}{TRAIN_IMAGES}.gz" in shown
    assert f"{size}/{size} bytes" in shown
    assert "minidl: downloading" not in shown


# -- the Debian package ------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of stand-ins for programs, found before the real ones; `log` has their calls."""
    folder = tmp_path / "programs"
    folder.mkdir()
    log = tmp_path / "log"
    log.write_text("")

    def install(name, script):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(log))}\n{script}\n')
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    install.log = log
    return install


DOWNLOADS = 'case "$*" in *download*) echo debian > dataset-fashion-mnist_0.deb ;; esac'


@pytest.fixture
def unpacks(tmp_path):
    """The script of a dpkg-deb whose packages hold the stand-ins where the package has them."""
    root = tmp_path / "package"
    put(root / (tmp_path / "debian").relative_to("/"))
    return f'cp -r {shlex.quote(str(root))} "$3"'


def test_debian_package(cache, programs, unpacks, capsys):
    programs("apt-get", DOWNLOADS)
    programs("dpkg-deb", unpacks)
    check(fashion_mnist())
    assert names_in(cache) == IN_CACHE
    assert "Debian package dataset-fashion-mnist with apt-get" in capsys.readouterr().err
    assert "update" not in programs.log.read_text()
    assert "install" not in programs.log.read_text()


def test_debian_package_with_lists_of_our_own(cache, programs, unpacks):
    # An apt-get that knows the package only after an update into a folder of our own.
    programs(
        "apt-get",
        'lists=$(echo "$*" | sed -n "s/.*Dir::State::Lists=\\([^ ]*\\).*/\\1/p")\n'
        'case "$*" in *update) touch "$lists/known" ;; esac\n'
        'test -f "$lists/known" || { echo "E: Unable to locate package" >&2; exit 100; }\n'
        + DOWNLOADS,
    )
    programs("dpkg-deb", unpacks)
    check(fashion_mnist())
    assert names_in(cache) == IN_CACHE
    calls = programs.log.read_text().splitlines()
    assert [call.split()[-1] for call in calls[:3]] == [
        "dataset-fashion-mnist",
        "update",
        "dataset-fashion-mnist",
    ]
    assert all(f"Dir::State::Lists={cache}" in call for call in calls[1:3])


def test_debian_package_after_a_partly_failed_update(cache, programs, unpacks):
    # One dead package source makes "apt-get update" fail; the one that matters may have answered.
    programs(
        "apt-get",
        'case "$*" in\n'
        '*update) echo "E: Failed to fetch a source" >&2; exit 100 ;;\n'
        "*Dir::State*download*) echo debian > dataset-fashion-mnist_0.deb ;;\n"
        "*) exit 100 ;;\nesac",
    )
    programs("dpkg-deb", unpacks)
    check(fashion_mnist())


def test_no_programs(cache):
    assert "package dataset-fashion-mnist: there is no program apt-get on this m" in refusal()
    assert names_in(cache) == []


def test_no_dpkg_deb(cache, programs, monkeypatch):
    programs("apt-get", DOWNLOADS)
    monkeypatch.setenv("PATH", str(programs.log.parent / "programs"))
    assert "there is no program dpkg-deb on this machine" in refusal()
    assert programs.log.read_text() == ""


def test_apt_get_fails(cache, programs):
    programs(
        "apt-get",
        'case "$*" in *update) echo "E: no route" >&2; exit 100;; esac\n'
        'echo "W: a warning" >&2; echo "E: Unable to locate it" >&2; echo more >&2; exit 100',
    )
    programs("dpkg-deb", "exit 1")
    message = refusal()
    assert "apt-get failed with exit status 100: E: Unable to locate it, after an" in message
    assert "incomplete update (apt-get failed with exit status 100: E: no route)" in message
    assert names_in(cache) == []


def test_apt_get_fails_without_a_word(cache, programs):
    programs("apt-get", "exit 3")
    programs("dpkg-deb", "exit 1")
    assert "apt-get failed with exit status 3: it gave no reason" in refusal()


def test_apt_get_takes_too_long(cache, programs, monkeypatch):
    monkeypatch.setattr(fetch, "APT_TIMEOUT_S", 0.2)
    programs("apt-get", "exec sleep 60")
    programs("dpkg-deb", "exit 1")
    assert "apt-get took longer than 0.2 s" in refusal()
    assert names_in(cache) == []


def test_apt_get_delivers_nothing(cache, programs):
    programs("apt-get", "exit 0")
    programs("dpkg-deb", "exit 1")
    assert "apt-get reported success but left no file dataset-fashion-mnist*.deb" in refusal()


def test_apt_get_cannot_be_started(cache, programs):
    programs("dpkg-deb", "exit 1")
    path = programs.log.parent / "programs" / "apt-get"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    assert "apt-get could not be started: " in refusal()


def test_dpkg_deb_fails(cache, programs):
    programs("apt-get", DOWNLOADS)
    programs("dpkg-deb", 'echo "dpkg-deb: error: not a Debian archive" >&2; exit 2')
    assert "dpkg-deb failed with exit status 2: dpkg-deb: error: not a Debian arch" in refusal()


def test_a_package_with_wrong_files(cache, programs, unpacks, tmp_path):
    folder = tmp_path / "package" / (tmp_path / "debian").relative_to("/")
    (folder / f"{TRAIN_LABELS}.gz").write_bytes(gzip.compress(labels(11)))
    programs("apt-get", DOWNLOADS)
    programs("dpkg-deb", unpacks)
    assert "this is not Fashion-MNIST's train-labels-idx1-ubyte" in refusal()
    # What was right before it is kept, what was wrong never enters the cache.
    assert names_in(cache) == [f"{TRAIN_IMAGES}.gz"]


# -- when nothing works ------------------------------------------------------------------------


def test_the_last_error_tells_everything(cache, server, addresses, tmp_path):
    put(cache, (TRAIN_LABELS,))
    (cache / f"{TEST_IMAGES}.gz").write_bytes(b"rubbish")
    server.answers[f"/second/{TRAIN_IMAGES}.gz"] = ("cut", PACKED[TRAIN_IMAGES])
    message = refusal()
    first, *tried, advice = message.splitlines()
    assert TRAIN_LABELS not in first
    assert f"{TRAIN_IMAGES}, {TEST_IMAGES}, {TEST_LABELS} could not be found or fetched" in first
    for expected, line in zip(
        [
            "Tried, in this order:",
            f"  - {cache / TEST_IMAGES}.gz: not an IDX file",
            f"  - the folder {cache}: does not hold {TRAIN_IMAGES}, {TEST_LABELS}",
            f"  - the folder {tmp_path / 'debian'}: does not hold {TRAIN_IMAGES}",
            f"  - {addresses[0]}{TRAIN_IMAGES}.gz: HTTPError: 404",
            f"  - {addresses[1]}{TRAIN_IMAGES}.gz: IncompleteRead",
            "  - the Debian package dataset-fashion-mnist: there is no program apt-get",
        ],
        tried,
        strict=True,
    ):
        assert line.startswith(expected)
    assert all(name in advice for name in (*NAMES, "MINIDL_DATA", "data_dir", "--data-dir"))


def test_a_cache_that_cannot_be_written(cache, server, addresses):
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(b"a file where the folder should be")
    assert f"  - the cache {cache} cannot be written: " in refusal()
    server.offer("second")
    check(fashion_mnist())


def test_a_cache_that_cannot_be_written_and_the_debian_package(cache, programs, unpacks):
    cache.write_bytes(b"a file where the folder should be")
    programs("apt-get", DOWNLOADS)
    programs("dpkg-deb", unpacks)
    check(fashion_mnist())


# -- the rest ----------------------------------------------------------------------------------


def test_importing_is_cheap():
    program = (
        "import sys, minidl.data\n"
        "print(sorted({'pooch', 'requests', 'rich', 'urllib3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_real_data_set():
    (x_train, y_train), (x_test, y_test) = fashion_mnist()
    assert x_train.shape == (60000, 28, 28)
    assert y_train.shape == (60000,)
    assert x_test.shape == (10000, 28, 28)
    assert y_test.shape == (10000,)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert np.bincount(y_train).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert (x_train.min(), x_train.max()) == (0, 255)
    # The first picture of the training set is the ankle boot of every tutorial.
    assert FASHION_MNIST_CLASSES[y_train[0]] == "Ankle boot"
    assert len(FASHION_MNIST_CLASSES) == 10
