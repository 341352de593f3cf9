"""The table of operations, layers and losses on the stand-in device, against the CPU.

The device has no kernels of its own here, so that what is compared is the code that a GPU runs: the
whole-array one, where the CPU has kernels that work in pieces.
"""

import numpy as np
import pytest
from place import computing_on
from test_gradients import CASES

from minidl import backend, gradcheck

# Where the CPU and the device draw other numbers.
RANDOM = {"dropout-0.4", "dropout-0-d", "Dropout-train", "Dropout-rate near 1"}
RANDOM |= {"Sequential-convolutional"}

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def moved(case, dtype, device):
    """What a row computes with, and its parameters and inputs, on a device."""
    compute, _, inputs = case.prepare(dtype)
    if case.model:
        compute.to(device)
    there = []
    for x in inputs:
        y = x.detach().to(device)
        y.requires_grad = x.requires_grad
        there.append(y)
    return compute, compute.parameters() if case.model else [], there


@every_case
def test_every_row_gives_on_the_device_what_it_gives_on_the_cpu(case, device):
    results = []
    for place in ("cpu", device):
        with computing_on(place):
            compute, parameters, inputs = moved(case, np.float64, place)
            out = compute(*inputs)
            seed = np.asarray(np.random.default_rng(0).standard_normal(out.shape), dtype=out.dtype)
            out.backward(backend.of(out.data).asarray(seed))
        assert out.device == place
        gradients = [t.grad for t in (*inputs, *parameters) if t.requires_grad]
        assert all(backend.of(gradient).device == place for gradient in gradients)
        results.append([out.numpy(), *map(backend.on_host, gradients)])
    for on_cpu, there in zip(*results, strict=True):
        assert there.dtype == on_cpu.dtype
        if str(case) in RANDOM:
            assert there.shape == on_cpu.shape
        else:
            np.testing.assert_allclose(there, on_cpu, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in RANDOM], ids=str)
def test_rows_that_draw_numbers_have_right_gradients_on_the_device(case, device):
    compute, _, inputs = moved(case, np.float64, device)
    assert gradcheck(compute, inputs, rtol=1e-5)


def test_the_rows_that_draw_numbers_are_in_the_table():
    assert {str(case) for case in CASES} >= RANDOM
