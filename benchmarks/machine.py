"""What every results file says of where it was measured."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import minidl

RESULTS = Path(__file__).parent / "results"

# What someone set for the libraries that compute, thread counts among it. It is read at the start,
# because some libraries set more when they are imported.
LIBRARIES = ("KERAS_", "KMP_", "MINIDL_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_NUM_")
ENVIRONMENT = {
    name: value for name, value in sorted(os.environ.items()) if name.startswith(LIBRARIES)
}


def save(name: str, folder: Path = RESULTS, **content: Any) -> None:
    """Write a result to NAME.json in a folder, with the run that it came from."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"run": describe(), **content}, indent=2)
    (folder / f"{name}.json").write_text(f"{text}\n")


def describe() -> dict[str, Any]:
    """The command, the machine and the versions of this run."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "command": " ".join(["python", *sys.argv]),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "minidl": minidl.__version__,
        "threads": {"minidl": minidl.get_num_threads(), "blas": _blas_threads()},
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
