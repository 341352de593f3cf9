"""A data set in batches: in order or shuffled, transformed, and the next one made ready meanwhile.

All that is random about a pass over the data is drawn when it begins, so that it does not matter
which thread makes a batch, or when: one seed gives one sequence of batches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np

from minidl import backend
from minidl.backend import Array, Generator, default_generator
from minidl.distributed import Alone, World
from minidl.kernels.threads import Ahead
from minidl.layers.module import positive
from minidl.tensor import Tensor

# What makes other inputs of a batch of inputs, with random numbers of a generator.
Transformation: TypeAlias = Callable[[Array, Generator], Array]

# Small batches of shuffled samples are gathered several at once, up to so many bytes and batches:
# to ask a helper for each of them costs more than it gains.
GATHERED = 1 << 21
MOST_AT_ONCE = 64


class DataLoader:
    """Goes through a data set batch by batch: `for x, y in loader`.

    Args:
        x: inputs, an array or a tensor (N, ...).
        y: labels (N, ...); None for inputs alone, which batches then consist of.
        batch_size: samples a batch.
        shuffle: whether each pass takes the samples in another order.
        drop_last: whether a last batch of fewer samples is left out.
        transform: what is done to the inputs of each batch, such as `HorizontalFlip()`. A function
            of your own is called with an array and a generator of the batch's own. It may be called
            by several threads at once, and must return a new array that nobody changes any more.
        generator: where orders and transforms come from; if None, the one that `seed` seeds.

    Batches are tensors where the data are, and may share their memory. The next ones are made ready
    in the background while the loop works on the last; small ones together, in arrays of up to 2
    MiB that live as long as one of their batches.

    Raises:
        ValueError: if there is no sample or no batch, or x and y differ in number.
        TypeError: if x or y is no array, transform is nothing that can be called, or generator is
            no `Generator` of minidl's.
    """

    def __init__(
        self,
        x: Array | Tensor,
        y: Array | Tensor | None = None,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Transformation | None = None,
        generator: Generator | None = None,
    ) -> None:
        if generator is not None and not isinstance(generator, Generator):
            raise TypeError(f"generator must be a minidl.Generator(seed), got {generator!r}")
        self.x = _array(x, "inputs")
        self.y = None if y is None else _array(y, "labels")
        if self.y is not None and len(self.y) != len(self.x):
            raise ValueError(
                "expected as many labels as inputs, "
                f"got {len(self.x)} inputs and {len(self.y)} labels"
            )
        self.batch_size = positive(batch_size, "batch_size")
        if drop_last and self.batch_size > len(self.x):
            raise ValueError(
                f"drop_last leaves no batch of {batch_size} among {len(self.x)} samples"
            )
        if transform is not None and (isinstance(transform, type) or not callable(transform)):
            raise TypeError(
                f"transform must be a transform such as HorizontalFlip() or a function, got "
                f"{transform!r}; Compose([...]) makes one of several"
            )
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.transform = transform
        self.generator = default_generator if generator is None else generator

    def __len__(self) -> int:
        """The number of batches."""
        samples = len(self.x)
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def settings(self) -> dict[str, Any]:
        """How the data are gone through, which must not change when a training goes on."""
        return {
            "samples": len(self.x),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def __iter__(self) -> Iterator[Any]:
        """The batches of one pass: pairs of tensors, or tensors where there are no labels."""
        one_pass = self.one_pass()
        for batch in one_pass:
            one_pass.prepare()
            yield batch if len(batch) > 1 else batch[0]

    def one_pass(
        self,
        like: Array | None = None,
        state: Mapping[str, Any] | None = None,
        world: World | None = None,
    ) -> Pass:
        """The next pass over the data, with all that is random about it drawn.

        Args:
            like: an array of the device to bring batches to, and of the dtype to bring inputs to
                once they are transformed.
            state: of a pass that was left, to go on with it instead, see `Pass.state_dict`.
            world: whose ranks share each batch; without a state, all of them begin this pass. None
                for all of each batch.

        Raises:
            ValueError: if the state is that of a pass over other data.
        """
        return Pass(self, like, state, Alone() if world is None else world)

    def on_device_of(self, like: Array) -> DataLoader:
        """The same over copies of the data on the device of an array, if they fit there.

        They do if they take no more than half of the memory that is free. Otherwise, and where
        there is nothing to copy, the loader itself; each batch is then copied when it is its turn.
        """
        there = backend.of(like)
        arrays = [self.x] if self.y is None else [self.x, self.y]
        away = [array for array in arrays if backend.of(array) is not there]
        size = sum(array.nbytes for array in away)
        if there is backend.CPU or not away or size > there.free_memory() / 2:
            return self
        moved = copy.copy(self)
        moved.x = there.asarray(self.x)
        moved.y = None if self.y is None else there.asarray(self.y)
        return moved


class Pass:
    """The batches of one pass over a data set, by number or in turn.

    Any thread may ask for any batch at any time: a batch depends on its number alone.

    In a world of several ranks a batch is this rank's share of it. Shares lie side by side, and
    differ by one sample at most; a last batch of fewer samples than ranks leaves the last of them
    with empty ones. All ranks go through the order that rank 0 has drawn. A transform draws other
    numbers for each share, so that what a sample becomes depends on the number of ranks.
    """

    def __init__(
        self,
        loader: DataLoader,
        like: Array | None,
        state: Mapping[str, Any] | None,
        world: World,
    ) -> None:
        self._loader = loader
        self._like = like
        self._world = world
        if state is None:
            rng = loader.generator.host
            self._order = rng.permutation(len(loader.x)) if loader.shuffle else None
            seed = np.array([rng.integers(1 << 62) if loader.transform else 0], np.int64)
            for drawn in (seed, self._order):
                if drawn is not None:
                    world.broadcast(drawn)
            self._seed = int(seed[0])
            self._first = 0
        else:
            self._order, self._seed, self._first = state["order"], state["seed"], state["next"]
            samples = np.arange(len(loader.x))
            if loader.shuffle != (self._order is not None) or not (
                self._order is None or np.array_equal(np.sort(self._order), samples)
            ):
                raise ValueError(f"that pass was not over {len(samples)} samples in such an order")
        # Where the inputs are: the order goes there once, instead of a part of it for each batch.
        there = backend.of(loader.x)
        self._places = None if self._order is None else there.asarray(self._order)
        here = backend.of(loader.x if like is None else like)
        costs = loader.shuffle or loader.transform is not None  # time to make a batch
        self._may_prepare = costs and here is backend.CPU
        self._at_once = self._most_at_once() if self._may_prepare else 1  # batches
        self._number = self._first - 1  # of the batch that the loop is at
        self._following = self._first  # what is to be made ready next
        self._ahead: Ahead[list[tuple[Tensor, ...]]] | None = None

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._loader)

    def samples(self, number: int) -> Array:
        """The places of a batch's samples in the data set."""
        places = np.arange(len(self._loader.x)) if self._order is None else self._order
        return places[self._extent(number)]

    def size(self, number: int) -> int:
        """The number of samples of a batch."""
        extent = self._extent(number)
        return extent.stop - extent.start

    def inputs(self, number: int) -> Tensor:
        """The inputs of a batch."""
        array = self._cut(self._loader.x, number)
        if (transform := self._loader.transform) and len(array):
            stream = number * self._world.size + self._world.rank
            count = len(array)
            array = transform(array, Generator(self._seed + stream))
            if len(array) != count:
                raise ValueError(f"a transform made {len(array)} samples of {count}")
        if self._like is not None:
            array = array.astype(self._like.dtype, copy=False)
        return Tensor(array)

    def labels(self, number: int) -> Tensor:
        """The labels of a batch. Raises ValueError if there are none."""
        if self._loader.y is None:
            raise ValueError("expected labels, got a DataLoader of inputs alone")
        return Tensor(self._cut(self._loader.y, number))

    def _cut(self, array: Array, number: int) -> Array:
        batch = self._extent(number)
        if self._places is None:
            # A copy if a transform will see it, which might write to it.
            some = array[batch].copy() if self._loader.transform else array[batch]
        else:
            some = array.take(backend.of(array).asarray(self._places[batch]), 0)
        return some if self._like is None else backend.of(self._like).asarray(some)

    def _extent(self, number: int) -> slice:
        """Where a batch lies among the samples in their order."""
        start = number * self._loader.batch_size
        samples = min(self._loader.batch_size, len(self._loader.x) - start)
        least, more = divmod(samples, self._world.size)  # the first ranks take one more
        rank = self._world.rank
        start += rank * least + min(rank, more)
        return slice(start, start + least + (rank < more))

    def _most_at_once(self) -> int:
        """The number of batches that are made ready together: one if it takes more than copying."""
        loader = self._loader
        arrays = [loader.x] if loader.y is None else [loader.x, loader.y]
        if loader.transform or any(backend.of(array) is not backend.CPU for array in arrays):
            return 1
        sample = sum(array.nbytes for array in arrays) // len(loader.x)
        size = sample * loader.batch_size // self._world.size
        return min(max(GATHERED // max(size, 1), 1), MOST_AT_ONCE)

    def _run(self, first: int) -> list[tuple[Tensor, ...]]:
        """The batches that are made ready together, from one on."""
        x, y = self._loader.x, self._loader.y
        if self._at_once == 1:
            inputs = self.inputs(first)
            return [(inputs,) if y is None else (inputs, self.labels(first))]
        numbers = range(first, min(first + self._at_once, len(self)))
        places = np.concatenate([self.samples(number) for number in numbers])
        arrays = [x.take(places, 0)]
        if self._like is not None:
            arrays[0] = arrays[0].astype(self._like.dtype, copy=False)
        if y is not None:
            arrays.append(y.take(places, 0))
        bounds = pairwise(accumulate(map(self.size, numbers), initial=0))
        return [tuple([Tensor(array[start:stop]) for array in arrays]) for start, stop in bounds]

    @property
    def done(self) -> int:
        """How many batches the loop has been at."""
        return self._number + 1

    def state_dict(self) -> dict[str, Any]:
        """What the batches are that follow the one that the loop is at."""
        return {"order": self._order, "seed": self._seed, "next": self.done}

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Each batch in turn: inputs, and labels if there are any."""
        self._following, self._ahead = self._first, None
        for number in range(self._first, len(self)):
            self._number = number
            if number == self._following:
                ahead, self._ahead = self._ahead, None
                run = iter(ahead.result() if ahead else self._run(number))
                self._following += self._at_once
            yield next(run)

    def prepare(self) -> None:
        """Let an idle thread make the batches ready that follow, if that is worth it.

        Halfway through a training step is a good time: the last layers, the loss and their
        gradients are small, and leave threads idle.
        """
        if self._may_prepare and self._ahead is None and self._following < len(self):
            ahead = Ahead(partial(self._run, self._following))
            self._ahead = ahead if ahead.begun else None


def _array(data: Any, name: str) -> Array:
    """The array of some data. Raises ValueError if it holds no sample, TypeError if it is none."""
    array = data.data if isinstance(data, Tensor) else data
    try:
        backend.of(array)
    except TypeError:
        raise TypeError(
            f"expected {name} as an array or a tensor, got {type(data).__name__}; "
            "convert it with numpy.asarray"
        ) from None
    if array.ndim < 1 or not len(array):
        raise ValueError(f"expected at least one sample of {name}, got shape {array.shape}")
    return array
