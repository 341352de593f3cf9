"""The command line, `python -m minidl`: says what is in pictures, and lists what is known."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

import minidl

Row: TypeAlias = tuple[str, ...]

# How many classes of a picture are shown.
MOST_LIKELY = 3

# Each data set: how it is called, the function that reads it, its classes.
DATA_SETS = [
    ("Fashion-MNIST", "minidl.fashion_mnist", minidl.FASHION_MNIST_CLASSES),
    ("CIFAR-10", "minidl.cifar10", minidl.CIFAR10_CLASSES),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did what it should, 1 if not, having said why in one line.

    Args:
        arguments: of the command line, without the program; those of the process if None.
    """
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        print(f"minidl: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m minidl", description="Classify pictures with a saved model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser(
        "predict",
        help="say what is in pictures",
        description="Print the most likely classes of each picture, with the model's confidence.",
        epilog="Pictures are made grey and as large as the model expects, with values from 0 to 1, "
        "light on dark, as the pictures of Fashion-MNIST are.",
    )
    predict.add_argument("pictures", nargs="+", metavar="PICTURE", help="a PNG or JPEG file")
    predict.add_argument("--model", required=True, metavar="FILE", help="written by minidl.save")
    predict.set_defaults(run=_predict)

    known = commands.add_parser(
        "list",
        help="list data sets and saved models",
        description="Print the data sets with their classes, and the models saved in a folder.",
    )
    known.add_argument(
        "folder",
        nargs="?",
        default=".",
        metavar="FOLDER",
        help="where to look for models, also in folders in it; the current one if left out",
    )
    known.set_defaults(run=_list)
    return parser


def _predict(args: argparse.Namespace) -> None:
    """Print the most likely classes of each picture."""
    model = minidl.load(args.model)
    shape = model.input_shape or ()
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
        raise ValueError(
            f"{args.model}: predict reads grey pictures, and so expects a model with input shape "
            f"(H, W) or (H, W, 1), got {shape}"
        )
    pictures = np.stack([minidl.load_image(path, (shape[0], shape[1])) for path in args.pictures])
    images = pictures.reshape(len(pictures), *shape).astype(np.float32) / 255
    predictions = minidl.classify(model, images)
    assert isinstance(predictions, list)  # noqa: S101  images are a batch

    rows: list[Row] = []
    for path, prediction in zip(args.pictures, predictions, strict=True):
        best = np.argsort(-prediction.probabilities, kind="stable")[:MOST_LIKELY]
        names = [model.class_names[n] if model.class_names else f"class {n}" for n in best]
        shares = [f"{prediction.probabilities[n]:.1%}" for n in best]
        rows.append((path, "\n".join(names), "\n".join(shares)))
    _print_table("What is in the pictures", ("Picture", "Class", "Confidence"), rows)


def _list(args: argparse.Namespace) -> None:
    """Print the data sets, and the saved models in a folder and the folders in it."""
    folder = Path(args.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    data_sets = [(name, function, ", ".join(classes)) for name, function, classes in DATA_SETS]
    models = [_model_row(path, folder) for path in sorted(folder.rglob("*.safetensors"))]

    _print_table("Data sets", ("Name", "Read by", "Classes"), data_sets)
    if models:
        headers = "File", "Layers", "Parameters", "Classes"
        _print_table(f"Saved models in {folder}", headers, models)
    else:
        print(f"No saved models in {folder}")


def _model_row(path: Path, folder: Path) -> Row:
    """What there is to say of a file: its model, or why it is none."""
    name = str(path.relative_to(folder))
    try:
        model = minidl.load(path)
    except (OSError, ValueError) as error:
        return name, _one_line(error).removeprefix(f"{path}: "), "", ""
    layers = ", ".join(type(layer).__name__ for layer in model.layers)
    parameters = sum(array.size for array in model.state_dict().values())
    names = model.class_names or ()
    classes = f"{len(names)}: {names[0]} ... {names[-1]}" if names else ""
    return name, layers, f"{parameters:,}", classes


def _print_table(title: str, headers: Sequence[str], rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "bold"), title_justify="left", show_lines=True)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a name is no markup, whatever is in it
    Console().print(table)


def _one_line(error: Exception) -> str:
    """The message of an error; the system's own with the file in front, as everywhere else."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
