"""How work is cut, and which of two ways is taken: what the benchmarks found, written down.

No result depends on any of it, only speed. So that nobody changes it unawares, the sizes stand here
at which a decision goes another way; who changes one on purpose measures, and writes the new one.
"""

from functools import partial

import numpy as np
import pytest

import minidl
from minidl import backend
from minidl.backend import CPU
from minidl.kernels import (
    blas,
    convolution,
    elementwise,
    memory,
    optimizer,
    pooling,
    products,
    threads,
)
from minidl.kernels.convolution_plan import Convolution, Plan
from minidl.kernels.products import COLUMNS, INNER, ROWS
from minidl.kernels.window import Window, place_window

MOST = 1 << 22
POOL = Window((2, 2), (2, 2))


def smallest(holds):
    """The smallest number from which on something holds."""
    low, high = 0, MOST
    assert holds(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def where_cut(parts_of):
    """The smallest sizes that are cut into two, four and eight parts."""
    return [smallest(lambda size, least=least: parts_of(size) >= least) for least in (2, 4, 8)]


def parts(*shape):
    """Into how many parts a product is cut for threads."""
    way = products._way(*shape)
    return len(way.parts) if way else 1


@pytest.mark.parametrize(
    ("inner", "columns", "rows"),
    [
        (16, 16, [7164, 57_340, 458_748]),
        (64, 64, [1015, 8183, 65_527]),
        (784, 128, [50, 489, 4002]),
        (1152, 128, [30, 332, 2750]),
    ],
)
def test_where_products_are_cut(inner, columns, rows):
    assert where_cut(lambda count: parts(count, inner, columns)) == rows


def test_where_wide_and_deep_products_are_cut():
    assert where_cut(lambda count: parts(64, 784, count)) == [101, 895, 7241]
    assert where_cut(lambda count: parts(64, count, 64)) == [1174, 9536, 76_438]


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((200, 798, 200), COLUMNS),
        ((201, 798, 200), ROWS),
        ((200, 800, 200), INNER),
        ((200, 803, 200), COLUMNS),  # 803 cannot be cut into so few equal parts
        ((512, 1 << 20, 512), INNER),
        ((513, 1 << 20, 512), ROWS),
    ],
)
def test_along_which_axis_products_are_cut(shape, axis):
    assert products._way(*shape).axis == axis


def test_which_gradients_of_a_product_are_worth_a_thread_each():
    assert smallest(lambda rows: products._are_a_pair(min(rows, 100), 256, 128)) == 40
    assert not products._are_a_pair(64, 784, 256)  # either is cut


def counted(monkeypatch, call):
    """Into how many pieces a kernel cuts its work, of which none is then done."""
    pieces = []
    for kernels in (elementwise, pooling, optimizer):
        monkeypatch.setattr(kernels, "share", lambda _, parts: pieces.append(len(parts)))
    call()
    return pieces[0] if pieces else 1


@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [
        (lambda x: elementwise.relu(x), [299, 1195, 4779]),
        (lambda x: elementwise.pass_where(x, x > 0), [299, 1195, 4779]),
        (lambda x: pooling.max_pool(x, POOL), [448, 1792, 7168]),
        (lambda x: pooling.max_pool_gradient(x, x[:, :2, :2], x[:, :2, :2], POOL), None),
    ],
    ids=["relu", "pass_where", "max_pool", "max_pool_gradient"],
)
def test_where_passes_over_memory_are_cut(monkeypatch, kernel, sizes):
    def parts_of(size):
        return counted(monkeypatch, lambda: kernel(np.zeros((size, 4, 4, 16), np.float32)))

    for size, parts in zip(sizes or [448, 1792, 7168], (2, 4, 8), strict=True):
        assert parts_of(size - 1) == parts // 2
        assert parts_of(size) == parts


def decided_on(monkeypatch, decide, architecture, *shape):
    """What a function of a product's shape decides where OpenBLAS has kernels for a processor."""
    monkeypatch.setattr(blas, "blas_architecture", lambda: architecture)
    decide.cache_clear()
    try:
        return decide(*shape)
    finally:
        decide.cache_clear()


def test_into_how_many_groups_the_samples_of_a_product_are_cut(monkeypatch):
    groups = partial(decided_on, monkeypatch, blas.groups)
    assert groups("SkylakeX", 2048, 48, 16) == 16
    assert groups("SkylakeX", 896, 128, 64) == 8
    assert groups("SkylakeX", 4096, 128, 128) == 1  # groups would be too small
    assert groups("Haswell", 2048, 48, 16) == 1


def test_into_how_many_slabs_the_rows_of_a_product_are_cut(monkeypatch):
    slabs = partial(decided_on, monkeypatch, blas.slabs)
    for architecture in ("SkylakeX", "Cooperlake", "SapphireRapids"):
        assert slabs(architecture, 784, 32, 128) == 4
    for other in ("Haswell", "Zen", "neoversev1", ""):
        assert slabs(other, 784, 32, 128) == 1
    assert [slabs("SkylakeX", *shape) for shape in [(500, 20, 100), (502, 20, 100)]] == [1, 2]
    assert [slabs("SkylakeX", 1000, 64, n) for n in (31, 32, 62, 63)] == [2, 4, 4, 5]
    assert [slabs("SkylakeX", 1000, 256, n) for n in (32, 33)] == [10, 1]
    assert [slabs("SkylakeX", rows, 32, 128) for rows in (786, 787)] == [6, 1]


def test_where_the_parameters_of_an_optimizer_are_cut():
    sizes = where_cut(lambda size: len(optimizer._extents([size], True)))
    assert sizes == [131_073, 262_145, 524_289]
    assert len(optimizer._extents([1 << 20], False)) == 1


def test_a_large_parameter_has_blocks_of_its_own():
    sizes = 5, 1 << 16, 7, (1 << 16) - 1, 200_000
    layout = optimizer.Layout([np.empty(size, np.float32) for size in sizes])
    numbers = [[segment.number for segment in block.segments] for block in layout.blocks]
    assert numbers == [[0], [1], [2, 3], [4], [4]]


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (minidl.SGD, 2_097_152),
        (partial(minidl.SGD, momentum=0.9), 699_051),
        (minidl.Adam, 299_594),
    ],
)
def test_from_where_on_parameters_are_shared_among_threads(monkeypatch, make, least):
    def is_shared(size):
        parameter = minidl.Tensor(np.zeros(size, np.float32), requires_grad=True)
        parameter.grad = np.zeros(size, np.float32)
        calls = []
        monkeypatch.setattr(optimizer, "share", lambda *_: calls.append(True))
        make([parameter]).step()
        return calls == [True]

    assert smallest(is_shared) == least


@pytest.mark.parametrize(
    ("images", "filters", "padding", "pool", "input_gradient", "decided"),
    [
        # The convolutions of the benchmarks' models, and some others.
        ((64, 28, 28, 1), (3, 3, 1, 32), "same", 2, False, (4, 16, True)),
        ((64, 28, 28, 1), (3, 3, 1, 32), "same", 2, True, (8, 4, True)),
        ((64, 14, 14, 32), (3, 3, 32, 64), "same", 2, False, (8, 8, False)),
        ((64, 14, 14, 32), (3, 3, 32, 64), "same", 2, True, (8, 8, False)),
        ((64, 7, 7, 64), (3, 3, 64, 128), "same", 2, False, (4, 16, False)),
        ((64, 7, 7, 64), (3, 3, 64, 128), "same", 2, True, (8, 8, False)),
        ((32, 28, 28, 1), (2, 2, 1, 16), "valid", 2, False, (2, 16, True)),
        ((32, 28, 28, 1), (2, 2, 1, 16), "valid", 2, True, (4, 8, True)),
        ((16, 32, 32, 3), (3, 3, 3, 16), "same", 2, False, (2, 8, True)),
        ((16, 32, 32, 3), (3, 3, 3, 16), "same", 2, True, (4, 4, True)),
        ((16, 16, 16, 16), (2, 2, 16, 16), "same", 2, True, (2, 8, False)),
        ((256, 28, 28, 1), (3, 3, 1, 32), "same", 1, False, (8, 16, False)),
        ((256, 28, 28, 1), (3, 3, 1, 32), "same", 1, True, (8, 5, False)),
        ((8, 56, 56, 3), (5, 5, 3, 8), "same", 1, False, (4, 2, False)),
        ((8, 56, 56, 3), (5, 5, 3, 8), "same", 1, True, (8, 1, False)),
        ((4, 112, 112, 8), (3, 3, 8, 8), "same", 3, False, (4, 1, False)),
        # Rows of patches just short enough to be covered together, and just not.
        ((8, 12, 12, 5), (3, 3, 5, 4), "valid", 2, False, (1, 8, True)),
        ((8, 12, 12, 4), (4, 4, 4, 4), "valid", 2, False, (1, 8, False)),
        ((8, 20, 12, 1), (16, 1, 1, 4), "valid", 2, False, (1, 8, True)),
        ((8, 12, 20, 1), (1, 16, 1, 4), "valid", 2, False, (1, 8, False)),
        ((8, 12, 12, 1), (3, 3, 1, 4), "valid", (1, 5), False, (1, 8, False)),
        ((8, 12, 12, 1), (3, 3, 1, 4), "valid", (1, 2), False, (1, 8, True)),
    ],
)
def test_how_convolutions_go_about_a_batch(images, filters, padding, pool, input_gradient, decided):
    window = place_window(images[1:3], filters[:2], (1, 1), padding, (1, 1))
    how = Convolution(window, True, pool if isinstance(pool, tuple) else (pool, pool))
    most = convolution.COLUMN_BYTES["cpu"]
    plan = Plan(CPU, np.dtype(np.float32), images, filters, how, input_gradient, most)
    assert (len(plan.pieces), plan.step, plan.covering) == decided


def test_work_on_a_device_is_not_cut(device):
    x = backend.named(device).asarray(np.ones((1 << 16, 64), np.float32))
    assert threads.parts_of(x, 8) == [slice(0, 1 << 16)]


def test_small_results_are_left_to_numpy():
    for columns, kept in ((127, False), (128, True)):
        out = products.multiply(np.ones((128, 8)), np.ones((8, columns)))
        assert (type(out.base) is memory._Loan) == kept
