"""Published results, one command each: python examples/reproduce.py cnn-three-blocks.

Trains what a tutorial trained, on the real data, and puts the outcome beside what was published.
Each run leaves the model, its history, curves and predictions in a folder, and its row in a table,
`examples/results/reproduce.json`, which `--readme` writes into the README.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import classical
import numpy as np
from fashion import end_interrupted, non_negative_integer, positive_integer
from outcomes import this_run
from rows import ENTRIES, TRAINED, Row, load, record, show_list, show_table, write_readme
from systems import Data, Figure, scaled

import minidl

RESULTS = Path(__file__).parent / "results" / "reproduce.json"
SHOWN = 30  # test pictures


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="systems to run, see --list")
    parser.add_argument("--all", action="store_true", help="run all systems")
    parser.add_argument("--list", action="store_true", help="name the systems and what they are")
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    parser.add_argument(
        "--seeds", type=non_negative_integer, nargs="+", default=[0], help="a run for each (0)"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument(
        "--epochs", type=positive_integer, help="other than the tutorial's; such runs get no row"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with what is in --out and was interrupted"
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the files of the data set")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="for models and pictures")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of all rows")
    args = parser.parse_args()
    for name in args.names:
        if name not in ENTRIES:
            parser.error(f"unknown system {name!r}; known: {', '.join(ENTRIES)}")
    if args.all:
        args.names = list(ENTRIES)
    if not (args.names or args.list or args.readme):
        parser.error("name a system, or --all, --list or --readme")
    return args


def main() -> None:
    args = options()
    try:
        load(args.results)  # what cannot be added to is better known before a training than after
        if args.list:
            show_list()
        for name in args.names:
            try:
                run(name, args)
            except FileNotFoundError as error:
                if not args.all:
                    raise
                print(f"reproduce.py: {name} was left out: {error}", file=sys.stderr)
        if args.readme:
            write_readme(load(args.results))
    except minidl.Interrupted:
        end_interrupted(minidl.Alone())
    except (minidl.DeviceError, ImportError, OSError, ValueError) as error:
        sys.exit(f"reproduce.py: {error}")


def run(name: str, args: argparse.Namespace) -> None:
    """Run a system for every seed, record each run when it is done, and show the row of all."""
    device = minidl.find_device(args.device)
    data = scaled(args.data_dir) if name == classical.NAME else TRAINED[name].data(args.data_dir)
    rows = []
    for seed in args.seeds:
        if name == classical.NAME:
            row = classical.run(data, seed)
        else:
            folder = args.out / name / f"seed-{seed}"
            row = train(name, data, seed, device, folder, args.epochs, args.resume)
        rows.append({**row, "run": this_run("reproduce.py")})
        if args.epochs is None:
            record(rows, args.results)
    show_table(rows)


def train(
    name: str,
    data: Data,
    seed: int,
    device: str,
    folder: Path,
    epochs: int | None = None,
    resume: bool = False,
) -> Row:
    """Train a system once, and leave what came of it in a folder.

    Args:
        name: of the system.
        data: that it is trained on.
        seed: of its random numbers.
        device: to train on.
        folder: for the results, and a checkpoint after each epoch.
        epochs: None for the tutorial's.
        resume: whether to go on from the checkpoint, if there is one.

    Raises:
        Interrupted: after Ctrl-C; the checkpoint is written.
    """
    system = TRAINED[name]
    epochs = epochs or system.epochs
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    print(f"{name}, seed {seed}, on the {device}: {system.recipe}")
    minidl.seed(seed)
    model = minidl.Sequential(system.layers(), input_shape=data.x_train.shape[1:])
    model.to(device)
    steps = epochs * -(-len(data.x_train) // system.batch_size)
    optimizer = system.optimizer(model.parameters(), steps)
    trainer = minidl.Trainer(model, system.loss, optimizer)
    history = trainer.fit(
        data.x_train,
        data.y_train,
        epochs,
        system.batch_size,
        validation_data=(data.x_test, data.y_test) if system.watch_test else None,
        transform=system.transform,
        callbacks=[minidl.CSVLogger(folder / "history.csv")],
        checkpoint=checkpoint,
        resume=checkpoint if resume and checkpoint.exists() else None,
    )
    at_end = trainer.evaluate(data.x_test, data.y_test)
    measures = {**history.history, "test_accuracy": [at_end["accuracy"]]}
    save(folder, model, trainer, data)
    return {
        "system": name,
        "seed": seed,
        "device": device,
        "epochs": epochs,
        "seconds_an_epoch": statistics.median(history.seconds),
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "figures": {figure.label: value(measures, figure) for figure in system.figures},
    }


def value(measures: Mapping[str, Sequence[float]], figure: Figure) -> float | None:
    """What was measured for a figure; None if training was shorter."""
    measured = measures[figure.measure]
    if figure.epoch is None:
        return measured[-1]
    return measured[figure.epoch - 1] if figure.epoch <= len(measured) else None


def save(folder: Path, model: minidl.Sequential, trainer: minidl.Trainer, data: Data) -> None:
    """Leave the model, its curves and what it says of the test pictures in a folder."""
    minidl.save(model, folder / "model.safetensors", class_names=data.class_names)
    minidl.plot_history(trainer.history).savefig(folder / "curves.png")
    predictions = minidl.classify(model, data.x_test, data.class_names)
    probabilities = np.stack([prediction.probabilities for prediction in predictions[:SHOWN]])
    minidl.plot_predictions(
        data.x_test[:SHOWN], probabilities, data.y_test[:SHOWN], data.class_names
    ).savefig(folder / "predictions.png")
    # A line for each test picture: what it is, what it is taken for, and how surely.
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "class", "predicted", "confidence"])
        for number, (label, said) in enumerate(zip(data.y_test, predictions, strict=True)):
            true, confidence = data.class_names[label], f"{said.confidence:.4f}"
            writer.writerow([number, true, said.class_name, confidence])
    print(f"Saved model, history, curves and predictions in {folder}")


if __name__ == "__main__":
    main()
