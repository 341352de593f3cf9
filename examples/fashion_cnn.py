"""A small convolutional network learns Fashion-MNIST: python examples/fashion_cnn.py.

One convolution, one pooling, two dense layers; Adam, batches of 32, 5 epochs. The tutorial that
this follows printed a validation accuracy of 0.9158. `mpiexec -n 4 python examples/fashion_cnn.py
--distributed` trains the same model in four processes.
"""

from fashion import run

import minidl


def build() -> minidl.Sequential:
    return minidl.Sequential(
        [
            minidl.Conv2D(32, 3, padding="same", activation="relu"),
            minidl.MaxPool(2),
            minidl.Flatten(),
            minidl.Dense(128, activation="relu"),
            minidl.Dense(10),
        ],
        input_shape=(28, 28, 1),
    )


if __name__ == "__main__":
    run("Train a small CNN on Fashion-MNIST.", "fashion_cnn", build)
