"""What is compared with PyTorch: read by make_reference.py, which runs it in PyTorch, and by tests.

Arguments have minidl's names and order. PyTorch's optimizers take the same names.
"""

import functools
from pathlib import Path

import numpy as np
from reference import eighths, numbers

FILE = Path(__file__).parent / "reference.npz"

# Optimizers: three parameters, the last longer than two blocks of the kernels.

STEPS = 20
RECORDED = (0, 1, 9, 19)  # the steps after which parameters are written down
SHAPES = ((3, 5), (7,), (40_000,))
WITHOUT_GRADIENT = {1: (0, 3, 4, 11)}  # the second parameter has none in these steps

# Elements of the last parameter: both ends, the ends of the blocks of 16,384, and some between.
ENDS = np.array([0, 1, 16_382, 16_383, 16_384, 16_385, 32_767, 32_768, 39_999])
WATCHED = np.union1d(ENDS, np.arange(12) * 3331)

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd_decay": ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    "sgd_momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "sgd_momentum_decay": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "sgd_nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd_nesterov_decay": (
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": ("Adam", {}),
    "adam_fast": ("Adam", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
    "adam_no_memory": ("Adam", {"lr": 0.01, "betas": (0.0, 0.0), "eps": 1e-6}),
    "adamw": ("AdamW", {}),
    "adamw_decay": ("AdamW", {"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.2}),
}

# The same with all gradients clipped first: (class, arguments, max_norm).
CLIPPED = {
    "sgd_clipped": ("SGD", {"lr": 0.1, "momentum": 0.9}, 5.0),
    "adam_hardly_clipped": ("Adam", {"lr": 0.01}, 231.2),  # below the norm in some steps only
}


def parameters(dtype):
    """The parameters at the start."""
    return [numbers(shape, i).astype(dtype) for i, shape in enumerate(SHAPES)]


def gradients(step, dtype):
    """The gradients of one step, None where a parameter has none."""
    return [
        None
        if step in WITHOUT_GRADIENT.get(i, ())
        else numbers(shape, 100 + 10 * step + i).astype(dtype)
        for i, shape in enumerate(SHAPES)
    ]


def watched(arrays):
    """The elements that are written down, as one row."""
    first, second, third = arrays
    return np.concatenate([first.reshape(-1), second, third[WATCHED]])


SCHEDULE_STEPS = 24

# Layers and functions, all in float64.

CONVOLUTIONS = {
    "plain": {"x": (2, 5, 4, 2), "weight": (3, 3, 2, 3)},
    "same": {"x": (2, 5, 5, 2), "weight": (3, 3, 2, 3), "padding": ((1, 1), (1, 1))},
    "strided": {
        "x": (2, 7, 6, 2),
        "weight": (3, 2, 2, 3),
        "strides": (2, 3),
        "padding": ((1, 0), (0, 2)),
    },
    "dilated": {
        "x": (1, 7, 6, 2),
        "weight": (3, 2, 2, 2),
        "padding": ((2, 1), (1, 1)),
        "dilation": (2, 3),
    },
    "even": {"x": (1, 5, 6, 1), "weight": (2, 4, 1, 2), "padding": ((0, 1), (1, 2))},
}

# PyTorch pads pooling alike on both sides, by at most half a window.
POOLINGS = {
    "halved": {"x": (2, 4, 6, 2), "pool_size": (2, 2), "strides": (2, 2), "padding": (0, 0)},
    "odd": {"x": (2, 5, 7, 2), "pool_size": (2, 2), "strides": (2, 2), "padding": (0, 0)},
    "overlapping": {"x": (1, 6, 7, 2), "pool_size": (3, 3), "strides": (2, 2), "padding": (1, 1)},
    "oblong": {"x": (1, 6, 5, 2), "pool_size": (2, 3), "strides": (1, 2), "padding": (1, 1)},
}


def images(shape, seed):
    """Pictures with many equal pixels."""
    return eighths(shape, seed)


LOGITS = numbers((6, 4), 7) * 3
CLASSES = np.array([0, 3, 1, 2, 3, 0])
ROWS = (numbers((6, 4), 8) + 2) / (numbers((6, 4), 8) + 2).sum(axis=1, keepdims=True)
CROSS_ENTROPIES = {
    "classes": (CLASSES, 0.0),
    "classes_smoothed": (CLASSES, 0.1),
    "rows": (ROWS, 0.0),
    "rows_smoothed": (ROWS, 0.3),
}
REDUCTIONS = ("mean", "sum", "none")


@functools.cache
def computed():
    """What PyTorch computed, by the keys that make_reference.py explains."""
    with np.load(FILE) as file:
        return {key: file[key] for key in file.files}


def case(group, name):
    """The value and gradients of one case, by the name of the result."""
    prefix = f"{group}/{name}/"
    return {key.removeprefix(prefix): computed()[key] for key in computed() if prefix in key}
