"""Data: finding, reading and writing it, and handing it on in batches."""

from minidl.data.fashion_mnist import FASHION_MNIST_CLASSES, fashion_mnist
from minidl.data.idx import load_idx, save_idx
from minidl.data.loader import DataLoader
from minidl.data.split import train_validation_split

__all__ = [
    "FASHION_MNIST_CLASSES",
    "DataLoader",
    "fashion_mnist",
    "load_idx",
    "save_idx",
    "train_validation_split",
]
