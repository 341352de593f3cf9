"""Tensors, the graph, and the walk back: what is computed, how often, and what is let go."""

import contextlib
import copy
import gc
import itertools
import operator
import sys
import threading
import weakref

import numpy as np
import pytest

import minidl
from minidl import DeviceError, Tensor, find_device, no_grad, record
from minidl.backend import CPU, INSTALL_CUPY
from minidl.tensor import record_jointly, wants_gradient


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


def counted(calls, x, name="rule"):
    """x unchanged, by an operation that notes each call of its rule."""

    def rule(g):
        calls.append(name)
        return g

    return record(x.data.copy(), (x, rule))


# -- making one --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1, 2.5]], np.float32),
        ([], np.float32),
        (3, np.int64),
        ([1, 2], np.int64),
        ((1, 2), np.int64),
        (True, np.bool_),
        ([True, False], np.bool_),
        (np.float64(1), np.float64),
        (np.float32(1), np.float32),
        (np.int8(1), np.int8),
        (range(3), np.int64),
    ],
)
def test_values_get_a_dtype(values, dtype):
    t = Tensor(values)
    assert t.dtype == dtype
    assert t.shape == np.shape(values)
    np.testing.assert_array_equal(t.data, values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, np.uint8, np.bool_])
def test_arrays_keep_dtype_and_memory(dtype):
    array = np.ones((2, 3), dtype=dtype)
    t = Tensor(array)
    assert t.dtype == dtype
    assert t.data is array


@pytest.mark.parametrize(
    "values",
    [
        None,
        "text",
        ["a", "b"],
        [None],
        object(),
        1j,
        [1 + 2j],
        np.ones(2, dtype=np.complex64),
        np.ones(2, dtype=np.float16),
        np.ones(2, dtype=np.longdouble),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([{}]),
        np.float16(1),
    ],
    ids=repr,
)
def test_other_dtypes_are_refused(values):
    with pytest.raises(TypeError, match="expected booleans, integers, float32 or float64, got"):
        Tensor(values)


def test_a_tensor_is_not_made_of_a_tensor():
    with pytest.raises(TypeError, match=r"got a Tensor; its array is \.data"):
        Tensor(Tensor([1.0]))


@pytest.mark.parametrize("values", [[Tensor(1.0), Tensor(2.0)], (Tensor([1.0]), 2.0)])
def test_a_tensor_is_not_made_of_a_list_of_tensors(values):
    with pytest.raises(TypeError, match=r"got a list of tensors; stack\(\) joins them"):
        Tensor(values)


@pytest.mark.parametrize("values", [[1, 2], [True], np.ones(2, dtype=np.uint8)])
def test_only_floats_require_gradients(values):
    with pytest.raises(TypeError, match="only floating tensors can require a gradient"):
        Tensor(values, requires_grad=True)


def test_a_new_tensor_has_no_gradient():
    t = Tensor([1.0])
    assert t.grad is None
    assert not t.requires_grad


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_subclasses_of_arrays_do_not_change_what_operators_mean():
    matrix = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal((Tensor(matrix) * Tensor(matrix)).data, [[1, 4], [9, 16]])


def test_memory_maps_are_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "numbers", dtype=np.float32, mode="w+", shape=(3,))
    mapped[:] = [1, 2, 3]
    assert (Tensor(mapped) * 2.0).sum().item() == 12


# -- what it is --------------------------------------------------------------------------------


def test_shape_and_size():
    t = Tensor(np.zeros((2, 3, 4)))
    assert (t.shape, t.ndim, t.size, len(t), t.device) == ((2, 3, 4), 3, 24, 2, "cpu")


def test_a_number_has_no_length():
    with pytest.raises(TypeError, match="unsized"):
        len(Tensor(1.0))


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (Tensor([1.0, 2.5]), "Tensor([1. , 2.5])"),
        (Tensor(3), "Tensor(3, dtype=int64)"),
        (Tensor([True]), "Tensor([ True], dtype=bool)"),
        (Tensor(np.array([0.5])), "Tensor([0.5], dtype=float64)"),
        (Tensor([1.0], requires_grad=True), "Tensor([1.], requires_grad=True)"),
        (
            Tensor(np.zeros((1, 2)), requires_grad=True),
            "Tensor([[0., 0.]], dtype=float64, requires_grad=True)",
        ),
        (Tensor([]), "Tensor([])"),
    ],
)
def test_repr(t, text):
    assert repr(t) == text


def test_repr_shows_a_hundred_numbers_but_no_more():
    assert "..." not in repr(Tensor(np.zeros(100)))
    assert "..." in repr(Tensor(np.zeros(101)))


def test_repr_aligns_rows_and_shortens_long_tensors():
    assert repr(Tensor([[1.0], [2.0]])) == "Tensor([[1.],\n        [2.]])"
    assert "..." in repr(Tensor(np.zeros(1000)))
    assert len(repr(Tensor(np.zeros((500, 500))))) < 1000


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_one_element_becomes_a_python_number(shape):
    t = Tensor(np.full(shape, 2.5, dtype=np.float32), requires_grad=True)
    assert type(t.item()) is float
    assert (t.item(), float(t), int(t), bool(t)) == (2.5, 2.5, 2, True)


def test_item_keeps_the_kind_of_number():
    assert type(Tensor(3).item()) is int
    assert type(Tensor(True).item()) is bool
    assert not Tensor(0.0)


@pytest.mark.parametrize("convert", [Tensor.item, float, int])
@pytest.mark.parametrize("shape", [(0,), (2,), (1, 3)])
def test_other_sizes_become_no_number(convert, shape):
    with pytest.raises(ValueError, match=r"item\(\) needs a tensor of one element"):
        convert(Tensor(np.ones(shape)))


@pytest.mark.parametrize("shape", [(0,), (2,)])
def test_other_sizes_are_neither_true_nor_false(shape):
    with pytest.raises(ValueError, match="neither true nor false"):
        bool(Tensor(np.ones(shape)))


def test_iteration_gives_the_parts_and_their_gradients():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    first, second = x
    (first * second).sum().backward()
    np.testing.assert_array_equal(x.grad, [[3, 4], [1, 2]])


def test_a_number_cannot_be_iterated():
    with pytest.raises(TypeError, match="0-d"):
        list(Tensor(1.0))


def test_numpy_shares_the_memory_of_the_tensor():
    x = leaf([1.0, 2.0])
    assert x.numpy() is x.data


def test_numpy_takes_tensors():
    x = leaf([1.0, 2.0])
    assert np.shares_memory(np.asarray(x), x.data)
    assert not np.shares_memory(np.array(x), x.data)
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.asarray(x), [1, 2])
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float32, copy=False)


def test_functions_of_numpy_do_not_take_tensors_apart_in_silence():
    with pytest.raises(TypeError, match="__array_ufunc__"):
        np.exp(leaf([1.0, 2.0]))


def test_detach_shares_the_memory_and_stops_gradients():
    x = leaf([1.0, 2.0])
    y = x * 3.0
    loose = y.detach()
    assert np.shares_memory(loose.data, y.data)
    assert not loose.requires_grad
    (loose * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [3, 6])


# -- devices -----------------------------------------------------------------------------------


def test_to_the_same_device_is_the_tensor_itself():
    x = leaf([1.0])
    assert x.to("cpu") is x


def test_unknown_device_is_named():
    with pytest.raises(ValueError, match="device must be 'cpu', 'gpu' or 'auto', got 'tpu'"):
        Tensor([1.0]).to("tpu")


@pytest.fixture
def without_cupy(monkeypatch):
    """A process in which CuPy cannot be imported."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("minidl.backend._by_array_type", {np.ndarray: CPU})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise ImportError('libcuda is too old\\nat all')", "libcuda is too old"),
        ("raise ImportError", "ImportError"),
    ],
)
def test_cupy_that_cannot_be_imported_is_told_from_none(tmp_path, monkeypatch, line, reason):
    (tmp_path / "cupy.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr("minidl.backend._by_array_type", {np.ndarray: CPU})
    with pytest.raises(DeviceError) as error:
        Tensor([1.0]).to("gpu")
    assert str(error.value) == (
        f"device 'gpu': CuPy is installed, but cannot be imported ({reason}); "
        f"install it again: {INSTALL_CUPY}."
    )
    assert find_device("auto") == "cpu"


@pytest.mark.usefixtures("without_cupy")
def test_gpu_without_cupy_is_refused_in_one_sentence():
    with pytest.raises(DeviceError) as error:
        Tensor([1.0]).to("gpu")
    message = str(error.value)
    assert message == f"device 'gpu' needs CuPy, which is not installed here: {INSTALL_CUPY}."
    assert "\n" not in message


@pytest.mark.usefixtures("without_cupy")
def test_auto_without_cupy_is_the_cpu():
    x = leaf([1.0])
    assert x.to("auto") is x
    assert find_device() == "cpu"


# -- operators ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compare", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
)
@pytest.mark.parametrize("other", [2.0, 2, [1.0, 2.0, 3.0], np.array([3.0, 2.0, 1.0])])
def test_comparisons_are_those_of_numpy(compare, other):
    values = np.array([1.0, 2.0, 3.0])
    for out, expected in [
        (compare(leaf(values), other), compare(values, np.array(other))),
        (compare(leaf(values), Tensor(other)), compare(values, np.array(other))),
        (compare(other, leaf(values)), compare(np.array(other), values)),
    ]:
        assert isinstance(out, Tensor)
        assert out.dtype == bool
        assert not out.requires_grad
        np.testing.assert_array_equal(out.data, expected)


def test_tensors_are_keys_by_identity():
    a, b = Tensor([1.0]), Tensor([1.0])
    names = {a: "a", b: "b"}
    assert names[a] == "a"
    assert names[b] == "b"
    assert hash(a) != hash(b)


@pytest.mark.parametrize(
    "operate",
    [
        operator.add,
        operator.sub,
        operator.mul,
        operator.truediv,
        operator.pow,
        operator.matmul,
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_on_either_side_gives_a_tensor_of_the_tensors_dtype(operate, dtype):
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    other = np.array([[2.0, 1.0], [0.5, 3.0]])
    x = leaf(values, dtype)
    for out, expected in [
        (operate(other, x), operate(other, values)),
        (operate(x, other), operate(values, other)),
    ]:
        assert isinstance(out, Tensor)
        assert out.requires_grad
        assert out.dtype == dtype
        np.testing.assert_allclose(out.data, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    "operate", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
)
@pytest.mark.parametrize(
    "number", [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.5)]
)
def test_numbers_do_not_change_the_precision(operate, number):
    values = np.array([1.0, 2.0], dtype=np.float32)
    for x in (Tensor(values), leaf(values, np.float32)):
        assert operate(x, number).dtype == np.float32
        assert operate(number, x).dtype == np.float32
    np.testing.assert_allclose(
        operate(number, x).data, operate(float(number), values), rtol=4 * np.finfo(np.float32).eps
    )


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (Tensor([1]), Tensor([2]), np.int64),
        (Tensor([1]), 2, np.int64),
        (Tensor([1]), 2.5, np.float32),
        (Tensor([1]), np.float64(2.5), np.float32),
        (Tensor([1]), Tensor([2.5]), np.float32),
        (Tensor([1]), Tensor(np.array([2.5])), np.float64),
        (Tensor([True]), Tensor([2.5]), np.float32),
        (Tensor(np.array([2.5])), Tensor([2.5]), np.float64),
        (Tensor([2.5]), np.array([2.5]), np.float32),
        (Tensor([2.5]), np.array([2]), np.float32),
        (Tensor([2.5]), [2.5], np.float32),
        (Tensor(np.array([2.5])), np.array([2.5], dtype=np.float32), np.float64),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else repr(value),
)
def test_two_dtypes_meet(a, b, dtype):
    assert (a * b).dtype == dtype
    assert (b * a).dtype == dtype


@pytest.mark.parametrize("number", [1j, np.complex64(1j)])
@pytest.mark.parametrize("operate", [operator.add, operator.mul, operator.truediv, operator.pow])
def test_complex_numbers_are_refused(operate, number):
    with pytest.raises(TypeError):
        operate(Tensor([1.0]), number)
    with pytest.raises(TypeError):
        operate(number, Tensor([1.0]))


def test_gradient_of_mixed_precision_has_the_precision_of_each_input():
    single, double = leaf([1.0, 2.0], np.float32), leaf([3.0, 4.0])
    (single * double).sum().backward()
    assert single.grad.dtype == np.float32
    assert double.grad.dtype == np.float64


# -- backward ----------------------------------------------------------------------------------


def test_gradient_of_a_product():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad, [3, 4])
    np.testing.assert_array_equal(y.grad, [1, 2])


def test_numbers_may_follow_a_reduction():
    x = leaf([1.0, 2.0, 3.0])
    (x.sum() * 2.0 + x.mean() * 3.0).backward()
    np.testing.assert_allclose(x.grad, 3.0, rtol=1e-15)


def test_chains_of_numbers_have_gradients():
    x = leaf(0.5)
    ((x**2.0 * 3.0).exp() * x).backward()
    assert type(x.grad) is np.ndarray
    assert x.grad.shape == ()
    np.testing.assert_allclose(x.grad, np.exp(0.75) * (1 + 0.5 * 3.0), rtol=1e-15)


def test_gradients_add_up_until_cleared():
    x = leaf([1.0, 2.0])
    (x * 2.0).sum().backward()
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 6])
    x.zero_grad()
    assert x.grad is None
    (x * 5.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [5, 5])


def test_adding_up_keeps_the_same_array():
    x = leaf([1.0])
    (x * 2.0).sum().backward()
    first = x.grad
    (x * 2.0).sum().backward()
    assert x.grad is first


def test_gradient_of_a_leaf_is_the_given_gradient_copied():
    x = leaf([1.0, 2.0])
    given = np.array([3.0, 4.0])
    x.backward(given)
    np.testing.assert_array_equal(x.grad, given)
    assert not np.shares_memory(x.grad, given)


@pytest.mark.parametrize(
    "grad",
    [
        [1.0, 2.0],
        np.array([1.0, 2.0]),
        np.array([1, 2]),
        np.array([1.0, 2.0], dtype=np.float32),
        Tensor([1.0, 2.0]),
    ],
    ids=["list", "array", "integers", "float32", "tensor"],
)
def test_backward_takes_gradients_of_every_form(grad):
    x = leaf([1.0, 1.0])
    (x * 3.0).backward(grad)
    np.testing.assert_array_equal(x.grad, [3, 6])
    assert x.grad.dtype == np.float64


def test_only_leaves_have_gradients():
    x = leaf([1.0])
    y = x * 2.0
    z = y * 3.0
    z.sum().backward()
    assert y.grad is None
    assert z.grad is None
    assert x.grad is not None


def test_a_leaf_used_by_several_operations_collects_all():
    x = leaf([2.0])
    (x + x + x * x + x).sum().backward()
    np.testing.assert_array_equal(x.grad, [3 + 2 * 2])


def test_two_inputs_of_one_addition_do_not_share_a_gradient():
    x, y = leaf([1.0]), leaf([2.0])
    (x + y).sum().backward()
    x.grad += 1
    np.testing.assert_array_equal(y.grad, [1])


def test_a_gradient_that_passes_two_ways_is_not_added_to_in_place():
    x, y = leaf([1.0, 1.0]), leaf([1.0, 1.0])
    a, b = x * 1.0, y * 1.0
    both = a + b  # one array is the gradient of a and of b
    (both + a * 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 4])
    np.testing.assert_array_equal(y.grad, [1, 1])


def test_views_of_a_gradient_are_not_added_to_in_place():
    x = leaf([1.0, 2.0, 3.0, 4.0])
    y = x * 1.0
    seed = np.ones((2, 2))
    out = y.reshape(2, 2) + y.reshape(2, 2).transpose() + y.reshape(2, 2)
    out.backward(seed)
    np.testing.assert_array_equal(x.grad, 3)
    np.testing.assert_array_equal(seed, 1)


def test_a_diamond_is_walked_once():
    calls = []
    x = leaf(1.0)
    y = x
    doublings = 60
    for _ in range(doublings):
        y = counted(calls, y)
        y = y + y
    y.backward()
    assert x.grad == 2.0**doublings
    assert len(calls) == doublings


def test_a_node_waits_for_all_that_used_it():
    calls = []
    x = leaf([1.0])
    shared = counted(calls, x, "shared")
    long = shared
    for i in range(3):
        long = counted(calls, long, f"long {i}")
    (shared + long + shared * 2.0).sum().backward()
    assert calls == ["long 2", "long 1", "long 0", "shared"]
    np.testing.assert_array_equal(x.grad, [4])


def test_a_deep_graph_is_walked_and_freed_without_recursion():
    x = leaf([1.0])
    y = x
    for _ in range(10_000):
        y = y + 1.0
    y.backward()
    assert y.item() == 10_001
    np.testing.assert_array_equal(x.grad, [1])


def test_a_deep_graph_is_dropped_without_backward():
    x = leaf([1.0])
    y = x
    for _ in range(10_000):
        y = y * 1.0 + y
        y = y * 0.5
    del y
    assert x.grad is None


@pytest.mark.parametrize("shape", [(2,), (1, 2), (0,)])
def test_backward_without_gradient_needs_one_element(shape):
    x = leaf(np.ones(shape))
    with pytest.raises(ValueError, match="needs a tensor of one element"):
        (x * 2.0).backward()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_backward_without_gradient_starts_with_one(shape):
    x = leaf(np.ones(shape))
    (x * 2.0).backward()
    np.testing.assert_array_equal(x.grad, np.full(shape, 2.0))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 2)])
def test_gradient_of_another_shape_is_refused(shape):
    y = leaf([1.0, 2.0]) * 2.0
    with pytest.raises(ValueError, match=r"backward\(grad\): expected shape \(2,\), got"):
        y.backward(np.ones(shape))


def test_a_refused_gradient_leaves_the_graph_whole():
    x = leaf([1.0, 2.0])
    y = x * 2.0
    with pytest.raises(ValueError, match="expected shape"):
        y.backward(np.ones(3))
    with pytest.raises(ValueError, match="one element"):
        y.backward()
    y.backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, [2, 2])


def test_backward_from_what_needs_no_gradient_is_refused():
    with no_grad():
        inside = leaf([1.0]) * 2.0
    for t in (Tensor([1.0]), Tensor([1.0]) * 2.0, inside, leaf([1.0]) > 0, leaf([1.0]).detach()):
        with pytest.raises(RuntimeError, match="no gradient flows to"):
            t.backward()


def test_a_gradient_that_is_to_be_differentiated_is_refused():
    x = leaf([1.0])
    with pytest.raises(TypeError, match="first derivatives only"):
        (x * 2.0).backward(leaf([1.0]))


def test_a_second_backward_is_refused_and_changes_nothing():
    x = leaf([1.0, 2.0])
    loss = (x * x).sum()
    loss.backward()
    before = x.grad.copy()
    with pytest.raises(RuntimeError, match=r"let go by an earlier backward\(\)"):
        loss.backward()
    np.testing.assert_array_equal(x.grad, before)


def test_a_part_that_two_losses_share_is_refused_the_second_time():
    x, w = leaf([1.0, 2.0]), leaf([1.0, 1.0])
    shared = x * x
    first, second = shared.sum(), (shared * w).sum()
    first.backward()
    before = x.grad.copy()
    with pytest.raises(RuntimeError, match="add up several losses before one backward"):
        second.backward()
    np.testing.assert_array_equal(x.grad, before)
    assert w.grad is None


def test_two_losses_of_one_leaf_are_independent():
    x = leaf([1.0, 2.0])
    first, second = (x * x).sum(), (x * 3.0).sum()
    first.backward()
    second.backward()
    np.testing.assert_array_equal(x.grad, [5, 7])


def test_new_operations_on_a_released_tensor_are_refused_in_backward():
    x = leaf([1.0])
    y = x * 2.0
    y.backward()
    with pytest.raises(RuntimeError, match="let go"):
        (y * 3.0).backward()
    np.testing.assert_array_equal((y.detach() * x).data, [2])


# -- what is computed and what is kept ---------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2.5, np.float32),
        (np.float64(2.5), np.float64),
        ([2.5], np.float32),
        (np.array([2.5]).view(np.recarray), np.float64),
    ],
    ids=["a number", "one of NumPy's", "a list", "an array of another class"],
)
def test_an_operation_may_compute_anything_that_becomes_an_array(value, dtype):
    x = leaf(1.0, np.float32)
    out = record(value, (x, lambda g: g.reshape(())))
    assert type(out.data) is np.ndarray
    assert out.dtype == dtype
    assert out.item() == 2.5
    out.backward()
    assert x.grad == 1


def test_a_gradient_that_nobody_needs_is_not_computed():
    calls = []
    x, w = Tensor([1.0, 2.0]), leaf([3.0, 4.0], np.float32)

    def unwanted(g):
        calls.append(g)
        return g

    out = record(x.data * w.data, (x, unwanted), (w, lambda g: g * x.data))
    out.sum().backward()
    assert calls == []
    assert x.grad is None
    np.testing.assert_array_equal(w.grad, [1, 2])


def test_nothing_is_computed_for_a_branch_without_gradient():
    calls = []
    constant = counted(calls, Tensor([1.0]))
    x = leaf([2.0], np.float32)
    (constant * x).sum().backward()
    assert calls == []


class Saved(np.ndarray):
    """An array that can be watched."""


def watched(*shape):
    return np.ones(shape).view(Saved)


def test_nothing_is_kept_where_nothing_requires_a_gradient():
    array = watched(3)
    alive = weakref.ref(array)
    x = Tensor([1.0, 2.0, 3.0])
    out = record(x.data * 2.0, (x, lambda g, array=array: g * array))
    del array
    assert alive() is None
    assert not out.requires_grad


def test_nothing_is_kept_inside_no_grad():
    array = watched(3)
    alive = weakref.ref(array)
    x = leaf([1.0, 2.0, 3.0])
    with no_grad():
        out = record(x.data * 2.0, (x, lambda g, array=array: g * array))
    del array
    assert alive() is None
    assert not out.requires_grad


def test_saved_arrays_are_kept_until_backward_and_then_let_go():
    array = watched(3)
    alive = weakref.ref(array)
    x = leaf([1.0, 2.0, 3.0])
    out = record(x.data * 2.0, (x, lambda g, array=array: g * array))
    del array
    assert alive() is not None
    out.backward(np.ones(3))
    assert alive() is None  # though out is still here


def test_saved_arrays_are_let_go_one_by_one_on_the_way_back():
    steps = 10
    alive = []
    seen = []

    def step(x):
        array = watched(3)
        alive.append(weakref.ref(array))

        def rule(g, array=array):
            seen.append(sum(ref() is not None for ref in alive))
            return g * array.view(np.ndarray)

        return record(x.data.copy(), (x, rule))

    y = leaf([1.0, 2.0, 3.0])
    for _ in range(steps):
        y = step(y)
    gc.disable()  # reference counts alone must do
    try:
        y.backward(np.ones(3))
    finally:
        gc.enable()
    # The step that is being walked, and at most the one before it, whose loop is just ending.
    assert all(count <= steps - i + 1 for i, count in enumerate(seen))
    assert seen[0] == steps
    assert not any(ref() is not None for ref in alive)


def test_intermediate_values_of_operations_are_let_go():
    x = leaf(np.ones(1000))
    hidden = x.exp()
    kept = weakref.ref(hidden.data)
    loss = (hidden * hidden).sum()
    del hidden
    assert kept() is not None  # exp and the product need it for their gradients
    loss.backward()
    assert kept() is None


def test_values_that_no_gradient_needs_are_freed_at_once():
    x = leaf(np.ones(1000))
    shifted = x + 1.0
    kept = weakref.ref(shifted.data)
    loss = shifted.relu().sum()  # relu keeps its output, not what came in
    del shifted
    assert kept() is None
    loss.backward()
    np.testing.assert_array_equal(x.grad, np.ones(1000))


def test_a_copy_of_a_released_graph_raises_too():
    loss = (leaf([1.0]) * 2).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="let go"):
        copy.deepcopy(loss).backward()


def test_a_graph_holds_no_reference_cycle():
    gc.collect()
    gc.disable()
    try:
        x = leaf(np.ones(3))
        out = (x.exp() * x).sum()
        alive = weakref.ref(out)
        del out
        assert alive() is None
    finally:
        gc.enable()


def test_an_error_in_a_rule_reaches_the_user():
    def rule(g):
        raise ArithmeticError(f"planted {g.shape}")

    x = leaf([1.0])
    with pytest.raises(ArithmeticError, match="planted"):
        record(x.data * 2.0, (x, rule)).backward()
    assert x.grad is None


@pytest.mark.parametrize(
    ("shape", "returned"),
    [((3,), (2,)), ((3,), (1,)), ((1, 3), (3,)), ((3, 1), ()), ((1,), ()), ((2, 2), (4,))],
)
def test_a_rule_of_the_wrong_shape_is_named(shape, returned):
    x = leaf(np.ones(shape))
    out = record(x.data * 2.0, (x, lambda _: np.ones(returned)))
    with pytest.raises(RuntimeError) as error:
        out.backward(np.ones(shape))
    assert str(error.value) == f"a rule returned shape {returned} for an input of {shape}"


# -- one rule for all inputs -------------------------------------------------------------------


def test_one_rule_gives_the_gradients_of_all_inputs():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    out = record_jointly(x.data * y.data, [x, y], lambda g, _: (g * y.data, g * x.data))
    out.backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad, [3, 40])
    np.testing.assert_array_equal(y.grad, [1, 20])


@pytest.mark.parametrize("asked", list(itertools.product([True, False], repeat=3)), ids=str)
def test_a_joint_rule_is_told_which_gradients_are_wanted_and_the_others_are_not_looked_at(asked):
    inputs = [Tensor(np.ones(2), requires_grad=wanted) for wanted in asked]
    told = []

    def rule(g, wanted):
        told.append(wanted)
        return [g * (i + 1) if w else "nothing to look at" for i, w in enumerate(wanted)]

    out = record_jointly(np.ones(2), inputs, rule)
    assert out.requires_grad == any(asked)
    if not any(asked):
        return
    out.backward(np.ones(2))
    assert told == [asked]
    for i, (source, wanted) in enumerate(zip(inputs, asked, strict=True)):
        if wanted:
            np.testing.assert_array_equal(source.grad, [i + 1, i + 1])
        else:
            assert source.grad is None


def test_a_joint_rule_undoes_no_broadcasting_and_no_promotion():
    x, y = leaf([[1.0], [2.0]], np.float32), leaf([3.0, 4.0, 5.0])
    out = record_jointly(x.data * y.data, [x, y], lambda g, _: (g * y.data, g * x.data))
    out.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(x.grad, [[12], [12]])
    np.testing.assert_array_equal(y.grad, [3, 3, 3])
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 5), (5,), (1,), ()])
@pytest.mark.parametrize("other", [(2, 4, 1), (2, 4, 5), (1, 4, 5), (4, 5)])
def test_a_gradient_is_summed_over_what_was_repeated(shape, other):
    x, g = leaf(np.ones(shape)), np.random.default_rng(0).integers(0, 9, (2, 4, 5))
    (x * np.ones(other) + np.zeros((2, 4, 5))).backward(g.astype(np.float64))
    repeated = np.broadcast_to(np.arange(x.size).reshape(shape), g.shape)
    expected = np.bincount(repeated.ravel(), weights=g.ravel()).reshape(shape)
    np.testing.assert_array_equal(x.grad, expected)


def test_one_input_twice_collects_both_of_its_gradients():
    x = leaf([3.0])
    record_jointly(x.data * x.data, [x, x], lambda g, _: (g * x.data, g * x.data)).backward()
    np.testing.assert_array_equal(x.grad, [6])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_joint_rule_that_returns_another_number_of_gradients_is_refused(count):
    x, y = leaf([1.0]), leaf([1.0])
    out = record_jointly(x.data * y.data, [x, y], lambda g, _: [g] * count)
    with pytest.raises(ValueError, match=r"zip\(\)|expected 2"):
        out.backward()


def test_a_rule_that_fails_leaves_every_gradient_as_it_was():
    x, y = leaf([1.0]), leaf([1.0])
    y.grad = np.array([5.0])

    def fail(_):
        raise OverflowError

    out = record(x.data, (x, fail)) + y * 2.0
    with pytest.raises(OverflowError):
        out.backward()
    assert x.grad is None
    np.testing.assert_array_equal(y.grad, [5])


@pytest.mark.parametrize("wanted", [[True, False], [False, True]])
def test_a_joint_rule_returns_one_for_each_input_not_for_each_that_is_wanted(wanted):
    inputs = [Tensor(np.ones(1), requires_grad=w) for w in wanted]
    with pytest.raises(ValueError, match=r"zip\(\)|expected 2"):
        record_jointly(np.ones(1), inputs, lambda g, _: [g]).backward()


def test_a_joint_rule_of_the_wrong_shape_is_named():
    x = leaf(np.ones(3))
    out = record_jointly(x.data * 2, [x], lambda g, _: (g[:2],))
    with pytest.raises(RuntimeError, match=r"a rule returned shape \(2,\) for an input of \(3,\)"):
        out.backward(np.ones(3))


def test_a_joint_rule_keeps_no_inputs_alive_that_it_does_not_use():
    gc.collect()
    gc.disable()  # reference counts alone must do
    try:
        x, constant = leaf(np.ones(3)), Tensor(np.ones(3))
        hidden, used = x * 2.0, x * 3.0
        saved = used.data
        kept = [weakref.ref(a) for a in (hidden, constant, used, hidden.data, constant.data)]
        saved_alive = weakref.ref(saved)
        out = record_jointly(
            hidden.data * saved,
            [hidden, constant, used],
            lambda g, _, saved=saved: (g * saved, None, g),
        )
        del hidden, constant, used, saved
        assert [ref() for ref in kept] == [None] * 5
        assert saved_alive() is not None
        out.backward(np.ones(3))
        assert saved_alive() is None  # though out is still here
        np.testing.assert_array_equal(x.grad, [9, 9, 9])  # 2 * 3 and 3 * 1
    finally:
        gc.enable()


def test_a_joint_rule_is_not_kept_where_nothing_asks_for_gradients():
    x = leaf([1.0, 2.0, 3.0])
    for source, context in [(x.detach(), contextlib.nullcontext()), (x, no_grad())]:
        array = watched(3)
        alive = weakref.ref(array)
        with context:
            out = record_jointly(
                source.data * 2.0, [source], lambda g, _, array=array: (g * array,)
            )
        del array
        assert alive() is None
        assert not out.requires_grad


def test_a_layer_frees_what_its_gradients_do_not_need():
    # images, and what came before max(x, 0) and pooling, are not among what is kept
    images = Tensor(np.ones((2, 8, 8, 1), np.float32)) * 1.0
    layer = minidl.Sequential(
        [minidl.Conv2D(2, 3, activation="relu"), minidl.MaxPool(2)], input_shape=(8, 8, 1)
    )
    out = layer(images)
    pooled = weakref.ref(out.data)
    rectified = minidl.relu(out)
    del out
    assert pooled() is None  # its gradient needs one byte for each number, and no number
    rectified.sum().backward()
    assert layer[0].weight.grad is not None


# -- no_grad -----------------------------------------------------------------------------------


def recording():
    """Whether operations are recorded now."""
    return (leaf([1.0]) * 2.0).requires_grad


def test_a_gradient_is_wanted_of_what_requires_one_outside_no_grad():
    constant, variable = Tensor([1.0]), Tensor([1.0], requires_grad=True)
    assert wants_gradient(constant, variable)
    assert not wants_gradient(constant, constant)
    with no_grad():
        assert not wants_gradient(constant, variable)


def test_no_grad_around_a_block():
    with no_grad():
        assert not recording()
    assert recording()


def test_no_grad_nests():
    with no_grad():
        with no_grad():
            assert not recording()
        assert not recording()
    assert recording()


def test_one_no_grad_nests_in_itself():
    once = no_grad()
    with once:
        with once:
            assert not recording()
        assert not recording()
    assert recording()


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError, match="planted"), no_grad():
        raise KeyError("planted")
    assert recording()


@no_grad()
def decorated(depth=0, fail=False):
    if fail:
        raise KeyError("planted")
    return decorated(depth - 1) if depth else recording()


def test_no_grad_as_a_decorator():
    assert not decorated()
    assert recording()


def test_a_decorated_function_may_call_itself():
    assert not decorated(depth=3)
    assert recording()


def test_a_decorated_function_may_fail():
    with pytest.raises(KeyError, match="planted"):
        decorated(fail=True)
    assert recording()


def test_leaves_made_inside_no_grad_still_require_gradients():
    with no_grad():
        x = leaf([1.0])
    assert x.requires_grad
    (x * 2.0).backward()
    np.testing.assert_array_equal(x.grad, [2])


def test_backward_works_inside_no_grad():
    x = leaf([1.0])
    y = x * 2.0
    with no_grad():
        y.backward()
    np.testing.assert_array_equal(x.grad, [2])


def in_thread(function):
    """What a function returns when another thread calls it."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_no_grad_holds_for_its_own_thread():
    with no_grad():
        assert in_thread(recording)
        assert not recording()


def test_no_grad_of_another_thread_is_not_felt_here():
    inside, done = threading.Event(), threading.Event()

    def other():
        with no_grad():
            inside.set()
            done.wait()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    assert recording()
    done.set()
    thread.join()


def test_a_decorated_function_may_run_in_two_threads_at_once():
    first_inside, second_inside, first_left = (threading.Event() for _ in range(3))
    recorded = []

    @no_grad()
    def together(arrived, wait_for):
        arrived.set()
        wait_for.wait()

    def first():
        together(first_inside, second_inside)
        recorded.append(recording())
        first_left.set()

    def second():
        with no_grad():
            first_inside.wait()
            together(second_inside, first_left)
            recorded.append(recording())

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded == [True, False]


def test_two_threads_build_and_walk_graphs_of_their_own():
    def work():
        x = leaf(np.arange(5.0))
        for _ in range(50):
            (x * x).sum().backward()
        return x.grad

    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for gradient in results:
        np.testing.assert_array_equal(gradient, 100 * np.arange(5.0))


def test_nothing_equals_none():
    assert (Tensor([1.0]) == None) is False  # noqa: E711
    assert (Tensor([1.0]) != None) is True  # noqa: E711


def test_array_likes_with_a_dtype_keep_it():
    class Column:
        """Such as a column of a table."""

        dtype = np.dtype(np.float64)

        def __array__(self, dtype=None, copy=None):
            return np.array([1.0, 2.0])

    assert Tensor(Column()).dtype == np.float64
    assert Tensor([1.0, 2.0]).dtype == np.float32


def test_parameters_are_changed_in_place_without_a_graph():
    w = Tensor([1.0, 2.0], requires_grad=True)
    array, before = w.data, w
    with no_grad():
        w -= np.float32([0.5, 0.5])
        w += Tensor([1.0, 1.0])
        w *= 4
        w /= 3
    assert w is before
    assert w.data is array
    np.testing.assert_allclose(w.numpy(), [2.0, 10 / 3], rtol=1e-6)
    with pytest.raises(RuntimeError, match=r"changed in place inside no_grad\(\) alone"):
        w -= 1.0
    with no_grad(), pytest.raises(ValueError, match="could not broadcast"):
        w += np.zeros((3, 2), np.float32)


def test_other_tensors_become_new_ones_through_which_gradients_flow():
    x = Tensor([3.0], requires_grad=True)
    total = x * 2
    first = total
    total += x
    total *= x
    assert first.item() == 6
    total.backward()
    assert x.grad.tolist() == [18.0]
    constant = kept = Tensor([1.0])
    constant += 1
    assert (kept.item(), constant.item()) == (1.0, 2.0)


def test_a_tensor_of_one_element_is_formatted_as_a_number():
    assert f"{Tensor([1.25]):.1f}" == "1.2"
    assert f"{Tensor([1.25])}" == "Tensor([1.25])"
    with pytest.raises(ValueError, match="one element"):
        format(Tensor([1.0, 2.0]), ".1f")


def test_the_axes_in_reverse_order_have_a_gradient():
    x = Tensor(np.arange(6.0).reshape(1, 2, 3), requires_grad=True)
    assert x.T.shape == (3, 2, 1)
    (x.T * np.arange(6.0).reshape(3, 2, 1)).sum().backward()
    assert x.grad.tolist() == [[[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]]


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">f8", "<f4", ">u2"])
def test_numbers_of_any_byte_order_are_taken(dtype):
    x = Tensor(np.array([1, 2], dtype))
    assert x.dtype == np.dtype(dtype).newbyteorder("=")
    assert x.dtype.isnative
    assert x.numpy().tolist() == [1, 2]
