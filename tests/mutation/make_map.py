"""Notes which tests execute each line of minidl, and how long they take; also a program.

    python tests/mutation/make_map.py FOLDER

The folder gets a JSON file for each file of the package, for `run_tests.py`.
"""

import json
import os
import sys
from pathlib import Path

import coverage
import pytest
from run_tests import ROOT, ROUNDS, files, map_of


class Durations:
    """A plugin of pytest that notes how long each test takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a part of a test."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    tests = [file for names in ROUNDS for file in files(names)]
    durations = Durations()
    options = ["-q", "-p", "no:cacheprovider"]
    options += ["--cov=minidl", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
    if pytest.main([*options, *tests], plugins=[durations]) != 0:
        sys.exit("make_map.py: the tests fail without any fault planted")
    data = coverage.CoverageData(".coverage")
    data.read()
    for file in data.measured_files():
        # A context is a test and its phase; it is empty while modules are imported.
        lines = {
            line: {context.rpartition("|")[0] for context in contexts if context}
            for line, contexts in data.contexts_by_lineno(file).items()
        }
        # What is executed at import alone concerns every test that comes to the file later.
        everything = set[str]().union(*lines.values()) or set(durations.seconds)
        seconds = {t: round(s, 4) for t, s in durations.seconds.items() if t in everything}
        number = {test: place for place, test in enumerate(seconds)}
        content = {
            "seconds": seconds,
            "lines": {
                line: sorted(number[test] for test in tests or everything)
                for line, tests in lines.items()
            },
        }
        path = Path(file).relative_to(ROOT).as_posix()
        (folder / map_of(path)).write_text(json.dumps(content))


if __name__ == "__main__":
    main()
