"""What each process of `distributed.py` does: it trains, alone or as one of several ranks.

[mpiexec -n 2] python benchmarks/distributed_process.py MODEL STEPS

Rank 0 prints what was measured, in JSON.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from typing import NoReturn

import minidl_models
import numpy as np
from models import MODELS

import minidl

WARM_UP = 3  # steps
EXCHANGES = 20


class Timed(minidl.World):
    """A world that counts the bytes of its exchanges, and the seconds that it spends in them."""

    def __init__(self, world: minidl.World) -> None:
        self.rank, self.size = world.rank, world.size
        self._world = world
        self.forget()

    def forget(self) -> None:
        """Count from zero again."""
        self.seconds, self.most_bytes = 0.0, 0

    def allreduce(self, array: np.ndarray) -> None:
        """See `minidl.World`."""
        started = time.perf_counter()
        self._world.allreduce(array)
        self.seconds += time.perf_counter() - started
        self.most_bytes = max(self.most_bytes, array.nbytes)

    def broadcast(self, array: np.ndarray) -> None:
        """See `minidl.World`."""
        self._world.broadcast(array)

    def barrier(self) -> None:
        """See `minidl.World`."""
        self._world.barrier()

    def abort(self, message: str) -> NoReturn:
        """See `minidl.World`."""
        self._world.abort(message)

    def together(self) -> AbstractContextManager[None]:
        """See `minidl.World`."""
        return self._world.together()


class Steps(minidl.Callback):
    """Begins to count once training is under way."""

    def __init__(self, world: Timed) -> None:
        self.world = world

    def on_batch_end(self, trainer: minidl.Trainer) -> None:
        """A step has been taken."""
        self.ended = time.perf_counter()
        if trainer.optimizer.step_count == WARM_UP:
            self.world.forget()
            self.began = self.ended
        self.in_exchanges = self.world.seconds


def exchange_alone(world: minidl.World, size: int) -> float:
    """Seconds that an exchange of so many bytes takes when nobody has to be waited for."""
    array = np.zeros(size // 4, np.float32)
    world.allreduce(array)
    started = time.perf_counter()
    for _ in range(EXCHANGES):
        world.allreduce(array)
    return (time.perf_counter() - started) / EXCHANGES


def main() -> None:
    digit, count = sys.argv[1], int(sys.argv[2])
    model = next(model for name, model in MODELS.items() if name[0] == digit)
    world = Timed(minidl.world())
    built = minidl_models.build(model)
    optimizer = minidl_models.make_optimizer(model, built)
    trainer = minidl.Trainer(built, minidl.cross_entropy, optimizer, metrics={}, world=world)
    steps = Steps(world)
    data = model.data((WARM_UP + count) * model.batch_size)
    trainer.fit(*data, batch_size=model.batch_size, callbacks=[steps], verbose=0)
    seconds = (steps.ended - steps.began) / count
    message = world.most_bytes
    alone = exchange_alone(world, message)
    if world.rank == 0:
        found = {
            "samples a second": model.batch_size / seconds,
            "seconds a step": seconds,
            "share of exchange": steps.in_exchanges / count / seconds,
            "seconds of an exchange alone": alone,
            "bytes a step": message,
            "bytes of parameters": sum(p.data.nbytes for p in built.parameters()),
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
