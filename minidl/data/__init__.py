"""Data: finding, reading and writing it, preparing images, and handing all on in batches."""

from minidl.data.fashion_mnist import FASHION_MNIST_CLASSES, fashion_mnist
from minidl.data.idx import load_idx, save_idx
from minidl.data.loader import DataLoader
from minidl.data.split import train_validation_split
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
    "DataLoader",
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
    "train_validation_split",
]
