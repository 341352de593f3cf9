"""The cache of data sets: filled by several processes at once, on a full disk, or not at all."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fetching import CONTENT, fetch
from full_disk import full_disk
from web_server import Server

from minidl.data import dataset_files
from minidl.data.dataset_files import cache_folder

HERE = Path(__file__).parent
A_MINUTE = 60  # what nobody waits for unless something hangs
RIGHT = "".join(f"{hashlib.sha256(content).hexdigest()}\n" for content in CONTENT.values())
TWO_DAYS = 2 * 24 * 3600


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch):
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def server():
    server = Server(CONTENT)
    server.offer("data")
    yield server
    server.close()


@pytest.fixture
def address(server):
    return f"{server.address}/data/"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for all temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def start(address):
    """Starts a process that fetches into a cache; none outlives the test."""
    processes = []

    def start(cache):
        process = subprocess.Popen(
            [sys.executable, HERE / "fetching.py", cache, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        kill(process)


def kill(process):
    with process:  # which closes its pipes and waits for its end
        process.kill()


def ended(process):
    """What a process printed, which must be the right data."""
    out, err = process.communicate(timeout=A_MINUTE)
    assert (out, process.returncode) == (RIGHT, 0), err
    return err


def until(condition):
    for _ in range(A_MINUTE * 100):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def check_cache(cache):
    """It holds the files, whole, and nothing else."""
    assert sorted(path.name for path in cache.iterdir()) == sorted(CONTENT)
    for name, content in CONTENT.items():
        assert (cache / name).read_bytes() == content


# -- several processes at once -----------------------------------------------------------------


def test_processes_that_fetch_at_once(tmp_path, server, start):
    for attempt in range(3):
        cache = tmp_path / str(attempt)
        server.asked.clear()
        server.gate.clear()
        server.answers["/data/images"] = ("paused", CONTENT["images"])
        processes = [start(cache) for _ in range(3)]
        until(lambda: server.asked.count("/data/images") == 3)  # each is in the middle of a file
        server.gate.set()
        for process in processes:
            ended(process)
        check_cache(cache)


@pytest.mark.parametrize("file", CONTENT)
def test_one_that_is_killed_does_not_disturb_the_other_nor_a_third(tmp_path, server, start, file):
    cache = tmp_path / "cache"
    server.answers[f"/data/{file}"] = ("paused", CONTENT[file])
    victim, other = start(cache), start(cache)
    until(lambda: server.asked.count(f"/data/{file}") == 2)
    workshops = list(cache.glob(".minidl-*.part"))
    assert len(workshops) == 2
    until(lambda: all((folder / file).stat().st_size for folder in workshops))
    kill(victim)
    server.gate.set()
    ended(other)
    (left,) = (folder for folder in workshops if folder.exists())
    assert 0 < (left / file).stat().st_size < len(CONTENT[file])

    asked = len(server.asked)
    assert ended(start(cache)) == ""
    assert len(server.asked) == asked  # it found all in the cache

    (cache / file).unlink()
    os.utime(left, (time.time() - TWO_DAYS,) * 2)
    ended(start(cache))
    check_cache(cache)


@pytest.mark.parametrize("file", CONTENT)
def test_what_one_that_was_killed_alone_left_is_not_trusted(tmp_path, server, start, file):
    cache = tmp_path / "cache"
    server.answers[f"/data/{file}"] = ("paused", CONTENT[file])
    victim = start(cache)
    until(lambda: f"/data/{file}" in server.asked)
    kill(victim)
    server.gate.set()
    asked = len(server.asked)
    ended(start(cache))
    names = list(CONTENT)
    assert server.asked[asked:] == [f"/data/{name}" for name in names[names.index(file) :]]


# -- a cache that cannot be written ------------------------------------------------------------


# Nobody forbids root to write, whatever the mode.
READ_ONLY = ["read-only"] if os.geteuid() else []


@pytest.fixture(params=["a file", "below a file", "a full disk", *READ_ONLY])
def unwritable(request, tmp_path, monkeypatch):
    """The path of a cache that nothing can be kept in."""
    cache = tmp_path / "cache"
    if request.param == "a file":
        cache.write_bytes(b"a file")
    elif request.param == "below a file":
        cache = Path(os.devnull) / "cache"
    elif request.param == "read-only":
        cache.mkdir(0o555)
    else:
        plain_download = dataset_files.download

        def download(address, path):
            plain_download(address, path)
            if path.is_relative_to(cache):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(dataset_files, "download", download)
    return cache


def test_a_cache_that_cannot_be_written_is_told_and_done_without(
    address, temporary, unwritable, capsys
):
    assert fetch(unwritable, address) == CONTENT
    told = [line for line in capsys.readouterr().err.splitlines() if "downloading" not in line]
    (line,) = told
    assert line.startswith(f"minidl: the cache {unwritable} cannot be written: [Errno ")
    assert line.endswith("; using a temporary folder, from which nothing is kept")
    assert list(temporary.iterdir()) == []
    if unwritable.is_dir():
        assert list(unwritable.iterdir()) == []


def test_neither_the_cache_nor_a_temporary_folder_can_be_written(
    tmp_path, server, address, temporary
):
    cache = tmp_path / "cache"
    cache.write_bytes(b"a file")
    shutil.rmtree(temporary)
    with pytest.raises(FileNotFoundError) as caught:
        fetch(cache, address)
    message = str(caught.value)
    assert f"  - the cache {cache} cannot be written: [Errno " in message
    assert "  - no temporary folder can be written: [Errno " in message
    assert "MINIDL_DATA" in message
    assert server.asked == []


def test_a_full_disk_is_an_error_that_says_so(tmp_path, address, temporary, capsys):
    cache = tmp_path / "cache"
    with full_disk(50_000), pytest.raises(FileNotFoundError) as caught:
        fetch(cache, address)
    message = str(caught.value)
    reason = f"[Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: "
    assert f"  - the cache {cache} cannot be written: {reason}'{cache}" in message
    assert f"  - no temporary folder can be written: {reason}'{temporary}" in message
    assert "not available" not in capsys.readouterr().err  # the address is not to blame
    assert list(cache.iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert fetch(cache, address) == CONTENT
    check_cache(cache)


def test_a_file_that_cannot_take_its_place_in_the_cache_is_used(tmp_path, address, capsys):
    cache = tmp_path / "cache"
    (cache / "labels").mkdir(parents=True)
    assert fetch(cache, address) == CONTENT
    told = [line for line in capsys.readouterr().err.splitlines() if "downloading" not in line]
    assert told[0].startswith("minidl: not used: ")
    assert told[1].startswith(
        f"minidl: labels is used, but could not be kept in the cache {cache}: [Errno "
    )
    assert len(told) == 2
    assert sorted(path.name for path in cache.iterdir()) == sorted(CONTENT)


@pytest.mark.parametrize("damage", ["cut short", "empty", "other bytes"])
def test_a_damaged_file_is_told_and_fetched_again(tmp_path, server, address, capsys, damage):
    cache = tmp_path / "cache"
    fetch(cache, address)
    whole = CONTENT["labels"]
    spoiled = {"cut short": whole[:-1], "empty": b"", "other bytes": whole[:-1] + b"?"}[damage]
    (cache / "labels").write_bytes(spoiled)
    server.asked.clear()
    capsys.readouterr()
    assert fetch(cache, address) == CONTENT
    assert capsys.readouterr().err.startswith(f"minidl: not used: {cache / 'labels'}: ")
    assert server.asked == ["/data/labels"]
    check_cache(cache)


# -- no home -----------------------------------------------------------------------------------


def test_a_home_that_does_not_exist(address, temporary, monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, f"{os.devnull}/home")
    # Where neither system looks for its cache in the home, there is nothing to be seen here.
    assert fetch(cache_folder("small"), address) == CONTENT
    if sys.platform == "linux":
        assert f"the cache {os.devnull}/home/.cache/minidl/small cannot" in capsys.readouterr().err
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("refuses", [True, False])
def test_a_user_without_a_home(address, temporary, monkeypatch, refuses):
    def os_cache(name):
        if refuses:
            raise RuntimeError("could not determine the home directory")
        return Path("~/.cache") / name

    monkeypatch.setattr("pooch.os_cache", os_cache)
    assert fetch(cache_folder("small"), address) == CONTENT
    check_cache(temporary / "minidl" / "small")


def test_a_data_dir_below_a_home_that_nobody_knows(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setenv("MINIDL_DATA", "~/mine")
    with pytest.raises(
        FileNotFoundError, match=r"the folder ~.mine \(named by MINIDL_DATA\) is no"
    ):
        fetch(None)
