"""What a training does together with those of other ranks, so that they train one model.

Each rank computes the gradients of its share of a batch. One exchange a step makes means over the
whole batch of them, and every rank takes the same step.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from signal import SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import backend
from minidl.backend import Array, Generator
from minidl.data.loader import DataLoader
from minidl.distributed import RanksDifferError
from minidl.layers import Buffer
from minidl.tensor import Tensor
from minidl.training.interruption import interruptible
from minidl.training.weights import tensors_of

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

# What ends a training before its time; a rank tells the others that it has come.
SIGNALS = (SIGINT, SIGTERM)


class Single:
    """One process that trains alone, and has nothing to exchange.

    Args:
        interruption: notes a signal.
    """

    def __init__(self, interruption: interruptible) -> None:
        self._interruption = interruption

    @property
    def signal(self) -> Signals | None:
        """The signal that is to end training."""
        return self._interruption.signal

    @contextmanager
    def together(
        self, settings: Mapping[str, Any], labels: Array | None, generators: Sequence[Generator]
    ) -> Iterator[None]:
        """A block that trains.

        Args:
            settings: what must be the same on all ranks, numbers and strings by name.
            labels: of the training data, which must be the same.
            generators: that training draws from.
        """
        yield

    def average(self, samples: int, buffers: Sequence[Buffer], before: Sequence[Array]) -> None:
        """Make one step's gradients, and what it did to buffers, those of the whole batch.

        Args:
            samples: how many of the batch are this rank's.
            buffers: of the model.
            before: what they were before the step.
        """

    def serves(self, trainer: Trainer) -> bool:
        """Whether what the trainer trains is still what this was made for."""
        return trainer.world.size == 1

    def agree(self, stop: bool) -> bool:
        """Whether one of the ranks wants training to end after this epoch."""
        return stop

    def of_first(self, value: float) -> float:
        """What this number is on rank 0."""
        return value


class DataParallel(Single):
    """One of several ranks.

    What they exchange in a step is one array: the gradients and the changes of floating buffers,
    each times the number of samples that it is the mean of; for each parameter whether it has a
    gradient; the number of samples; and whether a signal has come. Its sum over the ranks says all.
    On a GPU these counts are an array of their own on the host, where they are needed: the hosts
    exchange it while the GPUs are at theirs, and none waits for its GPU.

    Args:
        trainer: of the training.
        interruption: notes a signal that comes to this rank.

    Raises:
        DeviceError: if the model is on several devices.
    """

    def __init__(self, trainer: Trainer, interruption: interruptible) -> None:
        super().__init__(interruption)
        self._world = trainer.world
        self._model = trainer.model
        self._params = trainer.optimizer.params
        self._agreed: Signals | None = None
        self._tensors = exchanged(trainer)
        self._layout = layout(self._tensors)
        self._backend = backend.shared_by(*(t.data for t in self._tensors))
        ends = [0, *accumulate(t.size for t in self._tensors)]
        dtype = max((t.dtype for t in self._tensors), key=lambda dtype: dtype.itemsize)
        numbers, count = ends[-1], len(self._params)
        counts = count + 1 + len(SIGNALS)
        if self._backend is backend.CPU:
            flat = np.empty(numbers + counts, dtype)
            self._means, self._counts = flat[:numbers], flat[numbers:]
            self._exchanged = [flat]
        else:
            self._means = self._backend.xp.empty(numbers, dtype)
            self._counts = np.empty(counts)
            self._exchanged = [self._means, self._counts]
        self._parts = [
            self._means[start:stop].reshape(t.shape)
            for t, (start, stop) in zip(self._tensors, pairwise(ends), strict=True)
        ]
        self._has_gradient = self._counts[:count]
        self._samples = self._counts[count : count + 1]
        self._signals = self._counts[count + 1 :]

    def serves(self, trainer: Trainer) -> bool:
        """Whether what the trainer trains is still what this was made for."""
        return trainer.world is self._world and layout(exchanged(trainer)) == self._layout

    @property
    def signal(self) -> Signals | None:
        """The signal that has come to one of the ranks, as all know since the last exchange."""
        return self._agreed

    @contextmanager
    def together(
        self, settings: Mapping[str, Any], labels: Array | None, generators: Sequence[Generator]
    ) -> Iterator[None]:
        """A block that trains. It begins with the weights of rank 0 on all ranks.

        Generators are brought to where those of rank 0 stand, and there again in the end. Meanwhile
        those of the other ranks go ways of their own, so that no two ranks draw the same numbers.

        Raises:
            RanksDifferError: on every rank, naming the first difference.
        """
        with self._world.together():
            self._compare(self._described(settings, labels, len(generators)))
            for _, t in tensors_of(self._model):
                values = t.data.copy()  # which is contiguous
                self._world.broadcast(values)
                t.data[...] = values
            self._take_from_first(generators)
            if self._world.rank:
                for generator in generators:
                    generator.seed(int(generator.host.integers(1 << 62)) + self._world.rank)
            yield
            self._take_from_first(generators)
            self._world.barrier()  # what rank 0 has written is complete, for all to read

    def _described(
        self, settings: Mapping[str, Any], labels: Array | None, generators: int
    ) -> dict[str, Any]:
        """All that must be the same on every rank."""
        tensors = {
            name: f"{type(t).__name__} {t.dtype} {t.shape}" for name, t in tensors_of(self._model)
        }
        check = 0 if labels is None else zlib.crc32(backend.on_host(labels).tobytes())
        numbers = {"checksum of the labels": check, "number of generators": generators}
        return {"device": self._backend.device, **tensors, **settings, **numbers}

    def _compare(self, own: Mapping[str, Any]) -> None:
        """Raise RanksDifferError, naming the first difference, unless all ranks say the same."""
        first, *others = map(json.loads, self._world.allgather(json.dumps(own)))
        for rank, other in enumerate(others, 1):
            for name in [*first, *other]:
                here, there = first.get(name, "missing"), other.get(name, "missing")
                if here != there:
                    raise RanksDifferError(
                        "all ranks must train the same model on the same data in the same way; "
                        f"{name!r} is {here} on rank 0, and {there} on rank {rank}"
                    )

    def _take_from_first(self, generators: Sequence[Generator]) -> None:
        states = json.dumps([generator.state_dict() for generator in generators])
        first = json.loads(self._world.allgather(states)[0])
        if self._world.rank:  # rank 0 stands there, on a GPU too, of which a state does not speak
            for generator, state in zip(generators, first, strict=True):
                generator.load_state_dict(state)

    def average(self, samples: int, buffers: Sequence[Buffer], before: Sequence[Array]) -> None:
        """Make one step's gradients, and what it did to buffers, those of the whole batch."""
        changed = [(b, old) for b, old in zip(buffers, before, strict=True) if b.dtype.kind == "f"]
        gradients = [param.grad for param in self._params]
        # Of buffers the change: one that does not change stays what it is to the last bit.
        own = [*gradients, *(buffer.data - old for buffer, old in changed)]
        for part, values in zip(self._parts, own, strict=True):
            if values is None:
                part[...] = 0
            else:
                self._backend.xp.multiply(values, samples, out=part)
        self._has_gradient[...] = [gradient is not None for gradient in gradients]
        self._samples[...] = samples
        self._signals[...] = self._own_signals()
        for array in self._exchanged:
            self._world.allreduce(array)
        self._means /= float(self._samples[0])
        self._agreed = self._found(self._signals)
        count = len(self._params)
        for param, part, has in zip(
            self._params, self._parts[:count], self._has_gradient, strict=True
        ):
            param.grad = part.astype(param.dtype, copy=False) if has else None
        for (buffer, old), part in zip(changed, self._parts[count:], strict=True):
            buffer.data[...] = old + part

    def agree(self, stop: bool) -> bool:
        """Whether one of the ranks wants training to end; they agree on signals, too."""
        flags = np.array([stop, *self._own_signals()], np.int64)
        self._world.allreduce(flags)
        self._agreed = self._found(flags[1:])
        return bool(flags[0])

    def of_first(self, value: float) -> float:
        """What this number is on rank 0."""
        values = np.array([value])
        self._world.broadcast(values)
        return float(values[0])

    def _own_signals(self) -> list[bool]:
        return [self._interruption.signal is number for number in SIGNALS]

    def _found(self, counts: Array) -> Signals | None:
        """The first signal that some rank has counted."""
        return next((number for number, n in zip(SIGNALS, counts, strict=True) if n), None)


def parallel(trainer: Trainer, interruption: interruptible) -> Single:
    """What trains in the world of a trainer. Raises DeviceError as `DataParallel`."""
    if trainer.world.size == 1:
        return Single(interruption)
    return DataParallel(trainer, interruption)


def exchanged(trainer: Trainer) -> list[Tensor]:
    """What ranks exchange gradients and changes of: parameters, then floating buffers."""
    buffers = [b for _, b in trainer.model.named_buffers() if b.dtype.kind == "f"]
    return [*trainer.optimizer.params, *buffers]


def layout(tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """What an array that holds something of each of these tensors depends on."""
    return [(id(t), t.device, t.dtype, t.shape) for t in tensors]


def settings_of(trainer: Trainer, loader: DataLoader, **others: Any) -> dict[str, Any]:
    """What a training was told, and must be told alike on all ranks."""
    optimizer = trainer.optimizer
    return {
        "optimizer": type(optimizer).__name__,
        "learning rate": optimizer.current_lr,
        "steps taken": optimizer.step_count,
        "clip_norm": trainer.clip_norm,
        "metrics": list(trainer.metrics),
        **loader.settings(),
        **others,
    }
