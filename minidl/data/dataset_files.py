"""Finds the files of a published data set in folders, or fetches them and keeps them in a cache.

Nothing here knows any data set: each says what its files are called, where they can be had, and how
one is verified and read. No file is used, or enters the cache, before it is verified.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from minidl.data.fetch import FetchError, debian_package, download, say
from minidl.data.files import UNFINISHED_PREFIX, UNFINISHED_SUFFIX, remove_leftovers

Content = TypeVar("Content")


def cache_folder(name: str) -> Path:
    """The folder in the user's cache for the data set of that name."""
    # Imported here, as pooch takes longer to import than the rest of minidl.data together.
    import pooch

    # A user may have no home, as in some containers. pooch then refuses, or leaves "~" as it is.
    folder = Path("~")
    with suppress(RuntimeError):
        folder = Path(pooch.os_cache("minidl"))
    if folder.parts[0] == "~":
        folder = Path(tempfile.gettempdir()) / "minidl"
    return folder / name


@dataclass(frozen=True)
class DatasetFiles(Generic[Content]):
    """The files that a data set consists of, and what there is to know for finding them.

    Attributes:
        title: the data set's name.
        stored_as: for each file, by the name that messages give it, the names under which it may
            lie in a folder. It is fetched and cached under the first of them.
        note: what messages add to the names of files.
        read: verifies the file at a path, which should be the one of that name, and reads it. It
            raises FileNotFoundError if there is none, and ValueError if it is another.
        cache: where fetched files are kept.
        addresses: folders on the web that have the files, each ending in a slash.
        debian: a Debian package that has the files, and the folder in which it installs them.
    """

    title: str
    stored_as: dict[str, tuple[str, ...]]
    note: str
    read: Callable[[Path, str], Content]
    cache: Callable[[], Path]
    addresses: tuple[str, ...]
    debian: tuple[str, Path] | None = None

    def find(self, data_dir: str | os.PathLike[str] | None) -> dict[str, Content]:
        """What `read` makes of each file.

        Args:
            data_dir: the folder that holds the files; the one that the environment variable
                MINIDL_DATA names, if None. Such a folder has the last word: nothing is fetched in
                place of what it lacks, and nothing in it is changed. With neither, each file comes
                from the first source that has it: the cache, the folder of the Debian package, the
                addresses, and the package. What is fetched is kept in the cache; where that cannot
                be written, this is told on the error stream, and the data is there all the same.

        Raises:
            FileNotFoundError: saying which files are missing, what was tried and what to do.
            ValueError: from `read`, for a file in a named folder.
        """
        if data_dir is not None:
            return self._from_named_folder(
                Path(data_dir), "given as data_dir", "leave data_dir out"
            )
        if folder := os.environ.get("MINIDL_DATA"):
            return self._from_named_folder(
                Path(folder), "named by MINIDL_DATA", "unset MINIDL_DATA"
            )
        return self._from_anywhere()

    def _from_named_folder(self, folder: Path, origin: str, escape: str) -> dict[str, Content]:
        """All files from the folder the user named, or an error."""
        # Unlike Path's, it leaves "~" as it is where there is no home.
        folder = Path(os.path.expanduser(folder))  # noqa: PTH111
        found: dict[str, Content] = {}
        for name in self.stored_as:
            self._read_from(folder, name, found)
        missing = self._missing(found)
        if missing:
            state = "lacks" if folder.is_dir() else "is not an existing folder; expected in it:"
            raise FileNotFoundError(
                f"the folder {folder} ({origin}) {state} {', '.join(missing)}{self.note}. Put the "
                f"files of {self.title} there, or {escape} to have them found or fetched"
            )
        return found

    def _from_anywhere(self) -> dict[str, Content]:
        """All files, each from the first source that has it, or an error that lists them all."""
        found: dict[str, Content] = {}
        tried: list[str] = []
        for source in (self._look_in_folders, self._fetch):
            if self._missing(found):
                source(found, tried)
        missing = self._missing(found)
        if missing:
            raise FileNotFoundError(
                f"{self.title} is not complete: {', '.join(missing)} could not be found or "
                "fetched.\nTried, in this order:\n"
                + "".join(f"  - {line}\n" for line in tried)
                + f"To place the files by hand, put {', '.join(self.stored_as)}{self.note} into a "
                "folder of your choice, and name that folder in the environment variable "
                "MINIDL_DATA or as data_dir (--data-dir in the examples)."
            )
        return found

    def _missing(self, found: dict[str, Content]) -> list[str]:
        return [name for name in self.stored_as if name not in found]

    def _look_in_folders(self, found: dict[str, Content], tried: list[str]) -> None:
        """Add to `found` what the cache and Debian's folder hold, and to `tried` what they do not.

        A file that is not the published one is told and passed over, not an error: these folders
        are filled by programs, and what they lack can be had elsewhere.
        """
        folders = [self.cache()]
        if self.debian is not None:
            folders.append(self.debian[1])
        for folder in folders:
            absent = []
            for name in self._missing(found):
                try:
                    if not self._read_from(folder, name, found):
                        absent.append(name)
                except (OSError, ValueError) as error:
                    say(f"not used: {error}")
                    tried.append(str(error))
            if absent:
                tried.append(f"the folder {folder}: does not hold {', '.join(absent)}")

    def _fetch(self, found: dict[str, Content], tried: list[str]) -> None:
        """Add to `found` what can be fetched, and keep it in the cache for the next time.

        Where the cache cannot be written, its disk being full for one, a temporary folder serves
        in its place: the data is there all the same, but has to be fetched again the next time.
        """
        cache = self.cache()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            remove_leftovers(cache)
            # Inside the cache: within a file system, a finished file is moved in one step.
            self._fetch_in(cache, cache, found, tried)
        except OSError as error:
            reason = f"the cache {cache} cannot be written: {error}"
            say(f"{reason}; using a temporary folder, from which nothing is kept")
            tried.append(reason)
            try:
                self._fetch_in(Path(tempfile.gettempdir()), None, found, tried)
            except OSError as error:
                tried.append(f"no temporary folder can be written: {error}")

    def _fetch_in(
        self, folder: Path, cache: Path | None, found: dict[str, Content], tried: list[str]
    ) -> None:
        """Fetch in a workshop inside a folder. Raises OSError if that cannot be written.

        What is fetched is moved to the cache, if one is given.
        """
        with tempfile.TemporaryDirectory(
            prefix=UNFINISHED_PREFIX,
            suffix=UNFINISHED_SUFFIX,
            dir=folder,
            ignore_cleanup_errors=True,
        ) as workshop:
            self._from_addresses(Path(workshop), cache, found, tried)
            if self._missing(found):
                self._from_debian_package(Path(workshop), cache, found, tried)

    def _from_addresses(
        self, workshop: Path, cache: Path | None, found: dict[str, Content], tried: list[str]
    ) -> None:
        addresses = list(self.addresses)
        for name in self._missing(found):
            path = workshop / self.stored_as[name][0]
            for address in tuple(addresses):
                try:
                    download(address + path.name, path)
                    found[name] = self.read(path, name)
                    _keep(path, cache)
                    break
                except (FetchError, ValueError) as error:
                    # Not asked for the next file: a dead address costs its time-out each time.
                    addresses.remove(address)
                    reason = f"{address}{path.name}: {str(error).removeprefix(f'{path}: ')}"
                    say(f"not available from {reason}")
                    tried.append(reason)

    def _from_debian_package(
        self, workshop: Path, cache: Path | None, found: dict[str, Content], tried: list[str]
    ) -> None:
        if self.debian is None:
            return
        package, folder = self.debian
        try:
            root = debian_package(package, workshop)
            for name in self._missing(found):
                path = root / folder.relative_to("/") / self.stored_as[name][0]
                found[name] = self.read(path, name)
                _keep(path, cache)
        except (OSError, ValueError) as error:
            tried.append(f"the Debian package {package}: {error}")

    def _read_from(self, folder: Path, name: str, found: dict[str, Content]) -> bool:
        """Add to `found` the file `name` in `folder`; whether there is such a file."""
        for stored in self.stored_as[name]:
            try:
                found[name] = self.read(folder / stored, name)
                return True
            except (FileNotFoundError, NotADirectoryError):
                continue
        return False


def _keep(path: Path, cache: Path | None) -> None:
    """Let a file that has been verified take its place in the cache, if one is given.

    It is not flushed to disk first: should the power fail, what is left of it is found out when it
    is verified the next time, as every file in the cache is.
    """
    if cache is not None:
        try:
            path.replace(cache / path.name)
        except OSError as error:
            say(f"{path.name} is used, but could not be kept in the cache {cache}: {error}")
