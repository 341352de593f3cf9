"""Preparing and augmenting images, whole batches at a time: scaling, flips, crops, rotations.

A transform is called with a batch of images and the generator that its random numbers come from. It
computes on the device that holds the images, and nothing moves between devices meanwhile.
"""

from __future__ import annotations

import math
import numbers
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array, Backend, Generator, array_module, default_generator, on_host
from minidl.kernels.window import Pair, Window, pair

DTYPES = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64))


class Transform(ABC):
    """What is done to a batch of images before a model sees it.

    The result is always a new array, on the device of the images and of their dtype unless the
    transform says otherwise. The images themselves are never changed. Each image of a batch has
    random numbers of its own; the same seed gives the same result on the same device.

    A transform of your own defines `apply`.
    """

    def __call__(self, images: Array, generator: Generator = default_generator) -> Array:
        """The transformed images.

        Args:
            images: (N, H, W) or (N, H, W, C), of dtype uint8, float32 or float64.
            generator: where the randomness comes from; the one that `seed` seeds by default.

        Returns:
            A new array with as many axes.

        Raises:
            TypeError: if images is no array, or of another dtype.
            ValueError: if it is not of such a shape, or does not suit the transform.
        """
        _check(images, type(self).__name__)
        if images.ndim == 4:
            return self.apply(images, generator)
        return self.apply(images[..., None], generator)[..., 0]

    @abstractmethod
    def apply(self, images: Array, generator: Generator) -> Array:
        """The transform of images (N, H, W, C) that have been checked: a new array of four axes."""

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


class Compose(Transform):
    """Several transforms, one after the other.

    Args:
        transforms: at least one, in the order in which they are done.

    Raises:
        ValueError: if there is none.
        TypeError: if something is not a transform.
    """

    def __init__(self, transforms: Iterable[Transform]) -> None:
        self.transforms = list(transforms)
        if not self.transforms:
            raise ValueError("Compose expects at least one transform, got none")
        for transform in self.transforms:
            if not isinstance(transform, Transform):
                raise TypeError(
                    f"Compose expects transforms, got {transform!r}; "
                    "a transform is made with parentheses: HorizontalFlip()"
                )

    def apply(self, images: Array, generator: Generator) -> Array:
        """The result of the last transform."""
        for transform in self.transforms:
            images = transform(images, generator)
        return images


class Rescale(Transform):
    """Multiply every number by `scale`, as Keras's Rescaling; uint8 becomes float32.

    Args:
        scale: the factor; 1 / 255 brings bytes to 0 to 1.

    Raises:
        ValueError: if scale is not a finite number.
    """

    def __init__(self, scale: float = 1 / 255) -> None:
        self.scale = _finite(scale, "scale")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The scaled images."""
        return array_module(images).multiply(images, self.scale, dtype=_floating(images.dtype))


class Normalize(Transform):
    """(x - mean) / std; uint8 becomes float32.

    Bytes are taken as they are, from 0 to 255. For a mean and a deviation of pixels from 0 to 1, as
    PyTorch's tutorials give them, let `Rescale` come before.

    Args:
        mean: one number, or a sequence of one for each channel.
        std: one positive number, or a sequence of one for each channel.

    Raises:
        ValueError: if they are no such numbers; when called, if a sequence does not have one
            for each channel of the images.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean = _per_channel(mean, "mean")
        self.std = _per_channel(std, "std")
        if np.min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {std!r}")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The normalized images."""
        dtype = _floating(images.dtype)
        mean, std = (_operand(values, images, dtype) for values in (self.mean, self.std))
        out = array_module(images).subtract(images, mean, dtype=dtype)
        out /= std
        return out


class Resize(Transform):
    """Images of another size, each pixel a mixture of the four that are nearest to its place.

    Pixels are squares: pixel i of n comes from (i + 0.5) * H / n - 0.5, or from the nearest place
    inside the image. `tf.image.resize` does so, and `torch.nn.functional.interpolate` with
    mode="bilinear" and align_corners=False. For a smaller size, areas are not averaged (there is no
    antialiasing). uint8 is rounded to nearest.

    Args:
        size: the new height and width, one number for both or (height, width).

    Raises:
        ValueError: if size is not positive.
    """

    def __init__(self, size: int | Pair) -> None:
        self.size = pair(size, "size")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The resized images (N, *size, C)."""
        xp = array_module(images)
        dtype = _floating(images.dtype)
        _, height, width, channels = images.shape
        above, below, down = _neighbours(xp, height, self.size[0])
        left, right, along = _neighbours(xp, width, self.size[1])
        rows = _mixed(
            images.take(above, axis=1).astype(dtype, copy=False),
            images.take(below, axis=1).astype(dtype, copy=False),
            down.astype(dtype)[:, None, None],
        )
        out = _mixed(
            rows.take(left, axis=2),
            rows.take(right, axis=2),
            xp.repeat(along.astype(dtype)[:, None], channels, axis=1),
        )
        return _rounded(out, images.dtype)


class HorizontalFlip(Transform):
    """Some of the images mirrored, left to right.

    Args:
        probability: how likely each image is mirrored.

    Raises:
        ValueError: if probability is out of range.
    """

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = _between(probability, 0, 1, "probability")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The images, some of them mirrored."""
        here = backend.of(images)
        xp = here.xp
        count, height, width, channels = images.shape
        mirrored = generator.uniform(here, (count,)) < self.probability
        in_order = xp.arange(width)
        columns = xp.where(mirrored[:, None], width - 1 - in_order, in_order)
        lines = (xp.arange(count * height) * width).reshape(count, height)
        # One gather of pixels: a choice between each image and its mirror image takes as long if
        # they are grey, and four times as long if they have colours.
        pixels = lines[:, :, None] + columns[:, None, :]
        return images.reshape(-1, channels).take(pixels, axis=0)


class RandomCrop(Transform):
    """A part of each image, cut out at a random place after padding it.

    Args:
        size: height and width of the part, one number for both; the image's own if None.
        padding: pixels added on each of the four sides.
        fill: their value.

    Raises:
        ValueError: if size or padding is too small, or fill not finite; when called, if the part is
            larger than the padded image, or fill is not a value of the images' dtype.
    """

    def __init__(self, size: int | Pair | None = None, padding: int = 4, fill: float = 0) -> None:
        self.size = None if size is None else pair(size, "size")
        self.padding = _whole(padding, 0, "padding")
        self.fill = _finite(fill, "fill")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The parts (N, *size, C)."""
        image = images.shape[1], images.shape[2]
        size = self.size or image
        padded = image[0] + 2 * self.padding, image[1] + 2 * self.padding
        if size[0] > padded[0] or size[1] > padded[1]:
            raise ValueError(
                f"RandomCrop cannot cut {size[0]}x{size[1]} pixels out of images of "
                f"{image[0]}x{image[1]}, padded to {padded[0]}x{padded[1]}; "
                "use a smaller size or more padding"
            )
        return _cut_out(_bordered(images, self.padding, self.padding, self.fill), size, generator)


class Shift(Transform):
    """Each image moved by whole pixels, at random.

    Args:
        pixels: the most that it is moved up, down, left or right; every distance is as likely.
        fill: the value of pixels that come from outside.

    Raises:
        ValueError: if pixels is negative, or fill not finite; when called, if fill is not a value
            of the images' dtype.
    """

    def __init__(self, pixels: int, fill: float = 0) -> None:
        self.pixels = _whole(pixels, 0, "pixels")
        self.fill = _finite(fill, "fill")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The moved images."""
        size = images.shape[1], images.shape[2]
        return _cut_out(_bordered(images, self.pixels, self.pixels, self.fill), size, generator)


class Rotation(Transform):
    """Each image turned about its centre by a random angle.

    A pixel is a mixture of the four that are nearest to where it comes from, and of the fill value
    along the border. uint8 is rounded to nearest.

    Args:
        degrees: the largest angle in both directions, from 0 to 180.
        fill: the value of pixels that come from outside.

    Raises:
        ValueError: if degrees is out of range, or fill not finite; when called, if fill is not a
            value of the images' dtype.
    """

    def __init__(self, degrees: float, fill: float = 0) -> None:
        self.degrees = _between(degrees, 0, 180, "degrees")
        self.fill = _finite(fill, "fill")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The turned images."""
        here = backend.of(images)
        xp = here.xp
        count, height, width, channels = images.shape
        dtype = _floating(images.dtype)
        angles = (2 * generator.uniform(here, (count,)) - 1) * math.radians(self.degrees)
        cos, sin = xp.cos(angles).astype(dtype)[:, None], xp.sin(angles).astype(dtype)[:, None]
        middle, centre = (height - 1) / 2, (width - 1) / 2
        y, x = xp.arange(height, dtype=dtype) - middle, xp.arange(width, dtype=dtype) - centre

        # Where each pixel comes from, (N, H, W), counted from a border of one pixel on all sides.
        rows = (cos * y + (middle + 1))[:, :, None] - (sin * x)[:, None, :]
        columns = (sin * y + (centre + 1))[:, :, None] + (cos * x)[:, None, :]
        row, down = _split(rows, height + 1)
        column, along = _split(columns, width + 1)
        down, along = (xp.repeat(share[..., None], channels, axis=3) for share in (down, along))

        # Below and on the right the border is two wide, so that its own pixels have neighbours.
        pixels = _bordered(images, 1, 2, self.fill).reshape(-1, channels)
        line = width + 3
        first = (xp.arange(count) * ((height + 3) * line))[:, None, None]
        nearest = first + row * line + column

        def beyond(steps: int) -> Array:
            return pixels[steps:].take(nearest, axis=0).astype(dtype, copy=False)

        upper = _mixed(beyond(0), beyond(1), along)
        lower = _mixed(beyond(line), beyond(line + 1), along)
        return _rounded(_mixed(upper, lower, down), images.dtype)


class Cutout(Transform):
    """Each image with a square erased at a random place [1].

    The centre of the square is any pixel of the image, so that a part of it may lie outside.

    Args:
        size: side of the square in pixels.
        probability: how likely each image loses a square.
        fill: what is written there.

    Raises:
        ValueError: if size is not positive, probability out of range, or fill not finite; when
            called, if fill is not a value of the images' dtype.

    [1] T. DeVries, G. W. Taylor: Improved regularization of convolutional neural networks with
        Cutout, 2017.
    """

    def __init__(self, size: int, probability: float = 1.0, fill: float = 0) -> None:
        self.size = _whole(size, 1, "size")
        self.probability = _between(probability, 0, 1, "probability")
        self.fill = _finite(fill, "fill")

    def apply(self, images: Array, generator: Generator) -> Array:
        """The images without their squares."""
        here = backend.of(images)
        xp = here.xp
        count, height, width, channels = images.shape
        drawn = generator.uniform(here, (3, count))
        rows = self._erased(xp, height, drawn[0])
        rows &= (drawn[2] < self.probability)[:, None]
        columns = xp.repeat(self._erased(xp, width, drawn[1])[:, None, :, None], channels, axis=3)
        out = images.copy()
        xp.copyto(out, _fill_of(images, self.fill), where=rows[:, :, None, None] & columns)
        return out

    def _erased(self, xp: Any, pixels: int, uniform: Array) -> Array:
        """Which rows, or columns, of each image the square covers: booleans (N, pixels)."""
        first = _below(pixels, uniform) - self.size // 2
        beyond = xp.arange(pixels) - first[:, None]
        return (beyond >= 0) & (beyond < self.size)


def _bordered(images: Array, before: int, after: int, fill: float) -> Array:
    """The images with so many pixels added at the top and on the left, and below and on the right.

    Raises ValueError if fill is not a value of their dtype.
    """
    count, height, width, channels = images.shape
    shape = count, before + height + after, before + width + after, channels
    out = array_module(images).full(shape, _fill_of(images, fill), dtype=images.dtype)
    out[:, before : before + height, before : before + width] = images
    return out


def _cut_out(images: Array, size: Pair, generator: Generator) -> Array:
    """A part of each image, at a random place: (N, *size, C)."""
    here = backend.of(images)
    window = Window(size)
    places = window.positions((images.shape[1], images.shape[2]))
    drawn = generator.uniform(here, (2, len(images)))
    top, left = _below(places[0], drawn[0]), _below(places[1], drawn[1])
    return window.patches(images, places)[0, 0][here.xp.arange(len(images)), top, left]


def _below(count: int, uniform: Array) -> Array:
    """Whole numbers from 0 to count - 1, made of uniform numbers below 1."""
    # In float64 no product with a number below 1 is rounded up to `count`; in float32 some are.
    return (uniform * count).astype(np.intp)


def _neighbours(xp: Any, pixels: int, new: int) -> tuple[Array, Array, Array]:
    """Where each of `new` pixels comes from: the pixel before, the one after, and its share."""
    places = (xp.arange(new) + 0.5) * (pixels / new) - 0.5
    before, share = _split(places, pixels - 1)
    return before, xp.minimum(before + 1, pixels - 1), share


def _split(places: Array, last: int) -> tuple[Array, Array]:
    """Places, brought between 0 and `last`, as whole numbers and what goes beyond them.

    The places are overwritten.
    """
    xp = array_module(places)
    xp.clip(places, 0, last, out=places)
    whole = xp.floor(places)
    places -= whole
    return whole.astype(np.intp), places


def _mixed(a: Array, b: Array, share: Array) -> Array:
    """(1 - share) * a + share * b, which overwrites b."""
    b -= a
    b *= share
    b += a
    return b


def _floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to compute in: float32 for uint8."""
    return dtype if dtype.kind == "f" else np.dtype(np.float32)


def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers in the dtype of the images that they came from; overwritten if that is uint8."""
    if dtype.kind == "f":
        return values
    return array_module(values).rint(values, out=values).astype(dtype)


def _operand(values: float | tuple[float, ...], images: Array, dtype: np.dtype[Any]) -> Any:
    """A number, or numbers for each channel as an array (W, C) beside images (N, H, W, C)."""
    if isinstance(values, float):
        return values
    width, channels = images.shape[2:]
    if len(values) != channels:
        raise ValueError(
            f"Normalize has numbers for {len(values)} channels, got images with {channels}"
        )
    return _line(backend.of(images), values, width, dtype)


@lru_cache(maxsize=64)
def _line(here: Backend, values: tuple[float, ...], width: int, dtype: np.dtype[Any]) -> Array:
    """The numbers of each channel for a line of pixels, (W, C).

    A line, since broadcasting short rows is slow; kept, so that not every batch waits until it has
    been moved to a device.
    """
    return here.asarray(np.array([values] * width, dtype))


def _check(images: Any, name: str) -> None:
    """Raise TypeError or ValueError unless these are images that transforms take."""
    try:
        backend.of(images)
    except TypeError:
        raise TypeError(
            f"{name} expects a NumPy or CuPy array of images, got {type(images).__name__}; "
            "convert it with numpy.asarray"
        ) from None
    if images.dtype not in DTYPES:
        raise TypeError(
            f"{name} expects images of dtype uint8, float32 or float64, got {images.dtype}; "
            "convert them with .astype"
        )
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise ValueError(
            f"{name} expects a batch of images (N, H, W) or (N, H, W, C), each of at least one "
            f"pixel, got shape {images.shape}; one image makes a batch as image[None]"
        )


def _fill_of(images: Array, fill: float) -> float:
    """The fill value as a number of the images' dtype. Raises ValueError if it is none."""
    if images.dtype.kind == "f":
        return fill
    if not 0 <= fill <= 255 or not fill.is_integer():
        raise ValueError(f"fill must be an integer from 0 to 255 for uint8 images, got {fill!r}")
    return int(fill)


def _finite(value: Any, name: str) -> float:
    """A finite number. Raises ValueError, naming the argument, for anything else."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _between(value: Any, least: float, most: float, name: str) -> float:
    """A number within bounds. Raises ValueError, naming the argument, for anything else."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if not least <= number <= most:
        raise ValueError(f"{name} must be a number from {least} to {most}, got {value!r}")
    return number


def _whole(value: Any, least: int, name: str) -> int:
    """An integer of at least so much. Raises ValueError, naming the argument, for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return number


def _per_channel(values: Any, name: str) -> float | tuple[float, ...]:
    """One finite number or a sequence of them. Raises ValueError for anything else."""
    array = on_host(values)
    listable = array.dtype.kind in "fiu" and array.ndim < 2 and array.size > 0
    if not listable or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be a finite number, or a sequence of one for each channel, got {values!r}"
        )
    listed = array.astype(np.float64).tolist()
    return tuple(listed) if array.ndim else listed
