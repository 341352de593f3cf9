"""A multilayer perceptron learns Fashion-MNIST: python examples/fashion_mlp.py.

One hidden layer; Adam, batches of 32, 5 epochs. The tutorial that this follows printed a test
accuracy of 0.8749.
"""

from fashion import run

import minidl


def build() -> minidl.Sequential:
    return minidl.Sequential(
        [
            minidl.Flatten(),
            minidl.Dense(128, activation="relu"),
            minidl.Dense(10),
        ],
        input_shape=(28, 28, 1),
    )


if __name__ == "__main__":
    run("Train a multilayer perceptron on Fashion-MNIST.", "fashion_mlp", build)
