"""Reads and writes IDX files, the format in which MNIST and its relatives are published.

An IDX file holds one array: two zero bytes, one byte for the element type, one for the number of
axes, the length of each axis as a big-endian uint32, then the elements, big-endian, last axis
fastest. It is often compressed with gzip. The format is described at the foot of
http://yann.lecun.com/exdb/mnist/ ("The IDX file format").

A file is not trusted: what its header declares is compared with what is there before any memory
is set aside for it.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minidl.backend import Array
from minidl.data.files import reading, replacing_packed

_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
_CODES = {dtype: code for code, dtype in _TYPES.items()}
_TYPE_NAMES = ", ".join(dtype.name for dtype in _CODES)

_LONGEST_HEADER = 4 + 4 * 255
_LONGEST_AXIS = 2**32 - 1
_CHUNK = 2**20
_UNPACKED = 2**26  # bytes that gzip of any length may hold: more than 60,000 images of 28 x 28


def load_idx(path: str | os.PathLike[str]) -> Array:
    """The array an IDX file holds, plain or gzipped (told by the content, not by the name).

    Returns:
        A writable array in the machine's byte order, of any rank, with dtype uint8, int8, int16,
        int32, float32 or float64.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is not IDX, is cut short, has bytes left over, or is
            gzip that is damaged, or unpacks to more than 64 MiB and a hundred times its length.
    """
    return parse_idx(read_idx_bytes(path), path)


def save_idx(path: str | os.PathLike[str], array: npt.ArrayLike) -> None:
    """Write an array of any rank as an IDX file, gzipped if the path ends in `.gz`.

    The same array always gives the same bytes. The file appears under its name only when it is
    complete: where writing fails, a file that was there before is still there, unchanged. An array
    of more than 64 MiB of which gzip leaves less than a hundredth is one that `load_idx` wants to
    have unpacked first.

    Args:
        path: of the file.
        array: of any rank, with dtype uint8, int8, int16, int32, float32 or float64.

    Raises:
        TypeError: for any other dtype.
        ValueError: for an axis longer than the format can say, 2**32 - 1.
        OSError: if the file cannot be written; FileNotFoundError if its folder does not exist.
    """
    path = Path(path)
    content = _idx_bytes(np.asarray(array), path)
    with replacing_packed(path) as file:
        file.write(content)


def read_idx_bytes(path: str | os.PathLike[str]) -> bytes:
    """The decompressed bytes of an IDX file, exactly as many as its header declares.

    For a caller who wants to look at the bytes (a checksum, say) before `parse_idx` makes an
    array of them. Raises as `load_idx` does.
    """
    path = Path(path)
    with reading(path, "an IDX file", _UNPACKED) as file:
        # How long what is packed will be is known only when it has been read.
        packed = isinstance(file, gzip.GzipFile)
        return _read_declared(file, path, None if packed else os.fstat(file.fileno()).st_size)


def parse_idx(data: bytes, source: str | os.PathLike[str]) -> Array:
    """The array that the decompressed bytes of an IDX file hold; `source` names it in errors.

    Returns a writable array of its own (not a view of `data`) in the machine's byte order.
    Raises ValueError if the bytes are not one complete IDX file.
    """
    source = os.fspath(source)
    dtype, shape, start = _parse_header(data, source)
    _check_length(source, _total_bytes(dtype, shape, start), len(data))
    try:
        elements = np.ndarray(shape, dtype.newbyteorder(">"), data, offset=start)
    except ValueError as error:
        raise ValueError(
            f"{source}: valid IDX, but NumPy cannot hold its shape {shape}: {error}"
        ) from error
    return elements.astype(dtype)


def _read_declared(file: io.BufferedIOBase, path: Path, size: int | None = None) -> bytes:
    """Read what the header declares; `size` is the true length where it is known beforehand."""
    head = file.read(_LONGEST_HEADER)
    expected = _total_bytes(*_parse_header(head, str(path)))
    if size is not None:
        _check_length(str(path), expected, size)
    chunks = [head]
    # One byte more than declared shows whether anything follows, and lets gzip reach its
    # checksum. Chunks, because a single read() sets aside all that a lying header asks for.
    missing = expected + 1 - len(head)
    while missing > 0 and (chunk := file.read(min(missing, _CHUNK))):
        chunks.append(chunk)
        missing -= len(chunk)
    _check_length(str(path), expected, expected + 1 - missing)
    return b"".join(chunks)


def _parse_header(data: bytes, source: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Element type, shape, and the position of the first element."""
    if len(data) < 4:
        raise ValueError(
            f"{source}: too short for an IDX header: expected at least 4 bytes, got {len(data)}; "
            "fetch or copy the file again"
        )
    if data[:2] != b"\0\0":
        raise ValueError(
            f"{source}: not an IDX file: expected its first two bytes to be 00 00, got "
            f"{data[:2].hex(' ')}; check that it is the right file"
        )
    code, rank = data[2], data[3]
    if code not in _TYPES:
        raise ValueError(
            f"{source}: expected an IDX type code (08, 09, 0b, 0c, 0d or 0e), got {code:02x}; "
            "check that it is the right file"
        )
    start = 4 + 4 * rank
    if len(data) < start:
        raise ValueError(
            f"{source}: too short for its IDX header: {rank} axes need {start} bytes, got "
            f"{len(data)}; fetch or copy the file again"
        )
    return _TYPES[code], struct.unpack(f">{rank}I", data[4:start]), start


def _total_bytes(dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> int:
    # Python's integers, since a product of uint32 lengths overflows NumPy's.
    return start + math.prod(shape) * dtype.itemsize


def _check_length(source: str, expected: int, got: int) -> None:
    if got < expected:
        raise ValueError(
            f"{source}: cut short: expected {expected} bytes, as its header declares, got {got}; "
            "fetch or copy the file again"
        )
    if got > expected:
        raise ValueError(
            f"{source}: expected {expected} bytes, as its header declares, but more follow; "
            "check that the file holds one IDX array and nothing else"
        )


def _idx_bytes(array: Array, path: Path) -> bytes:
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        raise TypeError(
            f"{path}: expected an array that IDX can hold ({_TYPE_NAMES}), got dtype "
            f"{array.dtype.name}; convert it first, for instance array.astype(numpy.int32)"
        )
    if any(length > _LONGEST_AXIS for length in array.shape):
        raise ValueError(
            f"{path}: expected axes of at most {_LONGEST_AXIS}, as IDX writes them in 32 bits, "
            f"got shape {array.shape}; split the array"
        )
    header = struct.pack(f">2x2B{array.ndim}I", code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()
