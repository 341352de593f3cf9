"""Starting the ranks of a world, as users do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HALF_A_MINUTE = 30
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def mpiexec(ranks, *command, **environment):
    """Start ranks of a program. They may share cores, so that a small machine has enough."""
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = beside if beside.exists() else shutil.which("mpiexec")
    options = ["-n", str(ranks), "--oversubscribe", "--bind-to", "none"]
    return subprocess.run(
        [str(launcher), *options, sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, **AS_ROOT, "OPENBLAS_NUM_THREADS": "1", **environment},
        timeout=HALF_A_MINUTE,
        check=False,
    )
