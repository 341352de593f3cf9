"""What the Fashion-MNIST programs beside this file share: options, training, results, pictures.

Each of them defines a model and calls `run`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np

import minidl


def options(description: str, name: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--epochs", type=positive_integer, default=5)
    parser.add_argument("--batch-size", type=positive_integer, default=32)
    parser.add_argument(
        "--lr", type=positive_number, default=0.001, help="Adam's first learning rate"
    )
    parser.add_argument(
        "--seed", type=non_negative_integer, default=0, help="for weights and batch order"
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="share each batch among the processes that mpiexec starts, on CPUs, or with "
        "--device gpu on a GPU each: mpiexec -n 4 python ... --distributed",
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the four Fashion-MNIST files")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="for the results")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out that was interrupted"
    )
    return parser.parse_args()


def positive_integer(text: str) -> int:
    """An integer of at least one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def non_negative_integer(text: str) -> int:
    """An integer of at least zero."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {number}")
    return number


def positive_number(text: str) -> float:
    """A number above zero."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {number}")
    return number


def end_interrupted(world: minidl.World) -> NoReturn:
    """End the program after Ctrl-C, with the command that goes on from the checkpoint."""
    launcher = ["mpiexec", "-n", str(world.size)] if world.size > 1 else []
    command = shlex.join([*launcher, "python", *(arg for arg in sys.argv if arg != "--resume")])
    if world.rank == 0:
        print(f"Interrupted; to go on: {command} --resume", file=sys.stderr)
    sys.exit(130)


def run(description: str, name: str, build: Callable[[], minidl.Sequential]) -> None:
    """Train the model that `build` makes, print how it does on the test set, save the results."""
    args = options(description, name)
    world = minidl.world() if args.distributed else minidl.Alone()
    first, several = world.rank == 0, world.size > 1
    try:
        device = minidl.find_device("cpu" if several and args.device == "auto" else args.device)
        if not first:
            world.barrier()  # rank 0 fetches the data, if they are not there yet
        (x_train, y_train), (x_test, y_test) = minidl.fashion_mnist(args.data_dir)
        args.out.mkdir(parents=True, exist_ok=True)
        if first:
            world.barrier()
    except (minidl.DeviceError, OSError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")

    # Images (N, 28, 28) of bytes become (N, 28, 28, 1) between 0 and 1.
    x_train = x_train[..., None].astype(np.float32) / 255
    x_test = x_test[..., None].astype(np.float32) / 255

    minidl.seed(args.seed)
    model = build()
    model.to(device)
    if first:
        model.summary()
        ranks = f" in {world.size} processes" if several else ""
        sizes = f"{len(x_train):,} images, {len(x_test):,} to test"
        print(f"Training on the {device}{ranks}, {sizes}")

    # A rate that falls to zero ends each run at rest; a constant one ends wherever noise left it.
    steps = args.epochs * -(-len(x_train) // args.batch_size)
    optimizer = minidl.Adam(model.parameters(), lr=minidl.CosineDecay(args.lr, steps))
    trainer = minidl.Trainer(model, minidl.cross_entropy, optimizer, world=world)
    checkpoint = args.out / "checkpoint.safetensors"
    try:
        history = trainer.fit(
            x_train,
            y_train,
            args.epochs,
            args.batch_size,
            validation_data=(x_test, y_test),
            checkpoint=checkpoint,
            resume=checkpoint if args.resume else None,
        )
    except minidl.Interrupted:
        end_interrupted(world)
    except (minidl.DeviceError, OSError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    if not first:
        return

    loss, accuracy = history["val_loss"][-1], history["val_accuracy"][-1]
    print(f"Test loss {loss:.4f}, test accuracy {accuracy:.4f}")

    shown = 30
    probabilities = minidl.softmax(trainer.predict(x_test[:shown])).numpy()
    minidl.save(model, args.out / "model.safetensors", class_names=minidl.FASHION_MNIST_CLASSES)
    minidl.plot_history(history).savefig(args.out / "history.png")
    predictions = minidl.plot_predictions(
        x_test[:shown], probabilities, y_test[:shown], minidl.FASHION_MNIST_CLASSES
    )
    predictions.savefig(args.out / "predictions.png")
    print(f"Saved model.safetensors, history.png and predictions.png in {args.out}")
