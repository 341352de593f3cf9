"""Memory shared with other libraries, and what cannot be."""

import gc
import sys

import numpy as np
import pytest
import stand_in
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minidl
from minidl import Tensor

DTYPES = [np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64]


class Foreign:
    """An array of another library, on a device of some number."""

    def __init__(self, array, device):
        self.array = array
        self.device = device

    def __dlpack__(self, **request):
        return self.array.__dlpack__(**request)

    def __dlpack_device__(self):
        return self.device, 0


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0))
    )
)
def test_an_array_comes_and_goes_in_its_own_memory(array):
    for there in (array, array.T, array[..., ::-1] if array.ndim else array):
        x = minidl.from_dlpack(there)
        assert (x.shape, x.dtype, x.device) == (there.shape, there.dtype, "cpu")
        assert not x.requires_grad
        back = np.from_dlpack(x)
        np.testing.assert_array_equal(back, there)
        assert back.strides == there.strides
        for same in (x.data, back):
            assert np.shares_memory(same, there) or not there.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_shared_with_pytorch_both_ways(dtype):
    torch = pytest.importorskip("torch")
    theirs = torch.zeros((2, 3), dtype=torch.from_numpy(np.zeros(0, dtype)).dtype)
    ours = minidl.from_dlpack(theirs.T)
    theirs[1, 2] = 1
    assert ours.data.tolist() == [[0, 0], [0, 0], [0, 1]]
    ours.data[0, 0] = 1
    assert theirs[0, 0] == 1

    ours = Tensor(np.zeros((2, 3), dtype))
    theirs = torch.from_dlpack(ours)
    assert theirs.shape == (2, 3)
    theirs[0, 1] = 1
    ours.data[1, 0] = 1
    assert theirs.tolist() == ours.data.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_memory_lives_as_long_as_somebody_uses_it():
    torch = pytest.importorskip("torch")
    # Large results lie in memory that is used again when nobody holds it.
    theirs = torch.from_dlpack(minidl.exp(np.zeros(1 << 16)))
    ours = minidl.from_dlpack(torch.ones(1 << 16))
    gc.collect()
    others = [minidl.exp(np.ones(1 << 16)) for _ in range(4)]
    assert len(others) == 4
    assert (theirs == 1).all()
    assert (ours.data == 1).all()


def test_an_optimizer_changes_the_weights_that_pytorch_holds():
    torch = pytest.importorskip("torch")
    theirs = torch.ones(3)
    weight = minidl.Parameter(minidl.from_dlpack(theirs).data)
    (weight * weight).sum().backward()
    minidl.SGD([weight], lr=0.25).step()
    assert theirs.tolist() == [0.5, 0.5, 0.5]


def test_a_read_only_array_stays_read_only():
    array = np.arange(3)
    array.flags.writeable = False
    x = minidl.from_dlpack(array)
    assert np.shares_memory(x.data, array)
    assert not x.data.flags.writeable
    assert not np.from_dlpack(x).flags.writeable


def test_tensors_of_the_graph_are_handed_over_without_it():
    leaf = Tensor([1.0, 2.0], requires_grad=True)
    result = leaf * 3
    for x in (leaf, result):
        for array in (np.from_dlpack(x), np.asarray(x)):
            assert np.shares_memory(array, x.data)
        twin = minidl.from_dlpack(x)
        assert np.shares_memory(twin.data, x.data)
        assert not twin.requires_grad
    result.sum().backward()
    assert leaf.grad.tolist() == [3, 3]


def test_a_tensor_of_pytorch_that_requires_a_gradient_must_be_detached():
    torch = pytest.importorskip("torch")
    theirs = torch.ones(3, requires_grad=True)
    with pytest.raises(BufferError, match="detach"):
        minidl.from_dlpack(theirs)
    assert minidl.from_dlpack(theirs.detach()).data.tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", ["float16", "complex64", "bfloat16", "float8_e4m3fn"])
def test_dtypes_that_minidl_lacks_are_refused(dtype):
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"expect(s|ed) booleans, integers, float32 or float64, got"
    ):
        minidl.from_dlpack(torch.ones(2).to(getattr(torch, dtype)))


@pytest.mark.parametrize("x", [[1.0, 2.0], 3.0, None])
def test_what_speaks_no_dlpack_is_refused(x):
    with pytest.raises(TypeError, match=f"speaks DLPack, got {type(x).__name__}; Tensor"):
        minidl.from_dlpack(x)


def test_other_devices_are_refused_by_number():
    with pytest.raises(minidl.DeviceError, match="DLPack's device 8; move it to the CPU"):
        minidl.from_dlpack(Foreign(np.ones(2), 8))


def test_an_array_on_a_gpu_needs_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(minidl.DeviceError, match="CuPy"):
        minidl.from_dlpack(Foreign(np.ones(2), 2))


@pytest.mark.parametrize("number", [2, 13])
@pytest.mark.usefixtures("device")
def test_what_is_on_the_device_stays_there(number):
    array = np.zeros(3, np.float32)
    stand_in.transfers.clear()
    x = minidl.from_dlpack(Foreign(array, number))
    array[1] = 5
    assert x.device == "gpu"
    assert not stand_in.transfers
    assert x.numpy().tolist() == [0, 5, 0]


def test_a_tensor_says_where_its_memory_is(device):
    x = Tensor(np.ones(3, np.float32))
    assert x.__dlpack_device__() == (1, 0)
    moved = x.to(device)
    assert moved.__dlpack_device__() == (2, 0)
    twin = minidl.from_dlpack(moved)
    assert np.shares_memory(twin.data.inside, moved.data.inside)
