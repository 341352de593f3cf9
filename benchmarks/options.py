"""The command line that the benchmarks share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from machine import RESULTS
from models import MODELS, Model

PROGRAM = Path(sys.argv[0]).name
PYTORCH_MISSING = f"{PROGRAM} compares with PyTorch, which is not installed: pip install torch"


def options(description: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """A command line with the options that all have; a program adds its own.

    Args:
        description: the program's docstring, the first line of which is shown.
        rounds: how many there are if nobody says; None if there are no rounds.
    """
    parser = argparse.ArgumentParser(
        description=description.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    if rounds is not None:
        parser.add_argument(
            "--rounds", type=positive_integer, default=rounds, help="turns of each contender"
        )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder for the JSON and the chart"
    )
    return parser


def add_seconds(parser: argparse.ArgumentParser, default: float) -> None:
    """Let the user say how long a turn is."""
    parser.add_argument(
        "--seconds", type=positive_number, default=default, help="length of one turn"
    )


def add_models(parser: argparse.ArgumentParser, default: str = "12345678") -> None:
    """Let the user choose models by their digits; args.models is then a dict like `MODELS`."""
    parser.add_argument(
        "--models",
        type=chosen_models,
        default=default,
        help="their digits, such as 15 for the first and the fifth",
    )


def chosen_models(digits: str) -> dict[str, Model]:
    """The models with these digits, in the order of `MODELS`."""
    numbers = {name[0] for name in MODELS}
    if not digits or not set(digits) <= numbers:
        raise argparse.ArgumentTypeError(
            f"expects digits of models, such as 15, got {digits!r}; there are {', '.join(MODELS)}"
        )
    return {name: model for name, model in MODELS.items() if name[0] in digits}


def positive_integer(text: str) -> int:
    """An integer of at least one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def positive_number(text: str) -> float:
    """A number above zero."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {number}")
    return number
