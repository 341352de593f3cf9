"""Reading files plain or gzipped; writing a file so that it appears only when it is complete.

Gzip can make a thousand bytes of one, so that a small file can fill the memory. A file may unpack
to as many bytes as its format allows any file, and beyond them to a hundred times its own length,
which no images but empty ones come near. A file that is not packed may be as long as it is.
"""

from __future__ import annotations

import gzip
import io
import os
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_GZIP_MAGIC = b"\x1f\x8b"
_MOST_FROM_A_BYTE = 100

# What is not complete yet has such a name, in the folder where it will be.
UNFINISHED_PREFIX, UNFINISHED_SUFFIX = ".minidl-", ".part"
LEFTOVER_AGE_S = 24 * 3600.0


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: if it cannot be opened.
        ValueError: naming it, if it is a pipe or a device, which may keep the reader waiting or
            never end.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(
            f"{path}: expected a file, got a pipe or a device; "
            "write what comes out of it to a file and read that"
        )
    return file


def _open_at_once(path: str, flags: int) -> int:
    """As `os.open`, which for a pipe waits until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def reading(path: Path, kind: str, unpacked: int) -> Iterator[io.BufferedIOBase]:
    """A file to read from, unpacked if it is gzip (told by the content, not by the name).

    Args:
        path: of the file.
        kind: what the file should be, for error messages: "an IDX file".
        unpacked: how many bytes a gzip file of any length may hold.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is a pipe or a device, or its gzip data turns out to be
            damaged or cut short, or to hold more than `unpacked` bytes and more than a hundred
            times those read for them.
    """
    try:
        with open_file(path) as file:
            if file.peek(2)[:2] == _GZIP_MAGIC:
                with _Unpacked(file, path, unpacked) as content:
                    yield content
            else:
                yield file
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: expected {kind}, but there is none; check the path"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: expected complete gzip data, but it is damaged or cut short ({error}); "
            "fetch or copy the file again"
        ) from error


class _Unpacked(gzip.GzipFile):
    """What a gzip file holds, as long as that is not far more than there is reason to believe."""

    def __init__(self, file: io.BufferedReader, path: Path, free: int) -> None:
        super().__init__(fileobj=file)
        self._file = file
        self._path = path
        self._free = free

    def read(self, size: int | None = -1) -> bytes:
        return self._checked(super().read(size))

    def readline(self, size: int | None = -1) -> bytes:
        return self._checked(super().readline(size))

    def _checked(self, data: bytes) -> bytes:
        if self.tell() > self._free + _MOST_FROM_A_BYTE * self._file.tell():
            raise ValueError(
                f"{self._path}: expected gzip data that unpack to at most {self._free} bytes, or "
                f"{_MOST_FROM_A_BYTE} times those read for them, got more, as from files made to "
                "fill the memory; if you trust it, unpack it with gunzip and read what comes out"
            )
        return data


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends.

    If the block fails, what was at `path` before is still there, unchanged, and nothing is left
    beside it. If the process is killed or the power fails, the file there is the old or the new
    one, whole; what was written of the new one may be left under a name that nobody reads, and is
    removed by a later write into the folder: see `remove_leftovers`.

    A new file has the permissions that `open` gives, one that replaces another has those of the
    other. Where `path` is a symbolic link, the file that it points to is replaced.

    Raises:
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if `path` is a folder.
        PermissionError: if the folder, or the file that is there, may not be written.
        OSError: naming the file, if it cannot be written, or if `path` is a device or a pipe.
    """
    target, old = _target(path)
    folder = target.parent
    remove_leftovers(folder)
    # In the same folder, because a rename is atomic only within one file system. The name does not
    # grow with that of the file, which may be as long as a name can be.
    unfinished = folder / f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}{UNFINISHED_SUFFIX}"
    try:
        with unfinished.open("xb") as file:
            # Before there is anything in it that others may not read; and only where it differs, as
            # some file systems have one permission for all and refuse to be told another.
            if old not in (None, stat.S_IMODE(unfinished.stat().st_mode)):
                unfinished.chmod(old)
            yield file
            # Else a power cut may leave the new name with nothing behind it: a file system need
            # not write the content before the rename.
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
        _flush_folder(folder)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # there is none, or a disk that broke
            unfinished.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left unfinished in a folder, after a day.

    No write takes that long, so that what another process is writing at the moment stays.
    """
    for path in folder.glob(f"{UNFINISHED_PREFIX}*{UNFINISHED_SUFFIX}"):
        # It may be another user's, or gone meanwhile.
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > LEFTOVER_AGE_S:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise an error now that `replacing` would raise later, as far as it can be known."""
    _target(Path(path))


def _target(path: Path) -> tuple[Path, int | None]:
    """The file that is to be written, and its permissions; raises OSError as `replacing`."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent} yet; create it first")
    return target, _permissions(target, path)


def _permissions(target: Path, path: Path) -> int | None:
    """Those of the file that is to be replaced, None if there is none yet.

    Raises OSError, naming `path`, if it is no file, or one that may not be written: a rename would
    not ask.
    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path}: expected the path of a file, but this is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(f"{path}: expected the path of a file, but this is a device or a pipe")
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{path}: this file is write-protected; choose another path")
    return stat.S_IMODE(mode)


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder written to disk, where that can be asked for."""
    # Not on Windows, nor on some file systems of networks. Without it, a power cut may bring the
    # old file back, whole.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing_packed(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """As `replacing`, gzipped if the path ends in `.gz`; equal bytes always give equal files."""
    with replacing(path) as file:
        if path.suffix == ".gz":
            # Neither name nor time goes into the gzip header: they would change the bytes.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed
        else:
            yield file
