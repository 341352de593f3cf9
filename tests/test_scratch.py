"""Scratch memory: lent to one at a time, kept small, and never seen in a result."""

import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from generated import generated, pooled_cases
from hypothesis import given
from numpy.testing import assert_array_equal
from reference import eighths

import minidl
from minidl import Conv2D, MaxPool, Sequential, Tensor
from minidl.backend import CPU
from minidl.kernels import (
    convolution,
    convolution_desks,
    convolution_plan,
    im2col,
    optimizer,
    pooling,
    scratch,
    winograd,
)
from minidl.kernels.convolution import conv2d, conv2d_gradients
from minidl.kernels.convolution_plan import Convolution
from minidl.kernels.optimizer import Layout
from minidl.kernels.window import Window


def in_new_thread(function, *args):
    """The result of a call in a thread that has no scratch buffers yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def fill_scratch_with_nan():
    """Leave this thread nothing but buffers full of NaN, larger than any kernel here needs."""
    scratch._shelf.buffers = []
    with ExitStack() as stack:
        for _ in range(scratch.MOST_KEPT):
            stack.enter_context(scratch.borrow(CPU, (1 << 18,), np.float64)).fill(np.nan)
    for buffer in scratch._shelf.shared.values():
        buffer.view(np.uint16)[...] = 0x7FFF  # nan in both precisions


# Lending


def test_scratch_is_an_array_of_the_shape_and_dtype_asked_for():
    for dtype in (np.float32, np.float64, np.uint8):
        with (
            scratch.borrow(CPU, (2, 0, 3), dtype) as empty,
            scratch.borrow(CPU, (5, 3), dtype) as a,
        ):
            assert (empty.shape, empty.dtype) == ((2, 0, 3), dtype)
            assert (a.shape, a.dtype) == ((5, 3), dtype)
            assert a.flags.c_contiguous
            assert a.flags.aligned


def test_scratch_that_was_given_back_is_lent_again():
    def addresses():
        with scratch.borrow(CPU, (100,), np.float32) as a:
            first = a.ctypes.data
        with scratch.borrow(CPU, (5, 20), np.float32) as a:
            return first, a.ctypes.data

    first, second = in_new_thread(addresses)
    assert first == second


def test_scratch_that_was_given_back_by_an_error_is_lent_again():
    scratch._shelf.buffers = []
    with pytest.raises(KeyError), scratch.borrow(CPU, (100,), np.float32):
        raise KeyError
    assert [buffer.size for buffer in scratch._shelf.buffers] == [400]


def test_scratch_in_use_is_never_lent_twice():
    with ExitStack() as stack:
        lent = [stack.enter_context(scratch.borrow(CPU, (50,), np.float32)) for _ in range(6)]
        for i, a in enumerate(lent):
            assert not any(np.shares_memory(a, b) for b in lent[:i])


def test_scratch_is_kept_in_small_number_and_size():
    scratch._shelf.buffers = []
    with ExitStack() as stack:
        for size in range(1, 9):
            stack.enter_context(scratch.borrow(CPU, (size,), np.uint8))
    assert [buffer.size for buffer in scratch._shelf.buffers] == [3, 4, 5, 6, 7, 8]
    for size in (64 * 2**20, 64 * 2**20 + 1):
        with scratch.borrow(CPU, (size,), np.uint8):
            pass
    assert [buffer.size for buffer in scratch._shelf.buffers] == [4, 5, 6, 7, 8, 64 * 2**20]


def test_threads_do_not_share_scratch():
    meet = threading.Barrier(2, timeout=60)

    def lend():
        with scratch.borrow(CPU, (100,), np.float32):
            pass
        meet.wait()  # both have given a buffer back
        with scratch.borrow(CPU, (100,), np.float32) as a:
            meet.wait()  # both hold one
            return a

    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(lend), pool.submit(lend)])
    assert not np.shares_memory(first, second)


# Sharing and keeping


def test_memory_of_one_number_is_shared_by_all_of_a_thread():
    def places():
        first, second = (scratch.shared(0, shape, np.float32) for shape in [(100,), (5, 20)])
        other = scratch.shared(1, (100,), np.float32)
        return first, second, other

    first, second, other = in_new_thread(places)
    assert np.shares_memory(first, second)
    assert not np.shares_memory(first, other)
    assert not any(np.shares_memory(array, first) for array in in_new_thread(places))


def a_byte():
    return np.empty(1, np.uint8)


def test_what_is_kept_is_made_once_for_each_key():
    def make():
        return [scratch.keep(key, a_byte) for key in ("a", "b", "a")]

    first, other, again = in_new_thread(make)
    assert first is again
    assert first is not other


def test_views_are_made_anew_when_their_memory_has_grown():
    def view():
        return scratch.keep("view", lambda: scratch.shared(0, (10,), np.float32))

    def grow():
        before = view()
        larger = scratch.shared(0, (11,), np.float32)
        return before, larger, view()

    before, larger, after = in_new_thread(grow)
    assert np.shares_memory(larger, after)
    assert not np.shares_memory(before, after)


def test_a_thousand_views_are_kept_and_then_none_of_them():
    def keep():
        counts = []
        for number in range(1026):
            scratch.keep(number, a_byte)
            counts.append(len(scratch._shelf.views))
        return counts

    assert in_new_thread(keep) == [*range(1, 1025), 1, 2]


def test_views_are_kept_in_small_number():
    def keep():
        for number in range(3 * scratch.MOST_VIEWS):
            scratch.keep(number, a_byte)
        return len(scratch._shelf.views)

    assert in_new_thread(keep) <= scratch.MOST_VIEWS


def test_views_are_kept_in_small_size():
    def keep():
        for number in range(5):
            scratch.keep(number, lambda: np.empty(scratch.LARGEST_KEPT // 2, np.uint8))
        return sum(kept.nbytes for kept in scratch._shelf.views.values())

    assert 0 < in_new_thread(keep) <= scratch.LARGEST_KEPT


def test_what_has_more_memory_than_may_be_kept_is_not_kept():
    def keep(size):
        scratch.keep("key", lambda: np.empty(size, np.uint8))
        return len(scratch._shelf.views)

    assert in_new_thread(keep, scratch.LARGEST_KEPT) == 1
    assert in_new_thread(keep, scratch.LARGEST_KEPT + 1) == 0


# Kernels


@generated
@given(pooled_cases())
def test_dirty_scratch_changes_no_convolution(case):
    how = Convolution(case.window, case.relu, case.pool)
    fill_scratch_with_nan()
    out, passed = conv2d(case.x, case.weight, case.bias, how)
    fill_scratch_with_nan()
    results = conv2d_gradients(case.x, case.weight, how, case.d, passed)
    for result, wanted in zip((out, *results), case.expected, strict=True):
        assert_array_equal(result, wanted)


def test_scratch_memory_begins_where_a_cache_line_does():
    with ExitStack() as stack:
        sizes = range(1, 999, 99)
        lent = [stack.enter_context(scratch.borrow(CPU, (n,), np.float32)) for n in sizes]
        lent += [scratch.shared(number, (3, number), np.float32) for number in range(5)]
        assert {array.ctypes.data % 64 for array in lent} == {0}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_dirty_scratch_changes_no_step(weight_decay):
    results = []
    for spoil in (lambda: None, fill_scratch_with_nan):
        parameters = [np.ones((2, 3)), np.ones(5)]
        slopes, mean, square = [eighths((2, 3), 0), eighths((5,), 1)], np.zeros(11), np.zeros(11)
        spoil()
        optimizer.sgd(Layout(parameters), slopes, lr=0.1, weight_decay=weight_decay)
        more = {"lr": 0.1, "weight_decay": weight_decay, "step_number": 1}
        spoil()
        moving = Layout(parameters, mean)
        optimizer.momentum_sgd(moving, slopes, momentum=0.9, nesterov=True, **more)
        spoil()
        optimizer.adam(Layout(parameters, mean, square), slopes, betas=(0.9, 0.9), eps=1e-8, **more)
        results.append([*parameters, mean, square])
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)


def test_a_convolution_in_the_middle_of_another_has_memory_of_its_own(monkeypatch):
    how = Convolution(Window((3, 3)), True, (2, 2))
    expected = [array.copy() for array in convolve(how)]
    choose = convolution.choose_largest

    def interrupted(*arguments):  # as by the handler of a signal
        monkeypatch.setattr(convolution, "choose_largest", choose)
        convolve(how, 3)
        choose(*arguments)

    monkeypatch.setattr(convolution, "choose_largest", interrupted)
    for array, wanted in zip(convolve(how), expected, strict=True):
        assert_array_equal(array, wanted)
    assert not scratch._shelf.busy


HOWS = [
    Convolution(Window((3, 3))),
    Convolution(Window((3, 3), (2, 2), ((1, 1), (1, 1)))),
    Convolution(Window((1, 1)), True),
    Convolution(Window((3, 3), padding=((1, 1), (1, 1))), True, (2, 2)),
    Convolution(Window((3, 3), (2, 1), ((1, 1), (1, 1))), True, (1, 5)),
    Convolution(Window((3, 3), padding=((1, 1), (2, 1))), True, (2, 2)),
]
TILED = HOWS[5]


@pytest.fixture(autouse=True)
def _tiles_for_few_channels(monkeypatch, new_plans):  # noqa: ARG001
    monkeypatch.setattr(winograd, "FEWEST", 1)
    monkeypatch.setattr(winograd, "FEWEST_FILTERS_BACK", 1)


def convolve(how, factor=1):
    """The output and the gradients of a small convolution, and what it remembered."""
    channels = 6 if how is TILED else 2
    x, weight = eighths((3, 6, 6, channels), 0) * factor, eighths((3, 3, channels, 4), 1)
    weight = weight[: how.window.size[0], : how.window.size[1]]
    out, remembered = conv2d(x, weight, eighths((4,), 2), how)
    gradients = conv2d_gradients(x, weight, how, out, remembered)
    return out, *gradients, *(array for array in remembered if array is not None)


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_no_result_of_a_convolution_lies_in_scratch_memory(how):
    results = convolve(how)
    kept = list(scratch._shelf.shared.values())
    assert kept
    for result in results:
        assert not any(np.shares_memory(result, array) for array in kept)


def test_no_result_of_a_step_lies_in_scratch_memory():
    parameter, mean, square = (eighths((40,), i) ** 2 for i in range(3))
    optimizer.sgd(Layout([parameter]), [mean], lr=0.1, weight_decay=0.1)
    assert scratch._shelf.buffers
    for result in (parameter, mean, square):
        assert not any(np.shares_memory(result, buffer) for buffer in scratch._shelf.buffers)


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_later_calls_leave_earlier_results_as_they_were(how):
    first = convolve(how)
    copies = [array.copy() for array in first]
    convolve(how, 3)
    for array, copy in zip(first, copies, strict=True):
        assert_array_equal(array, copy)


# Desks


class PlantedError(Exception):
    pass


@pytest.fixture
def small_turns(monkeypatch, new_plans):  # noqa: ARG001
    """Convolutions take one image at a time, and each is a piece of its own."""
    monkeypatch.setitem(convolution.COLUMN_BYTES, "cpu", 1)
    monkeypatch.setattr(convolution_plan, "PIECE_BYTES", 1)


def fail_once(function, number):
    """The function, but the call of that number is an error."""
    calls = count(1)

    def failing(*arguments):
        if next(calls) == number:
            raise PlantedError
        return function(*arguments)

    return failing


def check(how, expected):
    """Compare the convolution that was interrupted, and then another one."""
    for factor, arrays in zip((3, 1), expected, strict=True):
        for result, wanted in zip(convolve(how, factor), arrays, strict=True):
            assert_array_equal(result, wanted)


@pytest.mark.usefixtures("small_turns")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (convolution, "choose_largest"),
        (convolution.AddAndRectify, "__call__"),
        (convolution, "sum_rows"),
    ],
)
@pytest.mark.parametrize("how", HOWS[3:], ids=str)
def test_an_error_in_one_turn_leaves_the_next_convolution_right(
    monkeypatch, how, place, name, number, threads
):
    minidl.set_num_threads(threads)
    expected = [convolve(how, factor) for factor in (3, 1)]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail_once(getattr(place, name), number))
        with pytest.raises(PlantedError):
            convolve(how, 3)
    assert not scratch._shelf.busy
    check(how, expected)


FILES = {
    module.__file__
    for module in (
        convolution,
        convolution_desks,
        convolution_plan,
        im2col,
        pooling,
        scratch,
        winograd,
    )
}


def convolve_interrupted(how, number):
    """An error before the line of that number; whether there were so many."""
    lines, before = count(1), sys.gettrace()

    def trace(frame, event, _):
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line" and next(lines) == number:
            raise PlantedError
        return trace

    sys.settrace(trace)
    try:
        convolve(how, 3)
    except PlantedError:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.usefixtures("small_turns")
@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("has_desk", [False, True])
def test_an_error_before_any_line_leaves_the_next_convolution_right(how, has_desk):
    minidl.set_num_threads(1)
    expected = [convolve(how, factor) for factor in (3, 1)]

    def attempt(number):
        if has_desk:
            convolve(how)
        else:
            convolution._remembered_plan.cache_clear()
        interrupted = convolve_interrupted(how, number)
        check(how, expected)
        return interrupted

    numbers = count(1)
    while in_new_thread(attempt, next(numbers)):
        pass
    assert next(numbers) > 100


@pytest.mark.usefixtures("new_plans")
@pytest.mark.parametrize("how", HOWS[3:], ids=str)
def test_two_threads_of_the_user_work_by_one_plan_at_desks_of_their_own(monkeypatch, how):
    minidl.set_num_threads(1)
    expected = [convolve(how, factor) for factor in (1, -1)]
    meet = threading.Barrier(2, timeout=60)

    def meet_before(function):
        def meeting(*arguments):
            meet.wait()  # both have written what this function reads
            function(*arguments)

        return meeting

    for name in ("choose_largest", "give_to_largest"):
        monkeypatch.setattr(convolution, name, meet_before(getattr(convolution, name)))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda factor: convolve(how, factor), (1, -1)))
    for result, wanted in zip(results, expected, strict=True):
        for one, other in zip(result, wanted, strict=True):
            assert_array_equal(one, other)
    assert convolution._remembered_plan.cache_info().currsize == 2  # there and back


@pytest.mark.usefixtures("new_plans")
@pytest.mark.parametrize("how", HOWS, ids=str)
def test_what_needs_more_than_may_be_kept_keeps_nothing_and_gives_the_same(monkeypatch, how):
    def convolve_twice():
        results = [convolve(how) for _ in range(2)]
        return results, len(scratch._shelf.views), len(scratch._shelf.shared)

    (expected, _), *kept = in_new_thread(convolve_twice)
    assert min(kept) > 0
    convolution._remembered_plan.cache_clear()
    monkeypatch.setattr(scratch, "LARGEST_KEPT", 1)
    results, *kept = in_new_thread(convolve_twice)
    assert kept == [0, 0]
    for result in results:
        for one, other in zip(result, expected, strict=True):
            assert_array_equal(one, other)


@pytest.mark.usefixtures("new_plans")
@pytest.mark.parametrize(("too_much", "desks"), [(0, 1), (1, 0)])
def test_a_desk_is_kept_if_one_turn_at_it_needs_no_more_than_may_be(monkeypatch, too_much, desks):
    def convolve_and_count():
        x, weight = eighths((3, 6, 6, 2), 0), eighths((3, 3, 2, 4), 1)
        conv2d(x, weight, None, Convolution(Window((3, 3))))
        return len(scratch._shelf.views)

    # in one turn: three images of 16 places, for each a patch of 18 numbers and 4 results, and a
    # gradient of the filters
    needed = (3 * 16 * (18 + 4) + 18 * 4) * 8
    monkeypatch.setattr(scratch, "LARGEST_KEPT", needed - too_much)
    assert in_new_thread(convolve_and_count) == desks


def test_what_could_not_be_made_is_made_the_next_time():
    def make():
        with pytest.raises(PlantedError):
            scratch.keep("key", fail_once(a_byte, 1))
        return scratch.keep("key", a_byte)

    assert in_new_thread(make).nbytes == 1


# Memory of a training step

# Batch 1024 of 64 channels on 14x14: the columns of all images would take 462 MB.
SHAPE = 1024, 14, 14, 64
MODELS = {
    "convolution": lambda: Conv2D(64, 3, padding="same"),
    "convolution and pooling": lambda: Sequential(
        [Conv2D(64, 3, padding="same", activation="relu"), MaxPool(2)]
    ),
}

# Each thread has 8 MiB of columns, and for the same few images their padded copy and what belongs
# to all places: together less than
A_THREAD = 13e6
# The gradient of the weight is summed up in at most eight parts, and a byte is kept for each place
# of a pooling window:
PARTS, PLACES = 8 * 3 * 3 * 64 * 64 * 4, 1024 * 14 * 14 * 64


def beyond_results(name):
    """The most bytes in use at once, forward and back, beyond output, gradient and its seed."""
    model = MODELS[name]()
    x = Tensor(np.zeros(SHAPE, np.float32), requires_grad=True)
    for _ in range(2):  # the first time makes parameters
        one = model(Tensor(x.data[:1]))
    seed = np.zeros((len(x), *one.shape[1:]), np.float32)
    tracemalloc.start()
    try:
        model(x).backward(seed)
        return tracemalloc.get_traced_memory()[1] - seed.nbytes - x.data.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", MODELS)
def test_the_columns_of_the_whole_batch_never_exist(name):
    minidl.set_num_threads(1)
    assert in_new_thread(beyond_results, name) < A_THREAD + PARTS + PLACES * ("pool" in name)


def test_each_thread_adds_scratch_memory_of_its_own_and_no_more():
    threads = 3
    code = (
        f"import minidl, test_scratch as test; minidl.set_num_threads({threads}); "
        "print(test.beyond_results('convolution'))"
    )  # in a process whose helpers have borrowed nothing yet
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    assert int(done.stdout) < threads * A_THREAD + PARTS
