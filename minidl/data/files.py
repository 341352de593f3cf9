"""Reading files plain or gzipped; writing a file so that it appears only when it is complete.

Gzip can make a thousand bytes of one, so that a small file can fill the memory. A file may unpack
to as many bytes as its format allows any file, and beyond them to a hundred times its own length,
which no images but empty ones come near. A file that is not packed may be as long as it is.
"""

from __future__ import annotations

import gzip
import io
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_GZIP_MAGIC = b"\x1f\x8b"
_MOST_FROM_A_BYTE = 100


@contextmanager
def reading(path: Path, kind: str, unpacked: int) -> Iterator[io.BufferedIOBase]:
    """A file to read from, unpacked if it is gzip (told by the content, not by the name).

    Args:
        path: of the file.
        kind: what the file should be, for error messages: "an IDX file".
        unpacked: how many bytes a gzip file of any length may hold.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if its gzip data turns out to be damaged or cut short, or to
            hold more than `unpacked` bytes and more than a hundred times those read for them.
    """
    try:
        with path.open("rb") as file:
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
    beside it. Raises FileNotFoundError if the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} yet; create it first")
    # In the same folder, because a rename is atomic only within one file system.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with unfinished.open("xb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
