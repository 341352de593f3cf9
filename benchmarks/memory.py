"""Memory of a training process, against PyTorch's: python benchmarks/memory.py.

Whole processes: each imports its framework, trains for 20 steps on random data, and tells the most
memory that was resident at once, after the imports and in the end. PyTorch is given two threads and
both memory formats; what took least by median counts. Needs PyTorch, which minidl does not: pip
install torch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machine import save
from options import PROGRAM, PYTORCH_MISSING, add_models, options, positive_integer
from report import draw_bars, progress, show, spread
from rich.table import Table
from turns import take_turns

PROCESS = Path(__file__).with_name("training_process.py")
PYTORCH_THREADS = 2
FORMATS = ("default", "channels last")
MB = 1e6


def megabytes(*arguments: object) -> tuple[float, float]:
    """The most that a process had resident: until all was imported, and in the end."""
    command = [sys.executable, str(PROCESS), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    imported, peak = map(int, done.stdout.split())
    return imported / MB, peak / MB


def measure(digit: str, batch_size: int, steps: int, rounds: int) -> dict[str, Any]:
    """Megabytes of each contender in every round, and minidl's share of PyTorch's peak."""
    arguments = digit, batch_size, steps
    turns = {"minidl": partial(megabytes, *arguments)}
    for name in FORMATS:
        turns[name] = partial(megabytes, *arguments, PYTORCH_THREADS, name)
    imported, peak = {}, {}
    for name, values in take_turns(turns, rounds).items():
        imported[name], peak[name] = map(list, zip(*values, strict=True))
    least = min(FORMATS, key=lambda name: statistics.median(peak[name]))
    share = [a / b for a, b in zip(peak["minidl"], peak[least], strict=True)]
    return {"imported, MB": imported, "peak, MB": peak, "least of PyTorch": least, "share": share}


def best(result: dict[str, Any], what: str) -> dict[str, list[float]]:
    """Of a result of `measure`, what minidl took and what PyTorch took at its least."""
    values = result[what]
    return {"minidl": values["minidl"], "PyTorch": values[result["least of PyTorch"]]}


def report(results: dict[str, dict[str, Any]], pytorch: str, folder: Path) -> None:
    """Print, draw and save what was measured."""
    table = Table(
        "model and batch",
        "minidl, MB",
        "beyond imports",
        "PyTorch, MB",
        "beyond imports",
        "its least",
        "minidl / PyTorch",
    )
    bars: dict[str, dict[str, list[float]]] = {"minidl": {}, "PyTorch": {}}
    for name, result in results.items():
        imported, peak = best(result, "imported, MB"), best(result, "peak, MB")
        cells = []
        for framework in bars:
            beyond = [a - b for a, b in zip(peak[framework], imported[framework], strict=True)]
            cells += [spread(peak[framework], 0), spread(beyond, 0)]
            bars[framework]["imports alone"] = imported[framework]
            bars[framework][name] = peak[framework]
        table.add_row(name, *cells, result["least of PyTorch"], spread(result["share"], 2))
    show(table)
    save("memory", folder, frameworks={"PyTorch": pytorch}, trainings=results)
    draw_bars(folder / "memory.png", "most memory resident in training, MB", bars)


def main() -> None:
    if sys.platform == "win32":
        sys.exit(f"{PROGRAM} cannot ask Windows for the peak of a process: use Linux or macOS")
    try:
        pytorch = version("torch")
    except PackageNotFoundError:
        sys.exit(PYTORCH_MISSING)
    parser = options(__doc__, rounds=3)
    parser.add_argument(
        "--batches", type=positive_integer, nargs="+", default=[64, 1024], help="batch sizes"
    )
    parser.add_argument("--steps", type=positive_integer, default=20, help="steps of a training")
    add_models(parser, "1")
    args = parser.parse_args()
    results = {}
    for model in args.models:
        for batch_size in args.batches:
            name = f"{model}, batch {batch_size}"
            progress(name)
            results[name] = measure(model[0], batch_size, args.steps, args.rounds)
    report(results, pytorch, args.output)


if __name__ == "__main__":
    main()
