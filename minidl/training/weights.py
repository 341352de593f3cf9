"""Weights on disk, in the safetensors format: names, shapes and numbers, and no code to run."""

from __future__ import annotations

import os
from pathlib import Path

from minidl.data.files import replacing
from minidl.layers import Module


def save_weights(model: Module, path: str | os.PathLike[str]) -> None:
    """Write all parameters and buffers of a model to a safetensors file.

    Args:
        model: whose `state_dict` is written.
        path: of the file. Its folder must exist; an older file is replaced once the new one is
            complete, so that a failure leaves the old one.

    Raises:
        OSError: if the file cannot be written.
    """
    from safetensors.numpy import save

    with replacing(Path(path)) as file:
        file.write(save(model.state_dict()))


def load_weights(model: Module, path: str | os.PathLike[str]) -> None:
    """Read a file that `save_weights` wrote into a model of the same layers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is not in the safetensors format or does not fit the
            model; the model is then as it was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        model.load_state_dict(load(Path(path).read_bytes()))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
