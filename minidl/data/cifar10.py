"""CIFAR-10: 60,000 colour pictures of animals and vehicles in ten classes, found or fetched.

The data set is Krizhevsky's ("Learning multiple layers of features from tiny images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html). It is published as archives of six batches, in a
binary format and as Python pickles; either will do. An archive is compared with its SHA-256 before
anything is made of it, nothing is unpacked to disk, and no pickle is run: see `pickles`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from minidl.data.dataset_files import DatasetFiles, cache_folder
from minidl.data.files import open_file
from minidl.data.pickles import bytes_array, read_pickle

if TYPE_CHECKING:
    import tarfile

Bytes = npt.NDArray[np.uint8]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

# SHA-256 of the archives. The first is pinned by TensorFlow Datasets (url_checksums/cifar10.txt),
# the torchvision of Ruby and GoMLX, the second by Keras (keras.datasets.cifar10); others who pin
# either agree. The authors' page has MD5 alone.
SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
}

ADDRESSES = ("https://www.cs.toronto.edu/~kriz/",)

IMAGE_BYTES = 32 * 32 * 3
# A batch has 10,000 pictures in 31 MB, and an archive six of them.
LARGEST_BATCH = 2**25
LARGEST_ARCHIVE = 2**28

Batch = tuple[Bytes, Bytes]


def cifar10(data_dir: str | os.PathLike[str] | None = None) -> tuple[Batch, Batch]:
    """CIFAR-10: 50,000 images to train on and 10,000 to test, in ten classes.

    Args:
        data_dir: the folder that holds `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`; the
            one that the environment variable MINIDL_DATA names, if None. Such a folder has the last
            word: nothing is fetched in place of what it lacks, and nothing in it is changed. With
            neither, an archive is looked for in the cache, and the binary one is fetched into it
            from the authors' address (170 MB).

    Returns:
        ((x_train, y_train), (x_test, y_test)), all uint8. Images are (50000, 32, 32, 3) and
        (10000, 32, 32, 3), red, green and blue from 0 to 255; labels are (50000,) and (10000,),
        indices into `CIFAR10_CLASSES`.

    Raises:
        FileNotFoundError: saying what is missing, what was tried and what to do.
        ValueError: for an archive in a named folder that is not the published one.
    """
    either = " or ".join(SHA256)
    files = DatasetFiles(
        title="CIFAR-10",
        stored_as={either: tuple(SHA256)},
        note="",
        read=_read_verified,
        cache=_cache_folder,
        addresses=ADDRESSES,
    )
    return files.find(data_dir)[either]


def parse_binary_batch(data: bytes, source: str) -> Batch:
    """The images (N, 32, 32, 3) and labels (N,) of a batch in binary; `source` names it in errors.

    The format is a byte for the label, then 1024 for red, green and blue each, and so on.

    Raises ValueError if the bytes are not a whole number of labelled pictures.
    """
    if not data or len(data) % (1 + IMAGE_BYTES):
        raise ValueError(
            f"{source}: expected {1 + IMAGE_BYTES} bytes for each picture, got {len(data)} in all"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    return _batch(records[:, 1:], records[:, 0], source)


def parse_python_batch(data: bytes, source: str) -> Batch:
    """The images (N, 32, 32, 3) and labels (N,) of a pickled batch; `source` names it in errors.

    It is a dict with an array `data`, (N, 3072) with 1024 bytes for red, green and blue each, and a
    list `labels` of N whole numbers. The pickle is read, not run: see `pickles`.

    Raises ValueError if it is anything else.
    """
    batch = read_pickle(data, source)
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        raise ValueError(f"{source}: expected a dict with the keys data and labels")
    pixels, labels = bytes_array(batch["data"], f"{source}: data"), batch["labels"]
    if pixels.ndim != 2 or len(pixels) == 0 or pixels.shape[1] != IMAGE_BYTES:
        raise ValueError(
            f"{source}: data: expected an array (N, {IMAGE_BYTES}), got {pixels.shape}"
        )
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ValueError(f"{source}: labels: expected a list, one for each of {len(pixels)} images")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise ValueError(f"{source}: labels: expected whole numbers from 0 to 9, got others")
    return _batch(pixels, np.array(labels, np.uint8), source)


def _batch(pixels: Bytes, labels: Bytes, source: str) -> Batch:
    """Images and labels of their own, from one plane for each colour to channels-last."""
    if labels.max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"{source}: expected labels from 0 to 9, got {labels.max()}")
    planes = pixels.reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.copy()


class _Format(NamedTuple):
    """What the batches of an archive are called in it, and how one is parsed."""

    training: tuple[str, ...]
    test: str
    parse: Callable[[bytes, str], Batch]


_FORMATS = {
    "cifar-10-binary.tar.gz": _Format(
        tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        "cifar-10-batches-bin/test_batch.bin",
        parse_binary_batch,
    ),
    "cifar-10-python.tar.gz": _Format(
        tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        "cifar-10-batches-py/test_batch",
        parse_python_batch,
    ),
}


def _cache_folder() -> Path:
    return cache_folder("cifar-10")


def _read_verified(path: Path, _: str) -> tuple[Batch, Batch]:
    """The data set from one archive, which is compared with its SHA-256 first."""
    with open_file(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > LARGEST_ARCHIVE:
            raise ValueError(
                f"{path}: this is not the published {path.name}: expected at most "
                f"{LARGEST_ARCHIVE} bytes, got {size}; put the published file in its place"
            )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256[path.name]:
            raise ValueError(
                f"{path}: this is not the published {path.name}: expected SHA-256 "
                f"{SHA256[path.name]}, got {digest}; put the published file in its place"
            )
        file.seek(0)
        return _read_archive(file, path)


def _read_archive(file: io.BufferedIOBase, path: Path) -> tuple[Batch, Batch]:
    # Imported here, as it takes longer to import than the rest of this file.
    import tarfile

    format = _FORMATS[path.name]
    names = (*format.training, format.test)
    batches: dict[str, Batch] = {}
    try:
        with (
            _Unpacked(fileobj=file) as unpacked,
            # As a stream, from front to back: each byte is unpacked once.
            tarfile.open(fileobj=unpacked, mode="r|") as archive,
        ):
            for member in archive:
                if member.name in names:
                    batches[member.name] = format.parse(_content(archive, member), member.name)
                # Where the next one should begin. tarfile goes on reading up to there, even after
                # the end of the file.
                _check_unpacked(archive.offset)
        missing = [name for name in names if name not in batches]
        if missing:
            raise ValueError(f"expected {', '.join(missing)} in it, but there is none")
    except (
        ValueError,
        EOFError,
        OverflowError,  # from a tar header's size that no file can have
        gzip.BadGzipFile,
        tarfile.TarError,
        zlib.error,
    ) as error:
        raise ValueError(f"{path}: {error}") from error
    images, labels = zip(*(batches[name] for name in format.training), strict=True)
    return (np.concatenate(images), np.concatenate(labels)), batches[format.test]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member, if it is a plain file of a size that a batch may have."""
    # Nothing but a plain file is looked into: a link would be followed.
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        raise ValueError(f"{member.name}: expected a plain file, got a link or a folder")
    if member.size > LARGEST_BATCH:
        raise ValueError(
            f"{member.name}: expected at most {LARGEST_BATCH} bytes, got {member.size}"
        )
    return file.read()


def _check_unpacked(length: int) -> None:
    if length > LARGEST_ARCHIVE:
        raise ValueError(f"expected at most {LARGEST_ARCHIVE} bytes when unpacked, got more")


class _Unpacked(gzip.GzipFile):
    """What a gzip file holds, up to a limit: a small file can unpack to any length."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        _check_unpacked(self.tell())
        return data
