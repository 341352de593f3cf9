"""What holds for every test."""

import signal
import sys

import hypothesis
import numpy as np
import pytest
import stand_in

import minidl
from minidl import backend
from minidl.kernels import convolution

# For tests/mutation: that an input fails is enough, the smallest one that does is not looked for.
hypothesis.settings.register_profile(
    "mutation", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


def pytest_configure():
    # Where tests are started in the background Ctrl-C is ignored, also by what they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=["stand-in", "gpu"],
        default="stand-in",
        help="what tests of a device other than the CPU run on",
    )


@pytest.fixture
def device(request):
    """The name of a device other than the CPU: the stand-in, or with --device gpu a real one."""
    if request.config.getoption("--device") == "gpu":
        return minidl.find_device("gpu")
    return request.getfixturevalue("stand_in_device")


@pytest.fixture
def stand_in_device(request, monkeypatch):
    """The name of the stand-in device, which `import cupy` finds. Skips with --device gpu."""
    if request.config.getoption("--device") == "gpu":
        pytest.skip("asks what only the stand-in can tell")
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setitem(sys.modules, "cupy.cuda", stand_in.cuda)
    monkeypatch.setattr(backend, "_by_array_type", {np.ndarray: backend.CPU})
    before = backend.default_generator._streams
    yield minidl.find_device("gpu")
    backend.default_generator._streams = {k: v for k, v in before.items() if k == "cpu"}


@pytest.fixture(params=["cpu", "gpu"])
def place(request):
    """The name of each device in turn."""
    return request.param if request.param == "cpu" else request.getfixturevalue("device")


@pytest.fixture(autouse=True)
def number_of_threads():
    """Puts back the number of threads that a test sets."""
    before = minidl.get_num_threads()
    yield
    minidl.set_num_threads(before)


@pytest.fixture
def new_plans():
    """No plan is remembered that was made with other limits."""
    convolution._remembered_plan.cache_clear()
    yield
    convolution._remembered_plan.cache_clear()
