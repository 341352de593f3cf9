"""The training process whose memory `memory.py` measures; it imports no more than training needs.

python benchmarks/training_process.py MODEL BATCH STEPS [THREADS FORMAT]

It trains a model of that digit, with PyTorch if its threads and "channels last" or "default" are
given and with minidl if not. It prints two numbers: the most bytes that were resident until all was
imported, and in the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

from models import MODELS, batches

STATUS = Path("/proc/self/status")
BATCHES = 2


def peak() -> int:
    """The most bytes of this process that were resident at once."""
    if STATUS.exists():
        # On Linux getrusage counts what was resident in the parent when this process began.
        (line,) = (x for x in STATUS.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def main() -> None:
    digit, size, steps, *setting = sys.argv[1:]
    model = next(model for name, model in MODELS.items() if name[0] == digit)
    if setting:
        import pytorch_models

        imported = peak()
        chosen = pytorch_models.Setting(int(setting[0]), setting[1] == "channels last")
        data = batches(model.data(BATCHES * int(size)), int(size))
        step = pytorch_models.training(model, data, chosen)
    else:
        import minidl_models

        imported = peak()
        data = batches(model.data(BATCHES * int(size)), int(size))
        step = minidl_models.training(model, data)
    for _ in range(int(steps)):
        step()
    print(imported, peak())


if __name__ == "__main__":
    main()
