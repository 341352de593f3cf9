"""Data: reading and writing files, and finding data sets and making sure they are genuine."""

from minidl.data.cifar10 import CIFAR10_CLASSES, cifar10
from minidl.data.csv_tables import load_csv, save_csv
from minidl.data.fashion_mnist import FASHION_MNIST_CLASSES, fashion_mnist
from minidl.data.idx import load_idx, save_idx
from minidl.data.pictures import load_image

__all__ = [
    "CIFAR10_CLASSES",
    "FASHION_MNIST_CLASSES",
    "cifar10",
    "fashion_mnist",
    "load_csv",
    "load_idx",
    "load_image",
    "save_csv",
    "save_idx",
]
