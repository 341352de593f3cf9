"""A training of 200 steps whose losses are recorded: a small CNN on made-up pictures.

As a program it prints the losses, one a line, and before them the kernels that BLAS took:

    PYTHONPATH=tests python -m recorded.loss_curve float64

Of what is random, the pictures come from `reference.numbers`, and everything else from one seed:
initial weights, the order of the samples in each pass, and the masks of dropout.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import threadpoolctl
from reference import numbers

import minidl
from minidl import (
    Adam,
    AvgPool,
    BatchNorm,
    Conv2D,
    DataLoader,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    ReLU,
    Sequential,
)

FILE = Path(__file__).with_suffix(".txt")

DTYPES = ("float64", "float32")

STEPS = 200
SAMPLES, BATCH, CLASSES = 320, 32, 10
IMAGE = 12, 12, 1
SEED = 2024


def pictures():
    """Ten patterns, and over each picture's pattern a noise as strong."""
    labels = np.arange(SAMPLES) % CLASSES
    x = numbers((CLASSES, *IMAGE), 1)[labels] + numbers((SAMPLES, *IMAGE), 2)
    return x, labels


def small_cnn():
    return Sequential(
        [
            Conv2D(8, 3, padding="same", use_bias=False),
            BatchNorm(momentum=0.9),
            ReLU(),
            MaxPool(2),
            Conv2D(16, 3, activation="relu"),
            AvgPool(2),
            Dropout(0.25),
            Flatten(),
            Dense(32, activation="relu"),
            Dense(CLASSES),
        ],
        input_shape=IMAGE,
    )


def losses(dtype):
    """The loss of each step."""
    minidl.seed(SEED)
    model = small_cnn().astype(dtype)
    optimizer = Adam(model.parameters(), lr=0.002)
    x, labels = pictures()
    loader = DataLoader(x.astype(dtype), labels, BATCH, shuffle=True)
    curve = []
    while len(curve) < STEPS:
        for batch, classes in loader:
            optimizer.zero_grad()
            loss = minidl.cross_entropy(model(batch), classes)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    return np.array(curve)


def recorded():
    """The losses in the file."""
    return np.loadtxt(FILE)


def losses_with(dtype, **environment):
    """The kernels that BLAS takes in a process with some variables set, and the losses there.

    A variable of None is taken away.
    """
    path = os.pathsep.join(map(str, (FILE.parents[1], Path(minidl.__file__).parents[1])))
    given = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-m", "recorded.loss_curve", dtype],
        capture_output=True,
        text=True,
        env={name: value for name, value in given.items() if value is not None},
        check=True,
    )
    kernels, *curve = done.stdout.splitlines()
    return kernels, np.array(curve, dtype=float)


def without_vector_instructions():
    """The variable that keeps NumPy from what this processor has above its least."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(found)}


if __name__ == "__main__":
    curve = losses(sys.argv[1])
    blas = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    print(*(library.get("architecture") for library in blas))
    print("\n".join(map(repr, curve.tolist())))
