"""Reads and writes image tables in CSV: one image a line, its pixels side by side.

That is how Kaggle offers Fashion-MNIST, MNIST and their relatives: a header `label,pixel1,...`,
then on each line the label and the pixels of one image, row by row. Lines are parsed some at a time
by NumPy's own reader. Only when it fails are they looked at one by one, to say where and why.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from minidl.backend import Array
from minidl.data.files import reading, replacing_packed

_BLOCK = 2**20  # bytes that are parsed at once
_LONGEST_LINE = 2**18  # bytes, or if that is more:
_LONGEST_CELL = 64  # bytes of each cell of a line
_UNPACKED = 2**24  # bytes that gzip of any length may hold
_LARGEST_LABEL = 2**53  # up to here, float64 tells whole numbers apart


@overload
def load_csv(
    path: str | os.PathLike[str],
    *,
    label: str | int = "label",
    header: bool | None = None,
    shape: tuple[int, ...] = (28, 28),
) -> tuple[Array, Array]: ...


@overload
def load_csv(
    path: str | os.PathLike[str],
    *,
    label: None,
    header: bool | None = None,
    shape: tuple[int, ...] = (28, 28),
) -> Array: ...


def load_csv(
    path: str | os.PathLike[str],
    *,
    label: str | int | None = "label",
    header: bool | None = None,
    shape: tuple[int, ...] = (28, 28),
) -> tuple[Array, Array] | Array:
    """Read a table of images, plain or gzipped (told by the content, not by the name).

    Args:
        path: of the file.
        label: the column that holds the labels, by its name in the header or by its number (from
            0, or from the end if negative); None if all columns are pixels.
        header: whether the first line names the columns. If None, it does so when none of its cells
            is a number.
        shape: of one image, (28, 28) or (32, 32, 3) for instance; its product is the number of
            pixels on a line.

    Returns:
        (images, labels), or images alone if `label` is None. Images are (N, *shape): uint8 if
        every pixel of the table is a whole number from 0 to 255, otherwise float32. Labels are
        (N,), int64.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and the line, if a cell is not a finite number, a line is empty
            or has more or fewer cells than the first, a label is not a whole number from 0 on,
            there is no such label column, the columns do not fit `shape`, or a line is longer than
            256 KiB and 64 bytes a cell; naming the file, if it holds no images or is gzip that is
            damaged, or unpacks to more than 16 MiB and a hundred times its length.
        TypeError: if `label` is a bool.
    """
    path = Path(path)
    if isinstance(label, bool):
        raise TypeError(f"label is the name or number of a column, or None; got {label}")
    longest = max(_LONGEST_LINE, _LONGEST_CELL * (1 + math.prod(shape)))
    with reading(path, "a CSV file", _UNPACKED) as file:
        first = _read_line(file, path, 1, longest).decode("utf-8-sig", "replace")
        if not first.strip():
            raise ValueError(f"{path}, line 1: expected an image table, got an empty line or file")
        names = _column_names(first, header, path)
        columns = len(names if names is not None else first.split(","))
        label_column = None if label is None else _label_column(label, names, columns, path)
        _check_shape(shape, columns, label_column, path)
        table = _Table(path, columns, label_column)
        if names is None:
            table.add([first], 1)
        for number, lines in _blocks(file, path, longest):
            table.add(lines, number)
    images, labels = table.arrays()
    images = images.reshape(len(images), *shape)
    return images if labels is None else (images, labels)


def save_csv(
    path: str | os.PathLike[str], images: npt.ArrayLike, labels: npt.ArrayLike | None = None
) -> None:
    """Write a table of images as `load_csv` reads it, gzipped if the path ends in `.gz`.

    The header is `label,pixel1,pixel2,...`, without `label` if there are none. Reading gives the
    same numbers back, as uint8 if all happen to be whole and from 0 to 255. The file appears under
    its name only when it is complete: where writing fails, a file that was there before is still
    there, unchanged. A table of more than 16 MiB of which gzip leaves less than a hundredth is one
    that `load_csv` wants to have unpacked first.

    Args:
        path: of the file.
        images: (N, ...), uint8 or float32.
        labels: (N,), whole numbers from 0 on, or None.

    Raises:
        TypeError: for images or labels of other dtypes.
        ValueError: if there are no images, a pixel is not finite, or labels do not fit.
        OSError: if the file cannot be written; FileNotFoundError if its folder does not exist.
    """
    path = Path(path)
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(
            f"{path}: expected images of dtype uint8 or float32, got {images.dtype}; "
            "convert them first, for instance images.astype(numpy.float32)"
        )
    if images.ndim < 2 or images.size == 0:
        raise ValueError(f"{path}: expected images (N, ...), at least one, got {images.shape}")
    if images.dtype == np.float32 and not np.isfinite(images).all():
        raise ValueError(f"{path}: expected finite pixels, got nan or infinity among them")
    rows = images.reshape(len(images), -1)
    names = [f"pixel{number}" for number in range(1, rows.shape[1] + 1)]
    # Nine digits tell all float32 numbers apart.
    text = str if images.dtype == np.uint8 else "{:.9g}".format
    if labels is not None:
        labels = _checked_labels(np.asarray(labels), len(rows), path)
        names.insert(0, "label")
    with replacing_packed(path) as file:
        file.write(f"{','.join(names)}\n".encode())
        for number, row in enumerate(rows):
            cells = [text(pixel) for pixel in row.tolist()]
            if labels is not None:
                cells.insert(0, str(labels[number]))
            file.write(f"{','.join(cells)}\n".encode())


class _Table:
    """What has been read of a table so far."""

    def __init__(self, path: Path, columns: int, label_column: int | None) -> None:
        self.path = path
        self.columns = columns
        self.label_column = label_column
        self.images: list[Array] = []
        self.labels: list[Array] = []

    def add(self, lines: list[str], number: int) -> None:
        """Parse lines, the first of which is the file's line `number`."""
        try:
            values = _numbers(lines)
        except ValueError:
            values = None
        if values is None or values.shape != (len(lines), self.columns):
            raise ValueError(f"{self.path}, {_fault(lines, number, self.columns)}")
        if self.label_column is not None:
            labels = values[:, self.label_column]
            # Not a number compares as false, so that it is refused too.
            whole = (labels >= 0) & (labels <= _LARGEST_LABEL) & (labels == np.floor(labels))
            if not whole.all():
                row = int(np.argmin(whole))
                raise ValueError(
                    f"{self.path}, line {number + row}: expected a label, a whole number from 0 "
                    f"on, got {labels[row].item()}; check that column {self.label_column}, counted "
                    "from 0, holds the labels"
                )
            self.labels.append(labels.astype(np.int64))
            values = np.delete(values, self.label_column, axis=1)
        if ((values >= 0) & (values <= 255) & (values == np.floor(values))).all():
            self.images.append(values.astype(np.uint8))
            return
        with np.errstate(over="ignore"):
            pixels = values.astype(np.float32)
        finite = np.isfinite(pixels).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(
                f"{self.path}, line {number + row}: expected finite numbers that float32 can hold, "
                f"got {values[row][~np.isfinite(pixels[row])][0].item()}"
            )
        self.images.append(pixels)

    def arrays(self) -> tuple[Array, Array | None]:
        """All images as (N, pixels), and their labels if there are any."""
        if not self.images:
            raise ValueError(f"{self.path}: expected images, got a header and nothing else")
        # Blocks of uint8 become float32 here if any block is.
        images = np.concatenate(self.images)
        return images, None if self.label_column is None else np.concatenate(self.labels)


def _read_line(file: io.BufferedIOBase, path: Path, number: int, longest: int) -> bytes:
    """A line without its end; an empty one at the end of the file."""
    line = file.readline(longest)
    if len(line) == longest:
        raise ValueError(
            f"{path}, line {number}: longer than {longest} bytes, which is no line of a table of "
            "such images; check `shape`, and that it is the right file"
        )
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _blocks(file: io.BufferedIOBase, path: Path, longest: int) -> Iterator[tuple[int, list[str]]]:
    """The lines that follow the first, many at a time, with the number of the first of them."""
    number = 2
    while block := file.read(_BLOCK):
        # Up to the end of a line, which may be the end of the block.
        if not block.endswith(b"\n"):
            block += _read_line(file, path, number + block.count(b"\n"), longest)
        # What is not ASCII is no number, and will be refused as such.
        text = block.decode("ascii", "replace").removesuffix("\n")
        lines = text.split("\n")
        yield number, lines
        number += len(lines)


def _column_names(line: str, header: bool | None, path: Path) -> list[str] | None:
    """The names that the first line gives to the columns, or None if it is an image."""
    try:
        names = [name.strip() for name in next(csv.reader([line]))]  # names may be quoted
    except csv.Error as error:
        raise ValueError(
            f"{path}, line 1: expected a line of CSV: {error}; check that it is the right file"
        ) from error
    if header is None:
        header = not any(_is_number(name) for name in names)
    return names if header else None


def _label_column(label: str | int, names: list[str] | None, columns: int, path: Path) -> int:
    if isinstance(label, int):
        if not -columns <= label < columns:
            raise ValueError(
                f"{path}, line 1: expected a label column {label}, but there are {columns} columns"
            )
        return label % columns
    if names is None:
        raise ValueError(
            f"{path}, line 1: expected a header with a column {label!r}, got numbers; say "
            "header=True if it is one all the same, or give the label column by its number "
            "(label=0), or label=None if there is none"
        )
    if label not in names:
        shown = ", ".join(name[:40] for name in names[:3]) + (", ..." if columns > 3 else "")
        raise ValueError(
            f"{path}, line 1: expected a column {label!r}, got {shown}; name the one that holds "
            "the labels, or say label=None if there is none"
        )
    return names.index(label)


def _check_shape(
    shape: tuple[int, ...], columns: int, label_column: int | None, path: Path
) -> None:
    pixels = columns - (label_column is not None)
    if min(shape, default=1) < 1 or math.prod(shape) != pixels:
        besides = "" if label_column is None else " besides the label"
        raise ValueError(
            f"{path}, line 1: expected {math.prod(shape)} pixels{besides}, for images of shape "
            f"{shape}, got {pixels}; check `shape` and `label`"
        )


def _numbers(lines: list[str]) -> Array:
    """What all cells of some lines say, (lines, cells), or a ValueError."""
    if not any(line.strip() for line in lines):
        raise ValueError("nothing but empty lines")
    return np.loadtxt(lines, np.float64, comments=None, delimiter=",", ndmin=2)


def _are_rows(lines: list[str]) -> bool:
    """Whether lines parse: numbers with commas between them."""
    try:
        return len(_numbers(lines)) == len(lines)
    except ValueError:
        return False


def _is_number(cell: str) -> bool:
    try:
        # What Python does not take for a number, NumPy does not either, but takes longer to say so.
        float(cell)
    except ValueError:
        return False
    return _are_rows([f"{cell},0"])  # not at the end of a line, where a line break would pass


def _fault(lines: list[str], number: int, columns: int) -> str:
    """What is wrong with lines that do not parse, and on which one."""
    rows = [line.removesuffix("\r") for line in lines]
    short = (row for row, line in enumerate(rows) if not line or line.count(",") + 1 != columns)
    whole = next(short, len(rows))  # so many lines have as many cells as they should
    row = whole if _are_rows(lines[:whole]) else _first_that_does_not_parse(lines[:whole])
    line_number, cells = number + row, rows[row].split(",")
    if cells == [""]:
        return f"line {line_number}: expected {columns} numbers, got an empty line; remove it"
    if len(cells) != columns:
        return (
            f"line {line_number}: expected {columns} cells, as the first line has, got {len(cells)}"
        )
    column = next(column for column, cell in enumerate(cells) if not _is_number(cell))
    advice = "; say header=True if this line names the columns"
    return (
        f"line {line_number}: expected a number in column {column}, counted from 0, "
        f"got {cells[column][:40]!r}{advice if line_number == 1 else ''}"
    )


def _first_that_does_not_parse(lines: list[str]) -> int:
    """The index of the first line that does not parse, one of which does not.

    By halves, since to parse one line at a time takes many times as long as all together.
    """
    start, end = 0, len(lines)
    while end - start > 1:
        middle = (start + end) // 2
        if _are_rows(lines[start:middle]):
            start = middle
        else:
            end = middle
    return start


def _checked_labels(labels: Array, count: int, path: Path) -> Array:
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"{path}: expected labels of an integer dtype, got {labels.dtype}; "
            "convert them first, for instance labels.astype(numpy.int64)"
        )
    if labels.shape != (count,):
        raise ValueError(f"{path}: expected a label for each of {count} images, got {labels.shape}")
    if labels.min() < 0 or labels.max() > _LARGEST_LABEL:
        raise ValueError(
            f"{path}: expected labels from 0 to {_LARGEST_LABEL}, "
            f"got {labels.min()} to {labels.max()}"
        )
    return labels
