"""Where each millisecond of a training step goes: python benchmarks/step_profile.py.

A model's training step runs with marks between its layers, which pass everything on and note when
it came by, forward and on the way back. The times between the marks add up to the whole step. They
are means over the quicker half of the steps, which the rest of the machine disturbed least. The
step without marks is measured in the same rounds.

Beside each layer stands what its matrix products alone take: NumPy's products of the same shapes on
as many threads, whole or cut into pieces of eight images, whichever is quicker; and what they would
take at the rate of a product of 1024x1024 matrices (sgemm). Those of a convolution have its patches
as rows; where Winograd's algorithm takes their place, a layer may take less than they.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import minidl_models
import numpy as np
from arithmetic import Products, alone, products, rate, sgemm_rate
from machine import save
from models import MODELS, Batch, Model, batches
from options import add_seconds, options
from report import draw_bars, progress, show
from rich.table import Table
from turns import speed, take_turns

import minidl

BATCHES = 16
IMAGES_A_PIECE = 8
BACKWARD = ("weight gradient", "input gradient")


class Mark(minidl.Module):
    """Passes its input on, and later the gradient, and calls `note` each time."""

    def __init__(self, note: Callable[[], None]) -> None:
        self.note = note

    def forward(self, x: minidl.Tensor) -> minidl.Tensor:
        """The same values."""
        self.note()
        return minidl.record(x.data, (x, self._pass_back))

    def _pass_back(self, gradient: np.ndarray) -> np.ndarray:
        self.note()
        return gradient


def stages(model: Model) -> list[range]:
    """The layers that are measured together: minidl computes a convolution with its pooling."""
    found: list[range] = []
    for number, (kind, *_) in enumerate(model.layers):
        if kind == "pool" and found and model.layers[number - 1][0] == "conv":
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def stage_names(model: Model) -> list[str]:
    """A name for each stage, all different."""
    layers = [" ".join([kind, ", ".join(map(str, rest))]).rstrip() for kind, *rest in model.layers]
    return [
        f"{stage.start + 1} {' + '.join(layers[number] for number in stage)}"
        for stage in stages(model)
    ]


def stage_products(model: Model, batch_size: int) -> list[Products | None]:
    """The products of each stage; None for one that has none."""
    found = products(model, batch_size)
    return [found[stage.start] for stage in stages(model)]


def parts(model: Model) -> list[tuple[str, str]]:
    """What lies between one time that `marked_step` notes and the next."""
    names = stage_names(model)
    # The gradient goes back to the first stage that has parameters and no further.
    learning = [bool(found) for found in stage_products(model, 1)].index(True)
    return [
        ("rest", "forward"),
        *((name, "forward") for name in names),
        ("loss", "forward"),
        ("optimizer", "backward"),  # forgets the last gradients
        ("loss", "backward"),
        *((name, "backward") for name in reversed(names[learning:])),
        ("optimizer", "backward"),
    ]


def marked_step(model: Model, data: list[Batch]) -> Callable[[], list[float]]:
    """A training step that returns how many seconds each of its `parts` took."""
    times: list[float] = []

    def note() -> None:
        times.append(time.perf_counter())

    built = minidl_models.build(model)
    optimizer = minidl_models.make_optimizer(model, built)
    marked = minidl.Sequential([Mark(note)])
    for stage in stages(model):
        marked.layers += [*built.layers[stage.start : stage.stop], Mark(note)]
    turn = itertools.cycle(data)

    def step() -> list[float]:
        times.clear()
        images, labels = next(turn)
        note()
        loss = minidl.cross_entropy(marked(images), labels)
        note()
        optimizer.zero_grad()
        note()
        loss.backward()
        note()
        optimizer.step()
        note()
        return [after - before for before, after in itertools.pairwise(times)]

    return step


def plain_step(model: Model, data: list[Batch]) -> Callable[[], list[float]]:
    """A training step without marks that returns how many seconds it took."""
    train = minidl_models.training(model, data)

    def step() -> list[float]:
        started = time.perf_counter()
        train()
        return [time.perf_counter() - started]

    return step


def collect(step: Callable[[], list[float]], seconds: float) -> list[list[float]]:
    """What a step returns, over and over for so many seconds."""
    collected: list[list[float]] = []
    speed(lambda: collected.append(step()), 1, seconds)
    return collected


def milliseconds(rounds: list[list[list[float]]]) -> list[float]:
    """The parts of a step, as means over the quicker half of the steps of all rounds."""
    steps = np.array(list(itertools.chain(*rounds)))
    whole = steps.sum(axis=1)
    return (1000 * steps[whole <= np.median(whole)].mean(axis=0)).tolist()


def needed_products(model: Model) -> dict[str, tuple[Products, tuple[str, ...]]]:
    """For each stage that has products: their shapes, and which of them a step needs."""
    named = zip(stage_names(model), stage_products(model, model.batch_size), strict=True)
    found = [(name, layer) for name, layer in named if layer]
    tasks = ("forward", *BACKWARD)
    # Nothing needs the gradient with respect to the images.
    return {name: (layer, tasks if i else tasks[:2]) for i, (name, layer) in enumerate(found)}


def measure(model: Model, rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of the parts of a step and of the products alone, by layer."""
    data = batches(model.data(BATCHES * model.batch_size), model.batch_size)
    turns: dict[Any, Callable[[], Any]] = {
        "marked": partial(collect, marked_step(model, data), seconds),
        "plain": partial(collect, plain_step(model, data), seconds),
        "sgemm": partial(sgemm_rate, seconds),
    }
    needed = needed_products(model)
    cuts = sorted({1, max(1, model.batch_size // IMAGES_A_PIECE)})
    for name, (layer, tasks) in needed.items():
        for task, pieces in itertools.product(tasks, cuts):
            turns[name, task, pieces] = partial(rate, alone(layer, task, pieces), 1, seconds)
    measured = take_turns(turns, rounds)

    sgemm = statistics.median(measured["sgemm"])
    times: dict[str, dict[str, Any]] = {
        name: {"forward": 0.0, "backward": 0.0}
        for name in [*stage_names(model), "loss", "optimizer", "rest"]
    }
    for (name, way), spent in zip(parts(model), milliseconds(measured["marked"]), strict=True):
        times[name][way] += spent
    for name, (layer, tasks) in needed.items():
        times[name]["products alone"] = {
            task: min(1000 / statistics.median(measured[name, task, pieces]) for pieces in cuts)
            for task in tasks
        }
        times[name]["MFLOP"] = layer.flops * len(tasks) / 1e6
        times[name]["at the sgemm rate"] = layer.flops * len(tasks) / 1e6 / sgemm
    return {
        "step without marks": sum(milliseconds(measured["plain"])),
        "sgemm, GFLOP/s": sgemm,
        "milliseconds": times,
    }


def report(name: str, result: dict[str, Any], folder: Path) -> None:
    """Print, draw and save what was measured of a model."""
    times = result["milliseconds"]
    table = Table(
        "part",
        "forward",
        "products alone",
        "backward",
        "products alone",
        "MFLOP",
        "at the sgemm rate",
        title=f"{name}: milliseconds of a training step",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    total = np.zeros(6)
    for part, spent in times.items():
        needed = spent.get("products alone", {})
        row = [
            spent["forward"],
            needed.get("forward", 0),
            spent["backward"],
            sum(needed.get(task, 0) for task in BACKWARD),
            spent.get("MFLOP", 0),
            spent.get("at the sgemm rate", 0),
        ]
        total += row
        table.add_row(part, *(f"{value:.2f}" if value else "" for value in row))
    table.add_section()
    table.add_row("sum", *(f"{value:.2f}" for value in total))
    show(table)
    whole, plain = total[0] + total[2], result["step without marks"]
    print(f"Whole step: {whole:.2f} ms; without marks: {plain:.2f} ms.")
    print(f"Its products alone: {total[1] + total[3]:.2f} ms.")
    print(f"sgemm: {result['sgemm, GFLOP/s']:.0f} GFLOP/s.")
    save("step_profile", folder, model=name, **result)
    draw_bars(
        folder / "step_profile.png",
        f"milliseconds of a training step, model {name}",
        {
            "forward and backward": {
                part: [spent["forward"] + spent["backward"]] for part, spent in times.items()
            },
            "matrix products alone": {
                part: [sum(spent["products alone"].values())]
                for part, spent in times.items()
                if "products alone" in spent
            },
        },
    )


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_seconds(parser, 0.3)
    digits = [name[0] for name in MODELS]
    parser.add_argument("--model", choices=digits, default="1", help="its digit")
    args = parser.parse_args()
    name, model = next(item for item in MODELS.items() if item[0][0] == args.model)
    progress(name)
    report(name, measure(model, args.rounds, args.seconds), args.output)


if __name__ == "__main__":
    main()
