"""What `Trainer.fit` costs beside the bare steps: python benchmarks/fit.py.

An epoch over 60,000 samples in memory, shuffled, with accuracy as its metric: once quiet and once
with the progress bar, which is drawn for a terminal and thrown away. The bare steps (forward, loss,
backward, optimizer) take the same samples in batches that are cut already, and measure nothing.
Epochs take turns; compared is how many samples a second they train on.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import minidl_models
import rich
from machine import save
from models import Batch, Model, batches
from options import add_models, options, positive_integer
from report import draw_bars, progress, show, spread
from rich.table import Table
from turns import take_turns

import minidl

BARE, QUIET, BAR = "bare steps", "fit, quiet", "fit, with a bar"
WARM_UP = 10  # batches


def bare_epoch(model: Model, data: Batch) -> Callable[[int], None]:
    """What trains on so many batches at each call, with nothing around the steps."""
    step = minidl_models.training(model, batches(data, model.batch_size))

    def train(count: int) -> None:
        for _ in range(count):
            step()

    return train


def fit_epoch(model: Model, data: Batch, verbose: int) -> Callable[[int], None]:
    """What trains on so many batches at each call, as an epoch of `fit`."""
    built = minidl_models.build(model)
    optimizer = minidl_models.make_optimizer(model, built)
    trainer = minidl.Trainer(built, minidl.cross_entropy, optimizer)
    images, labels = data

    def train(count: int) -> None:
        samples = count * model.batch_size
        trainer.fit(
            images[:samples], labels[:samples], batch_size=model.batch_size, verbose=verbose
        )

    return train


def samples_a_second(train: Callable[[int], None], count: int, samples: int) -> float:
    """The speed of one epoch, after a short one."""
    train(WARM_UP)
    started = time.perf_counter()
    train(count)
    return samples / (time.perf_counter() - started)


def measure(model: Model, samples: int, rounds: int) -> dict[str, Any]:
    """Samples a second of each kind of epoch in every round, and the ratios to the bare steps."""
    data = model.data(samples)
    epochs = {
        BARE: bare_epoch(model, data),
        QUIET: fit_epoch(model, data, verbose=0),
        BAR: fit_epoch(model, data, verbose=1),
    }
    count = math.ceil(samples / model.batch_size)
    turns = {
        name: partial(samples_a_second, train, count, samples) for name, train in epochs.items()
    }
    speeds = take_turns(turns, rounds)
    ratios = {
        name: [a / b for a, b in zip(speeds[name], speeds[BARE], strict=True)]
        for name in (QUIET, BAR)
    }
    return {"samples a second": speeds, "ratio": ratios}


def report(results: dict[str, dict[str, Any]], samples: int, folder: Path) -> None:
    """Print, draw and save what was measured."""
    table = Table("model", "bare steps, samples/s", QUIET, "ratio", BAR, "ratio")
    for model, result in results.items():
        cells = [spread(result["samples a second"][BARE], 0)]
        for name in (QUIET, BAR):
            cells.append(spread(result["samples a second"][name], 0))
            cells.append(spread(result["ratio"][name], 3))
        table.add_row(model, *cells)
    show(table)
    save("fit", folder, samples=samples, models=results)
    draw_bars(
        folder / "fit.png",
        "speed of an epoch / speed of its bare steps",
        {
            name: {model: result["ratio"][name] for model, result in results.items()}
            for name in (QUIET, BAR)
        },
        line=0.95,
    )


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument(
        "--samples", type=positive_integer, default=60_000, help="how many make an epoch"
    )
    add_models(parser)
    args = parser.parse_args()
    results = {}
    with Path(os.devnull).open("w") as nowhere:
        # The bar is drawn for a terminal: rich's console takes this file for one.
        rich.reconfigure(file=nowhere, force_terminal=True)
        for name, model in args.models.items():
            progress(name)
            results[name] = measure(model, args.samples, args.rounds)
    report(results, args.samples, args.output)


if __name__ == "__main__":
    main()
