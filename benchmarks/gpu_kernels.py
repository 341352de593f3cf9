"""minidl's kernels as a share of what a GPU can do: python benchmarks/gpu_kernels.py.

Convolutions of the models, forward and with both gradients, are compared with cuBLAS's product of
two 4096x4096 float32 matrices (sgemm); what only passes over memory, with copying an array on the
device. Each is timed by CUDA events in the same rounds. The bytes of a pass are the least possible:
each number that is needed read once, and each result written once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import card  # first: without a GPU it ends the program
import cupy
from kernels import convolutions, percent
from machine import save
from options import add_models, add_seconds, options, positive_integer
from report import draw_bars, progress, show
from rich.table import Table
from turns import take_turns

import minidl

SGEMM_SIZE = 4096
NUMBERS = 1 << 24  # that a pass goes over: more than caches hold
FLOAT = 4  # bytes


class Kernel(NamedTuple):
    """Something that is timed: what it does, and how many operations or bytes that takes."""

    work: Callable[[], Any]
    amount: float


def numbers(*shape: int) -> Any:
    """Random numbers on the device."""
    return cupy.random.default_rng(0).random(shape, dtype=cupy.float32)


def sgemm() -> Kernel:
    """The product that convolutions are compared with."""
    a, b = numbers(2, SGEMM_SIZE, SGEMM_SIZE)
    out = cupy.empty_like(a)
    return Kernel(lambda: cupy.matmul(a, b, out=out), 2 * SGEMM_SIZE**3)


def copying() -> Kernel:
    """The copy that passes are compared with."""
    source = numbers(NUMBERS)
    target = cupy.empty_like(source)
    return Kernel(lambda: cupy.copyto(target, source), 2 * FLOAT * NUMBERS)


def convolution_kernels(chosen: dict[str, Any], size: int) -> dict[str, Kernel]:
    """The convolutions of some models at a batch size, forward and with both gradients."""
    resized = {name: model._replace(batch_size=size) for name, model in chosen.items()}
    found = {}
    for one in convolutions(resized):
        images = minidl.Tensor(numbers(*one.images), requires_grad=True)
        weight = minidl.Tensor(numbers(*one.weight), requires_grad=True)
        convolve = partial(minidl.conv2d, images, weight, padding=one.padding)
        found[f"{one.name}, forward"] = Kernel(partial(_without_graph, convolve), one.flops)
        backward = partial(_and_back, convolve, numbers(*one.out), (images, weight))
        found[f"{one.name}, and both gradients"] = Kernel(backward, 3 * one.flops)
    return found


def _without_graph(compute: Callable[[], minidl.Tensor]) -> None:
    with minidl.no_grad():
        compute()


def _and_back(
    compute: Callable[[], minidl.Tensor], d: Any, inputs: tuple[minidl.Tensor, ...]
) -> None:
    compute().backward(d)
    for x in inputs:
        x.zero_grad()


def passes() -> dict[str, Kernel]:
    """What passes over memory alone."""
    images = minidl.Tensor(numbers(NUMBERS // (32 * 32 * 16), 32, 32, 16))
    logits = minidl.Tensor(numbers(NUMBERS // 16, 16))
    labels = cupy.zeros(NUMBERS // 16, dtype=cupy.int64)
    weights = minidl.Parameter(numbers(NUMBERS))
    weights.grad = numbers(NUMBERS)
    adam, sgd = minidl.Adam([weights]), minidl.SGD([weights])
    drop = minidl.Dropout(0.5)
    computed = {
        "max(x, 0)": (images.relu, 2),
        "2x2 max pooling": (lambda: minidl.max_pool(images, 2), 1.25),
        "dropout": (lambda: drop(images), 2),
        "softmax cross-entropy": (lambda: minidl.cross_entropy(logits, labels), 1),
        "step of SGD": (sgd.step, 3),
        "step of Adam": (adam.step, 7),
    }
    return {
        name: Kernel(partial(_without_graph, compute), times * FLOAT * NUMBERS)
        for name, (compute, times) in computed.items()
    }


def measure(
    kernels: dict[str, Kernel], beside: Kernel, rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """What each kernel does in a second, in 1e9, and as a share of what it is compared with."""
    library = card.Cupy()
    results = {}
    for name, kernel in kernels.items():
        progress(name)
        both = {"kernel": kernel, "beside": beside}
        times = take_turns(
            {key: partial(library.milliseconds, k.work, seconds) for key, k in both.items()}, rounds
        )
        rates = {
            key: [both[key].amount / (1e6 * milliseconds) for milliseconds in values]
            for key, values in times.items()
        }
        share = [a / b for a, b in zip(rates["kernel"], rates["beside"], strict=True)]
        results[name] = {"rate": rates["kernel"], "beside": rates["beside"], "share": share}
    return results


def report(results: dict[str, dict[str, Any]], folder: Path) -> None:
    """Print, draw and save what was measured."""
    for unit, found in results.items():
        table = Table("kernel", unit, "compared with", "share")
        for name, result in found.items():
            rate, beside = (f"{statistics.median(result[key]):,.0f}" for key in ("rate", "beside"))
            table.add_row(name, rate, beside, percent(result["share"]))
        show(table)
    save("gpu_kernels", folder, gpu=card.describe(), kernels=results)
    draw_bars(
        folder / "gpu_kernels.png",
        "share of the sgemm rate, or of the rate of a copy",
        {
            unit: {name: result["share"] for name, result in found.items()}
            for unit, found in results.items()
        },
    )


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_seconds(parser, 0.1)
    add_models(parser, "1234")
    parser.add_argument("--batch-size", type=positive_integer, default=1024, help="images")
    args = parser.parse_args()
    by_product = convolution_kernels(args.models, args.batch_size)
    results = {
        "GFLOP/s": measure(by_product, sgemm(), args.rounds, args.seconds),
        "GB/s": measure(passes(), copying(), args.rounds, args.seconds),
    }
    report(results, args.output)


if __name__ == "__main__":
    main()
