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


def save(name: str, **content: Any) -> None:
    """Write a result to results/NAME.json, with the run that it came from."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"run": describe(), **content}, indent=2)
    (RESULTS / f"{name}.json").write_text(f"{text}\n")


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
        # What someone set for the libraries that multiply matrices, thread counts among it.
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("OPENBLAS_", "OMP_", "MKL_"))
        },
    }


def _processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
