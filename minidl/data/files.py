"""Reading files plain or gzipped; writing a file so that it appears only when it is complete."""

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


@contextmanager
def reading(path: Path, kind: str) -> Iterator[io.BufferedIOBase]:
    """A file to read from, unpacked if it is gzip (told by the content, not by the name).

    Args:
        path: of the file.
        kind: what the file should be, for error messages: "an IDX file".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if its gzip data turns out to be damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield unpacked
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
