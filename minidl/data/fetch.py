"""Brings files from elsewhere to this machine: over HTTP, or out of a Debian package.

Nothing here knows any data set. A failure is a `FetchError` that says in one line why, so that
the caller can try its next source and, in the end, show all the reasons together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0  # for an address to accept a connection, and for each pause in what it sends
APT_TIMEOUT_S = 300.0  # for one command of apt-get or dpkg-deb


class FetchError(OSError):
    """A source did not deliver; the message is the reason, in one line."""


def say(line: str) -> None:
    """Tell the user, on the error stream, what takes time or went differently than expected."""
    print(f"minidl: {line}", file=sys.stderr, flush=True)


def download(address: str, path: Path) -> None:
    """Write what an HTTP(S) address sends to `path`, showing a progress bar on a terminal.

    Raises:
        FetchError: if the address cannot be reached, answers with an error, stays silent for
            `TIMEOUT_S` seconds, or stops before the end.
        OSError: naming the file, if that cannot be written.
    """
    import pooch

    with _progress(address) as bar:
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT_S)
        try:
            fetch(address, str(path), None)
        except (OSError, ValueError) as error:
            # The errors of the web bear no number of their own, other than those of files.
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise FetchError(_root_cause(error)) from error


def debian_package(package: str, folder: Path) -> Path:
    """Download a Debian package with apt-get and unpack it below `folder`; root is not needed.

    Nothing is installed. apt-get checks the package against the signed lists of the machine's own
    package sources; where the machine has no lists, or outdated ones, lists are fetched into
    `folder` and used from there.

    Returns the folder that stands for the root of the file system, with `usr` and so on in it.
    Raises FetchError if the programs are missing or fail.
    """
    apt, dpkg = _program("apt-get"), _program("dpkg-deb")
    say(f"downloading the Debian package {package} with apt-get")
    # As root, apt would hand its work to a user of its own, who may not enter `folder`.
    apt_get = [apt, "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1"]
    try:
        _run([*apt_get, "download", package], folder)
    except FetchError:
        say("apt-get could not; fetching package lists of our own and trying again")
        _download_with_own_lists(apt_get, package, folder)
    packages = sorted(folder.glob("*.deb"))
    if not packages:
        raise FetchError(f"apt-get reported success but left no file {package}*.deb")
    unpacked = folder / "unpacked"
    _run([dpkg, "--extract", str(packages[0]), str(unpacked)], folder)
    return unpacked


def _download_with_own_lists(apt_get: list[str], package: str, folder: Path) -> None:
    """Let apt-get fetch package lists into `folder`, which needs no root, and the package then."""
    lists, cache = folder / "lists", folder / "cache"
    for place in (lists, cache / "archives"):
        (place / "partial").mkdir(parents=True)
    apt_get = [*apt_get, "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
    options = ["-o", "Acquire::Languages=none", "-o", "APT::Update::Error-Mode=any"]
    doubt = ""
    try:
        _run([*apt_get, *options, "update"], folder)
    except FetchError as error:
        # It fails as a whole when one of many package sources does. The one that matters may have
        # answered all the same, and the download tells.
        doubt = f", after an incomplete update ({error})"
    try:
        _run([*apt_get, "download", package], folder)
    except FetchError as error:
        raise FetchError(f"{error}{doubt}") from error


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FetchError(f"there is no program {name} on this machine")
    return path


def _run(command: list[str], folder: Path) -> None:
    program = Path(command[0]).name
    # A file takes the messages: a pipe would be waited for as long as any helper that the program
    # started keeps it open, even after a time-out.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
        try:
            done = subprocess.run(  # noqa: S603 - fixed words and paths of our own, no shell
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env={**os.environ, "LC_ALL": "C"},
                timeout=APT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FetchError(f"{program} took longer than {APT_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise FetchError(f"{program} could not be started: {error}") from error
        messages.seek(0)
        if done.returncode != 0:
            reason = _apt_reason(messages.read())
            raise FetchError(f"{program} failed with exit status {done.returncode}: {reason}")


def _apt_reason(messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    # "E:" opens the lines in which apt tells what was fatal; the others are warnings.
    fatal = [line for line in lines if line.startswith("E:")] or lines[-1:]
    return fatal[0] if fatal else "it gave no reason"


def _root_cause(error: BaseException) -> str:
    """The first failure of a chain, which says "Connection refused" where the last one says that
    the maximum of retries of a pool was exceeded.
    """
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


@contextmanager
def _progress(address: str) -> Iterator[Any]:
    """What pooch takes as its progress bar: one drawn by rich, or False for a mere line."""
    if not sys.stderr.isatty():
        say(f"downloading {address}")
        yield False
        return
    bar = _Bar(address)
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """A progress bar of rich with the four names that pooch uses."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(label, total=None)
        self._progress.start()

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        # pooch gives 0 where the address did not say how much it will send.
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop()
