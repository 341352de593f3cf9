"""Memory of large results: used again when nobody holds it any more, and never before."""

import pickle
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import reference
from generated import cases, generated, pooled_cases
from hypothesis import given
from numpy.testing import assert_array_equal
from reference import numbers
from small_training import IMAGE, small_cnn, train

import minidl
from minidl import Tensor
from minidl.backend import CPU
from minidl.kernels import elementwise, memory, pooling, products
from minidl.kernels.convolution import conv2d, conv2d_gradients
from minidl.kernels.convolution_plan import Convolution

LARGE = memory.LEAST // 4 + 3  # elements of float32


def lend(*shape, dtype=np.float32):
    return memory.empty(CPU, shape, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_, np.uint8])
@pytest.mark.parametrize(
    "shape", [(), (0,), (3, 0, LARGE), (5,), (LARGE,), (3, LARGE), (2, 8, LARGE)]
)
def test_memory_is_an_array_of_the_shape_and_dtype_asked_for(shape, dtype):
    array = lend(*shape, dtype=dtype)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned
    array[...] = 1
    assert array.sum() == array.size


def test_memory_that_nobody_holds_is_used_again():
    array = lend(LARGE, 2)
    address = array.ctypes.data
    del array
    tracemalloc.start()
    try:
        again = lend(2, LARGE)
        assert tracemalloc.get_traced_memory()[1] < again.nbytes / 2  # it was there
    finally:
        tracemalloc.stop()
    assert again.ctypes.data == address


@pytest.mark.parametrize(
    "part",
    [
        lambda array: array,
        lambda array: array[1:],
        lambda array: array[::2][::3].T,
        lambda array: array.reshape(-1)[5:][:1],
        lambda array: array.view(np.uint8),
        lambda array: memoryview(array),
        lambda array: Tensor(array),
        lambda array: Tensor(array).reshape(-1)[3:],
        lambda array: np.lib.stride_tricks.as_strided(array, (2,), (4,)),
        lambda array: array.flat,
    ],
)
def test_memory_of_which_any_part_is_held_is_not_used_again(part):
    array = lend(LARGE, 3)
    address = array.ctypes.data
    held = part(array)
    del array
    assert lend(LARGE, 3).ctypes.data != address
    del held
    assert lend(LARGE, 3).ctypes.data == address


def test_large_arrays_begin_where_a_cache_line_does():
    memory.give_back()
    arrays = [memory.empty(CPU, (32_768 + i,), np.float32) for i in range(16)]
    assert {array.ctypes.data % 64 for array in arrays} == {0}
    assert {len(array) for array in map(memory.aligned, range(5))} == set(range(5))


def test_arrays_own_their_memory_and_views_do_not():
    for array in (lend(5), lend(LARGE), np.ones(5)):
        assert memory.owns(array)
        for view in (array[:], array[1:], array.reshape(1, -1), array.view(np.uint8)):
            assert not memory.owns(view)


def test_results_can_be_pickled():
    array = lend(LARGE)
    array[...] = 3
    assert_array_equal(pickle.loads(pickle.dumps(array)), array)


def test_memory_from_128_kib_on_is_kept():
    assert memory.owns(lend(2**17, dtype=np.uint8))
    kept = [type(lend(size, dtype=np.uint8).base) for size in (2**17 - 1, 2**17)]
    assert kept == [type(None), memory._Loan]


def test_256_mib_may_lie_idle():
    memory.give_back()
    for count, kept in ((2, 2), (3, 0)):
        arrays = [lend(2**27, dtype=np.uint8) for _ in range(count)]
        del arrays
        lend(2**18 + count, dtype=np.uint8)  # of a size that is not there
        assert len(memory._idle[2**27]) == kept
    memory.give_back()


def test_no_more_lies_idle_than_is_said(monkeypatch):
    monkeypatch.setattr(memory, "MOST_KEPT", 1 << 22)
    tracemalloc.start()
    try:
        for i in range(200):  # of 200 sizes, 64 MB in all
            lend((1 << 18) + 1000 * i, dtype=np.uint8)
        assert tracemalloc.get_traced_memory()[0] < (1 << 22) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_threads_never_hold_the_same_memory():
    meet = threading.Barrier(4, timeout=60)

    def use(number):
        meet.wait()
        for _ in range(300):
            arrays = [lend(LARGE) for _ in range(3)]
            for i, array in enumerate(arrays):
                array[...] = 10 * number + i
            for i, array in enumerate(arrays):
                assert array.min() == array.max() == 10 * number + i
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))


def test_arrays_that_live_until_the_end_of_the_process_end_in_silence():
    code = (
        "import numpy as np, minidl; kept = minidl.relu(np.ones((300, 300))); "
        "cycle = [minidl.relu(np.ones((300, 300)))]; cycle.append(cycle)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# What is lent is dirty, and every element of a result is written


@contextmanager
def dirty():
    """All memory of results is full of NaN, and of True."""

    def spoiled(backend, shape, dtype):
        array = backend.xp.empty(shape, dtype=dtype)
        array.fill(np.nan if array.dtype.kind == "f" else True)
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "empty", spoiled)
        yield


@generated
@given(pooled_cases())
def test_dirty_memory_changes_no_convolution(case):
    how = Convolution(case.window, case.relu, case.pool)
    with dirty():
        out, passed = conv2d(case.x, case.weight, case.bias, how)
        results = conv2d_gradients(case.x, case.weight, how, case.d, passed)
    for result, wanted in zip((out, *results), case.expected, strict=True):
        assert_array_equal(result, wanted)


@generated
@given(cases(dilate=False))
def test_dirty_memory_changes_no_max_pooling(case):
    d = case.array((len(case.x), *case.window.positions(case.image), case.x.shape[3]), 2)
    with dirty():
        out = pooling.max_pool(case.x, case.window)
        gradient = pooling.max_pool_gradient(case.x, out, d, case.window)
    assert_array_equal(out, reference.max_pool(case.x, case.window[:3]))
    assert_array_equal(gradient, reference.max_pool(case.x, case.window[:3], d))


@pytest.mark.parametrize("shape", [(1, 3), (4, 3), (400, 300)])
def test_dirty_memory_changes_nothing_else(shape):
    x, where = numbers(shape, 0), numbers(shape, 1) > 0
    with dirty():
        assert_array_equal(elementwise.relu(x), np.maximum(x, 0))
        assert_array_equal(elementwise.pass_where(x, where), np.where(where, x, 0))
        assert np.isfinite(products.multiply(x, x.T, np.ones(len(x)), True)).all()


# In training


def test_large_gradients_share_no_memory_with_anything():
    model = small_cnn()
    x = Tensor(numbers((64, *IMAGE), 0).astype(np.float32), requires_grad=True)
    out = model(x)
    (out * out).sum().backward()
    held = [x.data, x.grad, out.data]
    for p in model.parameters():
        held += [p.data, p.grad]
    for i, array in enumerate(held):
        assert not any(np.shares_memory(array, other) for other in held[:i])


def test_a_large_gradient_that_passes_two_ways_is_not_added_to_in_place():
    x = Tensor(numbers((100, 200), 0).astype(np.float32), requires_grad=True)
    hidden = minidl.relu(x)
    both = hidden + hidden  # one gradient for both sides
    (both + hidden * 2.0 + minidl.relu(hidden)).sum().backward()
    assert_array_equal(x.grad, np.where(x.data > 0, 5, 0))


def test_what_is_held_from_one_step_is_not_written_to_in_the_next():
    minidl.set_num_threads(2)
    model = small_cnn()
    x = numbers((64, *IMAGE), 0).astype(np.float32)
    first, inner = model(x), model.layers[0](x).data[3:5]  # of the second a part alone
    loss = minidl.cross_entropy(first, np.arange(64) % 10)
    loss.backward()
    slopes = [p.grad for p in model.parameters()]
    held = [first.data, inner, *slopes]
    copies = [array.copy() for array in held]
    train(model, steps=2, batch=64)
    for array, copy in zip(held, copies, strict=True):
        assert_array_equal(array, copy)
