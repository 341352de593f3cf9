"""Reads the `.weights.h5` files of Keras 3, which hold arrays and not what they belong to.

A layer's weights are numbered in a group `layers/dense/vars`: `0` the kernel, `1` the bias. The
group is called by the class of the layer and how many of that class came before it in its model
(`dense`, `dense_1`), never by the name of the layer. Those of a model inside it lie in
`layers/sequential/layers`. What else is in a file, such as the state of an optimizer or of a random
generator, is not looked at.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.backend import Array
from minidl.data.files import open_file
from minidl.interop.keras_steps import weights_by_name
from minidl.layers import BatchNorm, Conv2D, Dense, Sequential
from minidl.tensor import Tensor
from minidl.training.weights import shortened

if TYPE_CHECKING:
    import h5py

_GROUPS = {Conv2D: "conv2d", Dense: "dense", BatchNorm: "batch_normalization"}


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """An HDF5 file to read from, whose errors name it.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: naming the file, if it is a pipe or a device, is no HDF5 file or a damaged one,
            or whatever is done with it raises a ValueError.
        ImportError: if h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"Keras's .weights.h5 files are read with h5py ({error}); pip install h5py"
        ) from error
    with open_file(Path(path)) as file:
        try:
            with h5py.File(file, "r") as content:
                yield content
        except ValueError as error:
            raise ValueError(f"{path}: {shortened(error)}") from error
        except Exception as error:  # h5py does not say which ones a damaged file can raise
            raise ValueError(
                f"{path}: expected a complete .weights.h5 file of Keras 3, but it is none, or "
                f"damaged ({shortened(error)})"
            ) from error


def read_weights(model: Sequential, file: h5py.File) -> list[tuple[Tensor, Array]]:
    """Each weight of a model with its values in a file.

    Raises ValueError, naming everything that does not fit; nothing has been read then.
    """
    wrong: list[str] = []
    places = list(_places(model, file, "layers", wrong))
    wrong += [text for place in places for text in _differences(*place)]
    if wrong:
        raise ValueError(f"the file does not hold the weights of {model.label}: {'; '.join(wrong)}")
    return [(tensor, _found(file, path)[()]) for path, _, tensor, _ in places]


def _places(
    model: Sequential, file: h5py.File, path: str, wrong: list[str]
) -> Iterator[tuple[str, str, Tensor, Any]]:
    """Path and name of each weight, the weight, and what lies there, None if nothing does.

    Appends to `wrong` what else the groups hold.
    """
    held = _names(file, path)
    inside = "functional" if "functional" in held and "sequential" not in held else "sequential"
    numbers: Counter[str] = Counter()
    for layer in model.layers:
        if isinstance(layer, Sequential):
            group = inside
        else:
            group = next((g for kind, g in _GROUPS.items() if isinstance(layer, kind)), "")
        if not group:
            continue
        name = f"{group}_{numbers[group]}" if numbers[group] else group
        numbers[group] += 1
        held.discard(name)
        if isinstance(layer, Sequential):
            yield from _places(layer, file, f"{path}/{name}/layers", wrong)
            continue
        variables = f"{path}/{name}/vars"
        more = _names(file, variables)
        for number, (weight, tensor) in enumerate(weights_by_name(layer).items()):
            more.discard(str(number))
            place = f"{variables}/{number}"
            yield place, f"{weight!r} of {layer.label}", tensor, _found(file, place)
        wrong += [f"{variables}/{number} has no counterpart" for number in sorted(more)]
    for name in sorted(held):
        if _names(file, f"{path}/{name}/vars") or _names(file, f"{path}/{name}/layers"):
            wrong.append(f"{path}/{name} has no counterpart")


def _names(file: h5py.File, path: str) -> set[str]:
    """What a group holds; nothing if there is no such group."""
    import h5py

    found = _found(file, path)
    return set(found) if isinstance(found, h5py.Group) else set()


def _found(file: h5py.File, path: str) -> Any:
    """What lies at a path in a file, None if nothing does.

    Raises ValueError for a link: it may lead to another file.
    """
    import h5py

    found = file
    for name in path.split("/"):
        # `name in found` would follow a link already.
        link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path} is a link, which Keras does not write")
        found = found[name]
    return found


def _differences(path: str, ours: str, tensor: Tensor, found: Any) -> list[str]:
    """What keeps what lies at a path from being the values of a weight, in words."""
    import h5py

    if not isinstance(found, h5py.Dataset):
        return [f"{path}, {ours}, is missing"]
    if found.shape != tensor.shape:
        return [f"{path} must be {tensor.shape} for {ours}, is {found.shape}"]
    if found.dtype.kind not in "biuf":
        return [f"{path} must be real numbers for {ours}, is {found.dtype}"]
    # Chunks may be larger than what they hold, and values may lie in other files.
    stored = found.id.get_create_plist()
    plain = stored.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if not plain or stored.get_external_count() or found.id.get_storage_size() != found.nbytes:
        return [f"{path} must be stored in one piece and whole, as Keras stores it"]
    return []
