"""Runs the tests that execute a changed line of minidl until one fails; also a program.

    python tests/mutation/run_tests.py

Which line was changed is asked of git, and which tests execute it of the map that `mutants.py`
has made. Quick tests come first, so that most mutants die within two seconds.
"""

import ast
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAP = "MINIDL_MUTATION_MAP"  # the environment variable with the folder of the map

MEMORY = 8 * 2**30  # bytes of address space: a mutant that asks for more is dead

HANGING = 40  # seconds, besides three times those that the tests took
LONGEST = 240  # seconds: Cosmic Ray waits for an answer for five minutes

# Tests run in rounds, because collecting them takes longer than running the few that are needed.
# Those that start programs, read files or draw are left out: what survives may still be killed by
# one of them, never the other way round.
ROUNDS = (
    "tensor losses optim layers computation_graph memory gradcheck precision",
    "kernels convolution pieces ops outputs training divergence anomaly failures device callbacks",
    "device_table",
    "gradients threads scratch drift",
    "interop_pytorch saving transforms loader init",
)

# Kernels remember plans, memory and threads: whether a test executes a line depends on the tests
# before it. So for a line of theirs all of these run.
STATEFUL = "minidl/kernels/"
ALWAYS = "kernels convolution pieces outputs memory threads scratch"


def files(names: str) -> list[str]:
    """The paths of a round's tests."""
    return [f"tests/test_{name}.py" for name in names.split()]


def file_of(test: str) -> str:
    """The path of the file of a test."""
    return test.partition("::")[0]


def map_of(path: str) -> str:
    """The name of the file with the tests of a source file."""
    return path.replace("/", "-") + ".json"


class Chosen:
    """A plugin of pytest that runs some tests alone, in the order of the time they take.

    Args:
        seconds: that each of them took, by its identity.
        always: files of which all tests run, those that nothing is known of at the end.
    """

    def __init__(self, seconds: dict[str, float], always: set[str]) -> None:
        self._seconds = seconds
        self._always = always

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Keep those that were chosen."""
        left_out = [item for item in items if not self._runs(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if self._runs(item)]
        items.sort(key=lambda item: self._seconds.get(item.nodeid, math.inf))

    def _runs(self, item: Any) -> bool:
        return item.nodeid in self._seconds or file_of(item.nodeid) in self._always


def changed_line() -> tuple[str, int]:
    """The file that differs from the last commit, and the line where it does."""
    command = ("git", "diff", "--unified=0", "--no-color", "--", "minidl")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (path,) = re.findall(r"^\+\+\+ b/(.*)$", done.stdout, re.MULTILINE)
    (first, count), *_ = re.findall(r"^@@ -(\d+)(?:,(\d+))?", done.stdout, re.MULTILINE)
    # Empty lines above a decorator go with it.
    return path, int(first) + int(count or 1) - 1


def concerned(path: str, line: int) -> dict[str, float]:
    """The tests that execute a line, or the beginning of the statement that it continues.

    Returns:
        Their identities, with the seconds that each takes.
    """
    known = json.loads((Path(os.environ[MAP]) / map_of(path)).read_text())
    lines, tests = known["lines"], list(known["seconds"].items())
    line = in_body(path, line)
    while str(line) not in lines:
        line -= 1
    return dict(tests[number] for number in lines[str(line)])


def in_body(path: str, line: int) -> int:
    """The first statement of a function instead of its head, which is executed at the import."""
    command = ("git", "show", f"HEAD:{path}")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    for node in ast.walk(ast.parse(done.stdout)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[min(ast.get_docstring(node) is not None, len(node.body) - 1)]
            head = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if head <= line < first.lineno:
                return first.lineno
    return line


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path.insert(0, str(ROOT))
    path, line = changed_line()
    seconds = concerned(path, line)
    always = set(files(ALWAYS)) if path.startswith(STATEFUL) else set()
    # A mutant that hangs is dead, and so is every process that it has started: the system looks at
    # their processor time in case Python does not come to answer the signal.
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    most = LONGEST * (os.cpu_count() or 1)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    signal.alarm(min(LONGEST, math.ceil(HANGING + 3 * sum(seconds.values()))))
    needed = always.union(map(file_of, seconds))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "mutation"]
    for names in ROUNDS:
        chosen = [file for file in files(names) if file in needed]
        if chosen and pytest.main([*options, *chosen], plugins=[Chosen(seconds, always)]) != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
