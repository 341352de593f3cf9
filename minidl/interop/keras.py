"""Weights to and from Keras 3, whose images and weights lie as they do here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from minidl.backend import Array
from minidl.interop.keras_files import opened, read_weights
from minidl.interop.keras_steps import compared, steps_here, steps_there
from minidl.layers import Sequential
from minidl.tensor import Tensor
from minidl.training.weights import tensors_of

if TYPE_CHECKING:
    import keras

    Source: TypeAlias = keras.Model | Sequence[Array] | str | os.PathLike[str]


def weights_to_keras(model: Sequential, target: keras.Model) -> None:
    """Copy all weights of a model into the same model built in Keras.

    In evaluation mode both then give the same outputs for the same images, (N, H, W, C). To write
    a `.weights.h5` file, call `target.save_weights(path)` afterwards: how Keras lays such a file
    out depends on its own layers, also on those without weights.

    All that decides outputs is compared: the layers and activations in their order, whether an
    activation is an argument or a layer, and their settings. The same padding may be written
    otherwise, also as a `ZeroPadding2D` before the convolution. Layers and functions of your own
    are paired by their place, and what they compute is taken to be the same.

    On PyTorch, Keras 3 repeats the border for averages with `padding="same"` where it needs an odd
    number of rows or columns; of three and more the means are others than on TensorFlow and here.

    Args:
        model: that has an input_shape or has seen a batch.
        target: a Sequential or a functional model of Keras 3, with layers one after another, which
            has seen the shape of its input.

    Raises:
        ValueError: naming everything that does not fit, such as `data_format="channels_first"`;
            nothing has been changed then.
        RuntimeError: if the model has not seen the shape of its input yet.
        TypeError: if one of the two is no model of its library.
        ImportError: if Keras 3 is not installed.
    """
    for tensor, variable in _pairs(model, target):
        variable.assign(tensor.numpy())


def weights_from_keras(model: Sequential, source: Source) -> None:
    """Copy all weights of a Keras model into the same model built here.

    Of weights without their model only number, order and shapes can be compared, but no settings:
    mind that they are the same, such as the `eps` of a batch normalisation.

    A file need not be trusted: no code is read from it, and memory is taken only for weights that
    it holds, after their places and shapes have been found to be those of the model. It is read by
    the HDF5 library.

    Args:
        model: that has an input_shape or has seen a batch.
        source: a model as for `weights_to_keras`, and what is said there holds here; or the list
            that its `get_weights` returns; or the path of the `.weights.h5` file that its
            `save_weights` writes, where models inside a model must be the same inside both.

    Raises:
        ValueError: naming everything that does not fit, and the file; nothing has been changed
            then.
        OSError: if the file cannot be read.
        RuntimeError: if the model has not seen the shape of its input yet.
        TypeError: if the source is none of the three, or `model` is no Sequential.
        ImportError: if Keras 3, or h5py for a file, is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        _check_model(model)
        steps_here(model)  # what is wrong with it is no error of the file
        with opened(source) as file:
            _assign(model, read_weights(model, file))
    elif isinstance(source, (list, tuple)):
        _check_model(model)
        _assign(model, _in_order(model, [np.asarray(values) for values in source]))
    else:
        pairs = _pairs(model, source)
        from keras.ops import convert_to_numpy

        _assign(model, [(ours, convert_to_numpy(theirs)) for ours, theirs in pairs])


def _pairs(model: Sequential, keras_model: keras.Model) -> list[tuple[Tensor, keras.Variable]]:
    """Each weight here with the one there. Raises as `weights_to_keras`."""
    keras = _keras()
    _check_model(model)
    if not isinstance(keras_model, keras.Model):
        raise TypeError(f"expected a keras.Model second, got {type(keras_model).__name__}")
    steps, wrong = compared(steps_here(model), steps_there(keras_model))
    pairs = [
        (tensor, theirs.weights[name])
        for ours, theirs in steps
        for name, tensor in ours.weights.items()
        if name in theirs.weights
    ]
    if len({id(theirs) for _, theirs in pairs}) < len(pairs):
        wrong.append("layers of the Keras model share weights")
    if wrong:
        raise ValueError(f"the Keras model is not the same as {model.label}: {'; '.join(wrong)}")
    return pairs


def _in_order(model: Sequential, arrays: list[Array]) -> list[tuple[Tensor, Array]]:
    """Each weight here with the one at its place in a list.

    Raises ValueError, naming everything that is missing, left over or of another shape.
    """
    wrong: list[str] = []
    pairs = []
    expected = [
        (f"{name!r} of {step.label}", tensor)
        for step in steps_here(model)
        for name, tensor in step.weights.items()
    ]
    for place, (ours, values) in enumerate(zip_longest(expected, arrays)):
        if ours is None:
            wrong.append(f"array {place}, of shape {values.shape}, has no counterpart")
        elif values is None:
            wrong.append(f"{ours[0]} is missing")
        elif values.shape != ours[1].shape:
            must, shape = ours[1].shape, values.shape
            wrong.append(f"array {place} must be {must} for {ours[0]}, is {shape}")
        else:
            pairs.append((ours[1], values))
    if wrong:
        raise ValueError(f"the arrays are not the weights of {model.label}: {'; '.join(wrong)}")
    return pairs


def _assign(model: Sequential, pairs: Iterable[tuple[Tensor, Array]]) -> None:
    """Copy values into the weights of a model, all or none. Raises as `load_state_dict`."""
    names = {id(tensor): name for name, tensor in tensors_of(model)}
    state = {}
    for tensor, values in pairs:
        # To NumPy, bfloat16 is no number.
        is_half = values.dtype.name == "bfloat16"
        state[names[id(tensor)]] = values.astype(np.float32) if is_half else values
    model.load_state_dict(state)


def _check_model(model: Sequential) -> None:
    if not isinstance(model, Sequential):
        raise TypeError(f"expected a Sequential of minidl first, got {type(model).__name__}")


def _keras() -> ModuleType:
    """The library. Raises ImportError if it is not there, or is an older one."""
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            f"weights of Keras models need Keras 3 and a backend of it ({error}); "
            'pip install "keras>=3" torch'
        ) from error
    if int(keras.__version__.split(".")[0]) < 3:
        raise ImportError(
            f"weights of Keras models need Keras 3, not {keras.__version__}; "
            'pip install "keras>=3" torch'
        )
    return keras
