"""Data: finding, reading and writing it, preparing images, and handing all on in batches."""

from minidl.data.cifar10 import CIFAR10_CLASSES, cifar10
from minidl.data.csv_tables import load_csv, save_csv
from minidl.data.fashion_mnist import FASHION_MNIST_CLASSES, fashion_mnist
from minidl.data.idx import load_idx, save_idx
from minidl.data.loader import DataLoader
from minidl.data.pictures import load_image
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
    "CIFAR10_CLASSES",
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
    "cifar10",
    "fashion_mnist",
    "load_csv",
    "load_idx",
    "load_image",
    "save_csv",
    "save_idx",
    "train_validation_split",
]
