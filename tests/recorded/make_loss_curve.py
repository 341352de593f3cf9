"""Write loss_curve.txt, and print how far from it the losses are with other kernels.

Run it in the repository root, where a change is meant to move the curve; say in the commit why:

    PYTHONPATH=tests python tests/recorded/make_loss_curve.py

The file holds the losses of `loss_curve.losses` in float64, one a line. The table that is printed
is where the tolerances of tests/test_drift.py come from: BLAS adds up in another order with the
kernels for each processor, and NumPy without the vector instructions that it finds has other
exponentials and sums. What this processor cannot run is named.
"""

import subprocess

import numpy as np
from recorded.loss_curve import (
    DTYPES,
    FILE,
    losses,
    losses_with,
    recorded,
    without_vector_instructions,
)

from minidl import describe_machine

# The names that OpenBLAS takes for its kernels on x86-64, oldest first; None for its own choice.
KERNELS = [
    None,
    "Prescott",
    "Nehalem",
    "Sandybridge",
    "Haswell",
    "Zen",
    "SkylakeX",
    "Cooperlake",
    "SapphireRapids",
]


def write():
    machine = describe_machine()
    made = (
        f"NumPy {machine['numpy']}, {machine['blas']} ({machine['threads']['blas'][0]['kernels']})"
    )
    header = f"The loss of each step, from make_loss_curve.py with {made}"
    np.savetxt(FILE, losses("float64"), fmt="%.17g", header=header)


def compare():
    print("largest relative distance from the file: in 50 steps, in all")
    for dtype in DTYPES:
        for asked in KERNELS:
            for vectors in ({}, without_vector_instructions()):
                given = {"OPENBLAS_CORETYPE": asked, "OPENBLAS_L2_SIZE": None, **vectors}
                what = f"{dtype} {asked or 'own choice':15} {'plain NumPy' if vectors else '':12}"
                try:
                    kernels, curve = losses_with(dtype, **given)
                except subprocess.CalledProcessError:
                    print(what, "cannot run here")
                    continue
                away = np.abs(curve / recorded() - 1)
                print(what, f"{away[:50].max():.1e} {away.max():.1e}  {kernels} kernels")


if __name__ == "__main__":
    write()
    compare()
