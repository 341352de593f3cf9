"""CuPy as users have it, on a machine without a GPU: installed, but of no use.

The wheel is too large to be fetched for each run of the tests. Where MINIDL_TEST_CUPY names a
folder with it (`pip install --target FOLDER cupy-cuda12x`), as in `.ci/run`, these tests run.
"""

import os
import subprocess
import sys

import pytest
import stand_in_nccl

FOLDER = os.environ.get("MINIDL_TEST_CUPY")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="MINIDL_TEST_CUPY names no folder with CuPy")


def run(code):
    """What a process prints in which CuPy can be imported, but sees no GPU."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        # What is searched first stays first, and an older NumPy beside CuPy is not taken for ours.
        env={**os.environ, "CUPY_FOLDER": FOLDER, "CUDA_VISIBLE_DEVICES": ""},
    )
    return done.stdout


START = "import os, sys, numpy, minidl; sys.path.append(os.environ['CUPY_FOLDER']);"


def test_importing_minidl_and_taking_the_cpu_needs_no_cupy():
    assert run(f"{START} print(minidl.find_device('cpu'), 'cupy' in sys.modules)") == "cpu False\n"


def test_auto_takes_the_cpu():
    code = "print(minidl.find_device('auto'), 'cupy' in sys.modules)"
    assert run(f"{START} {code}") == "cpu True\n"


@pytest.mark.parametrize("call", ["minidl.find_device('gpu')", "minidl.Tensor([1.0]).to('gpu')"])
def test_the_gpu_ends_in_one_clear_sentence(call):
    code = f"""{START}
try:
    {call}
except minidl.DeviceError as error:
    print(error)
"""
    version = run(f"{START} import cupy; print(cupy.__version__)").strip()
    assert run(code) == (
        f"device 'gpu': CuPy {version} is installed, but it finds no NVIDIA driver or no GPU; "
        "install the driver (nvidia-smi must list a card) or use device 'cpu'.\n"
    )


def test_nccl_is_as_the_stand_in_for_it():
    names = "NCCL_INT8", "NCCL_FLOAT32", "NCCL_FLOAT64", "NCCL_SUM"
    code = f"""{START}
import warnings
warnings.simplefilter("ignore")  # CuPy warns where NCCL is missing
nccl = minidl.backend.import_nccl()
if nccl.available:
    identifier = nccl.get_unique_id()
    print(type(identifier), len(identifier), *(getattr(nccl, name) for name in {names}))
"""
    numbers = " ".join(str(getattr(stand_in_nccl, name)) for name in names)
    assert run(code) in ("", f"<class 'bytes'> 128 {numbers}\n")
