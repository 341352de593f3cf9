"""A whole model on disk: its weights in the safetensors format, and a description of its layers.

The description is in the metadata of the file, so that it is a weight file to all other programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minidl.data.files import replacing
from minidl.layers import Module, Sequential
from minidl.training.checkpoint import KEY as TRAINING_KEY
from minidl.training.description import describe, model_described
from minidl.training.weights import Shape, declared, opened, tensors_of

# Where the metadata holds the description.
KEY = "minidl"


def save(
    model: Sequential, path: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> None:
    """Write a model to a file from which `load` makes it again without its code.

    Args:
        model: of minidl's own layers, activations and initializers; its parameters have been made.
            `load_weights` can read the file as well.
        path: of the file. Its folder must exist; an older file is replaced once the new one is
            complete, so that a failure leaves the old one.
        class_names: a name for each output; those that the model was loaded with, if None.

    Not written are random generators, which parameters are frozen, and whether the model is in
    training or evaluation mode.

    Raises:
        ValueError: naming the file, if something in the model is your own and would be lost, and
            what to do instead; or if the model has not seen an input yet, or the class names do not
            suit it.
        OSError: if the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    try:
        text = describe(model, class_names)
        state = model.state_dict()
        _check(model_described(text), {name: (a.shape, str(a.dtype)) for name, a in state.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with replacing(Path(path)) as file:
        file.write(to_bytes(state, {KEY: text}))


def load(path: str | os.PathLike[str]) -> Sequential:
    """The model that `save` wrote to a file, on the CPU and in evaluation mode.

    The file need not be trusted: no code is read from it, and memory is taken only for weights that
    it holds, after their shapes have been found to be those of the layers.

    Returns:
        The model, with `input_shape` and, if they were saved, `class_names`. Its outputs are those
        of the saved model to the last bit.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, if it is not in the safetensors format, holds weights alone, or
            its description is none, is one of another version, or does not fit its weights.
    """
    with opened(path) as file:
        told = file.metadata() or {}
        text = told.get(KEY)
        if TRAINING_KEY in told:
            raise ValueError(
                "is a checkpoint of fit, not a model; fit(..., resume=path) goes on from it"
            )
        if text is None:
            raise ValueError(
                "holds weights without the layers they belong to; make the model in code and read "
                "them with minidl.load_weights"
            )
        model = model_described(text)
        _check(model, declared(file))
        for name, t in tensors_of(model):
            t.data = np.array(file.get_tensor(name))
    return model.eval()


def _check(model: Module, found: Mapping[str, tuple[Shape, str]]) -> None:
    """Raise ValueError unless these are the names, shapes and dtypes of the model's tensors."""
    left = dict(found)
    wrong = []
    for name, t in tensors_of(model):
        got = left.pop(name, None)
        if got is None:
            wrong.append(f"missing {name!r}")
        elif got != (t.shape, str(t.dtype)):
            wrong.append(f"{name!r} expects {t.dtype} {t.shape}, got {got[1]} {got[0]}")
    wrong += [f"unknown {name!r}" for name in left]
    if wrong:
        raise ValueError(f"the weights do not fit the layers: {'; '.join(wrong)}")
