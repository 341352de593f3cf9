"""Data: reading and writing files, finding genuine data sets, and transforms of images."""

from minidl.data.fashion_mnist import FASHION_MNIST_CLASSES, fashion_mnist
from minidl.data.idx import load_idx, save_idx
from minidl.data.transforms import (
    Compose,
    Cutout,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    Rescale,
    Resize,
    Rotation,
    Shift,
    Transform,
)

__all__ = [
    "FASHION_MNIST_CLASSES",
    "Compose",
    "Cutout",
    "HorizontalFlip",
    "Normalize",
    "RandomCrop",
    "Rescale",
    "Resize",
    "Rotation",
    "Shift",
    "Transform",
    "fashion_mnist",
    "load_idx",
    "save_idx",
]
