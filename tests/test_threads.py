"""Threads: how many there are, who takes which piece, what errors and interrupts leave behind, and
that no result depends on any of it, not even in its last bit.

Where two threads have to be seen at work at once, they meet at a barrier, which one alone would
never pass.
"""

import contextlib
import contextvars
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from reference import numbers
from small_training import digest, small_cnn, train
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

import minidl
from minidl import Tensor
from minidl.kernels import (
    blas_library,
    convolution,
    elementwise,
    helpers,
    optimizer,
    pooling,
    products,
    threads,
)
from minidl.kernels.blas_threads import one_blas_thread
from minidl.kernels.convolution import conv2d, conv2d_gradients
from minidl.kernels.convolution_plan import Convolution
from minidl.kernels.optimizer import Layout
from minidl.kernels.threads import Ahead, cut, pieces_of, share
from minidl.kernels.window import Window
from minidl.tensor import record

HERE = Path(__file__).parent
A_MINUTE = 60  # what nobody waits for unless something hangs

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def meeting(count):
    """What so many threads have to reach at once."""
    return threading.Barrier(count, timeout=A_MINUTE)


def run(*command, **environment):
    """What a fresh Python prints, started among the tests; a variable of None is taken away."""
    env = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=HERE,
        timeout=A_MINUTE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def promptly(function):
    """The result of a call; an error, and nothing left behind to wait for, if it hangs."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(A_MINUTE)
    assert not thread.is_alive(), "it hangs"
    return results[0]


def all_at_once(functions):
    """The results of calls by threads of the user's that start together."""
    start = meeting(len(functions))

    def begin(function):
        start.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(begin, functions))


# How many


def test_the_environment_says_how_many():
    code = "import minidl; print(minidl.get_num_threads())"
    assert run("-c", code, MINIDL_NUM_THREADS="3") == "3\n"


def test_a_number_in_the_environment_that_is_none_is_refused_by_name():
    code = """
import importlib, os
from minidl.kernels import threads
for value in ["0", "-1", "1.5", "two", "", "2 3"]:
    os.environ["MINIDL_NUM_THREADS"] = value
    try:
        importlib.reload(threads)
    except ValueError as error:
        print(error)
"""
    expected = [
        f"MINIDL_NUM_THREADS must be an integer of at least 1, got {value!r}"
        for value in ["0", "-1", "1.5", "two", "", "2 3"]
    ]
    assert run("-c", code, MINIDL_NUM_THREADS="1").splitlines() == expected


def test_a_system_that_tells_no_affinity_is_asked_for_its_processors(monkeypatch):
    monkeypatch.delenv("MINIDL_NUM_THREADS", raising=False)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    for known, expected in ((5, 5), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda known=known: known)
        assert threads._count_at_start() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_without_a_word_there_are_as_many_as_cores_that_the_process_may_use():
    code = """
import os
cores = os.sched_getaffinity(0)
import minidl
assert minidl.get_num_threads() == len(cores)
os.sched_setaffinity(0, {min(cores)})
import importlib
importlib.reload(minidl.kernels.threads)
print(minidl.kernels.threads.get_num_threads())
"""
    assert run("-c", code, MINIDL_NUM_THREADS=None) == "1\n"


def test_the_number_can_be_set():
    for count in (1, 5, 2):
        minidl.set_num_threads(count)
        assert minidl.get_num_threads() == count


@pytest.mark.parametrize("count", [0, -1, 1.5, 2.0, True, "2", None])
def test_numbers_of_threads_that_are_none_are_refused_and_change_nothing(count):
    minidl.set_num_threads(3)
    with pytest.raises(ValueError, match=r"set_num_threads expects an integer of at least 1, got"):
        minidl.set_num_threads(count)
    assert minidl.get_num_threads() == 3


def test_what_the_user_asks_for_is_told_from_what_the_machine_has(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    minidl.set_num_threads(2)
    assert not threads.is_set_by_user()
    minidl.set_num_threads(3)
    assert threads.is_set_by_user()
    monkeypatch.setenv(threads.VARIABLE, "3")
    assert threads.is_set_by_user()


# How work is cut


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 100, 1001])
@pytest.mark.parametrize("pieces", [1, 2, 3, 8])
def test_pieces_are_the_whole_in_order_and_of_one_length(length, pieces):
    parts = cut(length, pieces)
    assert [i for part in parts for i in range(length)[part]] == list(range(length))
    lengths = [part.stop - part.start for part in parts]
    assert len(parts) == max(1, min(pieces, length))
    assert max(lengths) - min(lengths) <= 1
    assert length == 0 or min(lengths) > 0


def test_more_work_makes_more_pieces_but_larger_ones_too():
    counts = [pieces_of(work, 100) for work in (0, 99, 100, 399, 400, 1599, 1600, 10**9)]
    assert counts == [1, 1, 2, 2, 4, 4, 8, 8]


def test_the_number_of_pieces_takes_no_notice_of_the_number_of_threads():
    seen = set()
    for count in (1, 2, 64):
        minidl.set_num_threads(count)
        seen.add((pieces_of(10**6, 10**4), len(cut(1000, 4))))
    assert len(seen) == 1


# Who takes which piece


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("pieces", [0, 1, 2, 7, 200])
def test_every_piece_is_taken_exactly_once(count, pieces):
    minidl.set_num_threads(count)
    for _ in range(5):
        taken = []
        share(taken.append, list(range(pieces)))
        assert Counter(taken) == Counter(range(pieces))


def test_one_thread_takes_the_pieces_in_their_order_itself():
    minidl.set_num_threads(1)
    taken = []
    share(lambda piece: taken.append((piece, threading.get_ident())), list(range(9)))
    assert taken == [(piece, threading.get_ident()) for piece in range(9)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_so_many_threads_are_at_work_at_once(count):
    minidl.set_num_threads(count)
    for _ in range(3):
        meet, threads = meeting(count), set()

        def work(_, meet=meet, threads=threads):
            meet.wait()
            threads.add(threading.get_ident())

        share(work, list(range(count)))
        assert len(threads) == count
        assert threading.get_ident() in threads


def test_no_more_threads_are_at_work_than_allowed():
    minidl.set_num_threads(6)
    meet = meeting(6)
    share(lambda _: meet.wait(), list(range(6)))  # five helpers there are now
    minidl.set_num_threads(2)
    threads = set()
    meet = meeting(2)

    def work(piece):
        if piece < 2:
            meet.wait()
        threading.Event().wait(0.002)  # long enough for a third to take one
        threads.add(threading.get_ident())

    share(work, list(range(60)))
    assert len(threads) == 2


def test_helpers_are_used_again():
    minidl.set_num_threads(3)
    for _ in range(3):
        meet = meeting(3)
        share(lambda _, meet=meet: meet.wait(), list(range(3)))
    before = threading.active_count()
    for _ in range(20):
        meet = meeting(3)
        share(lambda _, meet=meet: meet.wait(), list(range(3)))
    assert threading.active_count() == before


def test_pieces_that_share_their_own_work_end():
    minidl.set_num_threads(3)

    def both_levels():
        meet, taken = meeting(3), []

        def outer(piece):
            meet.wait()  # no helper is idle now
            share(lambda inner: taken.append((piece, inner)), list(range(4)))

        share(outer, list(range(3)))
        return taken

    expected = Counter((outer, inner) for outer in range(3) for inner in range(4))
    assert Counter(promptly(both_levels)) == expected


def test_threads_of_the_user_that_share_at_once_all_get_on():
    minidl.set_num_threads(3)

    def user():
        taken = []
        for _ in range(50):
            share(taken.append, list(range(5)))
        return Counter(taken)

    expected = Counter(list(range(5)) * 50)
    assert promptly(lambda: all_at_once([user] * 4)) == [expected] * 4


def test_threads_of_the_user_have_the_helpers_of_one_between_them():
    code = """
import threading
import test_threads as test
from minidl.kernels.threads import set_num_threads, share
set_num_threads(3)

def user():
    for _ in range(20):
        share(lambda _: threading.Event().wait(0.001), list(range(4)))

test.all_at_once([user] * 4)
print([thread.name for thread in threading.enumerate() if thread.name == "minidl"])
"""  # in a process where nobody was allowed more
    assert run("-c", code).strip() in ("['minidl']", "['minidl', 'minidl']")


# Errors


class PlantedError(Exception):
    pass


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_error_reaches_the_caller(count):
    minidl.set_num_threads(count)
    planted = PlantedError("in a piece")

    def work(piece):
        if piece == 1:
            raise planted

    with pytest.raises(PlantedError) as error:
        share(work, list(range(3)))
    assert error.value is planted


@pytest.mark.parametrize("by_helper", [False, True])
def test_an_error_in_any_thread_reaches_the_caller(by_helper):
    minidl.set_num_threads(2)
    meet, caller = meeting(2), threading.get_ident()

    def work(_):
        meet.wait()  # both threads have a piece
        if (threading.get_ident() != caller) == by_helper:
            raise PlantedError

    with pytest.raises(PlantedError):
        share(work, [0, 1])


def test_the_first_of_several_errors_is_raised():
    minidl.set_num_threads(2)
    meet, raised = meeting(2), threading.Event()

    def work(piece):
        meet.wait()
        if piece == 0:
            try:
                raise PlantedError("first")
            finally:
                raised.set()
        raised.wait(A_MINUTE)
        threading.Event().wait(0.05)  # for the first to arrive
        raise PlantedError("second")

    with pytest.raises(PlantedError, match="first"):
        share(work, [0, 1])


def test_after_an_error_no_further_piece_is_handed_out_by_one_thread():
    minidl.set_num_threads(1)
    taken = []

    def work(piece):
        taken.append(piece)
        if piece == 3:
            raise PlantedError

    with pytest.raises(PlantedError):
        share(work, list(range(10)))
    assert taken == [0, 1, 2, 3]


@pytest.mark.parametrize("by_helper", [False, True])
def test_after_an_error_no_further_piece_is_handed_out_by_several(by_helper):
    minidl.set_num_threads(2)
    meet, caller, taken = meeting(2), threading.get_ident(), []

    def work(piece):
        taken.append(piece)
        if piece < 2:
            meet.wait()
            if (threading.get_ident() != caller) == by_helper:
                raise PlantedError
        threading.Event().wait(0.02)  # all pieces take 40 seconds, the error arrives long before

    with pytest.raises(PlantedError):
        share(work, list(range(2000)))
    assert len(taken) < 1000


@pytest.mark.parametrize("error", [PlantedError, KeyboardInterrupt])
def test_nobody_writes_any_more_when_an_error_arrives(error):
    minidl.set_num_threads(2)
    meet, caller, written = meeting(2), threading.get_ident(), []

    def work(_):
        meet.wait()
        if threading.get_ident() == caller:
            raise error
        threading.Event().wait(0.05)
        written.append(True)

    with pytest.raises(error):
        share(work, [0, 1])
    assert written


@pytest.mark.parametrize(("count", "ahead"), [(1, False), (2, True)])
def test_what_is_to_be_ready_is_begun_if_a_helper_may_do_it(count, ahead):
    minidl.set_num_threads(count)
    made = Ahead(threading.get_ident)
    assert made.begun == ahead
    assert (made.result() != threading.get_ident()) == ahead


def test_a_helper_that_could_not_begin_is_idle_again(monkeypatch):
    minidl.set_num_threads(2)
    promptly(lambda: Ahead(int).result())
    before = list(helpers.idle)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(helpers.Helper, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Ahead(int)
    assert helpers.idle == before


def test_helpers_survive_errors():
    minidl.set_num_threads(3)
    before = None
    for error in (PlantedError, KeyboardInterrupt, SystemExit, GeneratorExit):
        meet = meeting(3)

        def fail(_, meet=meet, error=error):
            meet.wait()
            raise error

        with pytest.raises(error):
            share(fail, list(range(3)))
        meet = meeting(3)
        share(lambda _, meet=meet: meet.wait(), list(range(3)))
        before = before or threading.active_count()
        assert threading.active_count() == before


@forks
def test_an_interrupt_leaves_nobody_writing_or_waiting_wherever_it_comes():
    assert run("interruptions.py") == ""


@pytest.mark.parametrize(
    "interrupt",
    [
        "signal.raise_signal(signal.SIGINT)",  # which the caller hears of when it goes on
        "signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)",  # which wakes it up
        "_thread.interrupt_main()",
    ],
)
def test_interrupts_while_the_caller_waits_are_raised_when_the_helpers_are_done(interrupt):
    code = f"""
import _thread, signal, threading
from minidl.kernels.threads import set_num_threads, share
set_num_threads(2)
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background have none
meet, caller, at_rest, written = threading.Barrier(2), threading.get_ident(), [], []

def work(_):
    meet.wait()
    if threading.get_ident() == caller:
        at_rest.append(True)
        return
    while not at_rest:
        pass
    for _ in range(3):
        threading.Event().wait(0.01)
        {interrupt}
    threading.Event().wait(0.05)
    written.append(True)

for _ in range(3):
    at_rest.clear()
    try:
        share(work, [0, 1])
    except KeyboardInterrupt:
        print(len(written))
"""
    assert run("-c", code).split() == ["1", "2", "3"]


# What helpers take over from the caller, and what they keep


def settings_in_all_threads(count):
    """What numpy.errstate says in each of several threads."""
    meet, seen = meeting(count), []

    def work(_):
        meet.wait()
        seen.append(np.geterr()["over"])

    share(work, list(range(count)))
    return seen


def test_the_errstate_of_the_caller_holds_in_helpers_for_as_long():
    minidl.set_num_threads(3)
    outside = np.geterr()["over"]
    for inside in ("raise", "ignore"):
        with np.errstate(over=inside):
            assert settings_in_all_threads(3) == [inside] * 3
        assert settings_in_all_threads(3) == [outside] * 3


@pytest.mark.parametrize("count", [1, 2])
def test_a_kernel_raises_what_errstate_asks_for(count):
    minidl.set_num_threads(count)
    x = np.full((64, 28, 28, 4), 3e38, np.float32)
    weight = np.full((1, 1, 4, 32), 2, np.float32)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        conv2d(x, weight, None, Convolution(Window((1, 1))))
    with np.errstate(all="ignore"):
        out, _ = conv2d(x, weight, None, Convolution(Window((1, 1))))
    assert np.isinf(out).all()


def test_context_variables_of_the_caller_are_seen_in_helpers():
    minidl.set_num_threads(2)
    variable = contextvars.ContextVar("variable", default="outside")
    for value in ("first", "second"):
        token = variable.set(value)
        meet, seen = meeting(2), []

        def work(_, meet=meet, seen=seen):
            meet.wait()
            seen.append(variable.get())

        share(work, [0, 1])
        variable.reset(token)
        assert seen == [value] * 2


class Watched(np.ndarray):
    """An array that can be watched."""


@pytest.mark.parametrize("fails", [False, True])
def test_idle_helpers_hold_no_arrays(fails):
    minidl.set_num_threads(3)

    def use():
        pieces, seen = ([np.ones(3).view(Watched) for _ in range(3)] for _ in range(2))
        meet = meeting(3)

        def work(piece):
            meet.wait()
            piece += seen[0] * seen[1]
            if fails:
                raise PlantedError

        alive = [weakref.ref(array) for array in (*pieces, *seen)]
        try:
            share(work, pieces)
        except PlantedError:
            assert fails
        return alive

    alive = use()
    if fails:
        gc.collect()  # an error and the frames it came through hold each other
    assert not any(ref() is not None for ref in alive)


# BLAS


def blas_threads():
    """The numbers of threads of all BLAS libraries: one number if they agree."""
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


@pytest.fixture
def two():
    """BLAS has two threads outside of kernels."""
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("the threads of this BLAS cannot be set")
        yield
        assert blas_threads() == {2}  # as they were found


ONE, TWO = {1}, {2}


def beside():
    """The number that a thread sees while another one is in a kernel: it may have its own."""
    return TWO if blas_library.thread_numbers().of_thread else ONE


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("count", [1, 3])
def test_blas_has_one_thread_inside_of_pieces_and_those_it_had_outside(count):
    minidl.set_num_threads(count)
    meet, seen = meeting(count), []

    def work(_):
        meet.wait()
        seen.append(blas_threads())
        share(lambda _: seen.append(blas_threads()), [0, 1])
        seen.append(blas_threads())

    share(work, list(range(count)))
    assert seen == [ONE] * (4 * count)
    assert blas_threads() == TWO


def test_blas_that_has_one_thread_keeps_it():
    with threadpool_limits(1, user_api="blas"):
        share(lambda _: None, [0, 1])
        assert blas_threads() <= ONE


@pytest.mark.usefixtures("two")
def test_blas_may_be_given_another_number_between_kernels():
    share(lambda _: None, [0])
    with threadpool_limits(1, user_api="blas"):
        share(lambda _: None, [0])
        assert blas_threads() == ONE
    assert blas_threads() == TWO
    share(lambda _: None, [0])
    assert blas_threads() == TWO


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("error", [PlantedError, KeyboardInterrupt])
def test_blas_has_its_threads_back_after_an_error(count, error):
    minidl.set_num_threads(count)

    def work(_):
        raise error

    with pytest.raises(error):
        share(work, [0, 1])
    assert blas_threads() == TWO
    with pytest.raises(error), one_blas_thread():
        raise error
    assert blas_threads() == TWO


@pytest.mark.usefixtures("two")
def test_blas_has_its_threads_back_when_the_last_of_several_users_leaves():
    minidl.set_num_threads(2)
    arrived, first_left = meeting(2), threading.Event()

    def first():
        share(lambda _: arrived.wait(), [0])
        seen = blas_threads()  # the other is still inside
        first_left.set()
        return seen

    def second():
        def work(_):
            arrived.wait()
            assert first_left.wait(A_MINUTE)
            assert blas_threads() == ONE

        share(work, [0])

    assert all_at_once([first, second]) == [beside(), None]
    assert blas_threads() == TWO


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("error", [None, PlantedError, KeyboardInterrupt])
def test_a_block_inside_another_leaves_blas_with_one_thread_when_it_ends(error):
    seen = []
    with one_blas_thread():
        for _ in range(2):
            with contextlib.suppress(PlantedError, KeyboardInterrupt), one_blas_thread():
                with one_blas_thread():
                    seen.append(blas_threads())
                seen.append(blas_threads())
                if error:
                    raise error
            seen.append(blas_threads())
    assert seen == [ONE] * 6
    assert blas_threads() == TWO


@pytest.mark.usefixtures("two")
def test_blas_has_its_threads_back_when_the_outer_blocks_of_both_threads_have_ended():
    meet, seen = meeting(2), []

    def comes_and_goes():
        with one_blas_thread():
            meet.wait()  # both are inside
            with one_blas_thread():
                pass
            seen.append(blas_threads())
        with one_blas_thread(), one_blas_thread():
            pass
        meet.wait()  # this one has left twice

    def stays():
        with one_blas_thread():
            with one_blas_thread():
                meet.wait()
                meet.wait()
                seen.append(blas_threads())
            seen.append(blas_threads())
        seen.append(blas_threads())

    all_at_once([comes_and_goes, stays])
    assert seen == [ONE, ONE, ONE, TWO]


@pytest.mark.usefixtures("two")
def test_blas_has_one_thread_in_the_kernels_of_any_thread():
    share(lambda _: None, [0])  # this one came first
    seen = []
    in_another = threading.Thread(target=share, args=(lambda _: seen.append(blas_threads()), [0]))
    in_another.start()
    in_another.join(A_MINUTE)
    assert seen == [ONE]
    assert blas_threads() == TWO


@pytest.mark.usefixtures("two")
def test_blas_has_one_thread_all_the_way_back():
    seen = []

    def rule(g):
        seen.append(blas_threads())
        return g

    x = Tensor([1.0], requires_grad=True)
    record(record(x.data, (x, rule)).data * 1, (x, rule))
    first = record(x.data * 2, (x, rule))
    record(first.data * 2, (first, rule)).backward()
    assert seen == [ONE, ONE]
    assert blas_threads() == TWO


@pytest.mark.usefixtures("two")
def test_blas_has_its_threads_back_after_an_error_on_the_way_back():
    def rule(_):
        raise PlantedError

    x = Tensor([1.0], requires_grad=True)
    with pytest.raises(PlantedError):
        record(x.data * 2, (x, rule)).backward()
    assert blas_threads() == TWO


def convolve(count=64, image=(28, 28), channels=1, filters=16, how=None):
    """A convolution of float32 images with any numbers, its gradients, and what it remembered."""
    how = how or Convolution(Window((3, 3), padding=((1, 1), (1, 1))), True, (2, 2))
    x = numbers((count, *image, channels), 0).astype(np.float32)
    weight = numbers((*how.window.size, channels, filters), 1).astype(np.float32)
    bias = numbers((filters,), 2).astype(np.float32)
    d = numbers((count, *how.places(image), filters), 3).astype(np.float32)
    out, remembered = conv2d(x, weight, bias, how)
    gradients = conv2d_gradients(x, weight, how, d, remembered)
    return out, *gradients, *(array for array in remembered if array is not None)


def multiply(m, k, n, turned=False):
    a, b = numbers((m, k), 0).astype(np.float32), numbers((k, n), 1).astype(np.float32)
    if turned:
        a, b = np.asfortranarray(a), np.asfortranarray(b)
    return (products.multiply(a, b, numbers((n,), 2).astype(np.float32), True),)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("kernel", [convolve, lambda: multiply(2000, 100, 130)])
def test_kernels_multiply_with_one_thread_of_blas_each(monkeypatch, kernel):
    minidl.set_num_threads(2)
    seen = []
    matmul = np.matmul

    def watched(*arguments, **options):
        seen.append(blas_threads())
        return matmul(*arguments, **options)

    monkeypatch.setattr(np, "matmul", watched)
    kernel()
    assert len(seen) > 1
    assert seen == [ONE] * len(seen)
    assert blas_threads() == TWO


def blas_of_each_thread(kind):
    """Stands in for a BLAS with a number of threads for each thread that asks, 2 at first.

    Returns it as threadpoolctl tells of it, and what tells its number in this thread.
    """
    own = threading.local()

    def get():
        return getattr(own, "count", 2)

    def set_own(count):
        before, own.count = get(), count
        return before

    if kind == "MKL":
        functions = SimpleNamespace(MKL_Set_Num_Threads_Local=set_own)
        return SimpleNamespace(internal_api="mkl", dynlib=functions), get
    functions = SimpleNamespace(
        omp_get_max_threads=get, omp_set_num_threads=lambda count: void(set_own(count))
    )
    kind = {"internal_api": "openblas", "threading_layer": "openmp"}
    return SimpleNamespace(dynlib=functions, **kind), get


def void(_):
    """As functions of C that return nothing."""


@pytest.mark.parametrize("kind", ["MKL", "OpenBLAS with OpenMP"])
def test_blas_has_one_thread_in_each_thread_where_each_has_its_own_number(kind):
    code = f"""
import threading
from types import SimpleNamespace
import test_threads as test
from minidl.kernels.threads import set_num_threads, share

library, count = test.blas_of_each_thread({kind!r})
controller = SimpleNamespace(lib_controllers=[library])
test.ThreadpoolController.select = lambda *_, **__: controller
set_num_threads(3)
meet, seen, failed = test.meeting(3), [], []

def work(_):
    meet.wait()
    seen.append((threading.get_ident(), count()))

def fail(_):
    failed.append(count())
    raise ValueError

for _ in range(2):
    share(work, list(range(3)))
    assert count() == 2
    try:
        share(fail, [0])
    except ValueError:
        assert count() == 2
assert [number for _, number in seen] == [1] * 6 and failed == [1] * 2
assert len({{thread for thread, _ in seen}}) == 3

def user():
    meet.wait()
    share(lambda _: (meet.wait(), seen.append(count())), [0])
    seen.append(count())

del seen[:]
users = [threading.Thread(target=user) for _ in range(3)]
for thread in users:
    thread.start()
for thread in users:
    thread.join()
assert sorted(seen) == [1] * 3 + [2] * 3
print("done")
"""
    assert run("-c", code) == "done\n"


# Forks


@forks
def test_a_forked_process_computes_what_its_parent_does():
    code = """
import os, threading
import numpy as np
from threadpoolctl import threadpool_limits
import test_threads as test
from minidl.kernels.threads import set_num_threads, share

set_num_threads(3)
threadpool_limits(2, user_api="blas")

def check():
    meet = test.meeting(3)
    share(lambda _: meet.wait(), [0, 1, 2])
    arrays = test.convolve()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays, expected, strict=True))
    assert test.blas_threads() == {2}

def fork():
    child = os.fork()
    if not child:
        try:
            check()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child

def wait(child):
    assert os.waitpid(child, 0)[1] == 0

expected = test.convolve()  # and helpers lie idle
wait(fork())
check()

# while another thread is in the middle of a kernel, whose helpers are busy and whose BLAS is held
inside, go_on = threading.Event(), threading.Event()

def busy(_):
    inside.set()
    go_on.wait(test.A_MINUTE)

thread = threading.Thread(target=share, args=(busy, [0, 1]), daemon=True)
thread.start()
assert inside.wait(test.A_MINUTE)
assert test.blas_threads() == test.beside()
child = fork()
go_on.set()
thread.join()
wait(child)
check()

# in the middle of a kernel of its own
share(lambda _: wait(fork()), [0])
check()
print("done")
"""
    assert run("-c", code) == "done\n"


# The same bits from any number of threads


def max_pool(window):
    x = numbers((64, 28, 27, 8), 0).astype(np.float32)
    out = pooling.max_pool(x, window)
    d = numbers(out.shape, 1).astype(np.float32)
    return out, pooling.max_pool_gradient(x, out, d, window)


def test_the_architecture_is_that_which_threadpoolctl_tells(monkeypatch):
    told = {library.get("architecture") for library in threadpool_info()}
    blas_library.blas_architecture.cache_clear()
    assert blas_library.blas_architecture() in told | {""}
    monkeypatch.setattr(ThreadpoolController, "select", lambda *_, **__: NoLibrary)
    blas_library._openblas.cache_clear()
    blas_library.blas_architecture.cache_clear()
    assert blas_library.blas_architecture() == ""
    blas_library._openblas.cache_clear()
    blas_library.blas_architecture.cache_clear()


def test_functions_of_blas_are_found_by_the_names_they_have_in_c(monkeypatch):
    if "openblas" in {library["internal_api"] for library in threadpool_info()}:
        assert blas_library.blas_function("cblas_saxpby")
    assert blas_library.blas_function("no_such_function") is None
    monkeypatch.setattr(ThreadpoolController, "select", lambda *_, **__: NoLibrary)
    blas_library._openblas.cache_clear()
    assert blas_library.blas_function("cblas_saxpby") is None
    blas_library._openblas.cache_clear()


class NoLibrary:
    """What is selected where there is no OpenBLAS."""

    lib_controllers = ()


def step(kind, sizes):
    """One optimizer step on parameters of these sizes."""
    parameters, gradients = (
        [numbers((n,), seed + i).astype(np.float32) for i, n in enumerate(sizes)]
        for seed in (0, 100)
    )
    memory = [numbers((sum(sizes),), 200 + i).astype(np.float32) ** 2 for i in range(2)]
    more = {"lr": 0.1, "weight_decay": 0.01}
    if kind == "sgd":
        optimizer.sgd(Layout(parameters), gradients, **more)
    elif kind == "momentum":
        more.update(momentum=0.9, nesterov=True, step_number=64)
        optimizer.momentum_sgd(Layout(parameters, memory[0]), gradients, **more)
    else:
        more.update(betas=(0.9, 0.99), eps=1e-8, step_number=64)
        optimizer.adam(Layout(parameters, *memory), gradients, **more)
    return *parameters, *memory


def pooled(size, *arguments, relu=True, pool=(2, 2)):
    return Convolution(Window(size, *arguments), relu, pool)


SAME = ((1, 1), (1, 1))
SIZES = [100_003, 7, 0, 300_000, 33, 50_000, 1]
KERNELS = {
    # what is spied on, and what is computed
    "convolution, few channels": (convolution, convolve),
    "convolution, many channels": (
        convolution,
        lambda: convolve(37, (14, 13), 32, 24, pooled((3, 3), (1, 1), SAME)),
    ),
    "convolution alone": (
        convolution,
        lambda: convolve(37, (14, 13), 32, 24, pooled((3, 3), relu=False, pool=(1, 1))),
    ),
    "convolution, relu, strides": (
        convolution,
        lambda: convolve(41, (27, 28), 12, 20, pooled((3, 3), (2, 2), SAME, pool=(1, 1))),
    ),
    "convolution, wide pooling": (
        convolution,
        lambda: convolve(64, (28, 28), 3, 16, pooled((3, 3), (1, 1), SAME, pool=(3, 2))),
    ),
    "convolution of single pixels": (
        convolution,
        lambda: convolve(61, (14, 14), 64, 48, pooled((1, 1), pool=(1, 1))),
    ),
    "max pooling": (pooling, lambda: max_pool(Window((2, 2), (2, 2)))),
    "overlapping max pooling": (pooling, lambda: max_pool(Window((3, 3), (2, 2), SAME))),
    "max(x, 0)": (elementwise, lambda: (elementwise.relu(numbers((700, 701), 0)),)),
    "passing where": (
        elementwise,
        lambda: (elementwise.pass_where(numbers((700, 701), 0), numbers((700, 701), 1) > 0, 1.3),),
    ),
    "product": (products, lambda: multiply(1031, 131, 127)),
    "tall product": (products, lambda: multiply(9001, 67, 31)),
    "wide product": (products, lambda: multiply(33, 311, 2003)),
    "deep product": (products, lambda: multiply(257, 4000, 65)),
    "turned product": (products, lambda: multiply(1031, 131, 127, True)),
    "both gradients of a product": (
        products,
        lambda: products.multiply_gradients(
            *(numbers(shape, 0).astype(np.float32) for shape in ((64, 256), (256, 128), (64, 128))),
            True,
            True,
        ),
    ),
    "sgd": (optimizer, lambda: step("sgd", [*SIZES, 1 << 22])),
    "momentum": (optimizer, lambda: step("momentum", [*SIZES, 1 << 20])),
    "adam": (optimizer, lambda: step("adam", [*SIZES, 1 << 18])),
}


@pytest.mark.parametrize("name", KERNELS)
def test_every_number_of_threads_gives_the_same_bits(name, monkeypatch):
    module, compute = KERNELS[name]
    pieces = []

    def spy(work, parts):
        pieces.append(len(parts))
        share(work, parts)

    monkeypatch.setattr(module, "share", spy)
    results = []
    for count in (1, 2, 3, 8, 2, 1):
        minidl.set_num_threads(count)
        results.append([array.tobytes() for array in compute()])
    assert min(pieces) > 1, "too small to be cut"
    for number, result in enumerate(results):
        for one, other in zip(results[0], result, strict=True):
            assert one == other, f"run {number}"


def test_every_number_of_threads_gives_the_same_weights():
    weights = []
    for count in (1, 2, 4, 2):
        minidl.set_num_threads(count)
        weights.append(digest(train(small_cnn())))
    assert len(set(weights)) == 1
    # in fresh processes too, whatever the environment tells BLAS
    for count, blas in [("1", "2"), ("2", "1")]:
        printed = run("small_training.py", MINIDL_NUM_THREADS=count, OPENBLAS_NUM_THREADS=blas)
        assert printed.strip() == weights[0]


# Threads of the user's


def test_threads_of_the_user_get_what_one_would():
    minidl.set_num_threads(1)
    names = ["convolution, few channels", "convolution alone", "wide product", "adam"]
    computations = [KERNELS[name][1] for name in names]
    expected = [compute() for compute in computations]
    minidl.set_num_threads(3)
    results = all_at_once([lambda c=compute: [c() for _ in range(3)] for compute in computations])
    for repeated, wanted in zip(results, expected, strict=True):
        for result in repeated:
            for one, other in zip(result, wanted, strict=True):
                assert_array_equal(one, other)


def test_threads_of_the_user_train_models_of_their_own():
    def train_a_little(model):
        return digest(train(model, steps=2, batch=32))

    minidl.set_num_threads(1)
    expected = [train_a_little(small_cnn(seed)) for seed in range(4)]
    minidl.set_num_threads(3)
    models = [small_cnn(seed) for seed in range(4)]  # made here: all draw from one generator
    assert all_at_once([lambda m=model: train_a_little(m) for model in models]) == expected


def test_convolutions_in_two_threads_do_not_disturb_each_other():
    minidl.set_num_threads(2)
    x, weight = numbers((16, 10, 10, 4), 0), numbers((3, 3, 4, 4), 1)
    how = Convolution(Window((3, 3), padding=SAME))
    expected = [conv2d(x * sign, weight, None, how)[0] for sign in (1, -1)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            results = pool.map(lambda s: conv2d(x * s, weight, None, how)[0], (1, -1))
            for result, wanted in zip(results, expected, strict=True):
                assert_array_equal(result, wanted)
