"""minidl against PyTorch, and against Keras where it is installed: what train and predict share.

In each round every contender runs for the same time, one after the other. PyTorch (eager) is given
one and two threads, as many as minidl uses if that is another number, and for images both memory
formats. Of each framework counts what did best by median.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import minidl_models
from machine import save
from models import Batch, Model
from options import PYTORCH_MISSING
from report import draw_bars, show, spread
from rich.table import Table
from turns import speed, take_turns

import minidl

try:
    import pytorch_models
    import torch
except ModuleNotFoundError:
    sys.exit(PYTORCH_MISSING)
try:
    import keras_models
except ImportError:  # Keras is missing, or the backend it is set up for
    keras_models = None

Task = Literal["training", "prediction"]


def pytorch_settings(model: Model) -> list[pytorch_models.Setting]:
    """The ways in which PyTorch may run a model."""
    threads = {1, min(2, os.cpu_count() or 1), minidl.get_num_threads()}
    return [
        pytorch_models.Setting(n, last)
        for n in sorted(threads)
        for last in pytorch_models.memory_formats(model)
    ]


def contenders(
    task: Task,
    model: Model,
    data: list[Batch],
    settings: Sequence[pytorch_models.Setting],
) -> dict[str, dict[str, Callable[[], None]]]:
    """What is timed, by framework and setting."""
    made = {
        "minidl": {"default": getattr(minidl_models, task)(model, data)},
        "PyTorch": {str(s): getattr(pytorch_models, task)(model, data, s) for s in settings},
    }
    if keras_models:
        keras = getattr(keras_models, task)(model, data)
        made["Keras"] = {keras_models.version(): keras}
    return made


def compete(
    task: Task,
    model: Model,
    data: list[Batch],
    samples: int,
    rounds: int,
    seconds: float,
    settings: Sequence[pytorch_models.Setting] | None = None,
) -> dict[str, Any]:
    """Samples a second of every contender in every round, and what is made of them.

    Args:
        task: the function of each framework's file that makes what is timed.
        model: what is trained or asked.
        data: in batches.
        samples: that one call of a contender takes.
        rounds: turns of each contender.
        seconds: length of a turn.
        settings: of PyTorch; all if None.
    """
    made = contenders(task, model, data, settings or pytorch_settings(model))
    turns = {
        (framework, setting): partial(speed, work, samples, seconds)
        for framework, works in made.items()
        for setting, work in works.items()
    }
    speeds: dict[str, dict[str, list[float]]] = {framework: {} for framework in made}
    for (framework, setting), values in take_turns(turns, rounds).items():
        speeds[framework][setting] = values
    best = {
        framework: max(values, key=lambda setting: statistics.median(values[setting]))
        for framework, values in speeds.items()
    }
    ours = speeds["minidl"][best["minidl"]]
    ratios = {
        framework: [a / b for a, b in zip(ours, values[best[framework]], strict=True)]
        for framework, values in speeds.items()
        if framework != "minidl"
    }
    return {"samples a second": speeds, "best": best, "ratio": ratios}


def best_speeds(result: dict[str, Any], framework: str) -> list[float]:
    """Samples a second of a framework at its best, from a result of `compete`."""
    speeds: list[float] = result["samples a second"][framework][result["best"][framework]]
    return speeds


def columns(unit: str) -> list[str]:
    """Heads of the columns that `cells` fills."""
    heads = [f"minidl, {unit}", f"PyTorch, {unit}", "its best", "ratio"]
    return heads + [f"Keras, {unit}", "ratio to Keras"] * bool(keras_models)


def cells(result: dict[str, Any], factor: float = 1) -> list[str]:
    """A result of `compete` in a table's row; speeds times a factor."""
    speeds = {
        framework: spread([factor * speed for speed in best_speeds(result, framework)], 0)
        for framework in result["best"]
    }
    ratios = {framework: spread(ratio, 2) for framework, ratio in result["ratio"].items()}
    row = [speeds["minidl"], speeds["PyTorch"], result["best"]["PyTorch"], ratios["PyTorch"]]
    return row + ([speeds["Keras"], ratios["Keras"]] if keras_models else [])


def report(name: str, task: Task, results: dict[str, dict[str, Any]], folder: Path) -> None:
    """Print, draw and save under a name the results of `compete` for several models."""
    table = Table("model", *columns("samples/s"))
    ratios: dict[str, dict[str, list[float]]] = {}
    for model, result in results.items():
        table.add_row(model, *cells(result))
        for rival, ratio in result["ratio"].items():
            ratios.setdefault(f"against {rival}", {})[model] = ratio
    show(table)
    medians = [statistics.median(ratio) for ratio in ratios["against PyTorch"].values()]
    print(f"Geometric mean of the ratios to PyTorch: {statistics.geometric_mean(medians):.2f}")
    save(name, folder, frameworks=versions(), models=results)
    label = f"{task}: speed of minidl / speed of the other at its best"
    draw_bars(folder / f"{name}.png", label, ratios, line=1)


def versions() -> dict[str, str]:
    """The versions of the frameworks that minidl is compared with."""
    found = {"PyTorch": torch.__version__}
    if keras_models:
        found["Keras"] = keras_models.version()
    return found
