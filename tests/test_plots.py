"""The pictures, looked at piece by piece: what is drawn where, in which colour, whether it fits."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from pictures import NAMES, convolutional_model, every_picture, history

import minidl
from minidl import (
    Tensor,
    plot_confusion_matrix,
    plot_feature_maps,
    plot_filters,
    plot_history,
    plot_images,
    plot_predictions,
    plot_probabilities,
)

BLUE, RED, BLACK, GREY = "#1f5fbf", "#c8102e", "#222222", "#b5b5b5"
VALID = ((0, 0), (0, 0))

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 6, 5))
SHARES = np.array([[0.875, 0.125], [1, 0], [0, 1]])


def panels(figure):
    """The panels that hold images."""
    return [axes for axes in figure.axes if axes.images]


def titles(figure):
    return [axes.get_title() for axes in panels(figure)]


def colors(texts):
    return [to_hex(text.get_color()) for text in texts]


def drawn(axes):
    """The one image in a panel, and the numbers that its colours start and end at."""
    (image,) = axes.images
    return np.asarray(image.get_array()), image.get_clim()


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# All of them


def every_text(figure):
    """The texts that are to be seen in a figure."""
    for part in (figure, *figure.subfigs):
        yield from part.texts
    for axes in figure.axes:
        yield from (axes.title, *axes.texts)
        if axes.get_legend():
            yield from axes.get_legend().get_texts()
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            yield axis.label
            low, high = sorted(axis.get_view_interval())
            yield from (
                tick.label1 if tick.label1.get_visible() else tick.label2
                for tick in axis.get_major_ticks()
                if low <= tick.get_loc() <= high
            )


def assert_texts_fit(figure):
    """Every text lies inside the figure, and none on another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = {id(text): text for text in every_text(figure) if text.get_text()}.values()
    boxes = [(text, text.get_window_extent(canvas.get_renderer())) for text in texts]
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0
        inside &= box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{text} leaves the figure"
    upright = [(text, box) for text, box in boxes if text.get_rotation() % 90 == 0]
    for (text, box), (other, its_box) in itertools.combinations(upright, 2):
        assert not box.overlaps(its_box), f"{text} lies on {other}"
    return len(boxes)


def test_every_picture_is_a_figure_with_texts_that_fit():
    names = set()
    for name, figure in every_picture():
        assert type(figure) is Figure
        assert assert_texts_fit(figure) >= 4
        names.add(f"plot_{name}")
    public = {name for name in minidl.__all__ if name.startswith("plot_")}
    assert names == public - {"plot_computation_graph"}  # has a file of tests of its own


def test_the_look_at_texts_sees_those_that_do_not_fit():
    figure = plot_images(IMAGES, [0, 1, 2], ["a", "b", "c"])
    figure.axes[1].set_title("much too long for the one panel that it is in")
    with pytest.raises(AssertionError, match=r"much too long.* lies on|lies on .*much too long"):
        assert_texts_fit(figure)
    figure = plot_images(IMAGES[:1], [0], ["a"])
    figure.axes[0].set_title("much too long for the one panel that it is in")
    with pytest.raises(AssertionError, match="leaves the figure"):
        assert_texts_fit(figure)


def run_pictures(*arguments, **environment):
    program = Path(__file__).parent / "pictures.py"
    env = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    return subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        env={**env, **environment},
        check=False,
    )


def test_no_display_is_needed_and_pyplot_is_not_loaded():
    done = run_pictures(MPLBACKEND="tkagg")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 7


def test_the_figures_and_settings_of_pyplot_are_left_alone():
    done = run_pictures("pyplot", MPLBACKEND="agg")
    assert done.returncode == 0, done.stderr


LONG = "a class with quite a long name"


@pytest.mark.parametrize(
    ("count", "columns", "classes", "known"),
    [(1, 6, 2, True), (2, 2, 10, False), (5, 3, 4, True), (7, 6, 10, True), (4, 1, 30, True)],
)
def test_texts_fit_however_many_images_and_classes(count, columns, classes, known):
    images = np.zeros((count, 6, 5 + classes))
    shares = np.random.default_rng(count).dirichlet(np.full(classes, 0.1), count)
    labels = np.arange(count) % classes if known else None
    names = [LONG, *(f"class {number}" for number in range(1, classes))]
    assert_texts_fit(plot_predictions(images, shares, labels, names, columns))
    assert_texts_fit(plot_probabilities(images, shares, names, labels, columns))
    assert_texts_fit(plot_images(images, labels, names, columns))


@pytest.mark.parametrize(
    ("plot", "columns"), [(plot_images, 6), (plot_predictions, 6), (plot_probabilities, 3)]
)
def test_panels_stand_in_rows_of_so_many_columns(plot, columns):
    count = columns + 2
    arguments = {"images": np.zeros((count, 4, 4)), "class_names": "ab"}
    if plot is not plot_images:
        arguments["probabilities"] = np.full((count, 2), 0.5)
    if plot is plot_predictions:
        arguments["labels"] = None
    for chosen in ({}, {"columns": 2}, {"columns": count + 5}):
        figure = plot(**arguments, **chosen)
        if chosen.get("columns", 0) > count:  # no room is kept for what is not there
            assert figure.get_figwidth() == plot(**arguments, columns=count).get_figwidth()
        FigureCanvasAgg(figure).draw()
        places = [axes.get_window_extent() for axes in panels(figure)]
        rows = {round(place.y0) for place in places}
        in_row = min(chosen.get("columns", columns), count)
        assert len(places) == count
        assert len(rows) == -(-count // in_row)
        assert len({round(place.x0) for place in places}) == in_row
    with pytest.raises(ValueError, match="columns must be an integer >= 1, got 0"):
        plot(**arguments, columns=0)


# Curves


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_each_measure_has_a_panel_with_its_validation(epochs):
    record = history(epochs)
    figure = plot_history(record)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "top_2"]
    for axes in figure.axes:
        name = axes.get_title()
        training, validation = axes.lines
        for line, values in ((training, record[name]), (validation, record[f"val_{name}"])):
            assert line.get_xdata().tolist() == list(range(1, epochs + 1))
            assert line.get_ydata().tolist() == values
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["training", "validation"]
        assert axes.get_xlabel() == "epoch"
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown
        assert all(tick == int(tick) and 1 <= tick <= epochs for tick in shown)
    assert_texts_fit(figure)


def test_without_validation_there_is_one_curve():
    record = minidl.History()
    record.append({"loss": 0.5}, 1.0)
    (axes,) = plot_history(record).axes
    assert len(axes.lines) == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training"]


def test_a_history_without_epochs_is_refused():
    with pytest.raises(ValueError, match="at least one epoch"):
        plot_history(minidl.History())


# Images


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_images_are_drawn_as_they_are(channels):
    images = RNG.random((2, 6, 5, *channels))
    figure = plot_images(images, [1, 0], ["cat", "dog"])
    assert titles(figure) == ["dog", "cat"]
    for axes, image in zip(panels(figure), images, strict=True):
        pixels, range_ = drawn(axes)
        expected = image[..., 0] if channels == (1,) else image
        assert_allclose(pixels, expected, rtol=1e-6)
        if channels != (3,):
            assert range_ == (0, 1)
            assert axes.images[0].cmap(0.0)[:3] == (1, 1, 1)  # dark on light
            assert axes.images[0].cmap(1.0)[:3] == (0, 0, 0)


@pytest.mark.parametrize(
    ("images", "low", "high"),
    [
        (np.array([[[0, 51], [102, 204]]], np.uint8), 0, 255),
        (np.array([[[0.25, 0.5], [0.75, 0.5]]]), 0, 1),
        (np.array([[[0.0, 255.0], [102.0, 51.0]]], np.float32), 0, 255),
        (np.array([[[-1.0, 0.5], [0.0, 0.25]]]), -1, 1),
        (np.array([[[-1.5, 0.5], [2.5, 0.25]]]), -1.5, 2.5),
        (np.array([[[0, 255], [100, 1]]]), 0, 255),
        (np.array([[[True, False], [True, True]]]), 0, 1),
        (np.full((1, 2, 2), 7.0), 0, 7),
        (np.zeros((1, 2, 2)), 0, 1),
    ],
)
def test_the_range_of_pixels_is_told_by_their_dtype_and_what_they_hold(images, low, high):
    expected = (images[0].astype(float) - low) / (high - low)
    (grey,) = panels(plot_images(images))
    assert_allclose(drawn(grey)[0], expected, rtol=1e-6)
    (color,) = panels(plot_images(np.stack([images] * 3, axis=-1)))
    assert_allclose(drawn(color)[0], np.stack([expected] * 3, axis=-1), rtol=1e-6)


def test_one_scale_holds_for_all_images():
    figure = plot_images(np.stack([np.full((2, 2), 50.0), np.full((2, 2), 200.0)]))
    assert [drawn(axes)[0].max() for axes in panels(figure)] == [0.25, 1]


def test_labels_come_in_several_forms():
    for labels in ([1, 0, 1], [[1], [0], [1]], Tensor(np.array([1, 0, 1])), np.eye(2)[[1, 0, 1]]):
        assert titles(plot_images(IMAGES, labels, ("cat", "dog"))) == ["dog", "cat", "dog"]
    for labels in ([7, 0, 7], np.array([[7], [0], [7]], np.uint8)):
        assert titles(plot_images(IMAGES, labels)) == ["7", "0", "7"]
    assert titles(plot_images(IMAGES)) == [""] * 3


def test_names_are_shown_letter_by_letter():
    names = ["$x^2$ and $", "a_b\\c"]
    figures = [
        plot_images(IMAGES, [0, 1, 0], names),
        plot_probabilities(IMAGES, SHARES, names, [0, 1, 0]),
        plot_confusion_matrix(np.eye(2, dtype=int), names),
    ]
    for figure in figures:
        found = [text for text in every_text(figure) if "$" in text.get_text()]
        assert found
        assert not any(text.get_parse_math() for text in found)


@pytest.mark.parametrize("shape", [(6, 5), (0, 6, 5), (3, 6, 5, 2), (3, 6, 5, 3, 1), (3, 0, 5)])
def test_what_is_no_batch_of_images_is_refused(shape):
    images, shares = np.zeros(shape), np.full((len(np.zeros(shape)), 2), 0.5)
    for plot, arguments in (
        (plot_images, ()),
        (plot_predictions, (shares, None, "ab")),
        (plot_probabilities, (shares, "ab")),
    ):
        with pytest.raises(ValueError, match=rf"{plot.__name__} expects .*\(N, H, W, 3\), got sha"):
            plot(images, *arguments)


@pytest.mark.parametrize(
    ("labels", "names", "error", "message"),
    [
        ([0, 1], ["cat", "dog"], ValueError, r"label for each of 3 samples, .* shape \(2,\)"),
        ([0, 1], None, ValueError, r"class number for each of 3 images, .* shape \(2,\)"),
        ([0, 1, 2], ["cat", "dog"], ValueError, "labels from 0 to 1 for 2 classes"),
        ([0.0, 1.0, 1.0], ["cat", "dog"], TypeError, "class numbers as integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, names, error, message):
    with pytest.raises(error, match=message):
        plot_images(IMAGES, labels, names)


# Predictions


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_predictions_are_titled_and_coloured(channels):
    images = RNG.random((3, 6, 5, *channels))
    figure = plot_predictions(images, SHARES, [0, 1, 1], ["cat", "dog"])
    assert titles(figure) == ["cat 88% (cat)", "cat 100% (dog)", "dog 100% (dog)"]
    assert colors(axes.title for axes in panels(figure)) == [BLUE, RED, BLUE]
    assert all(len(axes.images) == 1 for axes in panels(figure))
    unknown = plot_predictions(images, SHARES, None, ["cat", "dog"])
    assert titles(unknown) == ["cat 88%", "cat 100%", "dog 100%"]
    assert colors(axes.title for axes in panels(unknown)) == [BLACK] * 3


def bars(figure):
    """Heights and colours of the bars beside each image."""
    return [
        (
            [bar.get_height() for bar in axes.patches],
            [to_hex(b.get_facecolor()) for b in axes.patches],
        )
        for axes in figure.axes
        if axes.patches
    ]


def test_bars_show_the_probabilities_with_the_true_class_in_blue_and_a_wrong_one_in_red():
    shares = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75], [1, 0, 0], [0, 0, 1]])
    labels = [1, 0, 0, 1]
    figure = plot_probabilities(np.zeros((4, 6, 5)), shares, NAMES, labels)
    expected = [[GREY, BLUE, GREY], [BLUE, GREY, RED], [BLUE, GREY, GREY], [GREY, BLUE, RED]]
    assert bars(figure) == list(zip(shares.tolist(), expected, strict=True))
    headings = [axes.get_figure()._suptitle for axes in figure.axes if axes.patches]
    assert [heading.get_text() for heading in headings] == [
        "Ankle boot 50% (Ankle boot)",
        "Trouser 75% (T-shirt/top)",
        "T-shirt/top 100% (T-shirt/top)",
        "Trouser 100% (Ankle boot)",
    ]
    assert colors(headings) == [BLUE, RED, BLUE, RED]
    for axes in figure.axes:
        if axes.patches:
            assert tick_labels(axes.xaxis) == NAMES
            assert axes.get_xticks().tolist() == [0, 1, 2]
            assert [bar.get_center()[0] for bar in axes.patches] == pytest.approx([0, 1, 2])
            assert axes.get_ylim() == (0, 1)


def test_bars_without_labels_are_black_and_grey():
    figure = plot_probabilities(IMAGES, SHARES, ["cat", "dog"])
    assert [color for _, color in bars(figure)] == [[BLACK, GREY], [BLACK, GREY], [GREY, BLACK]]


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("label", [1, [1], [0.0, 1.0], Tensor(np.array(1)), None])
def test_one_image_may_come_by_itself(channels, label):
    image = RNG.random((6, 5, *channels))
    figure = plot_probabilities(image, SHARES[0], ["cat", "dog"], label)
    ((heights, found),) = bars(figure)
    assert heights == [0.875, 0.125]
    assert found == ([BLACK, GREY] if label is None else [RED, BLUE])
    (picture,) = panels(figure)
    assert_allclose(drawn(picture)[0].ravel(), image.ravel(), rtol=1e-6)
    assert_texts_fit(figure)


@pytest.mark.parametrize(
    ("shares", "labels", "names", "error", "message"),
    [
        (SHARES[:2], None, "ab", ValueError, r"\(3, 2\), for 3 images .*, got shape \(2, 2\)"),
        (SHARES, None, "abc", ValueError, r"\(3, 3\), for .* 3 class names, got shape \(3, 2\)"),
        (SHARES[:, :0], None, "", ValueError, r"0 class names, got shape \(3, 0\)"),
        (SHARES, [0, 1], "ab", ValueError, r"label for each of 3 samples, .* shape \(2,\)"),
        (SHARES, [0, 1, 2], "ab", ValueError, "labels from 0 to 1 for 2 classes"),
        (SHARES * 9, None, "ab", ValueError, r"from 0 to 1, got numbers from 0.0 to 9.0; softmax"),
        (SHARES - 1, None, "ab", ValueError, r"from 0 to 1, got numbers from -1.0"),
        (SHARES * np.nan, None, "ab", ValueError, "from 0 to 1, got numbers from nan"),
    ],
)
def test_predictions_that_do_not_agree_are_refused(shares, labels, names, error, message):
    with pytest.raises(error, match=rf"{message}"):
        plot_predictions(IMAGES, shares, labels, names)
    with pytest.raises(error, match=rf"{message}"):
        plot_probabilities(IMAGES, shares, names, labels)


# Confusion matrix


def cells(figure):
    (axes,) = figure.axes
    return {text.get_position(): text for text in axes.texts}


def test_a_confusion_matrix_has_a_row_for_each_true_class():
    matrix = np.array([[5, 1, 0], [12345, 40, 7], [0, 0, 3]])
    figure = plot_confusion_matrix(matrix, NAMES)
    (axes,) = figure.axes
    assert {place: text.get_text() for place, text in cells(figure).items()} == {
        (column, row): str(matrix[row, column]) for row in range(3) for column in range(3)
    }
    assert_array_equal(drawn(axes)[0], matrix)
    assert drawn(axes)[1] == (0, 12345)
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == NAMES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert axes.yaxis_inverted()  # the first class is on top
    assert_texts_fit(figure)
    assert_texts_fit(plot_confusion_matrix(np.full((10, 10), 1234567), list("abcdefghij")))


def test_a_normalized_matrix_shows_the_share_of_each_true_class():
    figure = plot_confusion_matrix([[3, 1, 0], [0, 0, 0], [1, 1, 1]], NAMES, normalize=True)
    (axes,) = figure.axes
    texts = [[cells(figure)[column, row].get_text() for column in range(3)] for row in range(3)]
    assert texts == [["75%", "25%", "0%"], ["", "", ""], ["33%", "33%", "33%"]]
    shares, range_ = drawn(axes)
    assert_allclose(shares, [[0.75, 0.25, 0], [np.nan] * 3, [1 / 3] * 3])
    assert range_ == (0, 1)


def luminance(color):
    """Relative luminance as WCAG 2 defines it, of an sRGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("normalize", [False, True])
def test_numbers_are_readable_on_light_and_dark_cells(normalize):
    matrix = np.array([[number, 40 - number] for number in range(40)] + [[0, 0]])
    matrix = np.pad(matrix, ((0, 0), (0, 39)))
    names = [str(number) for number in range(41)]
    figure = plot_confusion_matrix(matrix, names, normalize)
    (image,) = figure.axes[0].images
    seen = set()
    for (column, row), text in cells(figure).items():
        if text.get_text():
            behind = luminance(image.cmap(image.norm(image.get_array()[row, column]))[:3])
            own = luminance(text.get_color())
            contrast = (max(own, behind) + 0.05) / (min(own, behind) + 0.05)
            assert contrast > 4
            seen.add(text.get_color())
    assert seen == {"black", "white"}


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (3,), (3, 3, 3)])
def test_a_matrix_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"expects a matrix \(3, 3\) for 3 class names"):
        plot_confusion_matrix(np.ones(shape, int), NAMES)


def test_a_matrix_without_classes_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        plot_confusion_matrix(np.ones((0, 0), int), [])


def test_a_matrix_without_samples_is_drawn():
    figure = plot_confusion_matrix(np.zeros((3, 3), int), NAMES)
    assert {text.get_text() for text in cells(figure).values()} == {"0"}


# Convolutions


def maps(figure):
    """The drawn arrays in order, checked for their numbers and their common scale."""
    assert titles(figure) == [str(number) for number in range(len(panels(figure)))]
    assert len({drawn(axes)[1] for axes in panels(figure)}) == 1
    return np.stack([drawn(axes)[0] for axes in panels(figure)])


def test_filters_of_the_first_convolution_are_drawn_to_one_scale_around_zero():
    model = convolutional_model()
    weight = model.layers[0].weight.data
    figure = plot_filters(model)
    assert_array_equal(maps(figure), weight[:, :, 0].transpose(2, 0, 1))
    largest = float(abs(weight).max())
    assert drawn(panels(figure)[0])[1] == (-largest, largest)
    image = panels(figure)[0].images[0]
    red, _, blue, _ = image.cmap(image.norm(largest))
    assert red > blue
    red, _, blue, _ = image.cmap(image.norm(-largest))
    assert red < blue
    bar = figure.axes[-1]  # tells what the colours stand for
    assert bar.get_ylim() == (-largest, largest)
    assert tick_labels(bar.yaxis) == [f"{-largest:.2g}", "0", f"{largest:.2g}"]
    assert_texts_fit(figure)


def test_a_layer_by_itself_and_one_channel_of_it():
    layer = convolutional_model().layers[3]
    assert layer.weight.shape == (2, 2, 5, 4)
    assert_array_equal(
        maps(plot_filters(layer, channel=3)), layer.weight.data[:, :, 3].transpose(2, 0, 1)
    )
    for channel in (None, 5, -1):
        with pytest.raises(ValueError, match=rf"'last' has 5 input .*channel=4, got {channel}"):
            plot_filters(layer, channel=channel)


def test_filters_for_colour_are_drawn_in_colour_with_zero_in_the_middle():
    model = convolutional_model(channels=3)
    weight = model.layers[0].weight.data
    weight[0, 0, 0, 0] = 0
    figure = plot_filters(model)
    shown = np.stack([drawn(axes)[0] for axes in panels(figure)])
    assert shown.shape == (5, 3, 3, 3)
    assert shown[0, 0, 0, 0] == 0.5
    assert_allclose((shown - 0.5) * 2 * abs(weight).max(), weight.transpose(3, 0, 1, 2), atol=1e-6)
    assert len(figure.axes) == 5  # no bar: three colours have no one scale
    assert_array_equal(maps(plot_filters(model, channel=1)), weight[:, :, 1].transpose(2, 0, 1))


def test_filters_of_zero_are_drawn():
    layer = minidl.Conv2D(2, 3, kernel_initializer="zeros")
    layer(np.zeros((1, 4, 4, 3), np.float32))
    assert drawn(panels(plot_filters(layer))[0])[0].tolist() == [[[0.5] * 3] * 3] * 3
    assert not maps(plot_filters(layer, channel=0)).any()


def test_a_model_without_convolution_or_without_weights_is_refused():
    dense = minidl.Sequential([minidl.Dense(3)], input_shape=(4,))
    with pytest.raises(ValueError, match="plot_filters expects a model with a Conv2D, Sequential"):
        plot_filters(dense)
    with pytest.raises(ValueError, match="plot_feature_maps expects a model with a Conv2D"):
        plot_feature_maps(dense, np.zeros(4))
    with pytest.raises(RuntimeError, match="Conv2D has no parameters yet"):
        plot_filters(minidl.Conv2D(3, 3))


def expected_maps(model, image):
    """What the first convolution makes of an image, before the pooling."""
    weight, bias = (parameter.data for parameter in model.layers[0].parameters())
    window = weight.shape[:2], (1, 1), VALID, (1, 1)
    out = reference.conv2d(image[None], weight, bias, window)
    return np.maximum(out, 0)[0].transpose(2, 0, 1)


@pytest.mark.parametrize("layer", [None, "conv2d", "itself"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_feature_maps_are_the_outputs_of_the_convolution_before_its_pooling(layer, dtype):
    model = convolutional_model()
    image = (RNG.random((12, 10, 1)) * 9).astype(dtype)
    figure = plot_feature_maps(model, image, model.layers[0] if layer == "itself" else layer)
    expected = expected_maps(model, image.astype(np.float32))
    assert_allclose(maps(figure), expected, rtol=1e-5, atol=1e-5)
    assert drawn(panels(figure)[0])[1] == pytest.approx((expected.min(), expected.max()), abs=1e-5)
    assert_texts_fit(figure)


def test_feature_maps_of_a_layer_further_down_are_those_of_evaluation():
    model = convolutional_model()
    image = RNG.random((12, 10, 1), dtype=np.float32)
    model.layers[2].gamma.data[:] = [1, 2, 3, 4, 5]
    before = model.state_dict()
    expected = model[:4].eval()(image[None]).data[0].transpose(2, 0, 1)
    model.train()
    model.layers[4].eval()
    assert_array_equal(maps(plot_feature_maps(model, image, "last")), expected)
    dropped = maps(plot_feature_maps(model, image, "dropout"))
    assert_array_equal(dropped, expected)  # evaluation drops nothing
    # the model is as it was, and has not learned from the image
    assert [layer.training for layer in model.layers] == [True] * 4 + [False] + [True] * 2
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])
    assert all("forward" not in vars(layer) for layer in model.layers)


class Part(minidl.Module):
    """A part that knows the whole."""

    def __init__(self, whole):
        self.whole = whole
        self.conv2d = minidl.Conv2D(3, 2)

    def forward(self, x):
        return self.conv2d(x)


class Branches(minidl.Module):
    """Layers in attributes, in a list and in a part; one is never called."""

    def __init__(self):
        self.stem = minidl.Conv2D(2, 1)
        self.inner = [Part(self), minidl.Conv2D(7, 1)]
        self.idle = minidl.Conv2D(1, 1)
        self(np.zeros((1, 4, 4, 1), np.float32))
        self.idle(np.zeros((1, 4, 4, 1), np.float32))

    def forward(self, x):
        x = self.stem(x)
        return self.inner[0](x).sum() + self.inner[1](x).sum()


def test_layers_of_any_module_are_found_by_their_dotted_names():
    minidl.seed(0)
    model = Branches()
    image = RNG.random((4, 4, 1), dtype=np.float32)
    stem = model.stem(image[None])
    assert_array_equal(maps(plot_feature_maps(model, image)), stem.data[0].transpose(2, 0, 1))
    inner = model.inner[0](stem).data[0].transpose(2, 0, 1)
    assert_array_equal(maps(plot_feature_maps(model, image, "inner.0.conv2d")), inner)
    assert_array_equal(maps(plot_feature_maps(model, image, "inner.0")), inner)
    assert len(maps(plot_feature_maps(model, image, "inner.1"))) == 7
    with pytest.raises(ValueError, match=r"outputs \(N, H, W, C\), Conv2D was not used"):
        plot_feature_maps(model, image, "idle")
    names = "stem, inner.0, inner.1, idle, inner.0.conv2d$"
    with pytest.raises(ValueError, match=rf"has no layer 'conv2d'; its layers are {names}"):
        plot_feature_maps(model, image, "conv2d")
    with pytest.raises(ValueError, match="has no layer Conv2D; its layers are"):
        plot_feature_maps(model, image, minidl.Conv2D(1, 1))


def test_a_layer_without_maps_and_an_image_that_does_not_fit_are_refused():
    model = convolutional_model()
    with pytest.raises(
        ValueError, match=r"outputs \(N, H, W, C\), Dense 'dense' gave shape \(1, 3"
    ):
        plot_feature_maps(model, np.zeros((12, 10, 1)), "dense")
    with pytest.raises(ValueError, match=r"Conv2D 'conv2d': .* need a channel axis"):
        plot_feature_maps(model, np.zeros((12, 10)))
    assert all("forward" not in vars(layer) for layer in model.layers)
    assert all(layer.training for layer in model.layers)


def test_a_forward_of_a_layers_own_stays():
    model = convolutional_model()
    layer = model.layers[3]
    whole = layer.forward
    layer.forward = lambda x: whole(x) * 0 + 2
    own = layer.forward
    assert (maps(plot_feature_maps(model, np.zeros((12, 10, 1)), "last")) == 2).all()
    assert layer.forward is own
