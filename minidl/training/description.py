"""What a saved model says of its layers, in JSON, so that it can be built without its code.

A layer is told by its class and by the arguments of its constructor, each of which it keeps in an
attribute of the same name. Functions are told by the names that constructors know them by.

A description that is read is not trusted. It names classes of one table and arguments that their
constructors have, and no code. Parameters are made without memory, so that a description may claim
any size until that has been compared with the tensors that are there.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from minidl.backend import Generator
from minidl.init import INITIALIZERS
from minidl.layers import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    MaxPool,
    Module,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.layers.activation import ACTIVATIONS
from minidl.layers.module import shapes_only
from minidl.tensor import Tensor
from minidl.training.weights import dtype_of

FORMAT = "minidl"
VERSION = 1

# The classes that a description may name.
LAYERS: dict[str, type[Module]] = {
    kind.__name__: kind
    for kind in (
        AvgPool,
        BatchNorm,
        Conv2D,
        Dense,
        Dropout,
        Flatten,
        GlobalAvgPool,
        LeakyReLU,
        MaxPool,
        ReLU,
        Sequential,
        Sigmoid,
        Softmax,
        Tanh,
    )
}

# What types an argument may have where only one is allowed; others are checked by the constructor.
TYPES: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}

INSTEAD = (
    "save the weights alone with minidl.save_weights, and load them with minidl.load_weights into "
    "the model that your code builds"
)


def describe(model: Module, class_names: Sequence[str] | None) -> str:
    """A model's layers and their arguments, the shapes between them, dtype and class names.

    Args:
        model: a Sequential of what `LAYERS` holds.
        class_names: a name for each output; those that the model has, if None.

    Raises:
        ValueError: naming what a description cannot hold and what to do instead, or if the model
            has not seen an input yet, or the class names do not suit it.
    """
    if not isinstance(model, Sequential):
        raise ValueError(f"expected a Sequential, got {type(model).__name__}: {INSTEAD}")
    entry = _entry(model, set())
    if class_names is None:
        class_names = model.class_names
    description = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype_of(model),
        "class_names": check_class_names(class_names, model),
        "model": entry,
    }
    return json.dumps(description, allow_nan=False)


def model_described(text: str) -> Sequential:
    """The model of a description, whose parameters and buffers have no values yet (`shapes_only`).

    Raises:
        ValueError: saying what is wrong with the description.
    """
    try:
        return _model(json.loads(text, parse_constant=_refuse))
    except RecursionError:
        raise ValueError("the description of the model is nested too deeply") from None


# Writing


def _entry(module: Module, seen: set[int]) -> dict[str, Any]:
    """One layer and what is in it."""
    kind = type(module)
    if LAYERS.get(kind.__name__) is not kind or "forward" in vars(module):
        raise ValueError(f"{module.label} is no layer of minidl's own: {INSTEAD}")
    if id(module) in seen:
        raise ValueError(
            f"{module.label} is in the model twice: make a layer for each place, or {INSTEAD}"
        )
    seen.add(id(module))
    if module.output_shape is None:
        raise ValueError(
            f"{module.label} has no output shape yet; give Sequential an input_shape, or pass one "
            "batch through the model first"
        )
    return {
        "class": kind.__name__,
        "name": module.name,
        "arguments": {
            name: _value(getattr(module, name), f"{module.label}: {name}", seen)
            for name in _arguments(kind.__name__)
        },
        "output_shape": list(module.output_shape[1:]),
    }


def _value(value: Any, where: str, seen: set[int]) -> Any:
    """An argument in JSON; `where` names it in errors."""
    if isinstance(value, Module):
        return _entry(value, seen)
    if isinstance(value, (list, tuple)):
        return [_value(item, where, seen) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for name, function in (ACTIVATIONS | INITIALIZERS).items():
        if function is value:
            return name
    raise ValueError(f"{where} is {value!r}, which has no name that a file could hold: {INSTEAD}")


@cache
def _arguments(kind: str) -> dict[str, Any]:
    """The arguments of a constructor with their types, but for a name and a source of numbers."""
    parameters = inspect.signature(LAYERS[kind], eval_str=True).parameters
    return {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if name != "name" and parameter.annotation != Generator | None
    }


def check_class_names(names: Any, model: Sequential) -> tuple[str, ...] | None:
    """Names for the outputs of a model, checked alike when they are written and when read."""
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not all(_is_name(name) for name in names):
        raise ValueError(f"class_names must be a list of names in printable letters, got {names!r}")
    outputs = model.output_shape[-1] if model.output_shape else None
    if len(names) != outputs:
        raise ValueError(f"the model has {outputs} outputs, got {len(names)} class names")
    return tuple(names)


def _is_name(name: Any) -> bool:
    # A terminal takes what is not printable for orders.
    return isinstance(name, str) and name != "" and name.isprintable()


# Reading


def _model(description: Any) -> Sequential:
    given = description if isinstance(description, dict) else {}
    if (given.get("format"), given.get("version")) != (FORMAT, VERSION):
        raise ValueError(
            f"expected a model in the format {FORMAT!r}, version {VERSION}, got "
            f"{given.get('format')!r}, version {given.get('version')!r}; "
            "if it is genuine, another version of minidl can read it"
        )
    _check_fields(description, ("format", "version", "dtype", "class_names", "model"), "the model")
    if description["dtype"] not in ("float32", "float64"):
        raise ValueError(f"a model is float32 or float64, got {description['dtype']!r}")
    model = _module(description["model"])
    if not isinstance(model, Sequential):
        raise ValueError(f"expected a Sequential that holds all layers, got {model.label}")
    model.class_names = check_class_names(description["class_names"], model)
    assert model.input_shape is not None  # noqa: S101  _sequential gave it one
    with shapes_only():
        _build(model, model.input_shape, np.dtype(description["dtype"]))
    return model


def _module(entry: Any) -> Module:
    """The module of one entry, without parameters."""
    _check_fields(entry, ("class", "name", "arguments", "output_shape"), "a layer")
    kind, name, given = entry["class"], entry["name"], entry["arguments"]
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ValueError(f"expected one of the layers {', '.join(LAYERS)}, got {kind!r}")
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(f"{kind}: expected a name, got {name!r}")
    label = kind if name is None else f"{kind} {name!r}"
    if not isinstance(given, dict):
        raise ValueError(f"{label}: expected arguments by name, got {given!r}")
    known = _arguments(kind)
    for argument in given:
        if argument not in known:
            raise ValueError(f"{label} has no argument {argument!r}")
    try:
        if kind == "Sequential":
            module: Module = _sequential(given)
        else:
            checked = {name: _argument(name, value, known[name]) for name, value in given.items()}
            module = LAYERS[kind](**checked)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{label}: {error}") from error
    module.name = name
    module.output_shape = (None, *_shape(entry["output_shape"], f"{label}: output_shape"))
    return module


def _sequential(given: Mapping[str, Any]) -> Sequential:
    _check_fields(given, ("layers", "input_shape"), "its arguments")
    if not isinstance(given["layers"], list):
        raise ValueError(f"layers must be a list, got {given['layers']!r}")
    layers = [_module(entry) for entry in given["layers"]]
    if any(layer.name is None for layer in layers):
        raise ValueError("each of its layers must have a name")
    model = Sequential(layers)
    model.input_shape = _shape(given["input_shape"], "input_shape")
    return model


def _argument(name: str, value: Any, annotation: Any) -> Any:
    """An argument for the constructor of a layer that is no container."""
    if name == "activation" and isinstance(value, dict):
        activation = _module(value)
        if not isinstance(activation, Layer) or type(activation).build is not Layer.build:
            raise ValueError(
                f"expected an activation without parameters, got {activation.label}; make it the "
                "next layer"
            )
        return activation
    if annotation in TYPES and type(value) not in TYPES[annotation]:
        raise ValueError(f"{name} must be of type {annotation.__name__}, got {value!r}")
    return value


def _build(module: Module, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Make the parameters of all layers for samples of this shape; the shape of the output.

    Nothing is computed, for that would take as much memory and time as a description asks for: each
    layer is shown an input of no samples, of the shape that the layer before is said to have given.
    """
    if isinstance(module, Sequential):
        for layer in module.layers:
            shape = _build(layer, shape, dtype)
    elif isinstance(module, Layer):
        try:
            module.build(Tensor(np.empty((0, *shape), dtype)))
        except ValueError as error:
            raise ValueError(f"{module.label}: {error}") from error
        module.built = True
    assert module.output_shape is not None  # noqa: S101  _module gave it one
    return tuple(n for n in module.output_shape if n is not None)


def _check_fields(entry: Any, names: Collection[str], what: str) -> None:
    """Raise ValueError unless these and no others are there."""
    if not isinstance(entry, dict) or set(entry) != set(names):
        got = list(entry) if isinstance(entry, dict) else entry
        raise ValueError(f"expected of {what} the entries {list(names)}, got {got!r}")


def _shape(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        raise ValueError(f"{what} must be a list of integers >= 0, got {value!r}")
    return tuple(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"the description of the model holds {constant}, which is no number")
