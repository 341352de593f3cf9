"""What every results file says of where it was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import minidl

RESULTS = Path(__file__).parent / "results"


def save(name: str, folder: Path, **content: Any) -> None:
    """Write a result to NAME.json in a folder, with the run that it came from."""
    folder.mkdir(parents=True, exist_ok=True)
    command = {"command": " ".join(["python", *sys.argv]), "minidl": minidl.__version__}
    text = json.dumps({"run": {**command, **minidl.describe_machine()}, **content}, indent=2)
    (folder / f"{name}.json").write_text(f"{text}\n")
