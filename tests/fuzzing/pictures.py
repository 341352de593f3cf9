"""Pictures in the four formats that are read, and how they are broken."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from fuzzing.mutations import Parser, number, replaced, some_bytes
from minidl.data import load_image

Chunks = list[tuple[bytes, bytes]]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def chunks(content: bytes, start: int, order: str, checksum: int, even: bool) -> Chunks:
    """The chunks of a PNG or WebP file, each with what it holds."""
    found = []
    while start + 8 <= len(content):
        if order == ">":
            length, kind = struct.unpack_from(">I4s", content, start)
        else:
            kind, length = struct.unpack_from("<4sI", content, start)
        found.append((kind, content[start + 8 : start + 8 + length]))
        start += 8 + length + checksum + (length % 2 if even else 0)
    return found


KINDS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"iCCP", b"tEXt", b"zTXt", b"iTXt")
KINDS += (b"eXIf", b"acTL", b"fcTL", b"fdAT", b"pHYs", b"sRGB", b"cHRM", b"bKGD", b"\0\0\0\0")
RIFF_KINDS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"XMP ")


def with_number(rng: Random, content: bytes, order: str) -> bytes:
    code = rng.choice("BHI")
    size = struct.calcsize(code)
    here = rng.randrange(len(content) + 1)
    return replaced(content, here, here + size, struct.pack(order + code, number(rng, 8 * size)))


def changed(rng: Random, found: Chunks, order: str, kinds: tuple[bytes, ...]) -> Chunks:
    """Chunks of which one is changed, moved, doubled, left out or put in."""
    place = rng.randrange(len(found))
    kind, content = found[place]
    match rng.randrange(8):
        case 0:
            del found[place]
        case 1:
            other = rng.randrange(len(found))
            found[place], found[other] = found[other], found[place]
        case 2:
            found[place : place + 1] = [found[place]] * rng.choice((2, 3, 30))
        case 3:
            found[place] = rng.choice(kinds), content
        case 4:
            found.insert(place, (rng.choice(kinds), some_bytes(rng)))
        case 5:
            found[place] = kind, content[: rng.randrange(len(content) + 1)]
        case _:
            found[place] = kind, with_number(rng, content, order)
    return found


def mutate_png(rng: Random, content: bytes) -> bytes:
    found = chunks(content, 8, ">", 4, even=False)
    match rng.randrange(5):
        case 0:  # as a header may be, with pixels or without
            width, height = (rng.choice((1, 2, 5, 300, number(rng, 32))) for _ in range(2))
            if width * height < 2**20 and rng.random() < 0.5:
                pixels = zlib.compress(
                    rng.randbytes(rng.choice((0, 10, height * (8 * width + 1)))), 1
                )
                found = [found[0], (b"IDAT", pixels), (b"IEND", b"")]
            depth, kind = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 7))
            rest = bytes([depth, kind, 0, rng.choice((0, 0, 1)), rng.choice((0, 0, 1, 2))])
            found[0] = b"IHDR", struct.pack(">II", width, height) + rest
        case 1:  # text and profiles may be compressed
            length = rng.choice((10, 2**16, 2**20, 2**21))
            text = zlib.compress(bytes(length), 1)
            kind = rng.choice((b"iCCP", b"zTXt", b"iTXt"))
            text = b"name\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + text
            found.insert(1, (kind, text))
        case _:
            found = changed(rng, found, ">", KINDS)
    return content[:8] + b"".join(png_chunk(*chunk) for chunk in found)


def mutate_webp(rng: Random, content: bytes) -> bytes:
    found = changed(rng, chunks(content, 12, "<", 0, even=True), "<", RIFF_KINDS)
    body = b"".join(
        kind + struct.pack("<I", len(inside)) + inside + bytes(len(inside) % 2)
        for kind, inside in found
    )
    length = len(body) + 4 if rng.random() < 0.9 else number(rng, 32)
    return b"RIFF" + struct.pack("<I", length) + b"WEBP" + body


def mutate_jpeg(rng: Random, content: bytes) -> bytes:
    segments = []
    at = 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, at + 2)
        segments.append((content[at : at + 2], content[at + 4 : at + 2 + length]))
        at += 2 + length
    kinds = tuple(bytes([0xFF, n]) for n in (*range(0xC0, 0xE3), 0xED, 0xEE, 0xFE))
    segments = changed(rng, segments, ">", kinds)
    if rng.random() < 0.2:  # Exif, which may say how to turn the picture, and much else
        exif = b"Exif\0\0" + rng.choice((b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")) + some_bytes(rng)
        segments.insert(0, (b"\xff\xe1", exif))
    return (
        content[:2]
        + b"".join(kind + struct.pack(">H", len(s) + 2 & 0xFFFF) + s for kind, s in segments)
        + content[at:]
    )


def mutate_gif(rng: Random, content: bytes) -> bytes:
    frame = content.index(b",")
    place = rng.choice((6, 8, 10, 11, frame + 1, frame + 3, frame + 5, frame + 7, frame + 9))
    size = rng.choice((1, 2))
    code = "BH"[size - 1]
    return replaced(content, place, place + size, struct.pack(f"<{code}", number(rng, 8 * size)))


MUTATIONS: dict[bytes, Callable[[Random, bytes], bytes]] = {
    b"\x89PN": mutate_png,
    b"RIF": mutate_webp,
    b"\xff\xd8\xff": mutate_jpeg,
    b"GIF": mutate_gif,
}


def mutate(rng: Random, content: bytes) -> bytes:
    return MUTATIONS[content[:3]](rng, content)


def read(path: Path) -> None:
    image = load_image(path, (28, 20))
    assert image.dtype == np.uint8
    assert image.shape == (28, 20)


def saved(mode: str, format: str, size: tuple[int, int] = (12, 9), **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise, "RGBA").convert(mode).save(file, format, **options)
    return file.getvalue()


def with_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright
    exif[0x010F] = "a camera"
    return exif


FRAMES = [Image.new("RGB", (9, 12), (shade,) * 3) for shade in (40, 90, 200)]

PICTURE = Parser(
    "picture",
    "picture",
    (
        *(saved(mode, "PNG") for mode in ("L", "RGB", "P", "LA", "RGBA", "1")),
        saved("L", "PNG", exif=with_exif()),
        saved("RGB", "JPEG", exif=with_exif()),
        saved("L", "JPEG"),
        saved("CMYK", "JPEG", progressive=True),
        saved("P", "GIF"),
        saved("RGB", "WEBP", exif=with_exif()),
        saved("RGBA", "WEBP", lossless=True),
        saved("RGB", "GIF", save_all=True, append_images=FRAMES),
        saved("RGB", "PNG", save_all=True, append_images=FRAMES),
        saved("RGB", "WEBP", save_all=True, append_images=FRAMES),
    ),
    mutate,
    read,
)
