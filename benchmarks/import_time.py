"""What `import minidl` costs beyond `import numpy`: python benchmarks/import_time.py.

Each import is a process of its own; the two alternate, so that both meet the same noise.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from machine import save
from options import options
from rich.console import Console
from rich.table import Table

CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    command = [sys.executable, "-c", CODE.format(module)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603


def main() -> None:
    args = options(__doc__, rounds=15).parse_args()
    seconds("minidl")  # the first fills the disk's cache
    rounds = [(seconds("numpy"), seconds("minidl")) for _ in range(args.rounds)]
    columns = {
        "import numpy": [numpy for numpy, _ in rounds],
        "import minidl": [ours for _, ours in rounds],
        "difference": [ours - numpy for numpy, ours in rounds],
    }
    table = Table("seconds", "least", "median", "most", title=f"{args.rounds} rounds")
    result: dict[str, dict[str, float]] = {}
    for name, values in columns.items():
        spread = min(values), statistics.median(values), max(values)
        result[name] = dict(zip(("least", "median", "most"), spread, strict=True))
        table.add_row(name, *(f"{value:.3f}" for value in spread))
    Console().print(table)
    save("import_time", args.output, seconds=result)


if __name__ == "__main__":
    main()
