"""A short training that uses every kernel that shares its work; also a program that prints it.

The program is for processes with settings of their own, such as the number of threads of BLAS.
"""

import hashlib

import numpy as np
from reference import numbers

import minidl
from minidl import Adam, Conv2D, Dense, Dropout, Flatten, Generator, MaxPool, Sequential

STEPS = 10
IMAGE = 28, 28, 1


def small_cnn(seed=0):
    """Convolutions, a pooling, dropout and dense layers, large enough to be cut into pieces."""
    minidl.seed(seed)
    return Sequential(
        [
            Conv2D(8, 3, padding="same", activation="relu"),
            MaxPool(2),
            Conv2D(16, 3, padding="same"),
            MaxPool((3, 2)),
            Conv2D(16, 3, strides=(1, 2), activation="relu"),
            Dropout(0.3, generator=Generator(seed + 1)),
            Flatten(),
            Dense(512, activation="relu"),
            Dense(300, activation="relu"),
            Dense(10),
        ],
        input_shape=IMAGE,
    )


def train(model, steps=STEPS, batch=64):
    """Train with Adam on random pictures."""
    optimizer = Adam(model.parameters(), lr=0.001)
    for step in range(steps):
        x = numbers((batch, *IMAGE), step).astype(np.float32)
        optimizer.zero_grad()
        minidl.cross_entropy(model(x), np.arange(batch) % 10).backward()
        optimizer.step()
    return model


def digest(model):
    """All weights in one line of text: the same for the same bits alone."""
    arrays = model.state_dict().values()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


if __name__ == "__main__":
    print(digest(train(small_cnn())))
