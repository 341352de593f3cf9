"""Weights on disk, in the safetensors format: names, shapes and numbers, and no code to run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from minidl.data.files import open_file, replacing
from minidl.layers import Module
from minidl.tensor import DEFAULT_FLOAT, Tensor

Shape: TypeAlias = tuple[int, ...]

# How safetensors calls the types of real numbers that NumPy has.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_REAL = frozenset(_DTYPES.values())

# In bytes. A tensor takes some hundred of them, and the description of a layer no more. The library
# allows 100 MB, for which it needs several times as much memory.
_LONGEST_HEADER = 2**22

_LONGEST_MESSAGE = 2000  # characters: what a file holds may be quoted, and may be long


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

    The file need not be trusted: memory is taken only for weights that it holds, after their names
    and shapes have been found to be those of the model.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is not in the safetensors format or does not fit the
            model; the model is then as it was.
    """
    with opened(path) as file:
        found = declared(file)
        model.check_shapes({name: shape for name, (shape, _) in found.items()})
        check_types(found)
        model.load_state_dict({name: file.get_tensor(name) for name in found})


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A safetensors file to read from, whose errors name it.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, if it is not in the safetensors format, or whatever is done
            with it raises a ValueError.
    """
    from safetensors import SafetensorError, safe_open

    # safe_open does not say which file it cannot read, and takes folders for devices.
    with open_file(Path(path)) as file:
        length = int.from_bytes(file.read(8), "little")
    try:
        if length > _LONGEST_HEADER:
            raise SafetensorError(f"a header of {length} bytes, more than {_LONGEST_HEADER}")
        with safe_open(path, "np") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a complete safetensors file, but it is none, or damaged "
            f"({shortened(error)})"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {shortened(error)}") from error


def declared(file: Any) -> dict[str, tuple[Shape, str]]:
    """Shape and dtype of each tensor in an open safetensors file, of which nothing else is read."""
    parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no dict
    return {
        name: (tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()))
        for name, part in parts.items()
    }


def check_types(found: Mapping[str, tuple[Shape, str]]) -> None:
    """Raise ValueError, naming them, if some of the tensors that a file declares suit no array."""
    wrong = [f"{name!r} is {kind}" for name, (_, kind) in found.items() if kind not in _REAL]
    if wrong:
        raise ValueError(f"expected types of numbers that NumPy has, got {'; '.join(wrong)}")


def tensors_of(model: Module) -> list[tuple[str, Tensor]]:
    """All parameters and buffers with their dotted names."""
    return [*model.named_parameters(), *model.named_buffers()]


def dtype_of(model: Module) -> str:
    """The dtype of all parameters and buffers; float32 if there are none.

    Raises ValueError if there are two.
    """
    dtypes = sorted({str(t.dtype) for _, t in tensors_of(model)})
    if len(dtypes) > 1:
        raise ValueError(
            f"the model has parameters of {' and '.join(dtypes)}; convert it with .astype(dtype)"
        )
    return dtypes[0] if dtypes else str(DEFAULT_FLOAT)


def shortened(error: Exception) -> str:
    """A message in which not too much of what a file holds is quoted."""
    text = str(error)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."
