"""Training whose numbers become nan or infinite: that it does is noticed, and where it began found.

`symptom` looks at each step, in next to no time. What follows looks closely, once it is too late
for that step: first at what went into it, then at each operation, in the order of computation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minidl.anomaly import NonFiniteError, describe, detect_anomaly, is_finite
from minidl.backend import Array
from minidl.layers import Module
from minidl.tensor import Tensor, no_grad
from minidl.training.means import Measure

SMALLER_STEPS = "a smaller learning rate, or clip_norm, may help"


def symptom(loss: Tensor, params: Sequence[Tensor], model: Module) -> str | None:
    """What is not finite of a step before its update; None if nothing is found.

    Of the gradients, only that of the first vector is looked at, as a rule the first layer's bias:
    the way back ends there, and nan does not get lost on it. All gradients would take a small
    network two percent of its step. What escapes so, the next loss shows.

    Args:
        loss: of one element. On a GPU nothing is looked at, for that would wait.
        params: after `backward`.
        model: to call parameters by their names.
    """
    if type(loss.data) is not np.ndarray:
        return None
    value = loss.item()
    if not math.isfinite(value):
        return f"the loss is {value}"
    for param in params:
        grad = param.grad
        if type(grad) is np.ndarray and grad.ndim == 1:
            if math.isfinite(grad.dot(grad)):
                return None
            break  # but squares overflow where numbers are finite: this is a suspicion
    else:
        return None
    spoilt = [
        (name, param.grad)
        for name, param in model.named_parameters()
        if param.grad is not None and not is_finite(param.grad)
    ]
    if not spoilt:
        return None
    name, grad = spoilt[-1]  # where the way back came first
    return f"the gradient of {name!r} {describe(grad)}"


def cause(model: Module, loss: Measure, x: Tensor, y: Tensor, samples: Array | None) -> str:
    """Where nan or infinity first appears in a step, which is computed once more if need be.

    Args:
        model: with the weights that the step began with. Gradients are left incomplete.
        loss: a function of outputs and labels.
        x: the batch's inputs (N, ...).
        y: its labels (N, ...).
        samples: their places in the data set, (N,), if they are known.
    """
    found = in_batch(x, y, samples) or in_weights(model)
    if found:
        return found
    try:
        with detect_anomaly(), np.errstate(all="ignore"):
            loss(model(x), y).backward()
    except NonFiniteError as error:
        return f"it began in {error}"
    return "computed once more, all of it was finite: chance, such as dropout's, had a part in it"


def in_batch(x: Tensor, y: Tensor, samples: Array | None) -> str | None:
    """Which sample is not finite; arguments as for `cause`. None if all are."""
    for name, batch in (("inputs", x), ("labels", y)):
        if not is_finite(batch.data):
            wrong = ~np.isfinite(batch.numpy()).reshape(len(batch), -1).all(axis=1)
            row = int(wrong.argmax())
            sample = f"sample {row} of the batch" if samples is None else f"sample {samples[row]}"
            return (
                f"the {name} of {sample} hold nan or infinity; leave such samples out, or replace "
                "the numbers, see numpy.isfinite and numpy.nan_to_num"
            )
    return None


def in_labels(model: Module, loss: Measure, x: Tensor, y: Tensor) -> str | None:
    """What the loss says of labels where it looks at them, on the CPU; None if it takes them.

    On a GPU it does not look, because that would wait for the device in every step.
    """
    with no_grad(), model.mode(training=False):
        outputs = model(x).to("cpu")
        try:
            loss(outputs, y.to("cpu"))
        except (ValueError, TypeError) as error:
            return str(error)
    return None


def in_weights(model: Module) -> str | None:
    """Which parameter is not finite, because an update was too large. None if all are."""
    for name, param in model.named_parameters():
        if not is_finite(param.data):
            return f"an update has spoilt {name!r}, which {describe(param.data)}; {SMALLER_STEPS}"
    return None
