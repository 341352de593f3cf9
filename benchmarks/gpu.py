"""Training on a GPU against PyTorch: python benchmarks/gpu.py.

Milliseconds of a full training step (forward, loss, backward, optimizer), by CUDA events, for each
model at two batch sizes, and the most memory that each takes from the device for arrays. The
batches lie on the device already, and are the same for both. PyTorch (eager, without TF32 as
minidl) has for images its best of both memory formats. Needs a GPU, CuPy, and a PyTorch that was
built for it.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import card  # first: without a GPU it ends the program
import card_pytorch
import minidl_models
import pytorch_models
from machine import save
from models import Model, batches
from options import add_models, add_seconds, options, positive_integer
from report import draw_bars, progress, show, spread
from rich.table import Table
from turns import take_turns

BATCHES = 16
SIZES = 64, 1024
MB = 1e6


def measure(model: Model, size: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step and megabytes of each contender, and how many times as fast minidl is.

    Args:
        model: what is trained.
        size: of a batch.
        rounds: turns of each contender.
        seconds: length of a turn.
    """
    data = batches(model.data(BATCHES * size), size)
    libraries: dict[str, card.Library] = {"minidl": card.Cupy()}
    makers = {"minidl": partial(minidl_models.training, model, data, "gpu")}
    for last in pytorch_models.memory_formats(model):
        name = "PyTorch, channels last" if last else "PyTorch"
        setting = pytorch_models.Setting(threads=1, channels_last=last, device="cuda")
        libraries[name] = card_pytorch.Torch()
        makers[name] = partial(pytorch_models.training, model, data, setting)
    peaks = {name: libraries[name].peak(make) / MB for name, make in makers.items()}
    times = take_turns(
        {
            name: partial(libraries[name].milliseconds, make(), seconds)
            for name, make in makers.items()
        },
        rounds,
    )
    rivals = [name for name in times if name != "minidl"]
    best = min(rivals, key=lambda name: statistics.median(times[name]))
    ratio = [theirs / ours for ours, theirs in zip(times["minidl"], times[best], strict=True)]
    return {"milliseconds": times, "peak, MB": peaks, "best": best, "ratio": ratio}


def report(results: dict[str, dict[str, Any]], folder: Path) -> None:
    """Print, draw and save what was measured."""
    table = Table(
        "model and batch", "minidl, ms", "PyTorch, ms", "ratio", "minidl, MB", "PyTorch, MB"
    )
    for name, result in results.items():
        times, peaks, best = result["milliseconds"], result["peak, MB"], result["best"]
        table.add_row(
            name,
            spread(times["minidl"], 3),
            spread(times[best], 3),
            spread(result["ratio"], 2),
            f"{peaks['minidl']:,.0f}",
            f"{peaks[best]:,.0f}",
        )
    show(table)
    save("gpu", folder, gpu={**card.describe(), "PyTorch": card_pytorch.VERSION}, models=results)
    draw_bars(
        folder / "gpu.png",
        "speed of minidl / speed of PyTorch at its best, on a GPU",
        {"against PyTorch": {name: result["ratio"] for name, result in results.items()}},
        line=1,
    )


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_seconds(parser, 0.5)
    add_models(parser)
    parser.add_argument(
        "--batch-sizes", type=positive_integer, nargs="+", default=SIZES, help="samples of a batch"
    )
    args = parser.parse_args()
    results = {}
    for name, model in args.models.items():
        for size in args.batch_sizes:
            what = f"{name}, batch {size}"
            progress(what)
            results[what] = measure(model, size, args.rounds, args.seconds)
    report(results, args.output)


if __name__ == "__main__":
    main()
