"""A training gives the losses that it always gave: on other processors, with other kernels.

Sums are rounded in the order in which BLAS and NumPy add, and that differs between processors. In
float64 such differences stay far below 1e-6 for 200 steps; in float32 they start at 1e-7 and grow.
Measured by recorded/make_loss_curve.py over all kernels of OpenBLAS from Prescott to SkylakeX, and
NumPy with and without its vector instructions, the largest distances from the recorded curve are

    float64  3.8e-15 in 200 steps
    float32  1.6e-7 in the first 50 steps, 1.8e-6 in 200

and the tolerances below leave room above that. The one for float64 is narrow enough to notice a
kernel that rounds to float32 on the way, which moves the losses by 7e-9 and more.

A seed fixes the curve as far as NumPy's streams stay what they are. The raw words of SFC64 and
SeedSequence, of which dropout is made, are promised to stay (NEP 19). `Generator.uniform`, which
draws initial weights, and `Generator.permutation`, which draws the order of samples, may change
with a release of NumPy, though only for good reasons; the first tests tell whether they did.
"""

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from recorded.loss_curve import (
    DTYPES,
    STEPS,
    losses,
    losses_with,
    recorded,
    without_vector_instructions,
)

from minidl import Generator
from minidl.backend import CPU

FLOAT64 = 1e-9  # of the loss, over all steps
FLOAT32 = {50: 1e-6, STEPS: 1e-5}  # over so many steps


def check(curve, dtype):
    expected = recorded()
    assert len(curve) == len(expected) == STEPS
    for steps, tolerance in {STEPS: FLOAT64}.items() if dtype == "float64" else FLOAT32.items():
        assert_allclose(curve[:steps], expected[:steps], rtol=tolerance)


def test_raw_words_are_those_recorded():
    expected = [49006, 54564, 28875, 43699, 26760, 32697, 19238, 29350]
    assert_array_equal(Generator(2024).random_bits(CPU, 8), expected)


def test_uniform_numbers_are_those_recorded():
    expected = [0.33360109284175166, -0.10430012340707573, -0.4759037130390391]
    assert_allclose(Generator(2024).host.uniform(-1, 1, 3), expected, rtol=1e-15)


def test_permutations_are_those_recorded():
    expected = [2, 4, 7, 10, 9, 0, 5, 1, 3, 6, 8, 11]
    assert_array_equal(Generator(2024).host.permutation(12), expected)


def test_the_recorded_training_learns():
    expected = recorded()
    assert expected[:10].mean() > 2
    assert expected[-10:].mean() < 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_are_those_recorded(dtype):
    check(losses(dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernels", ["Prescott", "Nehalem"])
def test_losses_are_those_recorded_with_kernels_for_old_processors(kernels, dtype):
    """Which every processor can run."""
    own, _ = losses_with(dtype, OPENBLAS_CORETYPE=None)
    taken, curve = losses_with(dtype, OPENBLAS_CORETYPE=kernels, **without_vector_instructions())
    check(curve, dtype)
    if taken == own:
        pytest.skip(f"BLAS took its {own} kernels again")
