"""Weights to and from PyTorch, which keeps channels first and has names of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from minidl.interop.channels_first import LayerWeights, Weight, layer_weights
from minidl.layers import BatchNorm, Conv2D, Dense, Module, Sequential

if TYPE_CHECKING:
    import torch


class Counterpart(NamedTuple):
    """What stands for a layer in PyTorch.

    Attributes:
        classes: of `torch.nn`.
        names: of its weights there, by those here.
        settings: their names there by those here, where another value would give another output.
            Padding is not among them: it may stand in a module of its own there.
    """

    classes: tuple[str, ...]
    names: Mapping[str, str]
    settings: Mapping[str, str]


COUNTERPARTS: Mapping[type[Module], Counterpart] = {
    Dense: Counterpart(("Linear",), {"weight": "weight", "bias": "bias"}, {}),
    Conv2D: Counterpart(
        ("Conv2d",),
        {"weight": "weight", "bias": "bias"},
        {"strides": "stride", "dilation": "dilation"},
    ),
    BatchNorm: Counterpart(
        ("BatchNorm1d", "BatchNorm2d"),
        {
            "gamma": "weight",
            "beta": "bias",
            "running_mean": "running_mean",
            "running_variance": "running_var",
        },
        {"eps": "eps"},
    ),
}


class TorchWeights(NamedTuple):
    """A module of PyTorch with weights of its own, and these by their names."""

    label: str
    module: torch.nn.Module
    weights: Mapping[str, torch.Tensor]


def weights_to_pytorch(model: Sequential, torch_model: torch.nn.Module) -> None:
    """Copy all weights of a model into the same model built in PyTorch.

    In evaluation mode both then give the same outputs, for images (N, H, W, C) here and
    (N, C, H, W) there. Weights are paired in order and converted to the layout, the dtype and the
    device of those they replace. Layers without weights are not compared, nor is padding; mind that
    `AvgPool2d` counts padded places unless it is told `count_include_pad=False`.

    Training goes on a little differently after batch normalisation: PyTorch's `momentum` is one
    minus ours, and its running variance is that of a sample, by n - 1, where ours is by n.

    Args:
        model: that has an input_shape or has seen a batch.
        torch_model: whose `Linear`, `Conv2d` and `BatchNorm` modules were made in the order of the
            `Dense`, `Conv2D` and `BatchNorm` layers here, and stand for them. Batch normalisations
            need the same `eps`, which by default is not the same.

    Raises:
        ValueError: naming everything that does not fit; nothing has been changed then. Also for a
            model whose outputs cannot be the same, such as one that ends in Flatten.
        RuntimeError: if the model has not seen the shape of its input yet.
        TypeError: if one of the two is no model of its library.
    """
    import torch

    pairs = _pairs(model, torch_model)
    with torch.no_grad():
        for weight, theirs in pairs:
            theirs.copy_(torch.from_numpy(weight.channels_first()))


def weights_from_pytorch(model: Sequential, torch_model: torch.nn.Module) -> None:
    """Copy all weights of a PyTorch model into the same model built here.

    Arguments and errors as for `weights_to_pytorch`, and what is said there holds here.
    """
    import torch

    pairs = _pairs(model, torch_model)
    values = [theirs.detach().to("cpu", torch.float64).numpy() for _, theirs in pairs]
    for (weight, _), value in zip(pairs, values, strict=True):
        weight.assign(value)


def _pairs(model: Sequential, torch_model: torch.nn.Module) -> list[tuple[Weight, torch.Tensor]]:
    """Each weight here with the one there. Raises as `weights_to_pytorch`."""
    import torch

    if not isinstance(model, Sequential):
        raise TypeError(f"expected a Sequential of minidl first, got {type(model).__name__}")
    if not isinstance(torch_model, torch.nn.Module):
        raise TypeError(f"expected a torch.nn.Module second, got {type(torch_model).__name__}")
    pairs: list[tuple[Weight, torch.Tensor]] = []
    wrong: list[str] = []
    for ours, theirs in zip_longest(layer_weights(model), _torch_weights(torch_model)):
        if ours is None or theirs is None:
            label = theirs.label if ours is None else ours.layer.label
            wrong.append(f"{label} has no counterpart")
            continue
        counterpart = next(c for kind, c in COUNTERPARTS.items() if isinstance(ours.layer, kind))
        classes = tuple(getattr(torch.nn, name) for name in counterpart.classes)
        if not isinstance(theirs.module, classes):
            expected = " or ".join(counterpart.classes)
            wrong.append(f"{ours.layer.label} expects {expected}, got {theirs.label}")
            continue
        wrong += _differences(ours, theirs, counterpart)
        pairs += [
            (weight, theirs.weights[counterpart.names[name]])
            for name, weight in ours.weights.items()
            if counterpart.names[name] in theirs.weights
        ]
    if len({id(theirs) for _, theirs in pairs}) < len(pairs):
        wrong.append("modules of the PyTorch model share weights")
    if wrong:
        raise ValueError(f"the PyTorch model is not the same as {model.label}: {'; '.join(wrong)}")
    return pairs


def _torch_weights(torch_model: torch.nn.Module) -> Iterator[TorchWeights]:
    """The modules that have weights of their own, in the order in which they were made."""
    for name, module in torch_model.named_modules(remove_duplicate=False):
        weights = {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers(recurse=False)),
        }
        weights.pop("num_batches_tracked", None)  # counts, and changes no output
        if weights:
            kind = type(module).__name__
            yield TorchWeights(f"{kind} {name!r}" if name else kind, module, weights)


def _differences(ours: LayerWeights, theirs: TorchWeights, counterpart: Counterpart) -> list[str]:
    """What keeps a layer and its counterpart from computing the same, each in words."""
    us, them = ours.layer.label, theirs.label
    shapes = {counterpart.names[name]: weight.shape for name, weight in ours.weights.items()}
    wrong = [f"{them} lacks {name!r} of {us}" for name in shapes if name not in theirs.weights]
    for name, tensor in theirs.weights.items():
        shape = tuple(tensor.shape)
        if name not in shapes:
            wrong.append(f"{us} lacks {name!r} of {them}")
        elif shape != shapes[name]:
            wrong.append(f"{name!r} of {them} must be {shapes[name]} for {us}, is {shape}")
    for here, there in counterpart.settings.items():
        must, value = getattr(ours.layer, here), getattr(theirs.module, there)
        if value != must:
            wrong.append(f"{there!r} of {them} must be {must} for {us}, is {value}")
    return wrong
