"""How far float32 is from float64: every operation on the same inputs in both; prints a table.

    PYTHONPATH=tests python tests/precision.py

Inputs are float32 numbers, which float64 holds exactly, and so is the gradient of the output. What
differs is then rounding alone. It is counted in roundings: units of 2**-24 = 6e-8, the largest
relative error of a result that is rounded once. Results are divided by

    the result      itself: what is left is the relative error,
    the terms       that are added up, without their signs: where a sum cancels, its terms were
                    rounded all the same, and no order of adding can help,
    or as said      in the row.

A divisor is at least 2**-126, the smallest number of float32 with all its digits. Numbers that are
too large for float32 are left out; where float64's result is finite, float32's must be.

Bounds are from error analysis, with n for the number of terms of a sum: n additions in any order
are off by n roundings of the sum of the terms at most [1], whatever BLAS or NumPy adds them up.
Functions such as exp, log and tanh are allowed 4 units in the last place, 8 roundings: vectorised
ones are made to that, and those of C libraries to less.

[1] N. Higham: Accuracy and stability of numerical algorithms, 2002, section 4.2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from reference import eighths, numbers

from minidl import SGD, Adam, AdamW, Generator, Tensor, clip_grad_norm
from minidl.ops import (
    elementwise,
    images,
    normalization,
    probability,
    products,
    reductions,
    regularization,
    shapes,
)

ROUNDING = 2.0**-24
SMALLEST = 2.0**-126
SEEDS = range(3)
FUNCTION = 8  # roundings of exp, log, tanh and power

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        covers: the operation.
        inputs: what it is tried on, in words.
        draw: makes the inputs from a seed.
        run: from inputs to the results: the value first, then the gradients.
        divisors: from inputs and results, all float64, to what errors are divided by, for each.
        bounds: roundings allowed for the value, and for the gradients.
        reason: what the bounds are made of.
    """

    covers: Callable[..., Any]
    inputs: str
    draw: Callable[[int], Arrays]
    run: Callable[[Arrays], Arrays]
    divisors: Callable[[Arrays, Arrays], Arrays]
    bounds: tuple[float, float]
    reason: str

    def __str__(self):
        return f"{self.covers.__name__}: {self.inputs}"

    def results(self, seed):
        """For the value and each gradient: float32's, float64's and what to divide by."""
        single = [np.asarray(array, dtype=np.float32) for array in self.draw(seed)]
        double = [array.astype(np.float64) for array in single]
        with np.errstate(all="ignore"):  # what overflows is looked at afterwards
            exact = self.run(double)
            return list(zip(self.run(single), exact, self.divisors(double, exact), strict=True))

    def errors(self):
        """The largest errors of the value and of all gradients, in roundings."""
        drawn = [[error(*result) for result in self.results(seed)] for seed in SEEDS]
        value = max(first for first, *_ in drawn)
        return value, max((e for _, *others in drawn for e in others), default=0.0)


def fits(exact):
    """Where float32 can hold a result of float64."""
    return np.abs(exact) <= np.finfo(np.float32).max


def error(got, exact, divisor):
    """The largest error among the results that float32 can hold, in roundings; inf for nan."""
    where = fits(exact)
    away = np.abs(got[where].astype(np.float64) - exact[where])
    away /= np.maximum(divisor[where], SMALLEST) * ROUNDING
    return float(np.where(np.isnan(away), math.inf, away).max(initial=0))


# How results come about, and what their errors are divided by


def slope(shape):
    """The gradient of the output."""
    return numbers(shape, 99)


def derived(compute, unsigned=False):
    """From inputs to the value and the gradients of an operation."""

    def run(arrays):
        tensors = [Tensor(array.copy(), requires_grad=True) for array in arrays]
        out = compute(*tensors)
        seed = slope(out.shape)
        out.backward(np.asarray(np.abs(seed) if unsigned else seed, dtype=out.dtype))
        return [out.data, *(t.grad for t in tensors)]

    return run


def by_result(_, results):
    return [np.abs(result) for result in results]


def by_terms(compute):
    """For what is linear in each input: the same of numbers without signs."""
    unsigned = derived(compute, unsigned=True)
    return lambda arrays, _: unsigned([np.abs(array) for array in arrays])


# Inputs


def plain(*shape):
    """From -2 to 2."""
    return lambda seed: numbers(shape, seed)


def spread(least, most, *shape):
    """Powers of two from 2**least to 2**most, times 1 to 2, of both signs."""

    def draw(seed):
        exponents = np.floor((numbers(shape, seed) + 2) / 4 * (most - least) + least)
        digits = 1 + np.abs(numbers(shape, seed + 50)) / 2
        return np.ldexp(np.copysign(digits, numbers(shape, seed + 70)), exponents.astype(int))

    return draw


EXTREMES = np.array([0, 2.0**-149, 1e-40, 2.0**-126 - 2.0**-149, 2.0**-126, 1e-30, 1, 1e4, 1e30])


def whole(draw):
    """Generated numbers, and the extremes with both signs."""
    return lambda seed: np.concatenate([draw(seed).ravel(), EXTREMES, -EXTREMES])


def sizes(draw):
    """Without signs."""
    return lambda seed: np.abs(draw(seed))


def around_one(seed):
    """1 and its neighbours in float32, among others near it."""
    steps = np.arange(-64, 65) * ROUNDING
    return np.concatenate([1 + steps, 1 + numbers((500,), seed) / 4])


def logits(rows, classes):
    """Rows in [-2, 2], of +-1e4, of one number, of denormals, and with one far above the rest."""

    def draw(seed):
        x = numbers((rows, classes), seed)
        x[1::7] *= 5e3
        x[2::7] = 1e4 * np.sign(x[2::7])
        x[3::7] = 3333.333
        x[4::7] *= 2.0**-140
        x[5::7, 0] = 60
        x[6::7] *= 40
        return x

    return draw


def columns(count):
    """Columns in [-2, 2], of one large number, large with small deviations, of denormals, of 0."""

    def draw(seed):
        x = numbers((count, 6), seed)
        x[:, 1] = 3333.333
        x[:, 2] = 1e4 + x[:, 2]
        x[:, 3] *= 2.0**-140
        x[:, 4] = 0
        x[:, 5] *= 1e15
        return x

    return draw


def constant(count):
    """Columns that do not vary."""
    values = np.array([0.1, 3333.333, 1e4 / 3, -1e-42, 0, 12345.678])
    return lambda _: np.tile(values, (count, 1))


ROWS: list[Row] = []


def op(covers, inputs, draws, bounds, reason, compute=None, divisors=by_result):
    """A row for a differentiable operation.

    Args:
        covers: the operation.
        inputs: as in `Row`.
        draws: makes an input from a seed, or several that do.
        bounds: as in `Row`.
        reason: as in `Row`.
        compute: what calls the operation, if not it alone.
        divisors: as in `Row`; or "terms" for those of `by_terms`.
    """
    compute = compute or covers
    if divisors == "terms":
        divisors = by_terms(compute)
    draws = draws if isinstance(draws, tuple) else (draws,)

    def draw(seed):
        return [one(seed + 10 * number) for number, one in enumerate(draws)]

    ROWS.append(Row(covers, inputs, draw, derived(compute), divisors, bounds, reason))


# -- moving elements ---------------------------------------------------------------------------

MOVES = "nothing is computed"
ANY = spread(-149, 127, 4, 6)
op(shapes.reshape, "2**-149 to 2**127", ANY, (0, 0), MOVES, lambda x: shapes.reshape(x, -1))
op(shapes.flatten, "2**-149 to 2**127", spread(-149, 127, 4, 3, 2), (0, 0), MOVES)
op(shapes.transpose, "2**-149 to 2**127", ANY, (0, 0), MOVES)
op(shapes.pad, "2**-149 to 2**127", ANY, (0, 0), MOVES, lambda x: shapes.pad(x, 1))
op(
    shapes.concatenate,
    "2**-149 to 2**127",
    (ANY, ANY),
    (0, 0),
    MOVES,
    lambda *x: shapes.concatenate(x),
)
op(shapes.stack, "2**-149 to 2**127", (ANY, ANY), (0, 0), MOVES, lambda *x: shapes.stack(x))
op(
    shapes.getitem,
    "each row taken 9 times",
    ANY,
    (0, 9),
    "gradients of 9 are added",
    lambda x: x[np.arange(36) % 4],
    "terms",
)

# -- one input, element by element -------------------------------------------------------------

ALL = whole(spread(-149, 127, 2000))
CHOOSES = "passed on or not"
for function in (elementwise.negative, elementwise.abs, elementwise.relu):
    op(function, "2**-149 to 2**127, 0", ALL, (0, 0), CHOOSES)
op(
    elementwise.clip,
    "2**-149 to 2**127, 0",
    ALL,
    (0, 0),
    CHOOSES,
    lambda x: elementwise.clip(x, -0.5, 2.0),
)
op(
    elementwise.astype,
    "2**-149 to 2**127, 0",
    ALL,
    (0, 0),
    "to float64 and back",
    lambda x: elementwise.astype(elementwise.astype(x, np.float64), x.dtype),
)
op(elementwise.leaky_relu, "2**-149 to 2**127, 0", ALL, (2, 2), "the slope, and its product")
op(
    elementwise.exp,
    "-104 to 88, denormals, 0, +-1e4",
    whole(lambda seed: numbers((2000,), seed) * 48 - 8),
    (FUNCTION, FUNCTION + 1),
    "exp; its product",
)
op(
    elementwise.log,
    "2**-149 to 2**127",
    sizes(spread(-149, 127, 2000)),
    (FUNCTION, 1),
    "log; one division",
)
op(elementwise.log, "around 1", around_one, (FUNCTION, 1), "log; one division")
op(
    elementwise.sqrt,
    "2**-149 to 2**127, 0",
    sizes(ALL),
    (1, 2),
    "rounded once; and divided by",
)


def by_slope_terms(squared):
    """For 1 - y and 1 - y**2, where y is the value: the sum of the terms."""

    def divisors(_, results):
        out = results[0]
        g = np.abs(slope(out.shape))
        terms = 1 + out * out if squared else out * (1 + out)
        return [np.abs(out), g * terms]

    return divisors


op(
    elementwise.tanh,
    "2**-149 to 1e30, 0",
    whole(lambda seed: numbers((2000,), seed) * 6),
    (FUNCTION, 2 * FUNCTION + 3),
    "tanh; gradient by the terms of 1 - y**2: twice tanh, and 3",
    divisors=by_slope_terms(squared=True),
)
op(
    elementwise.sigmoid,
    "2**-149 to 1e30, 0",
    whole(lambda seed: numbers((2000,), seed) * 52),
    (1.5 * FUNCTION + 2, 1.5 * FUNCTION + 5),
    "exp in 1 + exp and above it, 2; gradient by the terms of y - y**2: 3 more",
    divisors=by_slope_terms(squared=False),
)

# -- two inputs, element by element ------------------------------------------------------------

for function in (elementwise.maximum, elementwise.minimum):
    op(function, "2**-149 to 2**127, 0", (ALL, ALL), (0, 0), CHOOSES)
FLAGS = np.arange(2000 + 2 * len(EXTREMES)) % 3 == 0
op(
    elementwise.where,
    "2**-149 to 2**127, 0",
    (ALL, ALL),
    (0, 0),
    CHOOSES,
    lambda a, b: elementwise.where(FLAGS, a, b),
)
for function in (elementwise.add, elementwise.subtract):
    op(function, "2**-149 to 2**127, 0", (ALL, ALL), (1, 0), "rounded once")
op(elementwise.multiply, "2**-149 to 2**127, 0", (ALL, ALL), (1, 1), "rounded once")
op(
    elementwise.multiply,
    "an array of 64 rows with one row",
    (spread(-20, 20, 64, 8), spread(-20, 20, 8)),
    (1, 64),
    "rounded once; n = 64 for the row",
    divisors="terms",
)
op(
    elementwise.divide,
    "2**-40 to 2**40 by 2**-80 to 2**80",
    (spread(-40, 40, 2000), spread(-80, 80, 2000)),
    (1, 3),
    "rounded once; in -g * (a / b) / b three times",
)
op(
    elementwise.divide,
    "denormals by 1 to 16",
    (spread(-149, -126, 2000), spread(0, 4, 2000)),
    (1, 3),
    "as above",
)
POWER = FUNCTION + 9 * math.log(2**10) + 3
op(
    elementwise.power,
    "2**-10 to 2**10, to the power of -8 to 8",
    (sizes(spread(-10, 10, 2000)), lambda seed: 4 * numbers((2000,), seed)),
    (FUNCTION, POWER),
    "power; y - 1 rounded, times log x, and 3",
)

# -- reductions --------------------------------------------------------------------------------

op(reductions.sum, "n = 2000", spread(-60, 60, 2000), (2000, 0), "n", divisors="terms")
op(
    reductions.sum,
    "n = 500, over the first axis",
    spread(-60, 60, 500, 4),
    (500, 0),
    "n",
    lambda x: reductions.sum(x, axis=0),
    "terms",
)
op(reductions.mean, "n = 2000", spread(-60, 60, 2000), (2001, 1), "n, a division", divisors="terms")


def by_variance(arrays, results):
    """The variance and, for the mean that is subtracted, n roundings of its terms, squared."""
    (x,) = arrays
    count = len(x)
    size = np.abs(x).mean(axis=0)
    g = np.abs(slope(results[0].shape))
    away = np.abs(x - x.mean(axis=0))
    return [results[0] + count * ROUNDING * size**2, 2 * g / count * (away + size)]


for name, draw in {"as for batch_norm": columns(64), "n = 64 equal numbers": constant(64)}.items():
    op(
        reductions.var,
        name,
        draw,
        (64 + 6, 64 + 4),
        "n; by the variance and n roundings of the mean's terms squared",
        lambda x: reductions.var(x, axis=0),
        by_variance,
    )
for function in (reductions.max, reductions.min):
    op(function, "2**-149 to 2**127", spread(-149, 127, 2000), (0, 0), CHOOSES)
    op(
        function,
        "with ties",
        lambda seed: eighths((40, 50), seed),
        (0, 1),
        "a division",
        lambda x, f=function: f(x, axis=1),
    )

# -- probabilities -----------------------------------------------------------------------------

CLASSES = 10
DEEPEST = 104  # below the largest logit, where exp leaves float32
SUM = CLASSES + FUNCTION + math.log(CLASSES) * (1 + FUNCTION) + 2
SHARE = DEEPEST + FUNCTION + SUM + 1
SUM_REASON = "log of the sum: n = 10, exp and log"


def depth(x):
    """How far each logit is below the largest of its row, where exp of that is not 0."""
    return np.minimum(x.max(axis=1, keepdims=True) - x, DEEPEST)


def shares(x):
    p = np.exp(x - x.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def by_softmax(_, results):
    out = results[0]
    g = np.abs(slope(out.shape))
    return [out, out * (g + (g * out).sum(axis=1, keepdims=True))]


def by_log_softmax(arrays, _):
    (x,) = arrays
    g = np.abs(slope(x.shape))
    p = shares(x) * (1 + depth(x))
    return [1 + x.max(axis=1, keepdims=True) - x, g + p * g.sum(axis=1, keepdims=True)]


def by_logsumexp(arrays, results):
    (x,) = arrays
    g = np.abs(slope(results[0].shape))[:, None]
    return [1 + np.abs(x).max(axis=1), g * shares(x) * (1 + depth(x))]


LOGITS = "to +-1e4, equal, denormal, one far above"
op(
    probability.softmax,
    LOGITS,
    logits(700, CLASSES),
    (SHARE, 2 * SHARE + CLASSES + 4),
    "104 for x - max, exp, n = 10; gradient by its terms: twice that, n, 4",
    divisors=by_softmax,
)
op(
    probability.log_softmax,
    LOGITS,
    logits(700, CLASSES),
    (SUM, SUM + FUNCTION + CLASSES),
    f"by 1 + max - x: {SUM_REASON}; gradient by its terms, p weighing 1 + max - x",
    divisors=by_log_softmax,
)
op(
    reductions.logsumexp,
    LOGITS,
    logits(700, CLASSES),
    (SUM + 2, SUM + FUNCTION + 2),
    f"by 1 + the largest size: {SUM_REASON}; gradient by its share p times 1 + max - x",
    lambda x: reductions.logsumexp(x, axis=1),
    by_logsumexp,
)

LABELS = np.arange(700) * 7 % CLASSES
TARGETS = np.abs(numbers((700, CLASSES), 5)) / 16


def targets(labels, smoothing):
    rows = np.eye(CLASSES)[labels] if labels.ndim == 1 else labels
    return rows * (1 - smoothing) + smoothing / CLASSES


def by_cross_entropy(labels, smoothing):
    wanted = targets(labels, smoothing)

    def divisors(arrays, results):
        (x,) = arrays
        below = 1 + x.max(axis=1, keepdims=True) - x
        g = np.abs(slope(results[0].shape))[:, None]
        total = wanted.sum(axis=1, keepdims=True)
        return [
            (wanted * below).sum(axis=1),
            g * (total * shares(x) * (1 + depth(x)) + wanted),
        ]

    return divisors


for name, labels, smoothing in (
    ("class numbers", LABELS, 0.0),
    ("class numbers, smoothed", LABELS, 0.1),
    ("rows", TARGETS, 0.0),
    ("rows, smoothed", TARGETS, 0.1),
):
    op(
        probability.softmax_cross_entropy,
        f"{name}; {LOGITS}",
        logits(700, CLASSES),
        (SUM + CLASSES + 5, SUM + FUNCTION + CLASSES + 5),
        "by 1 + max - x at the targets: as log_softmax, n, 5; gradient by the terms p - target",
        lambda x, y=labels, s=smoothing: probability.softmax_cross_entropy(
            x, y if y.ndim == 1 else y.astype(x.dtype), s
        ),
        by_cross_entropy(labels, smoothing),
    )
    op(
        probability.cross_entropy_of_probabilities,
        f"{name}; 2**-100 to 1",
        lambda seed: np.minimum(np.abs(spread(-100, 0, 700, CLASSES)(seed)), 1),
        (FUNCTION + CLASSES + 5, 4),
        "log, n = 10, 5; two divisions, the target",
        lambda x, y=labels, s=smoothing: probability.cross_entropy_of_probabilities(
            x, y if y.ndim == 1 else y.astype(x.dtype), s
        ),
    )

YES = np.round(16 * numbers((2000,), 3) + 32) / 64
NEAREST = 2.0**-23  # the probability that counts as the nearest to 0, and to 1


def probabilities(seed):
    """From 0 to 1, half of them near 0 and a quarter near 1, as float32 has them."""
    p = (numbers((2000,), seed) + 2) / 4
    p[::2] = np.abs(spread(-23, -1, 1000)(seed))
    p[1::4] = 1 - np.abs(spread(-23, -1, 500)(seed))
    return np.clip(p, NEAREST, 1 - NEAREST)


op(
    probability.binary_cross_entropy_of_probabilities,
    "2**-23 to 1 - 2**-23",
    probabilities,
    (FUNCTION + 4, 8),
    "log, 4; the label, differences from it and from 1, products, a division",
    lambda p: probability.binary_cross_entropy_of_probabilities(p, YES.astype(p.dtype)),
    lambda arrays, results: [
        results[0],
        np.abs(slope(YES.shape)) * (arrays[0] + YES) / (arrays[0] * (1 - arrays[0])),
    ],
)
MORE_YES = np.concatenate([YES, np.arange(2 * len(EXTREMES)) % 2])


def by_sigmoid_cross_entropy(arrays, _):
    (x,) = arrays
    g = np.abs(slope(x.shape))
    small = np.exp(-np.abs(x))
    yes = np.where(x >= 0, 1, small) / (1 + small)
    return [np.maximum(x, 0) + np.abs(x) * MORE_YES + np.log1p(small), g * (yes + MORE_YES)]


op(
    probability.sigmoid_cross_entropy,
    "2**-149 to 1e30, 0",
    whole(lambda seed: numbers((2000,), seed) * 52),
    (2 * FUNCTION + 5, 1.5 * FUNCTION + 5),
    "by its terms: exp, log, 5; gradient by the terms y - label: as sigmoid",
    lambda x: probability.sigmoid_cross_entropy(x, MORE_YES.astype(x.dtype)),
    by_sigmoid_cross_entropy,
)

# -- products ----------------------------------------------------------------------------------

for shape_a, shape_b in (
    ((40, 100), (100, 30)),
    ((5, 7, 20), (5, 20, 9)),
    ((64, 4096), (4096, 64)),
):
    inner = max(shape_a[-1], shape_a[-2], shape_b[-1])
    op(
        products.matmul,
        f"{shape_a} @ {shape_b}, 2**-30 to 2**30",
        (spread(-30, 30, *shape_a), spread(-30, 30, *shape_b)),
        (shape_a[-1], inner),
        f"n = {shape_a[-1]}",
        divisors="terms",
    )
op(
    products.dense,
    "(40, 100) @ (100, 30) + (30,), 2**-30 to 2**30",
    (spread(-30, 30, 40, 100), spread(-30, 30, 100, 30), spread(-30, 30, 30)),
    (101, 100),
    "n = 101",
    divisors="terms",
)
op(
    products.dense,
    "the same with relu, -2 to 2",
    (plain(40, 100), plain(100, 30), plain(30)),
    (101, 100),
    "n = 101",
    lambda *inputs: products.dense(*inputs, relu=True),
    "terms",
)

# -- images ------------------------------------------------------------------------------------

IMAGES = 2, 9, 8, 3
FILTERS = 3, 3, 3, 5
CONVOLUTION = (28, 2 * 9 * 8), "n = 28; 144 places of two images for the weights"
for name, options in {
    "": {},
    ", same": {"padding": "same"},
    ", strides": {"strides": 2, "padding": "same"},
}.items():
    op(
        images.conv2d,
        f"3x3x3x5 on 9x8x3{name}, 2**-30 to 2**30",
        (spread(-30, 30, *IMAGES), spread(-30, 30, *FILTERS), spread(-30, 30, 5)),
        *CONVOLUTION,
        lambda *inputs, o=options: images.conv2d(*inputs, **o),
        "terms",
    )
op(
    images.conv2d,
    "3x3x3x5 on 9x8x3, relu and pooling, -2 to 2",
    (plain(*IMAGES), plain(*FILTERS), plain(5)),
    *CONVOLUTION,
    lambda *inputs: images.conv2d(*inputs, relu=True, pool_size=2),
    # As if all four places had been taken.
    by_terms(lambda *inputs: images.avg_pool(images.conv2d(*inputs), 2) * 4.0),
)
op(images.max_pool, "2**-149 to 2**127", spread(-149, 127, *IMAGES), (0, 0), CHOOSES)
op(
    images.max_pool,
    "3x3, strides 1",
    plain(*IMAGES),
    (0, 9),
    "gradients of 9 places at most are added",
    lambda x: images.max_pool(x, 3, 1),
    lambda arrays, results: [np.abs(results[0]), np.full(arrays[0].shape, 2.0)],
)
for size, stride in ((2, 2), (3, 1)):
    op(
        images.avg_pool,
        f"{size}x{size}, strides {stride}",
        spread(-30, 30, *IMAGES),
        (size * size + 2, size * size + 2),
        "n, the share, its product",
        lambda x, size=size, stride=stride: images.avg_pool(x, size, stride),
        "terms",
    )

# -- normalisation and dropout -----------------------------------------------------------------

EPS = 1e-3


def by_batch_norm(arrays, _):
    """What is subtracted, and n times what is added up."""
    x, gamma, beta = arrays
    gamma, beta, g = np.abs(gamma), np.abs(beta), np.abs(slope(x.shape))
    count = len(x)
    scale = 1 / np.sqrt(x.var(axis=0) + EPS)
    away = np.abs(x - x.mean(axis=0)) * scale
    large = (np.abs(x) + np.abs(x).mean(axis=0)) * scale + count * (away + away.mean(axis=0))
    d = g * gamma
    of_x = count * (d + d.mean(axis=0) + away * (d * away).mean(axis=0))
    of_x += large * (d * away).mean(axis=0) + away * (d * large).mean(axis=0)
    of_gamma = np.maximum(g * (large + count * away), SMALLEST).sum(axis=0)
    return [gamma * large + beta, scale * of_x, of_gamma, count * g.sum(axis=0)]


for count in (64, 4096):
    for name, draw in {
        "large, almost constant, denormal": columns(count),
        "zero variance": constant(count),
    }.items():
        op(
            normalization.batch_norm,
            f"batch of {count}: {name}",
            (draw, plain(6), plain(6)),
            (4, 4),
            "by the sizes of x and mean over the deviation, and n times those of y: 4",
            lambda *inputs: normalization.batch_norm(*inputs, EPS)[0],
            by_batch_norm,
        )

MEAN, VARIANCE = np.array([0.0, 3333.333, 1e4, 0, 0, 1e15]), np.array([1.0, 0, 1, 0, 1e-42, 1e30])


def with_statistics(x, gamma, beta):
    given = MEAN.astype(np.float32).astype(x.dtype), VARIANCE.astype(np.float32).astype(x.dtype)
    return normalization.batch_norm(x, gamma, beta, EPS, given)[0]


def by_statistics(arrays, _):
    x, gamma, beta = (np.abs(array) for array in arrays)
    scale = 1 / np.sqrt(VARIANCE + EPS)
    terms = (x + MEAN) * scale
    g = np.abs(slope(x.shape))
    return [gamma * terms + beta, g * gamma * scale, (g * terms).sum(axis=0), g.sum(axis=0)]


op(
    normalization.batch_norm,
    "given statistics",
    (columns(64), plain(6), plain(6)),
    (9, 64 + 9),
    "by its terms: eps, a sum, a root, a division, a difference, two products, a sum; n = 64",
    with_statistics,
    by_statistics,
)
op(
    regularization.dropout,
    "2**-149 to 2**120, 0",
    whole(spread(-149, 120, 2000)),
    (2, 2),
    "1 / (1 - rate), and its product",
    lambda x: regularization.dropout(x, 0.3, Generator(0)),
)

# -- optimizers --------------------------------------------------------------------------------

STEPS = 20


def steps(make):
    """From a parameter and its gradients to the parameter after these steps."""

    def run(arrays):
        start, gradients = arrays
        parameter = Tensor(start.copy(), requires_grad=True)
        optimizer = make([parameter])
        for gradient in gradients:
            parameter.grad = gradient.copy()
            optimizer.step()
        return [parameter.data]

    return run


def optimizer(make, inputs, gradients, bound, reason, **options):
    run = steps(lambda params: make(params, **options))

    def draw(seed):
        return [numbers((200,), seed), gradients(seed + 10)]

    def divisors(arrays, _):
        """What the parameter would be if no step went back."""
        start, gradients = arrays
        return run([np.abs(start), -np.abs(gradients)])

    ROWS.append(Row(make, inputs, draw, run, divisors, (bound, 0), reason))


GRADIENTS = {
    "-2 to 2": plain(STEPS, 200),
    "2**-149 to 2**60": spread(-149, 60, STEPS, 200),
    "0": lambda _: np.zeros((STEPS, 200)),
}
for name, gradients in GRADIENTS.items():
    each = f"{STEPS} steps, gradients {name}"
    optimizer(SGD, each, gradients, 3 * STEPS, "a step: lr, its product, a difference")
    optimizer(
        SGD,
        f"{each}, Nesterov",
        gradients,
        5 * STEPS,
        "a step: momentum, its product, a sum, 1 / 20 of 8, a difference",
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
    )
    adam = "a step: beta, its product, a sum above, and half that below; 1 / 20 of 8; a difference"
    optimizer(Adam, each, gradients, 6 * STEPS, adam)
    optimizer(AdamW, each, gradients, 8 * STEPS, f"{adam}; 1 - decay, its product")


def clipped(arrays):
    tensors = [Tensor(array, requires_grad=True) for array in arrays]
    for tensor, array in zip(tensors, arrays, strict=True):
        tensor.grad = array.copy()
    clip_grad_norm(tensors, 1.0)
    return [tensor.grad for tensor in tensors]


ROWS.append(
    Row(
        clip_grad_norm,
        "gradients 2**-149 to 2**59, n = 600",
        lambda seed: [spread(-149, 59, 600)(seed), spread(-149, 59, 30)(seed + 1)],
        clipped,
        by_result,
        (600 / 2 + 4, 600 / 2 + 4),
        "n / 2 for the root of the sum of squares, 4",
    )
)


def main():
    print("| operation | inputs | value: worst / bound | gradients | the bound is made of |")
    print("| --- | --- | --- | --- | --- |")
    for row in ROWS:
        pairs = zip(row.errors(), row.bounds, strict=True)
        value, gradients = (f"{found:.3g} / {bound:.0f}" for found, bound in pairs)
        print(f"| {row.covers.__name__} | {row.inputs} | {value} | {gradients} | {row.reason} |")


if __name__ == "__main__":
    main()
