"""One of each picture, drawn from little; also a program that draws them without a display."""

import io
import sys

import numpy as np

import minidl

NAMES = ["T-shirt/top", "Ankle boot", "Trouser"]


def history(epochs=3):
    """The record of a training with two metrics, each with its validation."""
    record = minidl.History()
    for epoch in range(1, epochs + 1):
        measures = {"loss": 1 / epoch, "accuracy": 1 - 0.5 / epoch, "top_2": 1.0}
        measures |= {f"val_{name}": value * 0.9 for name, value in measures.items()}
        record.append(measures, 1.0)
    return record


def convolutional_model(channels=1):
    """Two convolutions, the first of them with a pooling that is computed in one go with it."""
    minidl.seed(0)
    layers = [
        minidl.Conv2D(5, 3, activation="relu"),
        minidl.MaxPool(2),
        minidl.BatchNorm(),
        minidl.Conv2D(4, 2, name="last"),
        minidl.Dropout(0.5),
        minidl.Flatten(),
        minidl.Dense(3),
    ]
    return minidl.Sequential(layers, input_shape=(12, 10, channels))


def every_picture():
    """The name and the figure of each picture that needs no other program."""
    rng = np.random.default_rng(0)
    images = rng.random((4, 12, 10, 1), dtype=np.float32)
    probabilities = np.array([[1, 0, 0], [0.25, 0.5, 0.25], [0, 0.125, 0.875], [0, 1, 0]])
    labels = np.array([0, 2, 2, 1])
    matrix = minidl.confusion_matrix(probabilities, labels)
    yield "history", minidl.plot_history(history())
    yield "images", minidl.plot_images(images, labels, NAMES)
    yield "predictions", minidl.plot_predictions(images, probabilities, labels, NAMES)
    yield "probabilities", minidl.plot_probabilities(images, probabilities, NAMES, labels)
    yield "confusion_matrix", minidl.plot_confusion_matrix(matrix, NAMES)
    yield "filters", minidl.plot_filters(convolutional_model())
    yield "feature_maps", minidl.plot_feature_maps(convolutional_model(), images[0])


def main():
    import matplotlib

    settings = dict(matplotlib.rcParams)
    if "pyplot" in sys.argv:
        from matplotlib import pyplot

        own = pyplot.figure()
    for name, figure in every_picture():
        figure.savefig(io.BytesIO(), format="png")
        print(name)
    if "pyplot" in sys.argv:
        assert pyplot.get_fignums() == [own.number]
        assert pyplot.gcf() is own
        assert not own.axes
    else:
        assert "matplotlib.pyplot" not in sys.modules
    assert dict(matplotlib.rcParams) == settings


if __name__ == "__main__":
    main()
