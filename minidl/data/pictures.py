"""Reads a picture of a garment as a network for Fashion-MNIST wants to see it."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from minidl.data.files import open_file

if TYPE_CHECKING:
    from PIL import Image

# No other: some formats have Pillow start other programs, and most are hardly ever read.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
# A file of a few bytes can declare any size, and its pixels take up to 16 bytes each while they are
# decoded. A drawing in few colours may have 400 pixels for each byte, a photograph has under 50.
MOST_PIXELS = 80_000_000
PIXELS_OF_ANY_FILE = 4_000_000
PIXELS_FOR_A_BYTE = 500
MOST_BYTES = 80_000_000


def load_image(
    path: str | os.PathLike[str],
    size: tuple[int, int] = (28, 28),
    *,
    invert: bool | None = None,
) -> npt.NDArray[np.uint8]:
    """Read a PNG, JPEG, GIF or WebP as grey pixels, light on a dark background.

    The picture is scaled, with antialiasing, until it just fits into `size`, keeping its
    proportions. What remains of `size` on two sides is filled with the median of its border. Where
    it is transparent, white shows through. Of an animation, the first picture is read.

    Args:
        path: of the file.
        size: rows and columns of the result.
        invert: whether to turn light into dark and dark into light. If None, that is done to a
            picture whose border (the median of its outermost pixels, once it is scaled) is lighter
            than its middle (the mean of its middle half in height and width): the garments of
            Fashion-MNIST are light on black, those of most photographs dark on white. On all 60,000
            training images of Fashion-MNIST, and on their negatives, this decides rightly.

    Returns:
        (rows, columns), uint8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is not a whole picture in one of the four formats; has
            more than 80 million pixels or bytes; or has more than 4 million pixels, and more than
            500 for each byte of the file beyond these. Or if `size` is not two positive numbers.
    """
    from PIL import Image

    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"expected a size of (rows, columns), each at least 1, got {size}")
    picture = _decoded(Path(path))
    scale = min(size[0] / picture.height, size[1] / picture.width)
    height, width = (max(1, round(side * scale)) for side in (picture.height, picture.width))
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    fitted = np.full(size, _border(pixels), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    fitted[top : top + height, left : left + width] = pixels
    if invert is None:
        invert = _is_dark_on_light(pixels)
    return 255 - fitted if invert else fitted


def _decoded(path: Path) -> Image.Image:
    """The first picture in a file, upright and in 256 shades of grey."""
    from PIL import Image, ImageOps

    try:
        file = open_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: expected a picture, but there is none; check the path"
        ) from None
    with file:
        # Pillow asks files for as many bytes as they declare, which is memory before it is known
        # that there are so many. What is in memory already gives no more than there are.
        content = file.read(MOST_BYTES + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what does not matter here, or ends in an error
        try:
            if len(content) > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES} bytes")
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                _check_pixels(picture.width, picture.height, len(content))
                picture.load()
                # Cameras store pictures as they were held, and beside them how to turn them.
                ImageOps.exif_transpose(picture, in_place=True)
                return _grey(picture)
        except Exception as error:  # Pillow does not say which ones a damaged file can raise
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"{path}: expected a whole picture, PNG, JPEG, GIF or WebP, of at most "
                f"{MOST_PIXELS} pixels, got one that cannot be read: {reason}"
            ) from error


def _check_pixels(width: int, height: int, file_bytes: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels")
    if width * height > PIXELS_OF_ANY_FILE + PIXELS_FOR_A_BYTE * file_bytes:
        raise ValueError(
            f"it has {width} x {height} pixels, which is more than a file of {file_bytes} bytes is "
            "trusted to hold; make it smaller with another program"
        )


def _grey(picture: Image.Image) -> Image.Image:
    """A picture in 256 shades of grey, laid over white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        grey = Image.new("L", picture.size, "white")
        grey.paste(picture.convert("L"), mask=picture.getchannel("A"))
        return grey
    return picture.convert("L")


def _is_dark_on_light(pixels: npt.NDArray[np.uint8]) -> bool:
    height, width = pixels.shape
    middle = pixels[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return _border(pixels) > float(middle.mean())


def _border(pixels: npt.NDArray[np.uint8]) -> int:
    """The median of the outermost pixels."""
    outermost = np.ones(pixels.shape, bool)
    outermost[1:-1, 1:-1] = False
    return int(np.median(pixels[outermost]))
