"""Every picture of a saved model: python examples/gallery.py MODEL.safetensors.

The model takes Fashion-MNIST with pixels from 0 to 1, as those of `fashion_cnn.py` and most of
`reproduce.py` do, and is shown the test images.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from systems import Data, scaled

import minidl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, WRONG = 9, 3  # test images in a picture, and how many of them are mistaken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a file that minidl.save wrote")
    parser.add_argument("--data-dir", type=Path, help="folder with the four Fashion-MNIST files")
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"), help="for the pictures")
    args = parser.parse_args()
    try:
        model = minidl.load(args.model)
        data = scaled(args.data_dir)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures(model, data):
            figure.savefig(args.out / f"{name}.png")
            print(f"drew {args.out / name}.png")
    except (OSError, ValueError) as error:
        sys.exit(f"gallery.py: {error}")


def pictures(model: minidl.Sequential, data: Data) -> Iterator[tuple[str, Figure]]:
    """Each picture with a name."""
    names = data.class_names
    predictions = minidl.classify(model, data.x_test)
    probabilities = np.stack([prediction.probabilities for prediction in predictions])
    (mistaken,) = np.nonzero(probabilities.argmax(axis=1) != data.y_test)
    shown = [*mistaken[:WRONG], *range(SHOWN - WRONG)]
    images, labels, beliefs = data.x_test[shown], data.y_test[shown], probabilities[shown]
    yield "images", minidl.plot_images(images, labels, names)
    yield "predictions", minidl.plot_predictions(images, beliefs, labels, names)
    yield "probabilities", minidl.plot_probabilities(images, beliefs, names, labels)
    matrix = minidl.confusion_matrix(probabilities, data.y_test)
    yield "confusion", minidl.plot_confusion_matrix(matrix, names)
    if any(isinstance(layer, minidl.Conv2D) for layer in model.layers):
        yield "filters", minidl.plot_filters(model)
        yield "feature-maps", minidl.plot_feature_maps(model, data.x_test[0])
    if shutil.which("dot"):
        # A trainer's loss takes the outputs of a model that ends in softmax for what they are.
        trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.SGD(model.parameters()))
        loss = trainer.loss(model(images), minidl.Tensor(labels))
        yield "graph", minidl.plot_computation_graph(loss, model)


if __name__ == "__main__":
    main()
