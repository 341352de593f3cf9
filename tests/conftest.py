"""What holds for every test."""

import sys

import hypothesis
import numpy as np
import pytest
import stand_in

import minidl
from minidl import backend

# For tests/mutation: that an input fails is enough, the smallest one that does is not looked for.
hypothesis.settings.register_profile(
    "mutation", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


@pytest.fixture
def device(monkeypatch):
    """The name of a device other than the CPU: the stand-in, which `import cupy` finds."""
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
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
