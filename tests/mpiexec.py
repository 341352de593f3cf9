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
    command = [str(launcher), *options, sys.executable, *map(str, command)]
    env = {**os.environ, **AS_ROOT, "OPENBLAS_NUM_THREADS": "1", **environment}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as started:
        try:
            out, err = started.communicate(timeout=HALF_A_MINUTE)
        except subprocess.TimeoutExpired:
            started.terminate()  # which ends the ranks, too; killed, it would leave them behind
            raise
    return subprocess.CompletedProcess(command, started.returncode, out, err)
