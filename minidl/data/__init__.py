"""Data: reading and writing files, and finding data sets and making sure they are genuine."""

from .fashion_mnist import FASHION_MNIST_CLASSES, fashion_mnist
from .idx import load_idx, save_idx

__all__ = ["FASHION_MNIST_CLASSES", "fashion_mnist", "load_idx", "save_idx"]
