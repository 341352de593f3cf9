"""The outputs of a model for a whole data set, with a batch in each thread; and what they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from minidl.kernels.threads import get_num_threads, share, undivided
from minidl.layers import Layer, Module, Sequential, Softmax
from minidl.layers.activation import ACTIVATIONS
from minidl.ops import probability
from minidl.tensor import Tensor, no_grad

Batch = TypeVar("Batch")

# Outputs are handed on some batches at a time: enough for threads not to wait for each other, and
# few enough to take no more than so many bytes.
BATCHES_A_THREAD = 8
MOST_BYTES = 64 << 20

# Fewer batches than this are computed one after the other, by all threads together: of so few, most
# threads of a large machine would have none.
FEWEST_BATCHES = 8

# A batch that takes fewer seconds is made of calls too short to gain from a second thread.
WORTH_SHARING = 1e-4


def outputs_of(
    model: Module, batches: Sequence[Batch], take: Callable[[Batch], Tensor]
) -> Iterator[Tensor]:
    """The outputs of a model in evaluation mode, batch by batch and in order, without a graph.

    A thread that has a batch to itself need not wait for others as those do that share one, and
    cuts no product into parts. The outputs are the same to the last bit for any number of threads,
    because it does not decide which batches are computed that way: all after the first, if there
    are enough and their outputs are not too large.

    Args:
        model: in evaluation mode. Several threads call it at once if it consists of minidl's own
            layers, for it is not known what else would stand that.
        batches: what names the batches.
        take: gives the inputs of a batch, in the dtype and on the device of the model.
    """

    def compute(batch: Batch) -> Tensor:
        with no_grad():  # which holds for one thread
            return model(take(batch))

    found: dict[int, Tensor] = {}

    def compute_whole(number: int) -> None:
        with undivided():
            found[number] = compute(batches[number])

    if not batches:
        return
    started = time.perf_counter()
    first = compute(batches[0])
    seconds = time.perf_counter() - started
    yield first
    room = MOST_BYTES // max(1, first.data.nbytes)
    if min(len(batches), room) < FEWEST_BATCHES or not _is_own(model):
        yield from map(compute, batches[1:])
        return
    threads = get_num_threads()
    worth_it = threads > 1 and seconds > WORTH_SHARING
    at_once = min(BATCHES_A_THREAD * threads, room) if worth_it else 1
    numbers = range(len(batches))
    for start in range(1, len(batches), at_once):
        together = list(numbers[start : start + at_once])
        share(compute_whole, together, long=True)
        yield from map(found.pop, together)


def ends_in_softmax(model: Module) -> bool:
    """Whether a model's outputs are probabilities already."""
    while isinstance(model, Sequential):
        model = model.layers[-1]
    last = getattr(model, "activation", model)
    return isinstance(last, Softmax) or last is probability.softmax


def _is_own(model: Module) -> bool:
    """Whether a model consists of minidl's layers and activations alone, and is on the CPU."""
    for module in model.modules():
        activation = getattr(module, "activation", None)
        known = activation is None or any(activation is own for own in ACTIVATIONS.values())
        theirs = type(module).__module__.partition(".")[0] != "minidl" or "forward" in vars(module)
        if theirs or not (known or isinstance(activation, Layer)):
            return False
        if any(isinstance(t, Tensor) and t.device != "cpu" for _, t in module.members()):
            return False
    return True
