"""Pictures from files: what comes is what plain arithmetic says, and no file does harm.

Most PNG files are written here byte by byte, and scaled a second time by a plain reference.
"""

import io
import statistics
import struct
import warnings
import zlib

import numpy as np
import pytest
from generated import generated
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFile

from minidl.data import fashion_mnist, load_image, pictures

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # what PNG calls them


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(rows, kind=GREY, bits=8, more=b"", size=None):
    """A PNG file from rows of bytes, without any help from the library that reads it."""
    width, height = size or (len(rows[0]) * 8 // (bits * [1, 0, 3, 1, 2, 0, 4][kind]), len(rows))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(list(row)) for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def load(tmp_path, content, size, **options):
    path = tmp_path / "picture"  # the content tells what it is
    path.write_bytes(content)
    return load_image(path, size, **options)


def saved(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


# -- pixels ------------------------------------------------------------------------------------


def test_grey_pixels_come_as_they_are(tmp_path):
    rows = [[0, 1, 2], [3, 254, 255]]
    image = load(tmp_path, png(rows), (2, 3), invert=False)
    assert image.dtype == np.uint8
    assert image.tolist() == rows
    assert image.flags.writeable
    assert load(tmp_path, png(rows), (2, 3), invert=True).tolist() == [[255, 254, 253], [252, 1, 0]]


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 90), (255, 255, 255)]
)
def test_colours_become_as_bright_as_they_look(tmp_path, colour):
    image = load(tmp_path, png([colour * 2] * 2, RGB), (2, 2), invert=False)
    # ITU-R BT.601, the luma of JPEG and television.
    assert_allclose(image, np.dot(colour, (0.299, 0.587, 0.114)), atol=1)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (51, 212), (128, 147)])
def test_white_shows_through(tmp_path, alpha, expected):
    # 40 * alpha / 255 + 255 * (1 - alpha / 255)
    for content in (
        png([[40, alpha] * 2] * 2, GREY_ALPHA),
        png([[40, 40, 40, alpha] * 2] * 2, RGB_ALPHA),
        png([[1, 1]] * 2, PALETTE, more=chunk(b"PLTE", b"\0\0\0\x28\x28\x28")
            + chunk(b"tRNS", bytes([9, alpha]))),
    ):  # fmt: skip
        assert_allclose(load(tmp_path, content, (2, 2), invert=False), expected, atol=1)


def test_one_colour_may_be_declared_transparent(tmp_path):
    more = chunk(b"tRNS", struct.pack(">3H", 7, 8, 9))
    image = load(tmp_path, png([[7, 8, 9, 0, 0, 0]], RGB, more=more), (1, 2), invert=False)
    assert image.tolist() == [[255, 0]]


def test_sixteen_bits_become_eight(tmp_path):
    numbers = [0, 255, 256, 1000, 32768, 65535]
    row = struct.pack(">6H", *numbers)
    image = load(tmp_path, png([row], GREY, bits=16), (1, 6), invert=False)
    assert image.tolist() == [[number // 256 for number in numbers]]


def test_one_bit_becomes_black_and_white(tmp_path):
    image = load(tmp_path, png([b"\xa5"], GREY, bits=1), (1, 8), invert=False)
    assert image.tolist() == [[255, 0, 255, 0, 0, 255, 0, 255]]


# -- scaling -----------------------------------------------------------------------------------


def lanczos(x):
    return np.sinc(x) * np.sinc(x / 3) if abs(x) < 3 else 0.0


def scaled(rows, length):
    """Columns of `rows` as a weighted mean of what they cover: Lanczos, as wide as they are."""
    width = rows.shape[1]
    scale = width / length
    reach = max(scale, 1.0)
    columns = []
    for place in range(length):
        centre = (place + 0.5) * scale
        weights = np.array([lanczos((column + 0.5 - centre) / reach) for column in range(width)])
        columns.append(rows @ weights / weights.sum())
    return np.clip(np.stack(columns, axis=1), 0, 255)


def fitted(pixels, size):
    """The reference: pixels scaled into `size`, between what the median of their border fills."""
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    pixels = scaled(scaled(pixels.astype(float), width).T, height).T
    inside = {(row, column) for row in range(1, height - 1) for column in range(1, width - 1)}
    border = statistics.median(
        pixels[row, column]
        for row in range(height)
        for column in range(width)
        if (row, column) not in inside
    )
    image = np.full(size, border)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    image[top : top + height, left : left + width] = pixels
    return image


sides = st.integers(1, 40)


@generated
@given(shape=st.tuples(sides, sides), size=st.tuples(sides, sides), seed=st.integers(0, 100))
def test_pictures_are_scaled_into_the_size_and_keep_their_proportions(folder, shape, size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    image = load(folder, png(pixels), size, invert=False)
    assert image.shape == size
    # Rounded to whole numbers between rows and columns, and after them.
    assert_allclose(image, fitted(pixels, size), atol=2)
    assert_array_equal(load(folder, png(pixels), size, invert=True), 255 - image)


def test_a_pattern_finer_than_a_pixel_becomes_its_mean(tmp_path):
    board = np.indices((280, 280)).sum(axis=0) % 2 * 200
    image = load(tmp_path, png(board), (28, 28), invert=False)
    assert_allclose(image, 100, atol=8)


def test_a_tall_picture_stands_in_the_middle(tmp_path):
    rows = [[20] * 10 if row in (0, 19) else [20] + [200] * 8 + [20] for row in range(20)]
    image = load(tmp_path, png(rows), (20, 30))
    assert (image[:, :10] == 20).all()
    assert (image[:, 20:] == 20).all()
    assert_array_equal(image[:, 10:20], np.array(rows))


def test_the_size_is_rows_and_columns(tmp_path):
    assert load(tmp_path, png([[0] * 9] * 9), (5, 7)).shape == (5, 7)
    assert load_image(tmp_path / "picture").shape == (28, 28)
    assert load_image(str(tmp_path / "picture")).shape == (28, 28)


@pytest.mark.parametrize("size", [(0, 28), (28, 0), (-1, 5), (28,), (28, 28, 1)])
def test_sizes_that_are_none(tmp_path, size):
    with pytest.raises(ValueError, match=r"a size of \(rows, columns\), each at least 1, got \("):
        load(tmp_path, png([[0]]), size)


# -- light on dark -----------------------------------------------------------------------------


def framed(border, middle, side=8):
    """A picture with a border of one grey and the rest of another."""
    pixels = np.full((side, side), middle)
    pixels[[0, -1]] = pixels[:, [0, -1]] = border
    return pixels


@pytest.mark.parametrize(
    ("border", "middle", "inverted"),
    [(255, 0, True), (0, 255, False), (101, 100, True), (100, 101, False), (100, 100, False)],
)
def test_a_border_lighter_than_the_middle_is_made_dark(tmp_path, border, middle, inverted):
    content = png(framed(border, middle))
    plain = load(tmp_path, content, (8, 8), invert=False)
    expected = 255 - plain if inverted else plain
    assert_array_equal(load(tmp_path, content, (8, 8)), expected)
    assert_array_equal(load(tmp_path, content, (8, 8), invert=True), 255 - plain)


def test_what_touches_the_border_does_not_count_as_long_as_less_than_half_does(tmp_path):
    dress = framed(255, 60)  # down to the lower edge, and over a corner
    dress[-1] = 60
    dress[:4, 0] = 60
    assert load(tmp_path, png(dress), (8, 8))[0, 4] == 0


def test_the_middle_is_the_middle_half(tmp_path):
    pixels = framed(100, 255, side=12)
    pixels[3:9, 3:9] = 90  # the middle half in height and width, darker than the border
    assert load(tmp_path, png(pixels), (12, 12))[0, 0] == 155
    pixels[3:9, 3:9] = [[109, 90] * 3] * 6
    pixels[3, 3] = 128  # which makes the mean of the middle 100.03
    assert load(tmp_path, png(pixels), (12, 12))[0, 0] == 100


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 1), (1, 9)])
def test_pictures_that_are_all_border(tmp_path, shape):
    for value in (0, 255):
        assert (load(tmp_path, png(np.full(shape, value)), shape) == value).all()


def test_a_transparent_background_becomes_black(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 2:6] = 50, 50, 50, 255
    image = load(tmp_path, png(pixels.reshape(8, 32), RGB_ALPHA), (8, 8))
    assert image[0].tolist() == [0] * 8
    assert image[4].tolist() == [0, 0, *[205] * 4, 0, 0]


def test_fashion_mnist_comes_back_from_pictures_and_from_their_negatives(tmp_path):
    images = fashion_mnist()[1][0][:100]
    for image in images:
        assert_array_equal(load(tmp_path, png(image), (28, 28)), image)
        assert_array_equal(load(tmp_path, png(255 - image), (28, 28)), image)


def test_the_rule_is_right_on_fashion_mnist():
    for image in fashion_mnist()[0][0][::10]:
        assert not pictures._is_dark_on_light(image)
        assert pictures._is_dark_on_light(255 - image)


# -- formats -----------------------------------------------------------------------------------

# Blocks of 8 x 8 pixels, which JPEG stores almost as they are.
BLOCKS = np.kron(np.array([[10, 10, 10], [10, 240, 90], [10, 10, 10]], np.uint8), np.ones((8, 8)))
BLOCKS = Image.fromarray(BLOCKS.astype(np.uint8))


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("JPEG", "L", {"quality": 95}),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("GIF", "L", {}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
    ],
)
def test_formats(tmp_path, format, mode, options):
    content = saved(BLOCKS.convert(mode), format, **options)
    assert_allclose(load(tmp_path, content, (24, 24)), np.asarray(BLOCKS), atol=6)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_picture(tmp_path, format):
    frames = [Image.new("RGB", (6, 6), (shade,) * 3) for shade in (40, 90, 200)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert (load(tmp_path, content, (6, 6)) == 40).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_they_were_held(tmp_path, orientation):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 20
    stored = {  # by the EXIF specification: which side of the scene the first row and column are
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert_array_equal(load(tmp_path, content, (2, 3), invert=False), upright)


# -- what is no picture ------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_every_truncation_is_refused(tmp_path, format):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    whole = saved(Image.fromarray(noise), format)
    load(tmp_path, whole, (16, 16))
    # The last bytes only say that this is the end, and not every reader waits for them.
    for length in range(0, len(whole) - 24, 7):
        with pytest.raises(ValueError, match=r"picture: expected a whole picture, PNG, JPEG, GIF"):
            load(tmp_path, whole[:length], (16, 16))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        saved(BLOCKS, "BMP"),
        saved(BLOCKS, "TIFF"),
        saved(BLOCKS, "PPM"),
    ],
    ids=["empty", "web page", "PostScript", "BMP", "TIFF", "PPM"],
)
def test_other_files_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"picture: expected a whole picture, .*cannot be read"):
        load(tmp_path, content, (28, 28))


@generated
@given(
    format=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]),
    places=st.dictionaries(st.integers(0, 399), st.integers(0, 255), min_size=1, max_size=5),
)
@pytest.mark.filterwarnings("ignore")
def test_damage_gives_a_picture_or_a_refusal(folder, format, places):
    content = bytearray(saved(BLOCKS, format, exif=Image.Exif()))
    for place, byte in places.items():
        content[place % len(content)] = byte
    try:
        assert load(folder, bytes(content), (28, 28)).shape == (28, 28)
    except ValueError as error:
        assert str(error).startswith(f"{folder / 'picture'}: ")  # noqa: PT017


# One more than the limit; more than Pillow warns of; more than Pillow opens; more than there are.
SIZES = [(80_000_001, 1), (10_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)]


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of all pictures whose pixels are asked for."""
    sizes = []
    load = ImageFile.ImageFile.load

    def noted(picture):
        sizes.append(picture.size)
        return load(picture)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    return sizes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_file_that_declares_too_many_pixels_is_not_decoded(tmp_path, decoded, size, action):
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # Pillow warns of some of them
        with pytest.raises(ValueError, match=r"picture: expected .* at most 80000000 pixels, got"):
            load(tmp_path, png([[0]], size=size), (28, 28))
    assert decoded == []
    load(tmp_path, png([[0]]), (28, 28))
    assert (1, 1) in decoded


def test_as_many_pixels_as_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 6)
    assert load(tmp_path, png([[0] * 3] * 2), (2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"at most 6 pixels, .*: it has 7 x 1 pixels"):
        load(tmp_path, png([[0] * 7]), (2, 3))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"boot\.png: expected a picture, but there is none"
    ):
        load_image(tmp_path / "boot.png")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(OSError, match=r"directory|denied"):
        load_image(tmp_path)
