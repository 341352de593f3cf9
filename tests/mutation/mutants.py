"""Plants faults into the rooms of minidl that compute and counts how many of them tests find.

    pip install -e ".[test,mutation]"
    python tests/mutation/mutants.py

Cosmic Ray makes the mutants that `cosmic-ray.toml` asks for, of the code that is committed, and
has each judged by `run_tests.py`, in as many clones of the repository as there are processors. It
takes hours; what was interrupted goes on where it stood. What survives is listed in
`tests/results/mutants.json`, with the reason that `survivors.toml` gives.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from run_tests import MAP, ROOT

import minidl

HERE = Path(__file__).parent
RESULTS = ROOT / "tests" / "results" / "mutants.json"
LEAST_KILLED = 0.9


class Mutant(NamedTuple):
    """A fault that was planted.

    Attributes:
        file: its path below minidl/.
        line: its number.
        before: the line, or all lines, that were replaced.
        after: what replaced them.
        killed: whether a test failed.
    """

    file: str
    line: int
    before: str
    after: str
    killed: bool


# The run


def judge_all(work: Path, workers: int) -> list[Mutant]:
    """Make the mutants of the last commit and have all of them judged.

    Args:
        work: a folder for what is needed meanwhile, and to go on after an interruption.
        workers: how many mutants are judged at a time.
    """
    clones = [work / f"clone-{number}" for number in range(workers)]
    for clone in clones:
        if not clone.exists():
            call("git", "clone", "--quiet", ROOT, clone)
    if not (work / "map").exists():
        made = work / "map-in-the-making"
        made.mkdir(exist_ok=True)
        call(sys.executable, clones[0] / "tests" / "mutation" / "make_map.py", made)
        made.rename(work / "map")
    ports = [free_port() for _ in clones]
    urls = [f"http://localhost:{port}" for port in ports]
    config, session = work / "cosmic-ray.toml", work / "session.sqlite"
    config.write_text(
        f"{(HERE / 'cosmic-ray.toml').read_text()}\n"
        f"[cosmic-ray.distributor.http]\nworker-urls = {json.dumps(urls)}\n"
    )
    if not session.exists():
        made = session.with_suffix(".new")
        call("cosmic-ray", "init", "--force", config, made, cwd=clones[0])
        call("cr-filter-operators", made, config)
        made.rename(session)
    os.environ[MAP] = str(work / "map")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with contextlib.ExitStack() as stack:
        for clone, port in zip(clones, ports, strict=True):
            # An interrupted run may have left its last mutant behind.
            call("git", "checkout", "--quiet", "minidl", cwd=clone)
            stack.enter_context(worker(clone, port))
        call("cosmic-ray", "exec", config, session)
    return list(read(session))


def call(*command: Any, cwd: Path = ROOT) -> None:
    """Run a command. Raises CalledProcessError if it fails."""
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as tried:
        tried.bind(("localhost", 0))
        return tried.getsockname()[1]


@contextlib.contextmanager
def worker(clone: Path, port: int) -> Iterator[None]:
    """A process that judges mutants in a clone."""
    process = subprocess.Popen(
        ["cosmic-ray", "http-worker", "--port", str(port)],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port)):
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def read(session: Path) -> Iterator[Mutant]:
    """The mutants of a session, all of which were judged.

    Raises ValueError for one that was not.
    """
    done = subprocess.run(
        ["cosmic-ray", "dump", str(session)], capture_output=True, text=True, check=True
    )
    for text in done.stdout.splitlines():
        item, result = json.loads(text)
        (mutation,) = item["mutations"]
        if result is not None and result["worker_outcome"] == "skipped":
            continue
        path = mutation["module_path"].removeprefix("minidl/")
        line = mutation["start_pos"][0]
        if result is None or result["worker_outcome"] != "normal":
            raise ValueError(f"{path}:{line}, {mutation['operator_name']}: not judged, {result}")
        _, _, _, *changes = result["diff"].splitlines()  # after a title and the file's names
        before, after = (
            "\n".join(change[1:].strip() for change in changes if change.startswith(sign))
            for sign in "-+"
        )
        yield Mutant(path, line, before, after, result["test_outcome"] != "survived")


# The outcome


def reason(mutant: Mutant, known: dict[str, Any]) -> str | None:
    """Why no test can find a mutant, or why none looks for it; None if nobody has said."""
    for entry in known["survivor"]:
        if (
            entry.get("file", mutant.file) == mutant.file
            and entry.get("before", "") in mutant.before
            and entry.get("after", "") in mutant.after
        ):
            return known["reasons"].get(entry["why"], entry["why"])
    return None


def room(mutant: Mutant) -> str:
    """The room of a mutant: a folder, or a file beside them."""
    return mutant.file.partition("/")[0].removesuffix(".py")


def report(mutants: list[Mutant], known: dict[str, Any]) -> dict[str, Any]:
    """What the results file says: how many died in each room, and which did not."""
    made = Counter(room(mutant) for mutant in mutants)
    died = Counter(room(mutant) for mutant in mutants if mutant.killed)
    survivors = sorted(mutant for mutant in mutants if not mutant.killed)
    return {
        "rooms": {
            name: {"mutants": made[name], "killed": died[name], "share": round(died[name] / n, 4)}
            for name, n in sorted(made.items())
        },
        "all": {
            "mutants": made.total(),
            "killed": died.total(),
            "share": round(died.total() / made.total(), 4),
        },
        "survivors": [
            {
                "file": mutant.file,
                "line": mutant.line,
                "before": mutant.before,
                "after": mutant.after,
                "reason": reason(mutant, known),
            }
            for mutant in survivors
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "mutation", help="folder to work in"
    )
    args = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    work = args.work.resolve() / commit
    work.mkdir(parents=True, exist_ok=True)
    mutants = judge_all(work, args.workers)
    outcome = report(mutants, tomllib.loads((HERE / "survivors.toml").read_text()))
    run = {"command": " ".join(["python", *sys.argv]), "commit": commit}
    run |= {"minidl": minidl.__version__, **minidl.describe_machine()}
    RESULTS.write_text(json.dumps({"run": run, **outcome}, indent=2) + "\n")
    for name, counts in (*outcome["rooms"].items(), ("all", outcome["all"])):
        print(f"{name}: {counts['killed']} of {counts['mutants']} killed, {counts['share']:.1%}")
    unexplained = [one for one in outcome["survivors"] if one["reason"] is None]
    for one in unexplained:
        print(f"{one['file']}:{one['line']}\n- {one['before']}\n+ {one['after']}")
    sys.exit(bool(unexplained) or outcome["all"]["share"] < LEAST_KILLED)


if __name__ == "__main__":
    main()
