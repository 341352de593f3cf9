"""Which machine this is, and which versions of what computes, to be told beside every result."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from minidl.kernels.threads import get_num_threads

# What someone set for the libraries that compute, thread counts among it. It is read at the start,
# because some libraries set more when they are imported.
LIBRARIES = ("KERAS_", "KMP_", "MINIDL_NUM_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_NUM_")
ENVIRONMENT = {
    name: value for name, value in sorted(os.environ.items()) if name.startswith(LIBRARIES)
}


def describe_machine() -> dict[str, Any]:
    """The processor, the system, the versions and the numbers of threads, in words for JSON."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "threads": {"minidl": get_num_threads(), "blas": _blas_threads()},
        "environment": ENVIRONMENT,
    }


def _blas_threads() -> list[dict[str, Any]]:
    """Threads of each BLAS that is loaded, and the processor that it takes this one for."""
    from threadpoolctl import threadpool_info

    return [
        {
            "library": library["internal_api"],
            "threads": library["num_threads"],
            "kernels": library.get("architecture"),
        }
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def _processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
