"""A small data set to fetch, and a program that fetches it from an address into a cache."""

import hashlib
import sys
from pathlib import Path

import numpy as np

from minidl.data import fetch as downloads
from minidl.data.dataset_files import DatasetFiles

CONTENT = {
    name: np.random.default_rng(seed).bytes(300_000 + seed)
    for seed, name in enumerate(["images", "labels", "more"])
}


def verified(path, name):
    data = path.read_bytes()
    if data != CONTENT[name]:
        raise ValueError(f"{path}: this is not the published file")
    return data


def fetch(cache, *addresses):
    """The files of the data set, as bytes by name."""
    files = DatasetFiles(
        title="a small data set",
        stored_as={name: (name,) for name in CONTENT},
        note="",
        read=verified,
        cache=lambda: cache,
        addresses=addresses,
    )
    return files.find(None)


if __name__ == "__main__":
    downloads.TIMEOUT_S = 60.0  # a test may keep its server waiting for another process
    found = fetch(Path(sys.argv[1]), *sys.argv[2:])
    for name in CONTENT:
        print(hashlib.sha256(found[name]).hexdigest())
