"""Every operation in float32 is as near to float64 as the table in precision.py says."""

import numpy as np
import pytest
from precision import ROUNDING, ROWS, error, fits
from public_ops import differentiable

import minidl
from minidl.optim.optimizers import Optimizer

every_row = pytest.mark.parametrize("row", ROWS, ids=str)


@every_row
def test_errors_stay_within_bounds(row):
    value, gradients = row.errors()
    assert value <= row.bounds[0]
    assert gradients <= row.bounds[1]


@every_row
def test_float32_is_compared_with_float64_and_most_results_can_be(row):
    for got, exact, divisor in row.results(0):
        assert (got.dtype, exact.dtype) == (np.float32, np.float64)
        assert got.shape == exact.shape == divisor.shape
        assert fits(exact).mean() > 0.5


def test_the_table_names_every_differentiable_operation():
    assert {row.covers for row in ROWS} >= differentiable()


def test_the_table_names_every_optimizer():
    exported = [getattr(minidl, name) for name in minidl.__all__]
    optimizers = {v for v in exported if isinstance(v, type) and issubclass(v, Optimizer)}
    assert {row.covers for row in ROWS} >= optimizers - {Optimizer}
    assert minidl.Adam in optimizers


def test_every_row_has_a_name_of_its_own():
    names = [str(row) for row in ROWS]
    assert len(names) == len(set(names))


def test_an_error_is_counted_in_roundings():
    exact = np.array([1.0, -8.0])
    assert error(np.float32([1, -8]), exact, np.abs(exact)) == 0
    assert error(np.float32([1 + 4 * ROUNDING, -8]), exact, np.abs(exact)) == 4
    assert error(np.float32([1 + 4 * ROUNDING, -8]), exact, np.array([8.0, 8.0])) == 0.5


def test_a_result_of_float32_must_be_finite_where_it_can_be():
    for wrong in (np.nan, np.inf, -np.inf):
        assert error(np.float32([wrong]), np.array([1.0]), np.array([1.0])) == np.inf


def test_what_float32_cannot_hold_is_left_out():
    exact = np.array([1.0, 1e40, np.inf, np.nan])
    assert error(np.float32([1, np.inf, np.inf, np.nan]), exact, np.ones(4)) == 0


def test_denormals_are_measured_by_the_smallest_normal_number():
    assert error(np.float32([2.0**-149]), np.array([2.0**-150]), np.array([2.0**-150])) == 1
