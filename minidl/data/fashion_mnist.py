"""Fashion-MNIST: 70,000 pictures of clothing in ten classes, found or fetched, and verified.

The data set is Zalando Research's (Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747,
https://github.com/zalandoresearch/fashion-mnist). It has MNIST's four file names and shapes, so one
is easily taken for the other. Whatever a file's origin, its decompressed bytes are therefore
compared with the SHA-256 of the published ones before anything is made of them, and MNIST is
refused by name.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minidl.data.dataset_files import DatasetFiles, cache_folder
from minidl.data.idx import parse_idx, read_idx_bytes

Bytes = npt.NDArray[np.uint8]

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# SHA-256 of the decompressed files: a gzip file's own bytes depend on who packed it.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

# Plain MNIST: training images and labels, test images and labels.
MNIST_SHA256 = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

# Zalando's repository, the copy that Keras uses, and Zalando's first address (HTTP only, which
# the checksums make safe).
ADDRESSES = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """Fashion-MNIST: 60,000 images to train on and 10,000 to test, in ten classes.

    Args:
        data_dir: the folder that holds the four files (`train-images-idx3-ubyte` and so on, each
            with or without `.gz`); the one that the environment variable MINIDL_DATA names, if
            None. Such a folder has the last word: nothing is fetched in place of what it lacks,
            and nothing in it is changed. With neither, the files are looked for in the cache and
            where Debian's package dataset-fashion-mnist puts them, then fetched into the cache
            from the data set's public addresses, or else out of that package where apt-get exists.

    Returns:
        ((x_train, y_train), (x_test, y_test)), all uint8. Images are (60000, 28, 28) and
        (10000, 28, 28), 0 for the background to 255; labels are (60000,) and (10000,), indices into
        `FASHION_MNIST_CLASSES`.

    Raises:
        FileNotFoundError: saying which files are missing, what was tried and what to do.
        ValueError: for a file in a named folder that is not the published one: damaged, or MNIST.
    """
    files = DatasetFiles(
        title="Fashion-MNIST",
        stored_as={name: (f"{name}.gz", name) for name in SHA256},
        note=" (each with or without .gz)",
        read=_read_verified,
        cache=_cache_folder,
        addresses=ADDRESSES,
        debian=(DEBIAN_PACKAGE, DEBIAN_FOLDER),
    )
    arrays = files.find(data_dir)
    x_train, y_train, x_test, y_test = (arrays[name] for name in SHA256)
    return (x_train, y_train), (x_test, y_test)


def _cache_folder() -> Path:
    return cache_folder("fashion-mnist")


def _read_verified(path: Path, name: str) -> Bytes:
    """The array of one file, read once: decompressed, compared with its SHA-256, then parsed."""
    data = read_idx_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest in MNIST_SHA256:
        raise ValueError(
            f"{path}: this is MNIST (handwritten digits), not Fashion-MNIST; "
            "the two have the same file names: put the file of Fashion-MNIST in its place"
        )
    if digest != SHA256[name]:
        raise ValueError(
            f"{path}: this is not Fashion-MNIST's {name}: expected decompressed bytes with SHA-256 "
            f"{SHA256[name]}, got {digest}; put the published file in its place"
        )
    return parse_idx(data, path)
