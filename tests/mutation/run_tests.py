"""Runs the tests that a changed file of minidl concerns, until one fails; also a program.

    python tests/mutation/run_tests.py

Which file was changed is asked of git. The tests nearest to it come first, so that most mutants
die within two seconds, and those that share no code with it do not run: what survives here may
still be killed by a test of another subject, never the other way round.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MEMORY = 8 * 2**30  # bytes of address space: a mutant that asks for more is dead

# The beginning of a path below minidl/, and rounds of tests: a round is collected at once.
ROUNDS: dict[str, tuple[str, ...]] = {
    "tensor": (
        "tensor computation_graph anomaly",
        "gradcheck layers memory device outputs training interop_pytorch",
        "ops gradients",
    ),
    "losses": ("losses", "training precision outputs device divergence", "gradients drift"),
    "ops": (
        "ops outputs",
        "precision tensor computation_graph layers losses device memory anomaly failures",
        "gradients",
    ),
    "optim": ("optim", "training device saving divergence callbacks outputs", "drift resume"),
    "kernels/optimizer": ("optim", "kernels memory training device outputs", "threads drift"),
    "kernels/dropout": ("kernels layers", "ops memory device", "threads gradients"),
    "kernels/normalization": ("kernels layers", "precision memory device outputs", "gradients"),
    "kernels/softmax": ("kernels losses", "precision memory outputs device", "ops threads"),
    "kernels/threads": ("threads", "kernels scratch memory", "convolution training"),
    "kernels/scratch": ("scratch memory", "kernels threads", "convolution"),
    "kernels/memory": ("scratch memory", "kernels threads outputs", "convolution optim"),
    "kernels/products": ("kernels outputs", "threads layers memory", "ops gradients"),
    "kernels/elementwise": ("kernels outputs", "threads layers memory", "ops gradients"),
    "kernels": (
        "convolution kernels",
        "layers outputs memory device precision",
        "threads scratch gradients",
    ),
}


def changed_file() -> str:
    """The path below minidl/ of the file that differs from the last commit."""
    command = ("git", "diff", "--name-only", "--", "minidl")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (path,) = done.stdout.split()
    return path.removeprefix("minidl/")


def rounds(path: str) -> tuple[str, ...]:
    """The rounds of tests for a file: those of the longest beginning that it has."""
    return ROUNDS[max((start for start in ROUNDS if path.startswith(start)), key=len)]


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "mutation"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    for names in rounds(changed_file()):
        files = [f"tests/test_{name}.py" for name in names.split()]
        command = [sys.executable, "-m", "pytest", *options, *files]
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
        if done.returncode != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
