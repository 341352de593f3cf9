"""Training speed against PyTorch on the CPU: python benchmarks/train.py.

Counted are samples a second of full training steps: forward, loss, backward, optimizer. Batches are
in memory already. In each round every contender runs for the same time, one after the other, so
that all meet the same noise. PyTorch (eager) is given one and two threads and, for images, both
memory formats; minidl is compared with what did best by median. Needs PyTorch, which minidl does
not: pip install torch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import RESULTS, save
from matplotlib.figure import Figure
from models import MODELS, Model, data, in_minidl
from rich.console import Console
from rich.table import Table

import minidl

try:
    import torch
    from pytorch_models import as_torch, in_pytorch
except ImportError:
    sys.exit("train.py compares with PyTorch, which is not installed: pip install torch")

WARM_UP = 5
Step = Callable[[], None]


def minidl_step(model: Model) -> Step:
    """One training step in minidl."""
    images, labels = data(model, model.batch_size)
    built = in_minidl(model)
    make = {"adam": minidl.Adam, "sgd": minidl.SGD}[model.optimizer]
    optimizer = make(built.parameters())

    def step() -> None:
        loss = minidl.cross_entropy(built(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def pytorch_step(model: Model, threads: int, channels_last: bool) -> Step:
    """One training step in PyTorch."""
    numbers, classes = data(model, model.batch_size)
    images, labels = as_torch(numbers, channels_last), torch.tensor(classes)
    built = in_pytorch(model, channels_last)
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[model.optimizer]
    optimizer = make(built.parameters(), lr=0.001)

    def step() -> None:
        torch.set_num_threads(threads)
        loss = torch.nn.functional.cross_entropy(built(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def contenders(model: Model) -> dict[str, Step]:
    """Everything that is timed, by name; minidl first."""
    steps = {"minidl": minidl_step(model)}
    for threads in range(1, min(2, os.cpu_count() or 1) + 1):
        for channels_last in [False, True] if len(model.input_shape) == 3 else [False]:
            name = f"{threads} thread{'s' * (threads > 1)}{', channels last' * channels_last}"
            steps[name] = pytorch_step(model, threads, channels_last)
    return steps


def samples_a_second(step: Step, batch_size: int, seconds: float) -> float:
    """Run a step over and over for so long."""
    for _ in range(WARM_UP):
        step()
    done, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        step()
        done += batch_size
    return done / passed


def measure(model: Model, rounds: int, seconds: float) -> dict[str, Any]:
    """Samples a second of every contender in every round, and what is made of them."""
    steps = contenders(model)
    measured: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            measured[name].append(samples_a_second(step, model.batch_size, seconds))
    best = max((n for n in steps if n != "minidl"), key=lambda n: statistics.median(measured[n]))
    ratios = [a / b for a, b in zip(measured["minidl"], measured[best], strict=True)]
    return {"samples a second": measured, "best of PyTorch": best, "ratio": ratios}


def spread(values: list[float], digits: int) -> str:
    """The median, with the least and the most."""
    shown = (statistics.median(values), min(values), max(values))
    return "{:,.{d}f} ({:,.{d}f} - {:,.{d}f})".format(*shown, d=digits)


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """A bar for each model: how many times as fast as PyTorch."""
    figure = Figure(figsize=(7, 0.45 * len(results) + 1), layout="constrained")
    axis = figure.subplots()
    names = list(results)[::-1]
    medians = [statistics.median(results[name]["ratio"]) for name in names]
    axis.barh(names, medians, color="#1f5fbf")
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xlabel("training speed, minidl / best of PyTorch")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="a contender and round")
    parser.add_argument(
        "--models",
        default="",
        help="their digits, such as 15 for the first and the fifth; all if left out",
    )
    args = parser.parse_args()
    chosen = {n: m for n, m in MODELS.items() if not args.models or n[0] in args.models}
    results = {}
    table = Table("model", "minidl, samples/s", "PyTorch, samples/s", "its best", "ratio")
    for name, model in chosen.items():
        results[name] = result = measure(model, args.rounds, args.seconds)
        speeds, best = result["samples a second"], result["best of PyTorch"]
        row = spread(speeds["minidl"], 0), spread(speeds[best], 0), best
        table.add_row(name, *row, spread(result["ratio"], 2))
    Console(width=120).print(table)
    medians = [statistics.median(result["ratio"]) for result in results.values()]
    print(f"Geometric mean of the ratios: {statistics.geometric_mean(medians):.2f}")
    save("train", pytorch=torch.__version__, models=results)
    draw(results, RESULTS / "train.png")


if __name__ == "__main__":
    main()
