"""Training speed as batch, channels and images grow: python benchmarks/scaling.py.

The model is two blocks (Conv2D 3x3 same relu, MaxPool 2), Flatten and Dense 10, trained with Adam
on grey images. One of its sizes grows while the others stay. Beside the ratio of minidl's speed to
that of PyTorch stands how many operations of the matrix products each gets done in a second, so
that one sees where cost departs from the arithmetic. Needs PyTorch, which minidl does not: pip
install torch. Keras joins where it is installed.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

import contest
import matplotlib.ticker
from arithmetic import step_flops
from machine import save
from matplotlib.figure import Figure
from models import Model, batches
from options import add_seconds, options
from report import COLOURS, progress, show
from rich.table import Table

BATCHES = 4
# Steps of more operations than this take long, and PyTorch does not take them with one thread.
LARGE = 1e9


class Sizes(NamedTuple):
    """What grows."""

    batch: int
    channels: int
    image: int

    @property
    def model(self) -> Model:
        """The model of these sizes."""
        block = ("conv", self.channels, 3, "same"), ("pool",)
        layers = (*block, *block, ("flatten",), ("dense", 10))
        return Model((self.image, self.image, 1), self.batch, "adam", layers)


SWEEPS = {
    "batch": [Sizes(2**i, 32, 28) for i in range(3, 11)],
    "channels": [Sizes(32, 2**i, 28) for i in range(3, 9)],
    "image": [Sizes(8, 16, 28 * 2**i) for i in range(4)],
}
TITLES = {
    "batch": "batch\n(32 channels, 28x28)",
    "channels": "channels\n(batch 32, 28x28)",
    "image": "height and width of the image\n(batch 8, 16 channels)",
}


def measure(sizes: Sizes, rounds: int, seconds: float) -> dict[str, Any]:
    """A result of `contest.compete` with the operations of a step."""
    model, size = sizes.model, sizes.batch
    flops = step_flops(model, size)
    settings = contest.pytorch_settings(model)
    if flops > LARGE:
        settings = [setting for setting in settings if setting.threads > 1] or settings
    data = batches(model.data(BATCHES * size), size)
    result = contest.compete("training", model, data, size, rounds, seconds, settings)
    return {**sizes._asdict(), "GFLOP a step": flops / 1e9, **result}


def gflops(result: dict[str, Any], framework: str) -> float:
    """The median of the operations a second of a framework at its best, in 10^9."""
    speed = statistics.median(contest.best_speeds(result, framework))
    return speed * result["GFLOP a step"] / result["batch"]


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw operations a second above, and ratios below, over each size that grows."""
    figure = Figure(figsize=(3.6 * len(results), 6), layout="constrained")
    axes = figure.subplots(2, len(results), sharex="col", sharey="row", squeeze=False)
    for (sweep, points), (above, below) in zip(results.items(), axes.T, strict=True):
        sizes = [point[sweep] for point in points]
        colours = dict(zip(points[0]["best"], COLOURS, strict=False))
        for framework, colour in colours.items():
            rates = [gflops(point, framework) for point in points]
            above.plot(sizes, rates, color=colour, marker="o", markersize=4, label=framework)
        for framework in points[0]["ratio"]:
            ratios = [statistics.median(point["ratio"][framework]) for point in points]
            below.plot(sizes, ratios, color=colours[framework], marker="o", markersize=4)
        below.axhline(1, color="black", linewidth=1, linestyle="--")
        below.set_xscale("log", base=2)
        below.set_xticks(sizes, map(str, sizes))
        below.set_xlabel(TITLES[sweep])
        for axis in (above, below):
            axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("GFLOP/s of a training step")
    axes[1, 0].set_ylabel("speed of minidl / speed of the other")
    for axis in axes[:, 0]:
        axis.set_ylim(bottom=0)  # once all is drawn, or later panels would be cut off
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = options(__doc__, rounds=3)
    add_seconds(parser, 0.3)
    parser.add_argument(
        "--sweeps", nargs="+", choices=SWEEPS, default=list(SWEEPS), help="what is to grow"
    )
    args = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    table = Table("", "batch", "channels", "image", "GFLOP a step", *contest.columns("GFLOP/s"))
    for sweep in args.sweeps:
        results[sweep] = []
        table.add_section()
        for sizes in SWEEPS[sweep]:
            progress(f"{sweep} {getattr(sizes, sweep)}")
            result = measure(sizes, args.rounds, args.seconds)
            results[sweep].append(result)
            gflop = result["GFLOP a step"]
            row = contest.cells(result, gflop / sizes.batch)
            table.add_row(sweep, *map(str, sizes), f"{gflop:.3f}", *row)
    show(table)
    save("scaling", args.output, frameworks=contest.versions(), sweeps=results)
    draw(results, args.output / "scaling.png")


if __name__ == "__main__":
    main()
