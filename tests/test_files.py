"""What is written to disk: the old file or the new one, whole, whatever happens meanwhile."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk

import minidl
from minidl.data import files, save_csv, save_idx
from minidl.data.files import remove_leftovers, replacing

HERE = Path(__file__).parent
NOBODY = 65534
TWO_DAYS = 2 * 24 * 3600

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def write(path, content=b"new"):
    with replacing(path) as file:
        file.write(content)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def make_older(path):
    os.utime(path, (time.time() - TWO_DAYS,) * 2)


@pytest.fixture
def bound_by_modes(tmp_path):
    """A folder of a user whom permissions bind, which root is not."""
    if os.geteuid():
        yield tmp_path
        return
    os.seteuid(NOBODY)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        os.seteuid(0)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# -- the order of things -----------------------------------------------------------------------


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    happened = []
    plain_replace = Path.replace

    def fsync(descriptor):
        status = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(status.st_mode)
        happened.append("folder flushed" if is_folder else f"{status.st_size} bytes flushed")

    def replace(self, target):
        happened.append(f"renamed to {Path(target).name}")
        return plain_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "x.gz", b"seven..")
    assert happened == ["7 bytes flushed", "renamed to x.gz", "folder flushed"]
    happened.clear()
    save_idx(tmp_path / "x.gz", np.arange(9, dtype=np.uint8))
    size = (tmp_path / "x.gz").stat().st_size
    assert happened == [f"{size} bytes flushed", "renamed to x.gz", "folder flushed"]


def test_a_file_system_that_cannot_flush_folders(tmp_path, monkeypatch):
    plain_fsync = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        plain_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"


@forks
def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "model.safetensors"
    done = subprocess.run(
        [sys.executable, HERE / "killed_writers.py", path, "200"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    unfinished = [left for left in tmp_path.iterdir() if left != path]
    assert all(left.name.startswith(".minidl-") for left in unfinished)
    sizes = {left.stat().st_size for left in unfinished}
    assert len(sizes) > 20  # so many different bytes at which one was killed
    for left in unfinished:
        make_older(left)
    minidl.save(minidl.load(path), path)
    assert names_in(tmp_path) == [path.name]


def test_several_that_write_one_file_at_once(tmp_path):
    path = tmp_path / "x"
    contents = [bytes([number]) * (100_000 + number) for number in range(4)]
    write(path, contents[0])
    errors = []

    def write_often(content):
        try:
            for _ in range(25):
                write(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write_often, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert names_in(tmp_path) == ["x"]


# -- what is at the path before ----------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_new_file_is_as_open_makes_it_and_a_replacement_as_the_old_one(tmp_path, mode):
    plain, new = tmp_path / "plain", tmp_path / "new"
    plain.write_bytes(b"")
    write(new)
    assert mode_of(new) == mode_of(plain)
    new.chmod(mode)
    write(new, b"newer")
    assert mode_of(new) == mode
    assert new.read_bytes() == b"newer"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_private_file_is_private_while_it_is_written(tmp_path):
    path = tmp_path / "x"
    write(path)
    path.chmod(0o600)
    with replacing(path):
        (unfinished,) = (left for left in tmp_path.iterdir() if left != path)
        assert mode_of(unfinished) == 0o600


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_the_file_it_points_to_is_replaced(tmp_path, exists):
    (tmp_path / "run").mkdir()
    target, link = tmp_path / "run" / "model", tmp_path / "latest"
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(Path("run", "model"))
    write(link)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert (names_in(tmp_path), names_in(target.parent)) == (["latest", "run"], ["model"])


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError, match=r"x: expected .* a file, but this is a folder"):
        write(tmp_path / "x")
    assert names_in(tmp_path) == ["x"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_refused_as_a_device_would_be(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(OSError, match=r"x: expected .* a device or a pipe"):
        write(tmp_path / "x")
    assert stat.S_ISFIFO((tmp_path / "x").stat().st_mode)


def test_a_file_that_is_write_protected_is_refused(bound_by_modes):
    path = bound_by_modes / "x"
    write(path)
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="x: this file is write-protected"):
        write(path, b"newer")
    assert path.read_bytes() == b"new"


def test_a_folder_that_is_write_protected(bound_by_modes):
    write(bound_by_modes / "x")
    bound_by_modes.chmod(0o555)
    try:
        with pytest.raises(PermissionError) as caught:
            write(bound_by_modes / "x", b"newer")
    finally:
        bound_by_modes.chmod(0o755)
    assert caught.value.filename == str(bound_by_modes / "x")
    assert (bound_by_modes / "x").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="no limit of a name's length to be asked")
def test_a_name_as_long_as_names_can_be(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    path = tmp_path / ("x" * longest)
    write(path)
    write(path, b"newer")
    assert path.read_bytes() == b"newer"
    with pytest.raises(OSError, match="xx") as caught:
        write(tmp_path / ("x" * (longest + 1)))
    assert caught.value.errno == errno.ENAMETOOLONG
    assert names_in(tmp_path) == [path.name]


# -- what is left of a process that was killed -------------------------------------------------


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    left = tmp_path / ".minidl-0123.part", tmp_path / ".minidl-4567.part"
    other = tmp_path / ".mine.part", tmp_path / "minidl-0123.part", tmp_path / ".minidl-0123"
    left[0].write_bytes(b"half")
    left[1].mkdir()
    (left[1] / "inner").write_bytes(b"half")
    for path in other:
        path.write_bytes(b"the user's")
    remove_leftovers(tmp_path)
    assert all(path.exists() for path in left)
    for path in (*left, *other):
        make_older(path)
    write(tmp_path / "x")
    assert not any(path.exists() for path in left)
    assert names_in(tmp_path) == sorted(path.name for path in (*other, tmp_path / "x"))


def test_a_leftover_that_cannot_be_removed_does_no_harm(tmp_path, monkeypatch):
    left = tmp_path / ".minidl-0123.part"
    left.write_bytes(b"another user's")
    make_older(left)

    def refuse(_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        write(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert left.exists()


def test_what_is_being_written_is_not_taken_for_a_leftover(tmp_path):
    with replacing(tmp_path / "x") as file:
        write(tmp_path / "y")
        file.write(b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert files.LEFTOVER_AGE_S >= 3600


# -- a full disk -------------------------------------------------------------------------------


def model():
    return minidl.Sequential([minidl.Dense(32)], input_shape=(32,))


def history():
    history = minidl.History()
    for epoch in range(100):
        history.append({"loss": 1 / (epoch + 3)}, 1 / 7)
    return history


def fit(callback):
    net = model()
    trainer = minidl.Trainer(net, minidl.cross_entropy, minidl.SGD(net.parameters()))
    x = np.zeros((4, 32), np.float32)
    trainer.fit(x, np.arange(4), epochs=100, verbose=0, callbacks=[callback])


NOISE = np.random.default_rng(0).integers(0, 256, (40, 200)).astype(np.uint8)

WRITERS = {
    "model.safetensors": lambda path: minidl.save(model(), path),
    "weights.safetensors": lambda path: minidl.save_weights(model(), path),
    "checkpoint.safetensors": lambda path: fit(minidl.ModelCheckpoint(path, "loss")),
    "images.idx": lambda path: save_idx(path, NOISE),
    "images.idx.gz": lambda path: save_idx(path, NOISE),
    "images.csv": lambda path: save_csv(path, NOISE),
    "images.csv.gz": lambda path: save_csv(path, NOISE),
    "history.csv": lambda path: history().save(path),
    "history.json": lambda path: history().save(path),
}


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, name, exists):
    path = tmp_path / name
    if exists:
        path.write_bytes(b"old")
    with full_disk(), pytest.raises(OSError, match=name) as caught:
        WRITERS[name](path)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert names_in(tmp_path) == ([name] if exists else [])
    if exists:
        assert path.read_bytes() == b"old"
    WRITERS[name](path)  # there is room again
    assert path.stat().st_size > 2000
    assert names_in(tmp_path) == [name]


def test_a_full_disk_leaves_the_epochs_that_were_logged(tmp_path):
    path = tmp_path / "log.csv"
    with full_disk(), pytest.raises(OSError, match=r"log\.csv") as caught:
        fit(minidl.CSVLogger(path))
    assert caught.value.errno == errno.EFBIG
    head, *lines = path.read_text().split("\n")
    assert head == "epoch,loss,accuracy,seconds"
    assert lines.pop() == ""
    assert [int(line.split(",")[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert all(len(line.split(",")) == 4 for line in lines)
    assert 5 < len(lines) < 100
    assert names_in(tmp_path) == ["log.csv"]


# -- no home -----------------------------------------------------------------------------------


def test_training_and_drawing_without_a_home(tmp_path):
    program = """
import numpy as np, minidl
model = minidl.Sequential([minidl.Dense(3)])
x, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
model.build((6,))
trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.SGD(model.parameters()))
history = trainer.fit(x, y, epochs=2, verbose=0)
minidl.plot_history(history).savefig("history.png")
minidl.save(model, "model.safetensors")
"""
    # No home can be made below a file, not even by root.
    unset = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    nowhere = f"{os.devnull}/home"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        cwd=tmp_path,
        env={**env, "HOME": nowhere, "USERPROFILE": nowhere},
    )
    assert names_in(tmp_path) == ["history.png", "model.safetensors"]
