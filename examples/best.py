"""A recipe of our own, and what each part of it adds: python examples/best.py.

`reproduce.py best` trains it on all 60,000 training images and looks at the test set once, at the
end. What is in it was chosen here: on 50,000 of the training images, with the other 10,000 to
validate on, for fewer epochs; then with each part left out in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fashion import non_negative_integer, positive_integer
from outcomes import markdown_table, this_run, write
from rich.console import Console
from rich.table import Table
from systems import Data, Figure, System, scaled

import minidl

NAME = "best"
RESULTS = Path(__file__).parent / "results" / "best.json"

BATCH_SIZE = 128
EPOCHS = 40

COLUMNS = ("left out", "validation accuracy", "of averaged weights")

PARTS = {
    "batch normalisation": "of the pixels and after each convolution",
    "augmentation": "horizontal flips, crops after padding by 2, cutout of 8x8",
    "schedule": "OneCycle up to 0.003; without it, a constant 0.001",
    "label smoothing": "by 0.1",
    "weight decay": "AdamW with 0.05",
}


def layers(normalize: bool = True) -> list[minidl.Layer]:
    """Five convolutions on images of three sizes, the average of the last, and one Dense.

    The first normalisation brings pixels from 0 to 1 to mean 0 and variance 1.
    """

    def convolution(filters: int, *following: minidl.Layer) -> list[minidl.Layer]:
        made = minidl.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer="he_normal"
        )
        return [made, *following, *([minidl.BatchNorm(momentum=0.9)] if normalize else [])]

    return [
        *([minidl.BatchNorm(momentum=0.9)] if normalize else []),
        *convolution(32, minidl.MaxPool(2)),
        *convolution(64),
        *convolution(64, minidl.MaxPool(2)),
        *convolution(128),
        *convolution(128),
        minidl.GlobalAvgPool(),
        minidl.Dense(10),
    ]


def system(epochs: int = EPOCHS, without: str | None = None) -> System:
    """The recipe for so many epochs, without one of its parts if any is named."""

    def optimizer(parameters: Sequence[minidl.Parameter], steps: int) -> minidl.Optimizer:
        lr = 0.001 if without == "schedule" else minidl.OneCycle(0.003, steps, rise=0.2)
        weight_decay = 0.0 if without == "weight decay" else 0.05
        return minidl.AdamW(parameters, lr, weight_decay=weight_decay)

    augment = minidl.Compose(
        [minidl.HorizontalFlip(), minidl.RandomCrop(padding=2), minidl.Cutout(8)]
    )
    smoothing = 0.0 if without == "label smoothing" else 0.1
    return System(
        recipe="five convolutions with batch normalisation; AdamW, OneCycle, label smoothing; "
        "flips, crops, cutout",
        data=scaled,
        layers=partial(layers, normalize=without != "batch normalisation"),
        parameters=279_308,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        figures=[Figure("test", measure="test_accuracy")],
        optimizer=optimizer,
        remark="a recipe of our own",
        transform=None if without == "augmentation" else augment,
        loss=partial(minidl.cross_entropy, label_smoothing=smoothing),
        watch_test=False,
    )


def validate(without: str | None, pixels: Data, epochs: int, seed: int) -> dict[str, Any]:
    """Train without one part and validate on training images that were set aside."""
    chosen = system(epochs, without)
    # The same images are set aside for every seed and part.
    train, validation = minidl.train_validation_split(
        pixels.x_train, pixels.y_train, 1 / 6, generator=minidl.Generator(0)
    )
    minidl.seed(seed)
    model = minidl.Sequential(chosen.layers(), input_shape=pixels.x_train.shape[1:])
    steps = epochs * -(-len(train[0]) // BATCH_SIZE)
    trainer = minidl.Trainer(model, chosen.loss, chosen.optimizer(model.parameters(), steps))
    history = trainer.fit(
        *train,
        epochs,
        BATCH_SIZE,
        validation_data=validation,
        transform=chosen.transform,
        callbacks=[minidl.WeightAverage()],
    )
    return {
        "without": without,
        "seed": seed,
        "epochs": epochs,
        "validation": history["val_accuracy"][-1],
        "validation of averaged weights": trainer.evaluate(*validation)["accuracy"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=positive_integer, default=10)
    parser.add_argument("--seed", type=non_negative_integer, default=0)
    parser.add_argument("--data-dir", type=Path, help="folder with the four Fashion-MNIST files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of the outcome")
    args = parser.parse_args()
    try:
        pixels = scaled(args.data_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"best.py: {error}")
    rows = []
    for without in (None, *PARTS):
        print(f"without {without or 'nothing'}", flush=True)
        rows.append(validate(without, pixels, args.epochs, args.seed))
        save(rows, args.results)
    show(rows)


def save(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows to the results file, with the command and the machine."""
    write(path, json.dumps({"run": this_run("best.py"), "rows": rows}, indent=2) + "\n")


def lines(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line of text for what the recipe reaches, and for what without each part."""
    shown = []
    for row in rows:
        accuracies = row["validation"], row["validation of averaged weights"]
        part = row["without"]
        name = f"{part}: {PARTS[part]}" if part else "nothing"
        shown.append([name, *(f"{value:.4f}" for value in accuracies)])
    return shown


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print what the recipe reaches, and what without each part."""
    table = Table(*COLUMNS)
    for line in lines(rows):
        table.add_row(*line)
    Console().print(table)


def markdown(path: Path = RESULTS) -> str:
    """The table for the README."""
    content = json.loads(path.read_text())
    table = markdown_table(COLUMNS, lines(content["rows"]))
    epochs = content["rows"][0]["epochs"]
    return f"{table}\n\n`{content['run']['command']}`, {epochs} epochs each."


if __name__ == "__main__":
    main()
