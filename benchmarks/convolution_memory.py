"""How much memory a convolution takes in training: python benchmarks/convolution_memory.py.

One training step (forward and both gradients) of a 3x3 convolution with 64 channels on images of
14x14, batch 1024. Counted is every byte that NumPy allocates during the step, at its peak, beside
the images themselves. Columns for the whole batch at once would take 462 MB alone.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
from machine import save
from options import options
from rich.console import Console
from rich.table import Table

import minidl

BATCH, SIZE, CHANNELS, KERNEL = 1024, 14, 64, 3
MB = 1e6


def peak_of_a_step() -> dict[str, float]:
    rng = np.random.default_rng(0)
    images = minidl.Tensor(
        rng.random((BATCH, SIZE, SIZE, CHANNELS), dtype=np.float32), requires_grad=True
    )
    layer = minidl.Conv2D(CHANNELS, KERNEL, padding="same")
    layer(images[:1].detach())  # makes the weight

    tracemalloc.start()
    out = layer(images)
    forward = tracemalloc.get_traced_memory()[1]
    out.backward(np.ones(out.shape, dtype=np.float32))
    step = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    activation = images.data.nbytes
    return {
        "one activation (N, 14, 14, 64)": activation / MB,
        "columns of the whole batch": activation * KERNEL * KERNEL / MB,
        "peak of the forward pass": forward / MB,
        "  beyond its output": (forward - activation) / MB,
        "peak of the whole step": step / MB,
        "  beyond output, its gradient and the input's": (step - 3 * activation) / MB,
    }


def main() -> None:
    args = options(__doc__).parse_args()
    measured = peak_of_a_step()
    table = Table("", "MB", title=f"Conv2D {KERNEL}x{KERNEL}, {CHANNELS} channels, batch {BATCH}")
    table.columns[1].justify = "right"
    for name, value in measured.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    save(
        "convolution_memory",
        args.output,
        MB={name.strip(): value for name, value in measured.items()},
    )


if __name__ == "__main__":
    main()
