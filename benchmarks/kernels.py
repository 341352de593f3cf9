"""Convolutions as a share of the machine's matrix product: python benchmarks/kernels.py.

Each convolution of the models at their batch sizes: forward, the gradient with respect to the
weight, and that with respect to the images, each alone. Of a gradient only `backward` is timed; the
forward pass before it is outside the clock. Each takes 2*N*OH*OW*KH*KW*C_in*C_out operations. What
it does in a second is compared with NumPy's product of two 1024x1024 float32 matrices (sgemm) on
as many threads, measured in the same rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from arithmetic import products, sgemm_rate
from machine import save
from models import Model, Shape
from options import add_models, add_seconds, options
from report import draw_bars, progress, show
from rich.table import Table
from turns import speed, take_turns

import minidl

TASKS = ("forward", "weight gradient", "input gradient")


class Convolution(NamedTuple):
    """One of the convolutions that are measured."""

    name: str
    images: Shape
    weight: Shape
    out: Shape
    padding: str
    flops: int


def convolutions(models: dict[str, Model]) -> Iterator[Convolution]:
    """The convolutions of the models, each with the model's digit in its name."""
    for name, model in models.items():
        batch, shapes = model.batch_size, model.shapes()
        counts = products(model, batch)
        for i, (kind, *arguments) in enumerate(model.layers):
            if kind == "conv":
                filters, size, padding = arguments
                yield Convolution(
                    f"model {name[0]}: {size}x{size}x{filters} on "
                    f"{batch}x{'x'.join(map(str, shapes[i]))}",
                    (batch, *shapes[i]),
                    (size, size, shapes[i][-1], filters),
                    (batch, *shapes[i + 1]),
                    padding,
                    counts[i].flops,
                )


def measure(convolution: Convolution, rounds: int, seconds: float) -> dict[str, list[float]]:
    """GFLOP/s of each task and of sgemm, in every round."""
    rng = np.random.default_rng(0)
    images = rng.random(convolution.images, dtype=np.float32)
    weight = rng.random(convolution.weight, dtype=np.float32)
    d = rng.random(convolution.out, dtype=np.float32)
    convolve = partial(minidl.conv2d, padding=convolution.padding)

    def forward() -> None:
        with minidl.no_grad():
            convolve(images, weight)

    def before_weight_gradient() -> tuple[minidl.Tensor]:
        return (convolve(images, minidl.Tensor(weight, requires_grad=True)),)

    def before_input_gradient() -> tuple[minidl.Tensor]:
        return (convolve(minidl.Tensor(images, requires_grad=True), weight),)

    def backward(out: minidl.Tensor) -> None:
        out.backward(d)

    gflop = convolution.flops / 1e9
    turns = {
        "sgemm": partial(sgemm_rate, seconds),
        "forward": partial(speed, forward, gflop, seconds),
        "weight gradient": partial(speed, backward, gflop, seconds, before_weight_gradient),
        "input gradient": partial(speed, backward, gflop, seconds, before_input_gradient),
    }
    return take_turns(turns, rounds)


def report(results: dict[str, dict[str, Any]], folder: Path) -> None:
    """Print, draw and save what was measured."""
    table = Table("convolution", "MFLOP", "sgemm, GFLOP/s", *TASKS)
    for name, result in results.items():
        rates, shares = result["GFLOP/s"], result["share"]
        cells = [
            f"{statistics.median(rates[task]):.0f} GFLOP/s, {percent(shares[task])}"
            for task in TASKS
        ]
        sgemm = f"{statistics.median(rates['sgemm']):.0f}"
        table.add_row(name, f"{result['MFLOP']:.1f}", sgemm, *cells)
    show(table)
    print("Training needs no input gradient of the first convolution of a model.")
    save("kernels", folder, convolutions=results)
    draw_bars(
        folder / "kernels.png",
        "share of the sgemm rate",
        {task: {name: result["share"][task] for name, result in results.items()} for task in TASKS},
    )


def percent(shares: Iterable[float]) -> str:
    """The median share, with the least and the most."""
    shares = list(shares)
    return f"{statistics.median(shares):.0%} ({min(shares):.0%} - {max(shares):.0%})"


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_seconds(parser, 0.2)
    add_models(parser, "1234")
    args = parser.parse_args()
    chosen = list(convolutions(args.models))
    if not chosen:
        parser.error("none of these models has a convolution")
    results = {}
    for convolution in chosen:
        progress(convolution.name)
        rates = measure(convolution, args.rounds, args.seconds)
        results[convolution.name] = {
            "MFLOP": convolution.flops / 1e6,
            "padding": convolution.padding,
            "GFLOP/s": rates,
            "share": {
                task: [a / b for a, b in zip(rates[task], rates["sgemm"], strict=True)]
                for task in TASKS
            },
        }
    report(results, args.output)


if __name__ == "__main__":
    main()
