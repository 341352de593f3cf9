"""Transforms of images: against loops over single images, on both devices, and what chance does."""

import math

import numpy as np
import pytest
import stand_in
from generated import SEEDS, generated, laid_out
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import numbers

import minidl
from minidl import (
    Compose,
    Cutout,
    Generator,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    Rescale,
    Resize,
    Rotation,
    Shift,
    Transform,
    backend,
)
from minidl.backend import CPU

ALMOST_ONE = math.nextafter(1, 0)


class Drawn:
    """In the place of a generator: the same numbers on every device, extreme ones too."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def uniform(self, backend, shape):
        values = self.rng.random(shape)
        values[self.rng.random(shape) < 0.25] = 0
        values[self.rng.random(shape) < 0.25] = ALMOST_ONE
        return backend.asarray(values)


class Always:
    """In the place of a generator: one number, whatever is asked for."""

    def __init__(self, value):
        self.value = value

    def uniform(self, backend, shape):
        return backend.asarray(np.full(shape, self.value))


def pictures(shape, dtype, seed=0):
    """Bytes from 0 to 255, or numbers from -2 to 2."""
    values = numbers(shape, seed)
    return ((values + 2) * 64).astype(dtype) if dtype == np.uint8 else values.astype(dtype)


@st.composite
def batches(draw, channels=None):
    """0 to 4 images, (N, H, W) or (N, H, W, C), of all dtypes and layouts, not to be written to."""
    count = draw(st.sampled_from([2, 4, 1, 0]))
    shape = [count, draw(st.integers(1, 7)), draw(st.integers(1, 7))]
    if channels or draw(st.booleans()):
        shape.append(channels or draw(st.integers(1, 3)))
    dtype = draw(st.sampled_from([np.uint8, np.float32, np.float64]))
    plain = pictures(shape, dtype, draw(SEEDS))
    # the other layouts surround the images with NaN, which bytes cannot hold
    layouts = ["plain", "fortran", "backwards"]
    if dtype != np.uint8:
        layouts += ["every second", "inside"]
    return laid_out(plain, draw(st.sampled_from(layouts)))


def one_by_one(images, transform):
    """The results of a function of the number of an image and of the image, (H, W, C)."""
    coloured = images if images.ndim == 4 else images[..., None]
    done = [transform(i, image) for i, image in enumerate(coloured)]
    out = np.stack(done) if done else coloured
    return out if images.ndim == 4 else out[..., 0]


def assert_same(out, expected, images):
    """The expected numbers, and the dtype of the images; the shape too if there is any image."""
    assert out.dtype == images.dtype
    assert len(out) == len(images)
    if len(images):
        assert_array_equal(out, expected)


def assert_near(out, expected, images):
    """Numbers computed in another way; bytes are rounded to nearest, ties either way."""
    assert out.dtype == images.dtype
    assert len(out) == len(images)
    if len(images):
        assert out.shape == expected.shape
        tolerance = {"u": 0.5001, "f": {4: 2e-5, 8: 1e-13}.get(images.itemsize)}[images.dtype.kind]
        assert_allclose(out.astype(np.float64), expected, rtol=0, atol=tolerance)


def of_class(transform):
    return type(transform).__name__


def fills(images):
    return 7 if images.dtype == np.uint8 else -0.75


# Against loops


@generated
@given(images=batches(), probability=st.sampled_from([0, 0.3, 0.5, 1]), seed=SEEDS)
def test_a_flip_mirrors_the_images_that_chance_picks(images, probability, seed):
    drawn = Drawn(seed).uniform(CPU, (len(images),))

    def flipped(i, image):
        if drawn[i] >= probability:
            return image
        out = image.copy()
        for column in range(image.shape[1]):
            out[:, column] = image[:, image.shape[1] - 1 - column]
        return out

    out = HorizontalFlip(probability)(images, Drawn(seed))
    assert_same(out, one_by_one(images, flipped), images)


def part(image, top, left, size, fill):
    """What lies in a frame whose upper left corner is anywhere, pixel by pixel."""
    out = np.full((*size, image.shape[2]), fill, image.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = top + row, left + column
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                out[row, column] = image[y, x]
    return out


@generated
@given(images=batches(), padding=st.integers(0, 4), data=st.data(), seed=SEEDS)
def test_a_crop_is_a_part_of_the_padded_image(images, padding, data, seed):
    padded = [pixels + 2 * padding for pixels in images.shape[1:3]]
    size = tuple(data.draw(st.integers(1, pixels)) for pixels in padded)
    drawn = Drawn(seed).uniform(CPU, (2, len(images)))

    def cropped(i, image):
        top, left = (int(drawn[a, i] * (padded[a] - size[a] + 1)) - padding for a in (0, 1))
        return part(image, top, left, size, fills(images))

    out = RandomCrop(size, padding, fills(images))(images, Drawn(seed))
    assert out.shape == (len(images), *size, *images.shape[3:])
    assert_same(out, one_by_one(images, cropped), images)


@generated
@given(images=batches(), pixels=st.integers(0, 9), seed=SEEDS)
def test_a_shift_moves_each_image(images, pixels, seed):
    drawn = Drawn(seed).uniform(CPU, (2, len(images)))

    def moved(i, image):
        down, right = (pixels - int(u * (2 * pixels + 1)) for u in drawn[:, i])
        return part(image, -down, -right, image.shape[:2], fills(images))

    out = Shift(pixels, fills(images))(images, Drawn(seed))
    assert_same(out, one_by_one(images, moved), images)


@generated
@given(
    images=batches(),
    size=st.integers(1, 16),
    probability=st.sampled_from([0, 0.5, 1]),
    seed=SEEDS,
)
def test_cutout_erases_a_square_about_a_pixel(images, size, probability, seed):
    drawn = Drawn(seed).uniform(CPU, (3, len(images)))

    def cut(i, image):
        out = image.copy()
        top, left = (int(drawn[a, i] * image.shape[a]) - size // 2 for a in (0, 1))
        for y in range(image.shape[0]):
            for x in range(image.shape[1]):
                inside = top <= y < top + size and left <= x < left + size
                if inside and drawn[2, i] < probability:
                    out[y, x] = fills(images)
        return out

    out = Cutout(size, probability, fills(images))(images, Drawn(seed))
    assert_same(out, one_by_one(images, cut), images)


def between(image, y, x, fill):
    """The bilinear mixture at a place, of an image that goes on with the fill value."""
    total = np.zeros(image.shape[2])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            on_it = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
            total += weight * (image[row, column].astype(np.float64) if on_it else fill)
    return total


@generated
@given(images=batches(), degrees=st.sampled_from([0, 10, 45, 90, 180]), seed=SEEDS)
def test_a_rotation_turns_each_image_about_its_centre(images, degrees, seed):
    drawn = Drawn(seed).uniform(CPU, (len(images),))

    def turned(i, image):
        angle = math.radians((2 * drawn[i] - 1) * degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        middle, centre = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
        out = np.empty(image.shape)
        for row in range(image.shape[0]):
            for column in range(image.shape[1]):
                y, x = row - middle, column - centre
                y, x = cos * y - sin * x + middle, sin * y + cos * x + centre
                out[row, column] = between(image, y, x, fills(images))
        return out

    out = Rotation(degrees, fills(images))(images, Drawn(seed))
    assert_near(out, one_by_one(images, turned), images)


@generated
@given(images=batches(), size=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_resize_mixes_the_four_nearest_pixels(images, size):
    def resized(_, image):
        out = np.empty((*size, image.shape[2]))
        for row in range(size[0]):
            for column in range(size[1]):
                y = (row + 0.5) * image.shape[0] / size[0] - 0.5
                x = (column + 0.5) * image.shape[1] / size[1] - 0.5
                y, x = (min(max(v, 0), n - 1) for v, n in zip((y, x), image.shape, strict=False))
                out[row, column] = between(image, y, x, fill=0)
        return out

    out = Resize(size)(images)
    assert out.shape == (len(images), *size, *images.shape[3:])
    assert_near(out, one_by_one(images, resized), images)


@generated
@given(images=batches(channels=3), per_channel=st.booleans())
def test_normalize_and_rescale_compute_their_formulas(images, per_channel):
    mean, std = ([0.1, -0.2, 0.3], [0.5, 1.0, 3.0]) if per_channel else (0.1307, 0.3081)
    dtype = np.float32 if images.dtype == np.uint8 else images.dtype
    precise = images.astype(np.float64)

    normalized, scaled = Normalize(mean, std)(images), Rescale(0.1)(images)

    assert normalized.dtype == scaled.dtype == dtype
    tolerance = {4: 3e-7, 8: 1e-15}[normalized.itemsize]
    expected = (precise - np.array(mean)) / np.array(std)
    assert_allclose(normalized, expected, rtol=tolerance, atol=tolerance)
    assert_allclose(scaled, precise * 0.1, rtol=tolerance)


# What holds for each of them

ALL = [
    HorizontalFlip(),
    HorizontalFlip(0),
    RandomCrop(),
    RandomCrop((2, 3), padding=1, fill=1),
    Shift(2),
    Shift(0),
    Rotation(30),
    Rotation(0, fill=9),
    Resize((4, 5)),
    Resize((3, 4)),
    Rescale(),
    Normalize(0.5, 0.25),
    Normalize([0.5], (0.25,)),
    Cutout(2),
    Compose([HorizontalFlip(), Shift(1), Rescale(), Normalize(0.1307, 0.3081)]),
]
each = pytest.mark.parametrize("transform", ALL, ids=of_class)
TO_FLOAT = (Rescale, Normalize, Compose)


@each
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_result_is_a_new_array_and_the_input_is_unchanged(transform, dtype, count):
    images = pictures((count, 3, 4, 1), dtype)
    before = images.tobytes()

    out = transform(images, Generator(0))

    assert type(out) is np.ndarray
    floats = isinstance(transform, TO_FLOAT) and dtype == np.uint8
    assert out.dtype == (np.float32 if floats else dtype)
    assert not np.shares_memory(out, images)
    out[...] = 1  # nobody else's, and not read-only
    assert images.tobytes() == before
    grey = transform(images[..., 0], Generator(0))
    assert_array_equal(grey, transform(images, Generator(0))[..., 0])
    assert grey.shape == out.shape[:3]


@each
def test_the_same_seed_gives_the_same_result(transform):
    images = pictures((50, 3, 4, 1), np.float32)
    one, two = Generator(3), Generator(3)
    first = transform(images, one), transform(images, one)
    again = transform(images, two), transform(images, two)
    assert_array_equal(first, again)
    minidl.seed(3)  # the default generator
    assert_array_equal(transform(images), first[0])


@pytest.mark.parametrize(
    "transform", [HorizontalFlip(), RandomCrop(), Shift(2), Rotation(30), Cutout(2)], ids=of_class
)
def test_another_call_and_another_seed_give_other_results(transform):
    images = pictures((50, 3, 4, 1), np.float32)
    generator = Generator(3)
    first = transform(images, generator)
    assert not np.array_equal(transform(images, generator), first)
    assert not np.array_equal(transform(images, Generator(4)), first)


@pytest.mark.parametrize(
    "transform",
    [
        HorizontalFlip(0),
        RandomCrop(padding=0),
        Shift(0, fill=5),
        Rotation(0, fill=5),
        Resize((6, 5)),
        Cutout(3, probability=0),
    ],
    ids=of_class,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_nothing_to_do_leaves_every_number_as_it_is(transform, dtype):
    images = pictures((20, 6, 5, 2), dtype)
    assert transform(images).tobytes() == images.tobytes()


# On the device


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("transform", [*ALL, Normalize([0.1, 0.2, 0.3], [1, 2, 3])], ids=of_class)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_device_gives_what_the_cpu_gives(transform, dtype):
    channels = len(transform.mean) if isinstance(getattr(transform, "mean", 0), tuple) else 1
    images = pictures((20, 3, 4, channels), dtype)
    there = backend.named("gpu").asarray(images.copy())
    out = transform(there, Drawn(0))
    assert backend.of(out).device == "gpu"
    expected = transform(images, Drawn(0))
    assert out.dtype == expected.dtype
    assert_array_equal(backend.on_host(out), expected)
    assert_array_equal(backend.on_host(there), images)


@pytest.mark.usefixtures("stand_in_device")
def test_nothing_moves_between_devices_for_a_batch():
    steps = [HorizontalFlip(), RandomCrop(6), Shift(2), Rotation(30), Resize(5), Cutout(2)]
    transform = Compose([*steps, Rescale(), Normalize([0.1, 0.2, 0.3], [1, 2, 3])])
    images = stand_in.asarray(pictures((5, 3, 4, 3), np.uint8))
    generator = Generator(0)
    transform(images, generator)  # the numbers of Normalize move once
    stand_in.transfers.clear()
    assert transform(images, generator).shape == (5, 5, 5, 3)
    assert not stand_in.transfers


# What chance does


def within(share, expected, count):
    """Whether a share of so many draws is within five standard deviations of what is expected."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_as_many_images_are_flipped_as_asked_for(probability):
    images = np.zeros((10_000, 1, 2), np.uint8)
    images[:, 0, 0] = 1
    out = HorizontalFlip(probability)(images, Generator(0))
    share = out[:, 0, 1].mean()
    assert share == probability or within(share, probability, len(images))


@pytest.mark.parametrize("make", [HorizontalFlip, lambda probability: Cutout(2, probability)])
def test_probabilities_of_zero_and_one_are_certain(make):
    images = pictures((3, 4, 5), np.float32)
    assert_array_equal(make(0)(images, Always(0.0)), images)
    changed = make(1)(images, Always(ALMOST_ONE)) != images
    assert changed.any((1, 2)).all()


@pytest.mark.parametrize("transform", [Shift(2), RandomCrop(padding=2)], ids=of_class)
def test_every_offset_is_as_likely(transform):
    images = np.zeros((10_000, 5, 5), np.float32)
    images[:, 2, 2] = 1
    out = transform(images, Generator(0))
    assert_array_equal(out.sum((1, 2)), 1)
    for place in np.ndindex(5, 5):
        assert within(out[:, *place].mean(), 1 / 25, len(images)), place


def test_a_crop_starts_at_every_place():
    images = np.broadcast_to(np.arange(20, dtype=np.uint8).reshape(4, 5), (10_000, 4, 5))
    corners = RandomCrop((3, 2), padding=0)(images, Generator(0))[:, 0, 0]
    values, counts = np.unique(corners, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert all(within(n / len(images), 1 / 8, len(images)) for n in counts)


def test_every_pixel_is_as_likely_the_centre_of_a_cutout():
    images = np.ones((12_000, 3, 4, 1), np.uint8)
    out = Cutout(1, probability=0.5)(images, Generator(0))
    erased = (1 - out).sum((1, 2, 3))
    assert within(erased.mean(), 0.5, len(images))
    for place in np.ndindex(3, 4):
        assert within(1 - out[:, *place].mean(), 0.5 / 12, len(images)), place


def test_angles_are_spread_evenly_over_both_directions():
    # Where each pixel is the number of its row, the right neighbour of the centre tells the sine.
    images = np.broadcast_to(np.arange(5.0)[:, None], (10_000, 5, 5))
    angles = np.degrees(np.arcsin(2 - Rotation(40)(images, Generator(0))[:, 2, 3]))
    assert np.abs(angles).max() <= 40
    for edge in (-30, -20, 0, 10, 35):
        assert within((angles < edge).mean(), (edge + 40) / 80, len(angles))


def test_a_quarter_turn():
    images = pictures((2, 5, 5, 3), np.float64)
    for value, turns in ((0.0, 1), (ALMOST_ONE, -1)):
        out = Rotation(90, fill=100)(images, Always(value))
        assert_allclose(out, np.rot90(images, turns, axes=(1, 2)), rtol=0, atol=1e-12)


# Values computed by hand, and by PyTorch


@pytest.mark.parametrize(
    ("row", "width", "expected"),
    [
        ([0, 10], 4, [0, 2.5, 7.5, 10]),  # from -0.25, 0.25, 0.75, 1.25
        ([0, 10, 20, 30], 2, [5, 25]),  # from 0.5, 2.5
        ([0, 10, 20, 30], 1, [15]),
        ([0, 30, 90], 2, [7.5, 75]),  # from 0.25, 1.75
        ([4], 3, [4, 4, 4]),
    ],
)
def test_resize_gives_what_is_computed_by_hand(row, width, expected):
    image = np.array([[row]], np.float32)
    assert Resize((1, width))(image).tolist() == [[expected]]
    upright = image.transpose(0, 2, 1)
    assert Resize((width, 1))(upright)[0, :, 0].tolist() == expected
    rounded = [round(value) for value in expected]  # 2.5 to 2 and 7.5 to 8: ties to even
    assert Resize((1, width))(image.astype(np.uint8)).tolist() == [[rounded]]


def test_resize_of_a_square_takes_one_number():
    assert Resize(5)(np.zeros((2, 3, 4), np.uint8)).shape == (2, 5, 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [(32, 32), (14, 14), (7, 40), (28, 28), (1, 1), (13, 27)])
def test_resize_is_what_pytorch_computes(size, dtype):
    torch = pytest.importorskip("torch")
    images = pictures((3, 28, 28, 2), dtype)
    channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.interpolate(
        channels_first, size=size, mode="bilinear", align_corners=False, antialias=False
    )
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    expected = expected.numpy().transpose(0, 2, 3, 1)
    assert_allclose(Resize(size)(images), expected, rtol=0, atol=tolerance)


def test_the_tutorials_normalization():
    torch = pytest.importorskip("torch")
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    out = Compose([Rescale(), Normalize(0.1307, 0.3081)])(images)
    expected = (torch.from_numpy(images).float() / 255 - 0.1307) / 0.3081
    assert out.dtype == np.float32
    assert_allclose(out, expected.numpy(), rtol=1e-6, atol=1e-6)


# Compose, and transforms of one's own


class Negative(Transform):
    def apply(self, images, _):
        return -images


def test_compose_does_one_after_the_other_with_one_generator():
    images = pictures((10, 6, 6), np.uint8)
    steps = [RandomCrop(4), HorizontalFlip(), Rescale(), Negative(), Cutout(2, fill=0.5)]
    expected, generator = images, Generator(1)
    for step in steps:
        expected = step(expected, generator)
    assert_array_equal(Compose(steps)(images, Generator(1)), expected)
    nested = Compose([Compose(iter(steps[:2])), Compose(steps[2:])])
    assert_array_equal(nested(images, Generator(1)), expected)


def test_a_log_shows_the_arguments():
    steps = [
        (Shift(pixels=2), "Shift(pixels=2, fill=0.0)"),
        (RandomCrop(), "RandomCrop(size=None, padding=4, fill=0.0)"),
        (Resize(32), "Resize(size=(32, 32))"),
        (Normalize([0.5, 0.25, 0], np.float32(2)), "Normalize(mean=(0.5, 0.25, 0.0), std=2.0)"),
        (Negative(), "Negative()"),
    ]
    for step, shown in steps:
        assert repr(step) == shown
    shown = ", ".join(shown for _, shown in steps)
    assert repr(Compose([step for step, _ in steps])) == f"Compose(transforms=[{shown}])"


# What is refused


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([[[1]]], TypeError, r"Shift expects a NumPy or CuPy array of images, got list; convert"),
        (minidl.Tensor([[[1.0]]]), TypeError, r"Shift expects .* got Tensor"),
        (np.zeros((1, 2, 2), np.int64), TypeError, r"float64, got int64; convert .*\.astype"),
        (np.zeros((1, 2, 2), np.float16), TypeError, r"got float16"),
        (np.zeros((1, 2, 2), bool), TypeError, r"got bool"),
        (np.zeros((28, 28), np.uint8), ValueError, r"got shape \(28, 28\); .* image\[None\]"),
        (np.zeros((1, 1, 2, 2, 3), np.uint8), ValueError, r"got shape \(1, 1, 2, 2, 3\)"),
        (np.zeros((), np.uint8), ValueError, r"Shift expects a batch of images"),
        (np.zeros((1, 0, 2), np.uint8), ValueError, r"at least one pixel, got shape \(1, 0, 2\)"),
        (np.zeros((1, 2, 2, 0), np.uint8), ValueError, r"got shape \(1, 2, 2, 0\)"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, error, message):
    with pytest.raises(error, match=message):
        Shift(1)(images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HorizontalFlip(1.5), r"probability must be a number from 0 to 1, got 1\.5"),
        (lambda: HorizontalFlip(math.nan), r"probability must be .* got nan"),
        (lambda: Cutout(3, "half"), r"probability must be .* got 'half'"),
        (lambda: Cutout(0), r"size must be an integer >= 1, got 0"),
        (lambda: Cutout(2.5), r"size must be an integer >= 1, got 2\.5"),
        (lambda: Shift(-1), r"pixels must be an integer >= 0, got -1"),
        (lambda: RandomCrop(padding=-4), r"padding must be an integer >= 0, got -4"),
        (lambda: RandomCrop((0, 3)), r"size must be an integer >= 1 or two .* got \(0, 3\)"),
        (lambda: Resize(-2), r"size must be an integer >= 1 or two of them, got -2"),
        (lambda: Rotation(-1), r"degrees must be a number from 0 to 180, got -1"),
        (lambda: Rotation(math.inf), r"degrees must be a number from 0 to 180, got inf"),
        (lambda: Shift(1, fill=math.inf), r"fill must be a finite number, got inf"),
        (lambda: Rescale("much"), r"scale must be a finite number, got 'much'"),
        (lambda: Normalize(0, 0), r"std must be positive, got 0"),
        (lambda: Normalize(0, [1, 0, 1]), r"std must be positive, got \[1, 0, 1\]"),
        (lambda: Normalize(0, -1), r"std must be positive, got -1"),
        (lambda: Normalize([], 1), r"mean must be a finite number, or a sequence .* got \[\]"),
        (lambda: Normalize([[1.0]], 1), r"mean must be a finite number"),
        (lambda: Normalize(math.nan, 1), r"mean must be a finite number"),
        (lambda: Normalize(0, "one"), r"std must be a finite number"),
        (lambda: Compose([]), r"Compose expects at least one transform, got none"),
    ],
)
def test_impossible_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("step", [HorizontalFlip, np.negative, None])
def test_compose_refuses_what_is_no_transform(step):
    with pytest.raises(TypeError, match=r"Compose expects transforms, got .*with parentheses"):
        Compose([step])


@pytest.mark.parametrize("make", [Shift, Rotation, Cutout, lambda _, fill: RandomCrop(fill=fill)])
@pytest.mark.parametrize("fill", [-1, 256, 0.5])
def test_bytes_are_filled_with_bytes(make, fill):
    transform = make(1, fill=fill)
    with pytest.raises(ValueError, match=r"fill must be an integer from 0 to 255 for uint8"):
        transform(np.zeros((1, 2, 2), np.uint8))
    transform(np.zeros((1, 2, 2), np.float32))


def test_a_crop_larger_than_the_padded_image_is_refused():
    images = np.zeros((1, 28, 20), np.uint8)
    message = r"cannot cut 36x29 pixels out of images of 28x20, padded to 36x28; use a smaller"
    with pytest.raises(ValueError, match=message):
        RandomCrop((36, 29))(images)
    with pytest.raises(ValueError, match=r"cannot cut 37x28"):
        RandomCrop((37, 28))(images)
    assert RandomCrop((36, 28))(images).shape == (1, 36, 28)


def test_numbers_for_other_channels_are_refused():
    normalize = Normalize([0.1, 0.2, 0.3], 1)
    with pytest.raises(ValueError, match=r"numbers for 3 channels, got images with 1"):
        normalize(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"numbers for 1 channels, got images with 3"):
        Normalize(0, [1.0])(np.zeros((1, 2, 2, 3), np.uint8))
