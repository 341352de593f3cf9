"""What a model computes, step by step and in the words of Keras, for models here and there.

An activation is a step of its own, whether it is an argument of a layer or a layer. What changes no
output in evaluation mode, such as dropout, is no step. So two models give the same outputs if their
steps are the same, however they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from minidl.interop.in_line import check_unshared, named_weights, placed_layers
from minidl.kernels.window import same_padding
from minidl.layers import (
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
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
from minidl.tensor import Tensor

if TYPE_CHECKING:
    import keras

# The kind of a step that is somebody's own: only its place is known.
OWN = "a layer of your own"

# The names that Keras has for weights, in its order, by those here.
WEIGHTS: Mapping[type[Module], Mapping[str, str]] = {
    Conv2D: {"weight": "kernel", "bias": "bias"},
    Dense: {"weight": "kernel", "bias": "bias"},
    BatchNorm: {
        "gamma": "gamma",
        "beta": "beta",
        "running_mean": "moving_mean",
        "running_variance": "moving_variance",
    },
}

# Layers of Keras that pass everything unchanged in evaluation.
_PASSING = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "InputLayer",
    "RandomBrightness",
    "RandomContrast",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout2D",
)

# Layers of Keras, and their settings where another value would give another output.
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "Conv2D": ("strides", "padding", "dilation_rate", "groups", "data_format"),
    "Dense": (),
    "BatchNormalization": ("epsilon", "axis"),
    "MaxPooling2D": ("pool_size", "strides", "padding", "data_format"),
    "AveragePooling2D": ("pool_size", "strides", "padding", "data_format"),
    "GlobalAveragePooling2D": ("keepdims", "data_format"),
    "Flatten": ("data_format",),
    "ZeroPadding2D": ("padding", "data_format"),
    "ReLU": ("negative_slope", "max_value", "threshold"),
    "LeakyReLU": ("negative_slope",),
    "Softmax": ("axis",),
}

# Activation functions of Keras, and what else decides their outputs, as it is where nobody says it.
_ACTIVATIONS: Mapping[str, Mapping[str, Any]] = {
    "relu": {"negative_slope": 0.0, "max_value": None, "threshold": 0.0},
    "leaky_relu": {"negative_slope": 0.2},
    "sigmoid": {},
    "tanh": {},
    "softmax": {"axis": -1},
    "log_softmax": {"axis": -1},
}
_ACTIVATION_LAYERS = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "Softmax": "softmax"}


class Step(NamedTuple):
    """Something that a model does with what comes in.

    Attributes:
        kind: name of the layer's class or of the activation function in Keras, or `OWN`.
        label: what errors call it.
        settings: that decide its outputs, by Keras's names.
        weights: by Keras's names; tensors here in Keras's order, variables there.
        shape: of the input here, for a batch of one.
    """

    kind: str
    label: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Any]
    shape: tuple[int, ...] = ()


def steps_here(model: Sequential) -> list[Step]:
    """The steps of a model of minidl.

    Raises:
        RuntimeError: if the model has not seen the shape of its input yet.
        ValueError: naming it, if a layer has weights that its counterpart has not; or if two layers
            share weights.
    """
    steps = []
    for layer, shape, _ in placed_layers(model):
        if isinstance(layer, Dropout):
            continue
        kind, settings = _told(layer)
        steps.append(Step(kind, layer.label, settings, weights_by_name(layer), shape))
        if isinstance(layer, (Conv2D, Dense)) and layer.activation:
            names = [name for name, own in ACTIVATIONS.items() if own is layer.activation]
            kind = names[0] if names else OWN
            settings = {**_ACTIVATIONS.get(kind, {})}
            if kind == "leaky_relu":
                settings["negative_slope"] = LeakyReLU().slope
            label = f"{_title(layer.activation)} of {layer.label}"
            steps.append(Step(kind, label, settings, {}, shape))
    check_unshared(model, (tensor for step in steps for tensor in step.weights.values()))
    return steps


def steps_there(model: keras.Model) -> list[Step]:
    """The steps of a model of Keras.

    Raises:
        ValueError: if it is not known in which order its layers compute, or they are not in line.
    """
    import keras

    passing = tuple(getattr(keras.layers, name) for name in _PASSING)
    functions = {getattr(keras.activations, name): name for name in _ACTIVATIONS}
    steps: list[Step] = []
    for layer in _operations(model):
        # Older releases have a Cast before a layer that computes in another dtype.
        if isinstance(layer, passing) or _is_float_cast(layer):
            continue
        label = f"Keras's {type(layer).__name__} {layer.name!r}"
        activation = None
        if isinstance(layer, keras.layers.Activation):
            activation = layer.activation
        else:
            step = _step_there(layer, label)
            if steps and step.kind == "Conv2D" and _are_its_zeros(steps[-1], step):
                zeros = steps.pop().settings["padding"]
                step = step._replace(settings={**step.settings, "padding": zeros})
            steps.append(step)
            if step.kind in ("Conv2D", "Dense"):
                activation = layer.activation
                label = f"{_title(activation)} of {label}"
        if activation not in (None, keras.activations.linear):
            kind = functions.get(activation, OWN)
            steps.append(Step(kind, label, _ACTIVATIONS.get(kind, {}), {}))
    return steps


def weights_by_name(layer: Module) -> dict[str, Tensor]:
    """The weights of a layer here by Keras's names, in Keras's order.

    Raises ValueError, naming the layer, if it has others than its class has.
    """
    names = next((names for kind, names in WEIGHTS.items() if isinstance(layer, kind)), {})
    tensors = named_weights(layer, names)
    return {there: tensors[here] for here, there in names.items() if here in tensors}


def compared(ours: list[Step], theirs: list[Step]) -> tuple[list[tuple[Step, Step]], list[str]]:
    """The steps of two models side by side, and all that differs, each in words."""
    pairs: list[tuple[Step, Step]] = []
    wrong: list[str] = []
    kinds = [step.kind for step in ours], [step.kind for step in theirs]
    for same, *places in SequenceMatcher(None, *kinds, autojunk=False).get_opcodes():
        here, there = ours[places[0] : places[1]], theirs[places[2] : places[3]]
        if same == "equal":
            pairs += zip(here, there, strict=True)
            continue
        for us, them in zip_longest(here, there):
            if us is not None and them is not None:
                wrong.append(f"{us.label} expects {us.kind}, got {them.label}")
            else:
                wrong.append(f"{(us or them).label} has no counterpart")
    for us, them in pairs:
        wrong += _differences(us, them)
    return pairs, wrong


def _told(layer: Module) -> tuple[str, dict[str, Any]]:
    """The kind and the settings of a layer here."""
    images = {"data_format": "channels_last"}
    match layer:
        case Conv2D():
            window = {"strides": layer.strides, "padding": layer.padding}
            more = {"dilation_rate": layer.dilation, "groups": 1}
            return "Conv2D", {**window, **more, **images}
        case MaxPool() | AvgPool():
            kind = "MaxPooling2D" if isinstance(layer, MaxPool) else "AveragePooling2D"
            window = {"pool_size": layer.pool_size, "strides": layer.strides}
            return kind, {**window, "padding": layer.padding, **images}
        case GlobalAvgPool():
            return "GlobalAveragePooling2D", {"keepdims": False, **images}
        case Flatten():
            return "Flatten", images
        case Dense():
            return "Dense", {}
        case BatchNorm():
            return "BatchNormalization", {"epsilon": layer.eps, "axis": -1}
        case ReLU():
            return "relu", {**_ACTIVATIONS["relu"]}
        case LeakyReLU():
            return "leaky_relu", {"negative_slope": layer.slope}
        case Sigmoid():
            return "sigmoid", {}
        case Tanh():
            return "tanh", {}
        case Softmax():
            return "softmax", {"axis": layer.axis}
    return OWN, {}


def _step_there(layer: Any, label: str) -> Step:
    """What a layer of Keras does but for its activation."""
    import keras

    names = (name for name in _SETTINGS if isinstance(layer, getattr(keras.layers, name)))
    name = next(names, OWN)
    settings = {setting: getattr(layer, setting) for setting in _SETTINGS.get(name, ())}
    # What keras.ops computes between layers is no layer.
    variables = layer.weights if isinstance(layer, keras.layers.Layer) else []
    weights = {variable.name: variable for variable in variables}
    return Step(_ACTIVATION_LAYERS.get(name, name), label, settings, weights)


def _is_float_cast(operation: Any) -> bool:
    """Whether an operation of Keras only converts between floating dtypes."""
    return type(operation).__name__ == "Cast" and "float" in str(operation.dtype)


def _are_its_zeros(before: Step, conv: Step) -> bool:
    """Whether a step of Keras's adds the padding of the convolution after it."""
    return (
        before.kind == "ZeroPadding2D"
        and before.settings["data_format"] == conv.settings["data_format"]
        and conv.settings["padding"] == "valid"
    )


def _operations(model: keras.Model) -> Iterator[Any]:
    """The layers of a model and of the models inside it, one after another.

    Raises ValueError as `steps_there`.
    """
    import keras

    label = f"Keras's {type(model).__name__} {model.name!r}"
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise ValueError(
            f"{label} does not say in which order its layers compute; expected a Sequential or a "
            "functional model that has seen the shape of its input"
        )
    if len(outputs) > 1:
        raise ValueError(f"{label} has {len(outputs)} outputs; expected one")
    found = []
    tensor = outputs[0]
    while True:  # from the output back to the input
        operation, place, _ = tensor._keras_history
        node = operation._inbound_nodes[place]
        if node.is_input:
            break
        if len(node.input_tensors) != 1:
            raise ValueError(
                f"Keras's {type(operation).__name__} {operation.name!r} has "
                f"{len(node.input_tensors)} inputs; expected layers one after another"
            )
        found.append(operation)
        tensor = node.input_tensors[0]
    for operation in reversed(found):
        if isinstance(operation, keras.Model):
            yield from _operations(operation)
        else:
            yield operation


def _differences(ours: Step, theirs: Step) -> list[str]:
    """What keeps two steps of one kind from computing the same, each in words."""
    us, them = ours.label, theirs.label
    wrong = [
        f"{them} lacks {name!r} of {us}" for name in ours.weights if name not in theirs.weights
    ]
    for name, variable in theirs.weights.items():
        shape = tuple(variable.shape)
        if name not in ours.weights:
            wrong.append(f"{us} lacks {name!r} of {them}")
        elif shape != ours.weights[name].shape:
            must = ours.weights[name].shape
            wrong.append(f"{name!r} of {them} must be {must} for {us}, is {shape}")
    for name, must in ours.settings.items():
        value = theirs.settings[name]
        if _effect(ours, name, value) != _effect(ours, name, must):
            wrong.append(f"{name!r} of {them} must be {must!r} for {us}, is {value!r}")
    return wrong


def _effect(step: Step, name: str, value: Any) -> Any:
    """What a setting comes to at a step here: several values may come to the same."""
    if name == "axis" and isinstance(value, int):
        return value % len(step.shape)
    if name == "padding" and value == "valid":
        return (0, 0), (0, 0)
    if name == "padding" and value == "same":
        size = step.settings.get("pool_size") or step.weights["kernel"].shape[:2]
        dilation = step.settings.get("dilation_rate", (1, 1))
        image = step.shape[1], step.shape[2]
        return same_padding(image, size, step.settings["strides"], dilation)
    return value


def _title(activation: Any) -> str:
    """What errors call an activation function."""
    return getattr(activation, "__name__", type(activation).__name__)
