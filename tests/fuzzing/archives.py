"""CIFAR-10's archives and the pickles in them, and how they are broken.

The archives here have not the published checksums, so that `cifar10` would not look into them. It
is what comes after the checksum that is tried.
"""

import importlib
import io
import pickletools
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import python2_pickles

from fuzzing.mutations import Parser, number, packed, perhaps_packed, replaced, some_bytes
from minidl.data.cifar10 import parse_python_batch

# The function of the same name hides the module from a plain import.
cifar10 = importlib.import_module("minidl.data.cifar10")

BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
RECORD = 3073


def check_batch(batch: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = batch
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (len(labels), 32, 32, 3)
    assert (labels < 10).all()
    assert images.flags.owndata


def read_archive(path: Path) -> None:
    with path.open("rb") as file:
        train, test = cifar10._read_archive(file, path)
    check_batch(train)
    check_batch(test)


# -- pickles -----------------------------------------------------------------------------------

FRAGMENTS = (
    *(b"N", b"\x88", b"\x89", b"(", b")", b"]", b"}", b"t", b"e", b"u", b"a", b"s", b"R", b"b"),
    *(b"0", b"1", b"2", b".", b"\x85", b"\x86", b"\x87", b"Q", b"o", b"c", b"\x81", b"\x92"),
    *(b"cos\nsystem\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n"),
    *(b"I1\n", b"I01\n", b"Ix\n", b"L5L\n", b"F1.5\n", b"S'a'\n", b"Va\n", b"p0\n", b"g0\n"),
    *(b"\x80\x05", b"\x95" + b"\xff" * 8, b"\x8a\x09" + b"\xff" * 9, b"\x8b\xff\xff\xff\x7f"),
    *(b"T\xff\xff\xff\x7f", b"T\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"U\xff", b"K\x05"),
    *(b"C\x01a", b"B\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"\x96" + b"\xff" * 8),
    *(b"I" + b"9" * 5000 + b"\n", b"L" + b"9" * 5000 + b"L\n", b"J\xff\xff\xff\xff"),
    b"q\x00" + b"h\x00h\x00\x86q\x00" * 60,  # tuples of tuples: a tree of 2**60 leaves
    b"]q\x00h\x00a" * 20,
    b"(" * 500,
    b"\x85" * 3000,
)


def mutate_pickle(rng: Random, content: bytes) -> bytes:
    starts = [at for _, _, at in pickletools.genops(content)]
    pieces = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    # What matters is at the beginning and around the arrays: long lists of labels are all alike.
    place = rng.randrange(len(pieces))
    match rng.randrange(7):
        case 0:
            del pieces[place]
        case 1:
            pieces.insert(place, rng.choice(FRAGMENTS))
        case 2:
            pieces[place] = rng.choice(FRAGMENTS)
        case 3:
            other = rng.randrange(len(pieces))
            pieces[place], pieces[other] = pieces[other], pieces[place]
        case 4:
            pieces[place : place + 1] = [pieces[place]] * rng.choice((2, 3, 100))
        case 5:  # another argument
            piece = pieces[place]
            size = len(piece) - 1
            if size in (1, 2, 4):
                new = struct.pack(f"<{' BH I'[size]}", number(rng, 8 * size))
                pieces[place] = piece[:1] + new
            else:
                pieces[place] = piece[:1] + some_bytes(rng)
        case _:
            end = rng.randrange(place, min(len(pieces), place + 20)) + 1
            pieces[place:end] = pieces[place:end] * 2
    return b"".join(pieces)


def python_batch(count: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)
    batch = {
        b"batch_label": b"testing batch 1 of 1",
        b"labels": [n % 10 for n in range(count)],
        b"data": pixels,
        b"filenames": [b"picture_%06d.png" % n for n in range(count)],
    }
    return python2_pickles.dumps(batch)


def read_pickle(path: Path) -> None:
    check_batch(parse_python_batch(path.read_bytes(), str(path)))


PICKLE = Parser(
    "pickle",
    "test_batch",
    (python_batch(1, 0), python_batch(3, 1), python_batch(40, 2)),
    mutate_pickle,
    read_pickle,
)

# -- archives ----------------------------------------------------------------------------------

TYPES = b"0\x001234567LKSVDNMXxg\xff "


def mutate_binary_batch(rng: Random, content: bytes) -> bytes:
    match rng.randrange(3):
        case 0:
            place = rng.randrange(len(content) // RECORD) * RECORD
            return replaced(content, place, place + 1, bytes([number(rng, 8)]))
        case 1:
            return content[: number(rng, 16)]
        case _:
            return content * rng.randrange(4)


def entries(content: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an archive, each with what follows it."""
    found = []
    at = 0
    while len(header := content[at : at + 512]) == 512 and any(header):
        size = tarfile.nti(header[124:136])
        end = at + 512 + -(-size // 512) * 512
        found.append((header, content[at + 512 : end]))
        at = end
    return found


def summed(header: bytes) -> bytes:
    """A header with the right checksum."""
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    return header[:148] + b"%06o\0 " % total + header[156:]


def pax(rng: Random) -> tuple[bytes, bytes]:
    """An entry that says something of the next one, or of all."""
    key = rng.choice(("size", "path", "linkpath", "hdrcharset", "uid", "mtime", "atime"))
    key = rng.choice((key, "GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size"))
    value = rng.choice(
        (str(number(rng)), "-1", "x", "", "../../etc/passwd", "1.5", "9" * 50, "nan")
    )
    record = f" {key}={value}\n".encode()
    length = len(record) + 2 if rng.random() < 0.8 else number(rng)
    record = str(length).encode() + record
    header = tarfile.TarInfo("pax")
    header.size = len(record) if rng.random() < 0.9 else number(rng, 33)
    header.type = rng.choice((b"x", b"g", b"L", b"K", b"S"))
    return header.tobuf(tarfile.GNU_FORMAT), record + bytes(-len(record) % 512)


def mutate_archive(
    mutate_batch: Callable[[Random, bytes], bytes],
) -> Callable[[Random, bytes], bytes]:
    """A mutation of tar archives, which breaks the batches in them by another one."""

    def mutated(rng: Random, content: bytes) -> bytes:
        members = entries(content)
        place = rng.randrange(len(members))
        header, body = members[place]
        match rng.randrange(8):
            case 0 | 1:
                size = tarfile.nti(header[124:136])
                body = mutate_batch(rng, body[:size])
                header = replaced(header, 124, 136, b"%011o\0" % len(body))
                members[place] = summed(header), body + bytes(-len(body) % 512)
            case 2:
                size = rng.choice(
                    (
                        b"%011o\0" % number(rng, 33),
                        b"\x80" + rng.choice(NUMBERS_OF_11),
                        b"\xff" * 12,
                        b"-0000000001\0",
                        b"x" * 12,
                    )
                )
                members[place] = summed(replaced(header, 124, 136, size)), body
            case 3:
                start, end = rng.choice(((0, 100), (157, 257), (257, 265), (345, 500), (100, 124)))
                new = rng.choice((b"../../x", b"/etc/passwd", b"\xff" * 9, some_bytes(rng)))
                new = new[: end - start].ljust(end - start, b"\0")
                members[place] = summed(replaced(header, start, end, new)), body
            case 4:
                kind = bytes([rng.choice(TYPES)])
                members[place] = summed(replaced(header, 156, 157, kind)), body
            case 5:
                other = rng.randrange(len(members))
                members[place], members[other] = members[other], members[place]
            case 6:
                members[place : place + 1] = [(header, body)] * rng.choice((0, 2, 5))
            case _:
                members.insert(place, pax(rng))
        return b"".join(header + body for header, body in members) + bytes(1024)

    return mutated


NUMBERS_OF_11 = [n.to_bytes(11, "big") for n in (0, 5, 2**24, 2**25, 2**40, 2**63, 2**80)]


def archive(names: str, batches: list[bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in zip(BATCHES, batches, strict=True):
            header = tarfile.TarInfo(names.format(name))
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    # Archives are filled up to blocks of 20 records with zeros.
    return packed(Random(0), file.getvalue().rstrip(b"\0") + bytes(2048))


def binary_batch(count: int) -> bytes:
    return b"".join(bytes([n % 10]) + bytes([n]) * 3072 for n in range(count))


CIFAR10_BINARY = Parser(
    "cifar10-binary",
    "cifar-10-binary.tar.gz",
    (archive("cifar-10-batches-bin/{}.bin", [binary_batch(n) for n in (1, 2, 1, 1, 1, 3)]),),
    perhaps_packed(mutate_archive(mutate_binary_batch)),
    read_archive,
)
CIFAR10_PYTHON = Parser(
    "cifar10-python",
    "cifar-10-python.tar.gz",
    (archive("cifar-10-batches-py/{}", [python_batch(1, n) for n in range(6)]),),
    perhaps_packed(mutate_archive(mutate_pickle)),
    read_archive,
)
