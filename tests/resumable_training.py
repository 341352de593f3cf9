"""A training with everything that a checkpoint has to hold; also a program that can be interrupted.

The program is for processes that get signals: it says each step, and prints at the end what it has
learned in one line.
"""

import argparse
import sys
import time

import numpy as np
from small_training import digest

import minidl

EPOCHS, SAMPLES, BATCH = 4, 40, 8
STEPS = SAMPLES // BATCH


class Pace(minidl.Callback):
    """Says each step, and takes its time."""

    def on_batch_end(self, trainer):
        print("step", flush=True)
        time.sleep(0.01)


def train(seed, *callbacks, epochs=EPOCHS, adam=True, **options):
    """Train a model that starts from some seed; the trainer, and what it has learned."""
    minidl.seed(seed)
    rng = np.random.default_rng(0)
    x, y = rng.random((SAMPLES, 6, 6, 1), dtype=np.float32), rng.integers(0, 3, SAMPLES)
    model = minidl.Sequential(
        [
            minidl.Conv2D(4, 3, activation="relu"),
            minidl.BatchNorm(),
            minidl.Dropout(0.3),
            minidl.Flatten(),
            minidl.Dense(8),
            minidl.Dropout(0.3, generator=minidl.Generator(seed + 1)),
            minidl.Dense(3),
        ],
        input_shape=(6, 6, 1),
    )
    optimizer = (
        minidl.Adam(model.parameters(), lr=minidl.CosineDecay(0.01, EPOCHS * STEPS))
        if adam
        else minidl.SGD(model.parameters(), lr=0.1, momentum=0.9)
    )
    trainer = minidl.Trainer(model, minidl.cross_entropy, optimizer)
    trainer.fit(
        x,
        y,
        epochs,
        BATCH,
        validation_data=(x[:10], y[:10]),
        transform=minidl.Compose([minidl.HorizontalFlip(), minidl.Shift(1)]),
        callbacks=callbacks,
        verbose=0,
        **options,
    )
    return trainer


def outcome(trainer):
    """All that was learned and recorded, but for seconds."""
    return digest(trainer.model), trainer.history.history


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    try:
        done = train(
            0,
            Pace(),
            checkpoint=args.checkpoint,
            resume=args.checkpoint if args.resume else None,
        )
    except minidl.Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(130)
    print(outcome(done))
