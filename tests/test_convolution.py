"""Convolution, with what is computed on the way, against plain references on generated shapes.

Everything is compared exactly: inputs are multiples of 1/8, whose products and sums float32 holds
without rounding, so that no order of additions excuses a difference.
"""

import itertools
import math

import numpy as np
import pytest
import reference
from generated import DTYPES, LAYOUTS, POOLS, SEEDS, Case, cases, generated, laid_out, pooled_cases
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import eighths, numbers

from minidl.backend import CPU
from minidl.kernels import convolution, convolution_desks, convolution_plan, winograd
from minidl.kernels.convolution import conv2d, conv2d_gradients
from minidl.kernels.convolution_desks import Collect, Tiled, way_back
from minidl.kernels.convolution_plan import Convolution
from minidl.kernels.im2col import as_runs, col2im, im2col
from minidl.kernels.window import Window

ALONE = ((0, 0), (0, 0))


def plain(window):
    """A convolution that nothing follows."""
    return Convolution(window)


def forward_and_back(x, weight, bias, how, d, wanted=(True, True, True)):
    """The output and all three gradients."""
    out, remembered = conv2d(x, weight, bias, how)
    return out, *conv2d_gradients(x, weight, how, d, remembered, wanted)


def scattered(case):
    """The gradient with respect to images, by way of `col2im` whatever the window."""
    images = np.full(case.x.shape, np.nan, case.x.dtype)
    columns = np.ascontiguousarray(case.d).reshape(-1, case.filters) @ (
        case.weight.reshape(-1, case.filters).T
    )
    shape = case.x.shape[1:]
    col2im(CPU, case.x.dtype, max(len(case.x), 1), shape, case.window).add_up(columns, images)
    return images


def patches_of(x, step, window, pool=(1, 1)):
    """What writes out patches of images such as x, in memory full of NaN."""
    return im2col(CPU, x.dtype, step, x.shape[1:], window, pool, fresh_memory)


def fresh_memory(_, shape, dtype):
    return np.full(shape, np.nan, dtype)


# Patches


@generated
@given(pooled_cases())
def test_im2col_writes_the_patches_of_each_place_of_a_pooling_window_into_a_matrix(case):
    n, channels = len(case.x), case.x.shape[3]
    places = case.window.positions(case.image)
    height, width = (count // step for count, step in zip(places, case.pool, strict=True))
    patches = np.zeros((n, *places, *case.window.size, channels))
    for place, tap, pixel in reference.taps(case.image, *case.window):
        patches[:, *place, *tap] = case.x[:, *pixel]
    matrices = patches_of(case.x, max(n, 1), case.window, case.pool).of(case.x)
    assert matrices.dtype == case.x.dtype
    assert len(matrices) == case.pool[0] * case.pool[1]
    for matrix, place in zip(matrices, np.ndindex(*case.pool), strict=True):
        there = patches[:, place[0] :: case.pool[0], place[1] :: case.pool[1]][:, :height]
        length = case.window.size[0] * case.window.size[1] * channels
        assert_array_equal(matrix, there[:, :, :width].reshape(-1, length))


@generated
@given(pooled_cases(), st.integers(0, 3))
def test_im2col_writes_the_same_to_memory_of_ones_own(case, fewer):
    columns = patches_of(case.x, max(len(case.x), 1), case.window, case.pool)
    images = case.x[fewer:]
    expected = columns.of(images).copy()
    assume(not (case.window.size == case.window.strides == (1, 1) == case.pool))
    found = np.full_like(expected, np.nan)
    columns.write(images, found)
    assert_array_equal(found, expected)


@generated
@given(cases())
def test_col2im_gives_the_input_gradient_for_every_stride(case):
    expected = reference.conv2d_input_gradient(case.d, case.weight, case.window, case.image)
    assert_array_equal(scattered(case), expected)


def test_fewer_images_than_at_the_first_turn_are_not_mixed_with_those():
    x, window = eighths((3, 4, 4, 2), 0), Window((2, 3), (1, 1), ((1, 0), (0, 1)))
    columns = patches_of(x, 3, window)
    first = columns.of(x).copy()
    assert_array_equal(columns.of(x[1:2]), np.split(first, 3, axis=1)[1])
    back = col2im(CPU, x.dtype, 3, (4, 4, 2), window)
    whole, one = np.empty(x.shape), np.empty((1, 4, 4, 2))
    back.add_up(first[0], whole)
    back.add_up(np.split(first[0], 3)[1], one)
    assert_array_equal(one, whole[1:2])


def any_bits(shape, dtype, seed):
    """Numbers of all bit patterns, also those of NaN."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    bits = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    return bits.view(dtype).reshape(shape)


@st.composite
def ends_of_runs(draw, axes):
    """The shape of an array, and the shapes and the indices of two in which such a one lies.

    Only the last axes lie end to end there.
    """
    lines = draw(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=4))
    run = draw(st.lists(st.integers(1, 5), min_size=axes, max_size=axes))
    places = []
    for _ in range(2):
        steps = [draw(st.sampled_from([1, 2, -1, -3])) for _ in lines]
        rows = [abs(step) * count for step, count in zip(steps, lines, strict=True)]
        places.append(((*rows, *run), tuple(slice(None, None, step) for step in steps)))
    return (*lines, *run), places


@pytest.mark.parametrize("axes", [1, 2])
@settings(generated, max_examples=100)
@given(data=st.data(), dtype=DTYPES, seed=SEEDS, turned=st.booleans())
def test_runs_are_copied_as_their_elements_are(axes, data, dtype, seed, turned):
    shape, places = data.draw(ends_of_runs(axes))
    (source, target), (of_source, of_target) = (
        [any_bits(whole, dtype, seed + salt) for salt, (whole, _) in enumerate(places)],
        [index for _, index in places],
    )
    order = list(range(len(shape)))
    if turned:
        order[:-axes] = order[:-axes][::-1]
    runs = as_runs(source[of_source].transpose(order), axes)
    assert runs.shape == tuple(shape[i] for i in order[:-axes])
    assert np.shares_memory(runs, source) == (source.size > 0)
    expected = target.copy()
    expected[of_target] = source[of_source]
    as_runs(target[of_target].transpose(order), axes)[...] = runs
    assert target.tobytes() == expected.tobytes()  # also what lies between


@pytest.mark.parametrize("axes", [1, 2])
def test_runs_of_no_elements_are_the_array_itself(axes):
    array = np.zeros((3, 2, 0))
    assert as_runs(array, axes) is array


def test_a_convolution_of_single_pixels_copies_no_columns():
    x = numbers((3, 4, 5, 2), 0).astype(np.float32)
    pixels = patches_of(x, 3, Window((1, 1))).of(x)
    assert np.shares_memory(pixels, x)
    assert_array_equal(pixels, x.reshape(1, -1, 2))


@pytest.mark.parametrize("padding", [ALONE, ((1, 0), (0, 2))])
@pytest.mark.parametrize("size", [(2, 3), (1, 1)])
def test_patches_of_what_is_written_to_the_room_are_those_of_the_images(padding, size):
    x, window = eighths((3, 4, 4, 2), 0), Window(size, padding=padding)
    columns = patches_of(x, 3, window)
    expected = columns.of(x[:2]).copy()
    columns.room[:] = np.nan
    columns.room[:2] = x[:2]
    assert columns.room.shape == x.shape
    assert_array_equal(columns.of_room(2), expected)


# Convolution alone


@generated
@given(cases())
def test_conv2d_is_the_sum_over_all_taps(case):
    for bias in (None, case.bias):
        out, remembered = conv2d(case.x, case.weight, bias, plain(case.window))
        assert out.dtype == case.x.dtype
        assert remembered == (None, None)
        assert_array_equal(out, reference.conv2d(case.x, case.weight, bias, case.window))


@generated
@given(cases())
def test_conv2d_weight_gradient_is_the_sum_over_all_places(case):
    gradients = conv2d_gradients(
        case.x, case.weight, plain(case.window), case.d, wanted=(False, True, False)
    )
    assert gradients[0] is gradients[2] is None
    assert gradients[1].dtype == case.x.dtype
    assert_array_equal(gradients[1], reference.conv2d_weight_gradient(case.x, case.d, case.window))


@generated
@given(cases())
def test_conv2d_input_gradient_is_the_sum_over_all_places(case):
    gradients = conv2d_gradients(
        case.x, case.weight, plain(case.window), case.d, wanted=(True, False, False)
    )
    expected = reference.conv2d_input_gradient(case.d, case.weight, case.window, case.image)
    assert gradients[1] is gradients[2] is None
    assert gradients[0].dtype == case.x.dtype
    assert_array_equal(gradients[0], expected)


@generated
@given(cases())
def test_conv2d_bias_gradient_is_the_sum_over_all_images_and_places(case):
    gradients = conv2d_gradients(
        case.x, case.weight, plain(case.window), case.d, wanted=(False, False, True)
    )
    assert gradients[0] is gradients[1] is None
    assert gradients[2].dtype == case.x.dtype
    assert_array_equal(gradients[2], case.d.astype(float).sum(axis=(0, 1, 2)))


def test_the_input_gradient_takes_the_mirrored_path_where_the_stride_is_one(monkeypatch):
    monkeypatch.setattr(convolution_desks, "col2im", None)
    d, weight = np.ones((2, 5, 5, 3), np.float32), np.ones((3, 3, 2, 3), np.float32)
    how = plain(Window((3, 3), padding=((1, 1), (1, 1))))
    x = np.zeros((2, 5, 5, 2), np.float32)
    gradient, *_ = conv2d_gradients(x, weight, how, d)
    assert gradient[0, :, :, 0].tolist() == [
        [12, 18, 18, 18, 12],
        [18, 27, 27, 27, 18],
        [18, 27, 27, 27, 18],
        [18, 27, 27, 27, 18],
        [12, 18, 18, 18, 12],
    ]


def test_the_input_gradient_allows_more_padding_than_the_window_reaches():
    x = eighths((2, 3, 3, 1), 0)
    window = (2, 2), (1, 1), ((3, 0), (0, 2)), (1, 1)
    d = eighths((2, *reference.output_size((3, 3), *window), 2), 1)
    weight = eighths((2, 2, 1, 2), 2)
    gradient, *_ = conv2d_gradients(x, weight, plain(Window(*window)), d)
    assert_array_equal(gradient, reference.conv2d_input_gradient(d, weight, window, (3, 3)))
    assert gradient.shape == x.shape


# Convolution, max(x, 0) and max pooling in one go


def check(case):
    """Compare output and gradients with the three operations one after the other."""
    how = Convolution(case.window, case.relu, case.pool)
    given = case.x, case.weight, case.bias
    results = forward_and_back(*given, how, case.d)
    for result, wanted in zip(results, case.expected, strict=True):
        assert result.dtype == case.x.dtype
        assert_array_equal(result, wanted)


@settings(generated, max_examples=100)
@given(pooled_cases())
def test_all_in_one_go_is_one_after_the_other(case):
    check(case)


@pytest.mark.parametrize("channels", [1, 6], ids=["few channels", "many channels"])
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("pool", [*POOLS, (1, 4), (1, 5), (3, 3)], ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)], ids=str)
def test_every_pooling_window_with_few_channels_and_many(channels, relu, pool, strides):
    # 8x12 places and 4x12: (1, 5), (3, 2) and (3, 3) leave some of them over
    x = eighths((2, 8, 11, channels), 4).astype(np.float32)
    window = Window((3, 3), strides, ((1, 1), (2, 1)))
    check(Case(x, window, 2, 5, relu, pool))


@pytest.fixture(params=[1 << 12, 1 << 22], ids=["short turns", "long turns"])
def tiles_for_all(request, monkeypatch, new_plans):  # noqa: ARG001
    """Every convolution that tiles fit for is found by them, however few its channels."""
    monkeypatch.setattr(winograd, "FEWEST", 1)
    monkeypatch.setattr(winograd, "FEWEST_FILTERS_BACK", 1)
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", request.param)


@st.composite
def tiled_cases(draw):
    """Convolutions that tiles fit for, with more channels than fit into one covering patch."""
    side = st.integers(0, 3)
    padding = draw(st.tuples(st.tuples(side, side), st.tuples(side, side)))
    image = [max(4 - sum(sides), 1) + draw(st.integers(0, 5)) for sides in padding]
    shape = draw(st.integers(0, 5)), *image, 6
    seed = draw(SEEDS)
    x = laid_out(eighths(shape, seed).astype(draw(DTYPES)), draw(LAYOUTS))
    window = Window((3, 3), padding=padding)
    return Case(x, window, draw(st.integers(1, 3)), seed, draw(st.booleans()), (2, 2))


@pytest.mark.usefixtures("tiles_for_all")
@settings(generated, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tiled_cases())
def test_tiles_find_what_filters_see_place_by_place_and_the_gradients(case):
    how = Convolution(case.window, case.relu, case.pool)
    assert convolution._plan(case.x, case.weight, how).tiled
    plan = convolution._plan(case.x, case.weight, how, input_gradient=True)
    assert way_back(plan) is Tiled
    check(case)


@pytest.mark.usefixtures("tiles_for_all")
@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3)), ids=str)
def test_tiles_find_each_gradient_alone_as_beside_the_others(wanted):
    x, weight, d = (eighths(s, i) for i, s in enumerate([(5, 6, 7, 6), (3, 3, 6, 3), (5, 2, 2, 3)]))
    how = Convolution(Window((3, 3)), True, (2, 2))
    _, *together = forward_and_back(x, weight, None, how, d)
    _, *alone = forward_and_back(x, weight, None, how, d, wanted)
    for gradient, expected, asked in zip(alone, together, wanted, strict=True):
        assert_array_equal(gradient, expected if asked else None)


def test_an_infinite_gradient_reaches_the_tiles_that_see_it_alone():
    x, weight = numbers((2, 8, 8, 32), 0), numbers((3, 3, 32, 48), 1)
    how = Convolution(Window((3, 3), padding=((1, 1), (1, 1))), False, (2, 2))
    d = numbers((2, 4, 4, 48), 2)
    d[0, 0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        _, of_x, *_ = forward_and_back(x, weight, None, how, d)
    assert not np.isfinite(of_x[0, :3, :3]).any()
    assert np.isfinite(of_x[0, 3:]).all()
    assert np.isfinite(of_x[0, :, 3:]).all()
    assert np.isfinite(of_x[1]).all()


@pytest.mark.parametrize(
    ("window", "pool", "channels", "filters"),
    [
        (Window((3, 3), (2, 1)), (2, 2), 32, 32),
        (Window((3, 3), dilation=(1, 2)), (2, 2), 32, 32),
        (Window((3, 2)), (2, 2), 32, 32),
        (Window((3, 3)), (2, 1), 32, 32),
        (Window((3, 3)), (1, 1), 32, 32),
        (Window((3, 3)), (2, 2), 31, 32),
        (Window((3, 3)), (2, 2), 32, 31),
    ],
    ids=str,
)
def test_tiles_are_for_plain_windows_pooled_by_twos_and_many_channels(
    window, pool, channels, filters
):
    assert winograd.fits(Window((3, 3), padding=((1, 1), (0, 2))), (2, 2), 32, 32)
    assert not winograd.fits(window, pool, channels, filters)


@pytest.mark.parametrize(("filters", "way"), [(47, Collect), (48, Tiled)])
def test_gradients_by_tiles_take_more_filters(filters, way):
    how = Convolution(Window((3, 3)), False, (2, 2))
    x, weight = np.ones((1, 4, 4, 32), np.float32), np.ones((3, 3, 32, filters), np.float32)
    assert way_back(convolution._plan(x, weight, how, input_gradient=True)) is way


@pytest.mark.usefixtures("new_plans")
def test_tiles_round_little_more_than_patches(monkeypatch):
    x, weight = numbers((4, 14, 14, 32), 0), numbers((3, 3, 32, 64), 1)
    how = Convolution(Window((3, 3), padding=((1, 1), (1, 1))), False, (2, 2))
    given = x, weight, None, how, numbers((4, 7, 7, 64), 2)

    def errors():
        """Of the output, and of the gradients of images and weight."""
        single = [g.astype(np.float32) if isinstance(g, np.ndarray) else g for g in given]
        return [
            abs(found - exact).max() / abs(exact).max()
            for found, exact in zip(
                forward_and_back(*single)[:3], forward_and_back(*given)[:3], strict=True
            )
        ]

    by_tiles = errors()
    monkeypatch.setattr(winograd, "FEWEST", 65)
    convolution._remembered_plan.cache_clear()
    for tiles, patches in zip(by_tiles, errors(), strict=True):
        assert patches != tiles < 8 * patches < 1e-5


def test_pooling_needs_no_bias():
    x, weight = eighths((2, 5, 6, 2), 0), eighths((2, 2, 2, 3), 1)
    how = Convolution(Window((2, 2)), True, (2, 2))
    expected = reference.conv2d_and_more(x, weight, None, *how)
    assert_array_equal(conv2d(x, weight, None, how)[0], expected)


HOWS = [
    Convolution(Window((3, 3), padding=((1, 1), (1, 1))), relu, pool)
    for relu, pool in itertools.product([False, True], [(1, 1), (2, 2), (3, 2)])
]


def batch(how, channels=2, count=2):
    """Images, weight, bias, and a gradient of the output of a convolution."""
    image = 6, 7
    x, weight = eighths((count, *image, channels), 0), eighths((3, 3, channels, 3), 1)
    return x, weight, eighths((3,), 2), eighths((count, *how.places(image), 3), 3)


@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3)), ids=str)
@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.relu} {how.pool}")
@pytest.mark.parametrize("channels", [2, 6])
def test_each_gradient_is_the_same_alone_and_beside_the_others(how, wanted, channels):
    x, weight, bias, d = batch(how, channels)
    _, *together = forward_and_back(x, weight, bias, how, d)
    _, *alone = forward_and_back(x, weight, bias, how, d, wanted)
    for gradient, expected, asked in zip(alone, together, wanted, strict=True):
        if asked:
            assert_array_equal(gradient, expected)
        else:
            assert gradient is None


@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.relu} {how.pool}")
def test_an_empty_batch_has_an_empty_output_and_gradients_of_zero(how):
    x, weight, bias, d = batch(how, count=0)
    out, of_x, of_weight, of_bias = forward_and_back(x, weight, bias, how, d)
    assert out.shape == d.shape
    assert of_x.shape == x.shape
    assert_array_equal(of_weight, np.zeros(weight.shape))
    assert_array_equal(of_bias, np.zeros(3))


@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.relu} {how.pool}")
def test_what_no_gradient_asks_for_is_not_remembered(how):
    x, weight, bias, _ = batch(how)
    out, remembered = conv2d(x, weight, bias, how)
    same, nothing = conv2d(x, weight, bias, how, remember=False)
    assert_array_equal(same, out)
    assert nothing == (None, None)
    assert (remembered.passed is None) == (how == HOWS[0])


@pytest.mark.parametrize("how", HOWS[1:], ids=lambda how: f"{how.relu} {how.pool}")
def test_a_byte_for_each_place_is_remembered(how):
    x, weight, bias, _ = batch(how)
    out, (passed, _) = conv2d(x, weight, bias, how)
    assert passed.dtype == bool
    assert passed.shape == (how.pool[0] * how.pool[1], *out.shape)


@pytest.mark.usefixtures("new_plans")
@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.relu} {how.pool}")
@pytest.mark.parametrize("channels", [2, 6])
def test_patches_are_remembered_where_they_are_few(how, channels, monkeypatch):
    x, weight, bias, d = batch(how, channels, count=5)
    size = 5 * 3 * 3 * (4 * 4 * channels) * x.itemsize  # of 3x3 places that see 4x4 pixels
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", size // 2)  # turns of 2, 2 and 1 images
    results = []
    for most in (size, size - 1):
        monkeypatch.setattr(convolution_plan, "MOST_KEPT", most)
        convolution._remembered_plan.cache_clear()
        out, remembered = conv2d(x, weight, bias, how)
        if most < size or channels != 2 or how.pool != (2, 2):
            assert remembered.patches is None
        else:
            patches = patches_of(x, 5, how.window.covering(how.pool)).of(x)
            assert_array_equal(remembered.patches.reshape(patches.shape), patches)
        results.append((out, *conv2d_gradients(x, weight, how, d, remembered)))
    for kept, written_again in zip(*results, strict=True):
        assert_array_equal(kept, written_again)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2), (3, 2), (1, 40)])
@pytest.mark.parametrize("channels", [1, 16], ids=["few channels", "many channels"])
def test_the_first_of_equals_wins_row_by_row(rows, columns, channels):
    pool = rows, columns
    how = Convolution(Window((1, 1)), pool=pool)
    weight = np.ones((1, 1, channels, 1)) / channels
    x = np.zeros((1, rows, columns, channels))
    for first in np.ndindex(*pool):
        x[0, *first] = 1  # this place and all after it
        if first != (0, 0):
            x[0].reshape(-1, channels)[: first[0] * columns + first[1]] = 0
        x[0].reshape(-1, channels)[first[0] * columns + first[1] :] = 1
        out, of_x, _, _ = forward_and_back(x, weight, None, how, np.full((1, 1, 1, 1), channels))
        assert out.item() == 1
        expected = np.zeros(x.shape)
        expected[0, *first] = 1
        assert_array_equal(of_x, expected)


@pytest.mark.parametrize("pool", [(1, 1), (2, 2)])
def test_what_max_cuts_off_takes_no_gradient_not_even_at_zero(pool):
    how = Convolution(Window((1, 1)), True, pool)
    x = np.array([-1.0, 0.0, 1.0]).repeat(4).reshape(3, 2, 2, 1)
    d = np.ones((3, *how.places((2, 2)), 1))
    out, of_x, _, of_bias = forward_and_back(x, np.ones((1, 1, 1, 1)), None, how, d)
    assert [image.max() for image in out] == [0, 0, 1]
    assert [image.sum() for image in of_x] == [0, 0, d[0].sum()]
    assert of_bias == d[0].sum()


@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.relu} {how.pool}")
@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize("pixel", [(0, 0), (1, 0), (2, 3), (5, 5)])
def test_nan_is_passed_on_and_stays_where_it_is_seen(how, channels, pixel):
    x, weight, bias, d = batch(how, channels)
    sane, of_x, _, _ = forward_and_back(x, weight, bias, how, d)
    x[1, *pixel] = np.nan
    out, other_of_x, _, of_bias = forward_and_back(x, weight, bias, how, d)
    seen = np.zeros(how.window.positions((6, 7)), bool)
    for place, _, there in reference.taps((6, 7), *how.window):
        seen[place] |= there == pixel
    rows, columns = how.places((6, 7))
    (down, right), groups = how.pool, seen[: rows * how.pool[0], : columns * how.pool[1]]
    seen = groups.reshape(rows, down, columns, right).any(axis=(1, 3))
    assert_array_equal(np.isnan(out[1]), np.broadcast_to(seen[..., None], out[1].shape))
    assert_array_equal(out[0], sane[0])
    assert_array_equal(out[1][~seen], sane[1][~seen])
    assert_array_equal(other_of_x[0], of_x[0])
    assert np.isfinite(other_of_x).all()  # weight and d are: the gradient goes to some one place
    assert np.isfinite(of_bias).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_pixels_of_many_channels_are_no_reason_for_nan(value):
    channels = 16
    how = Convolution(Window((1, 1)), pool=(2, 2))
    x = np.zeros((3, 2, 2, channels))
    x[0, 1, 1], x[1] = value, value
    weight = np.ones((1, 1, channels, 1))
    out, remembered = conv2d(x, weight, None, how)
    assert out.ravel().tolist() == [max(value, 0), value, 0]
    wanted = True, False, False
    of_x, *_ = conv2d_gradients(x, weight, how, np.ones_like(out), remembered, wanted)
    first = 3 if value > 0 else 0
    assert of_x[..., 0].reshape(3, 4).argmax(axis=1).tolist() == [first, 0, 0]
    assert of_x.sum() == 3 * channels


@pytest.mark.parametrize("layout", ["fortran", "every second", "backwards", "inside"])
@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.relu} {how.pool}")
def test_arrays_in_any_memory_order_are_read_and_left_as_they_were(how, layout):
    arrays = batch(how)
    expected = forward_and_back(*arrays[:3], how, arrays[3])
    x, weight, bias, d = (laid_out(array, layout) for array in arrays)  # not to be written to
    for result, wanted in zip(forward_and_back(x, weight, bias, how, d), expected, strict=True):
        assert_array_equal(result, wanted)


# A few images at a time


@pytest.mark.parametrize("budget", [1, 1000, 5000, 1 << 40])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("channels", [2, 8])
def test_convolutions_do_not_depend_on_how_many_images_are_taken_at_a_time(
    monkeypatch, budget, strides, pool, channels
):
    x, weight = eighths((7, 6, 5, channels), 0), eighths((3, 2, channels, 3), 1)
    how = Convolution(Window((3, 2), strides, ((1, 1), (0, 1))), True, pool)
    d = eighths((7, *how.places((6, 5)), 3), 2)
    bias = eighths((3,), 3)
    expected = forward_and_back(x, weight, bias, how, d)
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", budget)
    for result, wanted in zip(forward_and_back(x, weight, bias, how, d), expected, strict=True):
        assert_array_equal(result, wanted)


@pytest.mark.parametrize("pool", [(1, 1), (2, 2)])
@pytest.mark.parametrize("channels", [3, 12])
def test_a_large_batch_is_what_its_images_are_one_by_one(pool, channels):
    # large enough to be cut for several threads, in pieces of several turns
    x, weight = eighths((70, 20, 17, channels), 0), eighths((3, 3, channels, 8), 1)
    x, weight, bias = (array.astype(np.float32) for array in (x, weight, eighths((8,), 2)))
    how = Convolution(Window((3, 3), padding=((1, 1), (1, 0))), True, pool)
    d = eighths((70, *how.places((20, 17)), 8), 3).astype(np.float32)
    out, of_x, of_weight, of_bias = forward_and_back(x, weight, bias, how, d)
    singles = [
        forward_and_back(x[i : i + 1], weight, bias, how, d[i : i + 1]) for i in range(len(x))
    ]
    outs, of_xs, of_weights, of_biases = zip(*singles, strict=True)
    assert_array_equal(out, np.concatenate(outs))
    assert_array_equal(of_x, np.concatenate(of_xs))
    assert_array_equal(of_weight, np.sum(of_weights, axis=0, dtype=np.float64))
    assert_array_equal(of_bias, np.sum(of_biases, axis=0, dtype=np.float64))


def test_weight_gradients_of_any_numbers_differ_by_rounding_alone(monkeypatch):
    x, d = numbers((7, 6, 5, 2), 0), numbers((7, 4, 3, 3), 1)
    weight, how = numbers((3, 3, 2, 3), 2), plain(Window((3, 3)))
    _, whole, _ = conv2d_gradients(x, weight, how, d)
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", 1)
    # 84 products of at most 4, each addition rounded by at most 2**-53 of a sum below 84 * 4.
    bound = 84 * 84 * 4 * 2.0**-53
    _, parts, _ = conv2d_gradients(x, weight, how, d)
    assert_allclose(parts, whole, rtol=0, atol=bound)
