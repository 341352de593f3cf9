"""Breaks files for each parser of minidl and looks whether it keeps its promise; also a program.

Whatever is in a file, a parser gives a result of the promised form, or a ValueError or OSError
whose message begins with the file's path; it gives no warning, takes less than a second of the
processor and less than 100 MB of memory.

    python tests/fuzz.py --inputs 100000 --parser idx

Inputs are made from whole files, by mutations that know the format and by blind ones. An input that
is answered in a new way (another message, numbers and quotations aside) is mutated on: that it is
told apart shows that it came to another place of the parser. The same seed gives the same inputs.

Parsers run in forked processes, so that one that crashes, hangs or fills the memory is told as
well. What breaks the promise is written to a folder, under a name with its parser, seed and number.

The program alone looks at the second: how long a file takes depends on the machine, and the tests
pass on any. They only end a parser that hangs.
"""

import argparse
import json
import mmap
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from fuzzing import PARSERS, Parser, blind

import minidl

RESULTS = Path(__file__).parent / "results"

SECONDS = 1.0  # of the processor, which may be three times as slow when the machine is shared
MEMORY = 100 * 10**6  # bytes
LONGEST_MESSAGE = 3000  # characters
HANGING = 30  # seconds on the clock, after which a process is ended

_ROUND = 1000  # inputs between which nothing is learned
_LONGEST = 2**20  # bytes of an input
_MOST_SEEDS = 400


class BrokenPromiseError(Exception):
    """A parser did something with a file that it must not do."""


class Tried(NamedTuple):
    """What became of one input.

    Attributes:
        number: of the input.
        answer: "accepted", or what the message has in common with those for other files.
        fault: how the promise was broken, but for its seconds; "" if it was not.
        memory: bytes that were taken, or 0 if an input before took more.
        seconds: of the processor.
    """

    number: int
    answer: str
    fault: str
    memory: int
    seconds: float


@dataclass
class Outcome:
    """What became of the inputs of one parser, of which none may take more than so many seconds."""

    allowed_seconds: float
    inputs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    findings: list[Tried] = field(default_factory=list)
    most_memory: int = 0
    most_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, tried: Tried) -> None:
        self.inputs += 1
        self.most_memory = max(self.most_memory, tried.memory)
        self.most_seconds = max(self.most_seconds, tried.seconds)
        if tried.seconds > self.allowed_seconds and not tried.fault:
            tried = tried._replace(fault=f"{tried.seconds:.1f} seconds")
        if tried.fault:
            self.findings.append(tried)
        else:
            self.answers[tried.answer] += 1


# -- one file ----------------------------------------------------------------------------------


def answer(parser: Parser, path: Path) -> str:
    """How a parser answers a file; see `Tried.answer`.

    Raises:
        BrokenPromiseError: if the answer is none that it may give.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parser.read(path)
            kind = "accepted"
        except (OSError, ValueError) as error:
            kind = _kind_of(error, path)
        except Exception as error:
            raise BrokenPromiseError(f"{type(error).__name__}: {error}") from error
    if caught:
        raise BrokenPromiseError(f"a warning: {caught[0].message}")
    return kind


def _kind_of(error: OSError | ValueError, path: Path) -> str:
    """A message without what differs from file to file."""
    message = str(error)
    if not message.startswith(str(path)):
        raise BrokenPromiseError(f"{type(error).__name__} without the path: {message[:200]}")
    if len(message) > LONGEST_MESSAGE:
        raise BrokenPromiseError(f"a message of {len(message)} characters: {message[:200]}")
    if isinstance(error.__cause__, MemoryError):
        raise BrokenPromiseError(f"no memory: {message[:200]}")
    # What came is quoted with or without marks. Whatever follows it is a reason.
    expected, _, got = message.removeprefix(str(path)).partition(" got ")
    message = expected + got.partition(": ")[2]
    message = re.sub(r"'.*'|\".*\"|0x[0-9a-f]+|\d+", "_", message, flags=re.DOTALL)
    return re.sub(r"_(,? ?_)*", "_", message)[:100]


# -- files, one after the other ----------------------------------------------------------------


def tried(
    parser: Parser, path: Path, inputs: Iterable[bytes | None], first: int = 0
) -> Iterator[Tried]:
    """Have inputs read in a process of their own, until all are or it cannot go on.

    Args:
        parser: one of `PARSERS`.
        path: where the inputs are written.
        inputs: made one by one; None stands for what is at `path` already.
        first: the number of the first of them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    current = mmap.mmap(-1, 8)
    current[:] = first.to_bytes(8, "little")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w", encoding="utf-8") as lines:
                for one in _tried_here(parser, path, inputs, first, current):
                    print(json.dumps(one), file=lines, flush=True)
            status = 0
        except BaseException:  # not the parser's: those are told as faults
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        for line in lines:
            yield Tried(*json.loads(line))
    _, status = os.waitpid(child, 0)
    if status:
        number = int.from_bytes(current[:], "little")
        fault = f"the process ended with {os.waitstatus_to_exitcode(status)}"
        yield Tried(number, "", fault, 0, 0.0)


def _tried_here(
    parser: Parser, path: Path, inputs: Iterable[bytes | None], first: int, current: mmap.mmap
) -> Iterator[Tried]:
    """Have inputs read in this process, up to the first that takes too much memory."""
    # More than may be taken, so that what is taken is told by how much, but not without end. Memory
    # that is set aside and not used counts, files that are mapped do not.
    data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + 5 * MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it is
    before = _peak()
    for number, content in enumerate(inputs, first):
        signal.alarm(HANGING)
        if content is not None:
            # Not written over: some file systems then wait for the disk.
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        made = _peak()
        start = time.process_time()
        kind, fault = "", ""
        try:
            kind = answer(parser, path)
        except BrokenPromiseError as broken:
            fault = str(broken)
        seconds = time.process_time() - start
        # The peak of a process never sinks: it is this input's own if it has risen.
        memory = _peak() - before if _peak() > made else 0
        if memory > MEMORY:
            fault = f"{memory / 1e6:.0f} MB; {fault or kind}"
        yield Tried(number, kind, fault, memory, seconds)
        if memory > MEMORY:
            return
        current[:] = (number + 1).to_bytes(8, "little")


def _peak() -> int:
    """The most memory that this process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- inputs without end ------------------------------------------------------------------------


def make_input(parser: Parser, seeds: list[bytes], seed: int, number: int) -> bytes:
    """The input of that number; it depends on nothing else."""
    rng = Random(f"{seed} {parser.name} {number}")
    # Most of what was learned is refused early.
    content = rng.choice(seeds if rng.random() < 0.5 else parser.seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.7:
            try:
                content = parser.mutate(rng, content)[:_LONGEST]
                continue
            except Exception:  # too broken to be taken apart
                pass
        content = blind(rng, content, seeds)[:_LONGEST]
    return content


def fuzz(
    parser: Parser,
    inputs: int,
    seed: int,
    folder: Path | None = None,
    seconds: float = HANGING,
) -> Outcome:
    """Have a parser read so many broken files.

    Args:
        parser: one of `PARSERS`.
        inputs: how many.
        seed: of the mutations.
        folder: where inputs that break the promise are left; nowhere, if None.
        seconds: of the processor that an input may take.
    """
    outcome = Outcome(seconds)
    start = time.perf_counter()
    seeds = list(parser.seeds)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, parser.file)
        _warm_up(parser, path)
        while outcome.inputs < inputs:
            learned = _one_round(parser, path, seeds, seed, inputs, outcome)
            for broken in outcome.findings if folder is not None else ():
                folder.mkdir(parents=True, exist_ok=True)
                left = folder / f"{parser.name}-{seed}-{broken.number}"
                if not left.exists():
                    left.write_bytes(make_input(parser, seeds, seed, broken.number))
            new = [make_input(parser, seeds, seed, number) for number in learned]
            seeds = (seeds + [content for content in new if len(content) < 2**16])[:_MOST_SEEDS]
    outcome.seconds = time.perf_counter() - start
    return outcome


def _warm_up(parser: Parser, path: Path) -> None:
    """Have all seeds read here, so that what a parser imports does not count for any input."""
    for content in parser.seeds:
        path.write_bytes(content)
        kind = answer(parser, path)
        assert kind == "accepted", f"{parser.name}: a seed is refused: {kind}"


def _one_round(
    parser: Parser, path: Path, seeds: list[bytes], seed: int, inputs: int, outcome: Outcome
) -> list[int]:
    """Add the next inputs to an outcome; the numbers of those that were answered in a new way."""
    learned = []
    end = min(inputs, outcome.inputs + _ROUND)
    while outcome.inputs < end:
        made = (make_input(parser, seeds, seed, n) for n in range(outcome.inputs, end))
        for one in tried(parser, path, made, outcome.inputs):
            if not one.fault and one.answer not in outcome.answers:
                learned.append(one.number)
            outcome.add(one)
    return learned


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--inputs", type=int, default=1000, help="broken files for each parser")
    parser.add_argument("--parser", choices=PARSERS, action="append", help="this one; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument(
        "--findings", type=Path, default=Path("runs/fuzz"), help="folder for what breaks a promise"
    )
    args = parser.parse_args()
    results = {}
    for name in args.parser or PARSERS:
        outcome = fuzz(PARSERS[name], args.inputs, args.seed, args.findings, SECONDS)
        results[name] = _told(name, outcome)
    run = {"command": " ".join(["python", *sys.argv]), "minidl": minidl.__version__}
    content: dict[str, Any] = {"run": {**run, **minidl.describe_machine()}, "parsers": results}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "fuzz.json").write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(any(result["findings"] for result in results.values()))


def _told(name: str, outcome: Outcome) -> dict[str, Any]:
    """What the results file says of one parser, which is printed as well."""
    accepted = outcome.answers["accepted"]
    print(
        f"{name}: {outcome.inputs} inputs, {accepted} accepted, {len(outcome.answers)} kinds of "
        f"answers, {len(outcome.findings)} findings; at most {outcome.most_memory / 1e6:.0f} MB "
        f"and {outcome.most_seconds:.2f} s; {outcome.seconds:.0f} s in all",
        flush=True,
    )
    for broken in outcome.findings[:20]:
        print(f"  {broken.number}: {broken.fault[:300]}")
    return {
        "inputs": outcome.inputs,
        "accepted": accepted,
        "kinds_of_answers": len(outcome.answers),
        "findings": [
            {"number": broken.number, "fault": broken.fault} for broken in outcome.findings
        ],
        "most_megabytes": round(outcome.most_memory / 1e6, 1),
        "most_seconds": round(outcome.most_seconds, 3),
        "seconds": round(outcome.seconds, 1),
    }


if __name__ == "__main__":
    main()
