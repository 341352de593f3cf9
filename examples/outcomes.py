"""What programs leave of their runs: files that are written whole, the run described, tables."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import minidl


def write(path: Path, text: str) -> None:
    """Write a file that appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(text)
    unfinished.replace(path)


def this_run(program: str) -> dict[str, Any]:
    """The command that started the program, the version of minidl and the machine.

    A run that was resumed has the command of the one that was not interrupted: it is the same, to
    the last bit.
    """
    arguments = (argument for argument in sys.argv[1:] if argument != "--resume")
    command = shlex.join(["python", f"examples/{program}", *arguments])
    return {"command": command, "minidl": minidl.__version__, **minidl.describe_machine()}


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for the README."""
    shown = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)
