"""What each rank of a world does for the tests: a program that mpiexec starts.

python distributed_training.py NAME FOLDER: the function of that name runs on every rank, and what
it returns is left in FOLDER/NAME-RANK.json. Its functions train alone, too, to be compared with.
"""

import copy
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import stand_in
import stand_in_nccl
from small_training import digest

import minidl
from minidl import Callback, DataLoader, Generator
from minidl.layers import Module, Parameter

# Batches that do not divide by two or four, and a last one of fewer samples than four ranks.
SAMPLES, BATCH, EPOCHS = 26, 6, 10
STEPS = -(-SAMPLES // BATCH)


class Net(Module):
    """A small network, one parameter of which is never used."""

    def __init__(self, *layers, units=5):
        self.unused = Parameter(np.full(3, 0.5))
        self.body = minidl.Sequential(
            [
                minidl.Conv2D(3, 3, activation="relu"),
                *layers,
                minidl.Flatten(),
                minidl.Dense(units, activation="tanh"),
                minidl.Dense(4),
            ],
            input_shape=(6, 6, 1),
        )

    def forward(self, x):
        return self.body(x)


class Eyes(Module):
    """A linear model of one number that keeps what it sees in training, and what it makes of it."""

    def __init__(self, *layers):
        self.inner = minidl.Sequential([*layers, minidl.Dense(1)], input_shape=(1,))
        self.layers, self.seen, self.made = layers, [], []

    def forward(self, x):
        if self.training:
            out = x
            for layer in self.layers:
                out = layer(out)
            self.seen.append(x.numpy().ravel().tolist())
            self.made.append(out.numpy().ravel().tolist())
        return self.inner.layers[-1](x)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((SAMPLES, 6, 6, 1)), rng.integers(0, 4, SAMPLES)


def train(*callbacks, seed=0, layers=(), units=5, epochs=EPOCHS, labels=None, **options):
    """Train in float64: sums of several ranks are rounded otherwise than those of one."""
    minidl.seed(seed)
    model = Net(*layers, units=units).astype(np.float64).to(options.pop("device", "cpu"))
    x, y = data()
    schedule = minidl.CosineDecay(0.02, EPOCHS * STEPS)
    trainer = minidl.Trainer(
        model,
        minidl.cross_entropy,
        minidl.AdamW(model.parameters(), lr=schedule, weight_decay=0.1),
        clip_norm=0.5,
        world=minidl.world(),
    )
    trainer.fit(
        x,
        y if labels is None else labels,
        epochs,
        options.pop("batch_size", BATCH),
        validation_data=(x[:7], y[:7]),
        callbacks=callbacks,
        verbose=options.pop("verbose", 0),
        **options,
    )
    return trainer


def outcome(trainer):
    weights = {name: a.ravel().tolist() for name, a in trainer.model.state_dict().items()}
    history = trainer.history
    return {
        "weights": weights,
        "digest": digest(trainer.model),
        "history": history.history,
        "seconds": history.seconds,
        "steps": trainer.optimizer.step_count,
    }


class At(Callback):
    """Does something after so many steps."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_batch_end(self, trainer):
        if trainer.optimizer.step_count == self.step:
            self.act()


def signal_at(step, rank, number=signal.SIGINT):
    """Sends one rank a signal; does nothing on the others."""
    last = rank % minidl.world().size
    return At(step, lambda: minidl.world().rank == last and signal.raise_signal(number))


def stopping_at(rank):
    """Ends training after the second epoch, if this is the rank."""

    def stop(trainer, epoch, _):
        trainer.stop_training = epoch == 2 and minidl.world().rank == rank

    return stop


def nothing():
    return At(0, None)


def learn(folder):
    """Weights and history of the same training, interrupted or not, on any number of ranks."""
    world = minidl.world()
    found = {
        "rank": world.rank,
        "size": world.size,
        "threads": minidl.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        # Rank 0 decides on weights and order.
        "whole": outcome(train(nothing(), seed=world.rank)),
    }
    own = folder / f"from-{world.size}.safetensors"
    for step in (STEPS, 3):  # at the end of an epoch, and inside it
        try:
            train(signal_at(step, rank=1), checkpoint=own)
        except minidl.Interrupted as error:
            found[f"interrupted {step}"] = str(error).partition(";")[0]
    for path in sorted(folder.glob("from-*")):  # those of other worlds, too
        resumed = outcome(train(nothing(), seed=99, resume=path, checkpoint=folder / "next"))
        found[f"resumed {path.name}"] = resumed
    return found


def share(folder):
    """What each rank sees, draws and writes; how the ranks agree."""
    world = minidl.world()
    found = {"rank": world.rank}

    def linear(*layers, loader, epochs=1, **options):
        minidl.seed(5)
        model = Eyes(*layers).astype(np.float64)
        optimizer = minidl.SGD(model.parameters(), lr=0.0)
        trainer = minidl.Trainer(model, minidl.mse, optimizer, world=world)
        trainer.fit(loader, epochs=epochs, verbose=0, **options)
        return trainer

    places = np.arange(1.0, SAMPLES + 1)[:, None]
    loader = DataLoader(places, places, BATCH, shuffle=True, generator=Generator(3))
    trainer = linear(loader=loader, epochs=2, validation_data=loader)
    found["seen"] = trainer.model.seen
    assert copy.deepcopy(trainer).world is world

    # Batch normalisation: one step on all samples.
    norm = minidl.BatchNorm(momentum=0.75)
    linear(norm, loader=DataLoader(places, places, SAMPLES))
    found["running"] = [norm.running_mean.numpy()[0], norm.running_variance.numpy()[0]]

    ones = np.ones((64, 1))
    trainer = linear(minidl.Dropout(0.5), loader=DataLoader(ones, ones, 64))
    found["dropped"] = trainer.model.made
    found["drawn afterwards"] = minidl.backend.default_generator.host.random()

    def noise(x, rng):
        return x + rng.host.random(x.shape)

    trainer = linear(loader=DataLoader(ones, ones, 16, transform=noise))
    found["noise"] = trainer.model.seen

    # Files with a name of their own: it shows who writes.
    train(
        minidl.CSVLogger(folder / f"rank-{world.rank}.csv"),
        minidl.ModelCheckpoint(folder / f"rank-{world.rank}.best"),
        epochs=2,
        checkpoint=folder / f"rank-{world.rank}.checkpoint",
        verbose=2,
    )
    found["files"] = sorted(path.name for path in folder.glob("rank-*"))
    found["epochs"] = len(train(stopping_at(rank=world.size - 1)).history)

    # A model with batch normalisation and dropout is one model all the same.
    trainer = train(layers=[minidl.BatchNorm(), minidl.Dropout(0.3)], epochs=2)
    found["one model"] = digest(trainer.model)
    return found


def differ(_):
    """What `fit` says when one rank, the last, has something else than the others."""
    world = minidl.world()
    last = world.rank == world.size - 1
    other = {
        "model": {"units": 6} if last else {},
        "layer": {"layers": [minidl.BatchNorm()]} if last else {},
        "labels": {"labels": data(1)[1]} if last else {},
        "batch": {"batch_size": 7} if last else {},
        "epochs": {"epochs": 3} if last else {},
    }
    found = {}
    for name, options in other.items():
        try:
            train(**options)
        except ValueError as error:
            found[name] = str(error)
    found["afterwards"] = outcome(train(epochs=1))["digest"]
    return found


def gpus(folder):
    """Training on GPUs, that is on the stand-in: what is learned, exchanged and refused."""
    sys.modules |= {"cupy": stand_in, "cupy.cuda": stand_in.cuda}
    world = minidl.world()
    found = {"rank": world.rank, "visible": os.environ["CUDA_VISIBLE_DEVICES"], "counted": []}

    try:
        train(device="gpu" if world.rank else "cpu")
    except ValueError as error:
        found["two devices"] = str(error)

    def count():
        found["counted"].append({**stand_in.transfers, **stand_in_nccl.calls})

    found["whole"] = outcome(train(At(2, count), At(4, count), seed=world.rank, device="gpu"))
    path = folder / "from-gpus"
    try:
        train(signal_at(3, rank=1), checkpoint=path, device="gpu")
    except minidl.Interrupted as error:
        found["interrupted"] = str(error).partition(";")[0]
    resumed = train(nothing(), seed=99, resume=path, checkpoint=folder / "after", device="gpu")
    found["resumed"] = outcome(resumed)

    # The statistics of batch normalisation are buffers, which are averaged as well.
    for device in ("cpu", "gpu"):
        trained = train(layers=[minidl.BatchNorm()], epochs=2, device=device)
        found[f"normalised on {device}"] = outcome(trained)

    there = minidl.backend.named("gpu")
    for array in (there.asarray(np.zeros(2, np.int32)), there.asarray(np.zeros((2, 2))).T):
        try:
            world.allreduce(array)
        except (TypeError, ValueError) as error:
            found.setdefault("refused", []).append(str(error))
    numbers = there.asarray(np.arange(3, dtype=np.int64) + world.rank)
    world.broadcast(numbers)
    found["numbers"] = numbers.tolist()
    return found


def fail(kind, folder):
    """One rank fails; the others would wait."""
    world = minidl.world()
    failing = world.rank == 1

    def act():
        if failing:
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "exit in fit":
                sys.exit(3)
            elif kind == "error in fit":
                raise OSError("planted in fit")

    if failing and kind == "error outside":
        raise LookupError("planted outside")
    if failing and kind == "exit outside":
        sys.exit(0)
    if kind == "terminated":
        train(signal_at(2, rank=1, number=signal.SIGTERM), checkpoint=folder / "terminated")
    elif kind == "interrupted":
        train(signal_at(2, rank=1), checkpoint=folder / "interrupted")
    elif kind == "refused":
        train(units=5 + world.rank)
    else:
        train(At(2, act))
        time.sleep(0 if failing else 0.2)
    print("went on", flush=True)


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name in ("learn", "share", "differ", "gpus"):
        found = globals()[name](folder)
        path = folder / f"{name}-{minidl.world().rank}.json"
        path.write_text(json.dumps(found))
    else:
        fail(name, folder)
