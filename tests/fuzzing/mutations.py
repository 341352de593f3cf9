"""Mutations that suit any file: of its bytes, of the numbers among them, and of gzip around it."""

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Parser:
    """A parser and how its files are broken.

    Attributes:
        name: of the parser.
        file: what its files are called.
        seeds: whole files, which it accepts.
        mutate: changes a file as one who knows the format would; may raise anything if the file is
            so broken already that it cannot be taken apart.
        read: reads a file, and asserts that what comes is what the parser promises.
    """

    name: str
    file: str
    seeds: tuple[bytes, ...]
    mutate: Callable[[Random, bytes], bytes]
    read: Callable[[Path], None]


# Around what bytes, words and long words can hold, and around usual limits.
NUMBERS = sorted(
    {
        number + step
        for number in (0, 2**7, 2**8, 2**15, 2**16, 2**24, 2**31, 2**32, 2**53, 2**60, 2**63, 2**64)
        for step in (-2, -1, 0, 1, 2)
        if number + step >= 0
    }
    | {3, 4, 28, 64, 65, 255, 784, 1000, 3072, 3073, 10**6, 10**9, 10**12}
)


def number(rng: Random, bits: int = 64) -> int:
    """A number that some parser might stumble over, of at most so many bits."""
    if rng.random() < 0.4:
        return rng.randrange(min(1 << bits, 40))
    return rng.choice(NUMBERS) % (1 << bits)


def some_bytes(rng: Random, most: int = 40) -> bytes:
    return rng.randbytes(rng.randrange(most))


def replaced(content: bytes, start: int, end: int, new: bytes) -> bytes:
    return content[:start] + new + content[end:]


def blind(rng: Random, content: bytes, others: list[bytes]) -> bytes:
    """A file changed by one who knows nothing about its format.

    Args:
        rng: decides what is done.
        content: of the file.
        others: files, of which parts may be taken.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        here = rng.randrange(len(content) + 1)
        there = min(len(content), here + rng.choice((1, 2, 4, 8, 64, rng.randrange(1, 5000))))
        match rng.randrange(9):
            case 0 if here < len(content):
                content = replaced(
                    content, here, here + 1, bytes([content[here] ^ 1 << rng.randrange(8)])
                )
            case 1 if here < len(content):
                byte = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))])
                content = replaced(content, here, here + 1, byte)
            case 2:
                code = rng.choice("BHIQ")
                size = struct.calcsize(code)
                order = rng.choice("<>")
                new = struct.pack(order + code, number(rng, 8 * size))
                content = replaced(content, here, min(len(content), here + size), new)
            case 3:
                content = content[:here]
            case 4:
                content = replaced(content, here, there, b"")
            case 5:
                content = replaced(content, here, here, content[here:there] * rng.randrange(1, 4))
            case 6:
                content = replaced(content, here, there, some_bytes(rng))
            case 7:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                content = content[:here] + other[start : start + rng.randrange(1, 5000)]
                if rng.random() < 0.5:
                    content += other[there:]
            case _:
                content += some_bytes(rng)
    return content


def perhaps_packed(
    mutate: Callable[[Random, bytes], bytes],
) -> Callable[[Random, bytes], bytes]:
    """A mutation of files that may be gzip: of what is inside, with right checksums, or of gzip."""

    def mutated(rng: Random, content: bytes) -> bytes:
        if content[:2] != b"\x1f\x8b":
            content = mutate(rng, content)
            return packed(rng, content) if rng.random() < 0.1 else content
        if rng.random() < 0.2:
            return _gzip_broken(rng, content)
        inside = mutate(rng, zlib.decompressobj(31).decompress(content, 2**22))
        return inside if rng.random() < 0.1 else packed(rng, inside)

    return mutated


def packed(rng: Random, content: bytes) -> bytes:
    """Gzip, of one member or several."""
    cut = rng.randrange(len(content) + 1) if rng.random() < 0.2 else len(content)
    members = [content[:cut], content[cut:]] if cut < len(content) else [content]
    return b"".join(gzip.compress(part, rng.choice((0, 1, 1, 6)), mtime=0) for part in members)


def _gzip_broken(rng: Random, content: bytes) -> bytes:
    match rng.randrange(7):
        case 0:  # flags, which say that a name, a comment or more fields follow
            return replaced(content, 3, 4, bytes([rng.randrange(256)]))
        case 1:
            return content[:10] + struct.pack("<H", number(rng, 16)) + content[10:]
        case 2:  # checksum and length
            return content[:-8] + struct.pack("<II", number(rng, 32), number(rng, 32))
        case 3:  # zeros follow gzip files on tapes
            return content + bytes(rng.randrange(600))
        case 4:  # a member of nothing, again and again
            return gzip.compress(b"", mtime=0) * rng.randrange(1, 200) + content
        case 5:
            return content + gzip.compress(bytes(rng.choice((1, 2**12, 2**20, 2**23))), 1, mtime=0)
        case _:  # a type of block that there is not
            return replaced(content, 10, 11, bytes([content[10] | 6]))
