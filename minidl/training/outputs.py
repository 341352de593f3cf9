"""The outputs of a model for a whole data set, with a batch in each thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from minidl.kernels.threads import get_num_threads, share
from minidl.layers import Module
from minidl.tensor import Tensor, no_grad

Batch = TypeVar("Batch")

# Batches that a thread computes before the outputs are handed on: enough for threads not to wait
# for each other, and few enough for the outputs to take little memory.
BATCHES_A_THREAD = 8


def outputs_of(
    model: Module, batches: Sequence[Batch], take: Callable[[Batch], Tensor]
) -> Iterator[Tensor]:
    """The outputs of a model in evaluation mode, batch by batch and in order, without a graph.

    A thread that has a batch to itself needs not wait for others as those do that share one. The
    outputs are the same to the last bit: what is cut into pieces, and how, does not depend on it.

    Args:
        model: in evaluation mode. Several threads call it at once if it consists of minidl's own
            layers, for it is not known what else would stand that.
        batches: what names the batches.
        take: gives the inputs of a batch, in the dtype and on the device of the model.
    """
    at_once = BATCHES_A_THREAD * get_num_threads() if _is_own(model) else 1
    for start in range(0, len(batches), at_once):
        yield from _compute(model, batches[start : start + at_once], take)


def _compute(
    model: Module, batches: Sequence[Batch], take: Callable[[Batch], Tensor]
) -> list[Tensor]:
    """The outputs for some batches, at once if no thread stays without one."""
    found: dict[int, Tensor] = {}

    def compute(number: int) -> None:
        with no_grad():  # which holds for one thread
            found[number] = model(take(batches[number]))

    numbers = list(range(len(batches)))
    if len(batches) < get_num_threads():
        for number in numbers:
            compute(number)
    else:
        share(compute, numbers)
    return [found[number] for number in numbers]


def _is_own(model: Module) -> bool:
    """Whether a model consists of minidl's layers and activations alone, and is on the CPU."""
    parts: list[Any] = [type(module) for module in model.modules()]
    parts += [getattr(module, "activation", None) for module in model.modules()]
    own = all(
        getattr(part, "__module__", "").partition(".")[0] == "minidl" for part in parts if part
    )
    tensors = (member for module in model.modules() for _, member in module.members())
    return own and all(t.device == "cpu" for t in tensors if isinstance(t, Tensor))
