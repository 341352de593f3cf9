"""The outputs of a model for a whole data set, with a batch in each thread; and what they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from minidl.kernels.threads import get_num_threads, share
from minidl.layers import Layer, Module, Sequential, Softmax
from minidl.layers.activation import ACTIVATIONS
from minidl.ops import probability
from minidl.tensor import Tensor, no_grad

Batch = TypeVar("Batch")

# Outputs are handed on some batches at a time: enough for threads not to wait for each other, and
# few enough to take no more than so many bytes.
BATCHES_A_THREAD = 8
MOST_BYTES = 64 << 20

# A batch that takes fewer seconds is made of calls too short to gain from a second thread.
WORTH_SHARING = 1e-4


def outputs_of(
    model: Module, batches: Sequence[Batch], take: Callable[[Batch], Tensor]
) -> Iterator[Tensor]:
    """The outputs of a model in evaluation mode, batch by batch and in order, without a graph.

    A thread that has a batch to itself need not wait for others as those do that share one. The
    outputs are the same to the last bit: what is cut into pieces, and how, does not depend on it.

    Args:
        model: in evaluation mode. Several threads call it at once if it consists of minidl's own
            layers, for it is not known what else would stand that.
        batches: what names the batches.
        take: gives the inputs of a batch, in the dtype and on the device of the model.
    """
    threads = get_num_threads()
    started = time.perf_counter()
    first = _compute(model, batches[:1], take)
    seconds = time.perf_counter() - started
    size = max([out.data.nbytes for out in first], default=0)
    yield from first
    at_once = 1
    if threads > 1 and seconds > WORTH_SHARING and _is_own(model):
        at_once = min(BATCHES_A_THREAD * threads, max(1, MOST_BYTES // max(1, size)))
    for start in range(1, len(batches), at_once):
        yield from _compute(model, batches[start : start + at_once], take)


def ends_in_softmax(model: Module) -> bool:
    """Whether a model's outputs are probabilities already."""
    while isinstance(model, Sequential):
        model = model.layers[-1]
    last = getattr(model, "activation", model)
    return isinstance(last, Softmax) or last is probability.softmax


def _compute(
    model: Module, batches: Sequence[Batch], take: Callable[[Batch], Tensor]
) -> list[Tensor]:
    """The outputs for some batches, at once if no thread stays without one."""
    found: dict[int, Tensor] = {}

    def compute(number: int) -> None:
        with no_grad():  # which holds for one thread
            found[number] = model(take(batches[number]))

    numbers = list(range(len(batches)))
    if len(batches) < max(2, get_num_threads()):
        for number in numbers:
            compute(number)
    else:
        share(compute, numbers, long=True)
    return [found[number] for number in numbers]


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
