"""IDX and CSV files, and how they are broken."""

import math
import struct
from pathlib import Path
from random import Random

import numpy as np

from fuzzing.mutations import Parser, number, packed, perhaps_packed, replaced
from minidl.data import load_csv, load_idx

# -- IDX ---------------------------------------------------------------------------------------

SIZES = {0x08: 1, 0x09: 1, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}
DTYPES = {np.dtype(name) for name in ("u1", "i1", "i2", "i4", "f4", "f8")}


def idx_file(code: int, shape: tuple[int, ...], data: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + data


def mutate_idx(rng: Random, content: bytes) -> bytes:
    code, rank = content[2], content[3]
    shape = struct.unpack_from(f">{rank}I", content, 4)
    data = content[4 + 4 * rank :]
    match rng.randrange(6):
        case 0:
            code = rng.randrange(256) if rng.random() < 0.5 else rng.choice(list(SIZES))
        case 1:
            place = rng.randrange(len(shape) + 1)
            shape = (*shape[:place], number(rng, 32), *shape[place + 1 :])
        case 2:
            shape = tuple(rng.choice((0, 1, 2, number(rng, 32))) for _ in range(rng.randrange(256)))
        case 3:
            shape = (1,) * rng.randrange(60, 70)
        case 4:  # the right length once more
            length = math.prod(shape) * SIZES.get(code, 1)
            data = rng.randbytes(length) if length < 2**16 else data
        case _:
            return replaced(content, 0, 4, bytes(rng.choice((0, 0, code, rank)) for _ in range(4)))
    return idx_file(code, shape, data)


def read_idx(path: Path) -> None:
    array = load_idx(path)
    assert isinstance(array, np.ndarray)
    assert array.dtype in DTYPES
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.flags.owndata


IDX_FILES = (
    idx_file(0x08, (4, 5, 3), bytes(range(60))),
    idx_file(0x0B, (3, 2), bytes(12)),
    idx_file(0x0D, (2,), struct.pack(">2f", 1.5, math.nan)),
    idx_file(0x0E, (), struct.pack(">d", -1.0)),
    idx_file(0x09, (0, 28, 28), b""),
    idx_file(0x0C, (300,), bytes(1200)),
)
IDX = Parser(
    "idx",
    "images.idx",
    (*IDX_FILES, *(packed(Random(n), content) for n, content in enumerate(IDX_FILES))),
    perhaps_packed(mutate_idx),
    read_idx,
)

# -- CSV ---------------------------------------------------------------------------------------

CELLS = (
    *("0", "1", "255", "256", "-1", "-0", "+1", "1.5", "1e2", "1e-5", ".5", "5.", "1E+3", "007"),
    *("nan", "-nan", "inf", "-inf", "infinity", "NaN", "1e39", "1e999", "-1e999", "1e-999"),
    *("9007199254740992", "9007199254740993", "1e16", "0x10", "1_0", "1j", "True", "None", "1d5"),
    *("", " ", "  7 ", "\t7", '"7"', '"', '""', '"7', "'7'", "7 8", "#7", "7#", "\0", "7\0"),
    *("\u0663", "\uff17", "\u00a07", "\u20287", "\x857", "\x1c7", "\x0b7", "\ufeff", "\ud7ff"),
    *("9" * 400, "1" * 5000, "0" * 70_000, "." * 300, "e", "-", "+", "--1", "1e", "1e+", "label"),
)
ENDS = (
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\n\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "",
)


def mutate_csv(rng: Random, content: bytes) -> bytes:
    lines = [line.split(",") for line in content.decode("utf-8", "surrogateescape").split("\n")]
    row = rng.choice((0, rng.randrange(len(lines)), len(lines) - 1))
    line = lines[row]
    place = rng.randrange(len(line))
    most = 1 + 2**20 // (1 + sum(map(len, line)))
    end = "\n"
    match rng.randrange(10):
        case 0 | 1 | 2:
            line[place] = rng.choice(CELLS)
        case 3:
            line.insert(place, rng.choice(CELLS))
        case 4:
            del line[place]
        case 5:
            lines[row : row + 1] = [line] * min(most, rng.choice((0, 2, 3, 50, 500)))
        case 6:
            lines.insert(row, [rng.choice(CELLS)] * rng.randrange(8))
        case 7:
            end = rng.choice(ENDS)
        case 8:
            lines[row] = line * min(most, rng.choice((2, 5, 2000)))
        case _:
            lines.insert(0, [rng.choice(("label", "a", "1", '"a,b"', "\ufefflabel")) for _ in line])
    text = end.join(",".join(line) for line in lines)
    return text.encode("utf-8", "surrogateescape")


def read_csv(path: Path) -> None:
    """In several ways: labels may be anywhere, and the first line may be said to be a header."""
    first_error = None
    accepted = False
    for label, header in (("label", None), (0, None), (-1, True), (None, False)):
        shape = (2, 2) if label is not None else (5,)
        try:
            result = load_csv(path, label=label, header=header, shape=shape)
        except ValueError as error:
            # One error is handed on, if all are errors; each must name the file.
            if type(error) is not ValueError or not str(error).startswith(str(path)):
                raise
            first_error = first_error or error
            continue
        accepted = True
        images = result if label is None else result[0]
        assert images.dtype in (np.uint8, np.float32)
        assert images.shape == (len(images), *shape)
        assert np.isfinite(images).all()
        assert images.flags.writeable
        if label is not None:
            assert result[1].dtype == np.int64
            assert result[1].shape == (len(images),)
            assert (result[1] >= 0).all()
    if first_error is not None and not accepted:
        raise first_error


CSV_FILES = (
    b"label,a,b,c,d\n0,1,2,3,4\n9,0,255,7,8\n",
    b"1,2,3,4,5\n6,7,8,9,0\n",
    b"label,a,b,c,d\r\n3,0.5,-1,1e3,300\r\n4,0,0,0,0",
    b'"label","a","b","c","d"\n' + b"1,2,3,4,5\n" * 40,
)
CSV = Parser(
    "csv",
    "images.csv",
    (*CSV_FILES, *(packed(Random(n), content) for n, content in enumerate(CSV_FILES))),
    perhaps_packed(mutate_csv),
    read_csv,
)
