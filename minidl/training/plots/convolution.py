"""What a convolution looks for, and what it finds in an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.layers import Conv2D, Module
from minidl.ops.operands import floating
from minidl.tensor import Tensor, TensorLike, no_grad
from minidl.training.plots.figure import TEXT_SIZE, panel_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_filters(model: Module, channel: int | None = None, columns: int = 8) -> Figure:
    """Draw the filters of a model's first convolution in a grid, each under its number.

    The weights for one input channel are red where positive, blue where negative and white at zero.
    Filters for colour images are drawn in colour, with zero in mid-grey. All share one scale.

    Args:
        model: a model with a `Conv2D` in it, or a `Conv2D`.
        channel: input channel whose weights are drawn. May be None if there is one channel, or
            three, which are then drawn as red, green and blue.
        columns: filters in a row of the grid.

    Raises:
        ValueError: if there is no Conv2D, or no such channel.
        RuntimeError: if the convolution has not been built yet.
    """
    layer = _first_convolution(model, "plot_filters")
    layer.parameters()  # raises if there are none yet
    filters = np.moveaxis(layer.weight.numpy(), 3, 0)  # (filters, KH, KW, C_in)
    channels = filters.shape[3]
    if channel is None and channels == 1:
        channel = 0
    largest = float(np.abs(filters).max()) or 1.0
    if channel is None and channels == 3:
        figure, panels = panel_grid(_numbers(filters), columns)
        for panel, image in zip(panels, filters, strict=True):
            panel.imshow(0.5 + image / (2 * largest))
        return figure
    if channel is None or not 0 <= channel < channels:
        raise ValueError(
            f"plot_filters: {layer.label} has {channels} input channels; choose one of them with "
            f"channel=0 to channel={channels - 1}, got {channel}"
        )
    return _planes(filters[..., channel], columns, "RdBu_r", -largest, largest)


def plot_feature_maps(
    model: Module, image: TensorLike, layer: str | Module | None = None, columns: int = 8
) -> Figure:
    """Draw what a layer makes of an image: each channel of its output, under its number.

    All channels share one scale. The model computes in evaluation mode, and is left as it was.

    Args:
        model: of any kind.
        image: one sample as the model takes it, without the batch: (H, W, C).
        layer: in the model, with outputs (N, H, W, C): its dotted name, as in the names of its
            parameters, or the layer itself; the first `Conv2D` if None. A convolution is drawn
            before the pooling that follows it.
        columns: channels in a row of the grid.

    Raises:
        ValueError: if there is no such layer, or its output is no batch of images.
        ValueError, TypeError, RuntimeError: if the image does not suit the model.
    """
    watched = _layer(model, layer)
    x = floating(image)
    like = next(iter(model.parameters()), x).data
    x = Tensor(backend.of(like).asarray(x.data[None]).astype(like.dtype))
    with no_grad(), model.mode(training=False), _outputs_of(watched) as outputs:
        model(x)
    if not outputs or outputs[0].ndim != 4:
        got = f"gave shape {outputs[0].shape}" if outputs else "was not used"
        raise ValueError(
            f"plot_feature_maps expects a layer with outputs (N, H, W, C), {watched.label} {got}"
        )
    maps = np.moveaxis(outputs[0].numpy()[0], 2, 0)
    low, high = float(maps.min()), float(maps.max())
    return _planes(maps, columns, "viridis", low, high if high > low else low + 1)


def _planes(planes: Array, columns: int, colors: str, low: float, high: float) -> Figure:
    """Draw planes (N, H, W) in a grid, with a bar that tells what colours stand for."""
    figure, panels = panel_grid(_numbers(planes), columns)
    for panel, plane in zip(panels, planes, strict=True):
        drawn = panel.imshow(plane, cmap=colors, vmin=low, vmax=high)
    figure.set_figwidth(figure.get_figwidth() + 0.8)
    bar = figure.colorbar(drawn, ax=panels, ticks=[low, (low + high) / 2, high], format="%.2g")
    bar.ax.tick_params(labelsize=TEXT_SIZE)
    return figure


def _numbers(things: Array) -> list[str]:
    """Titles for a number of things: 0, 1, 2 and so on."""
    return [str(number) for number in range(len(things))]


def _first_convolution(model: Module, name: str) -> Conv2D:
    """The first Conv2D in a model. Raises ValueError, naming the function, if there is none."""
    for module in model.modules():
        if isinstance(module, Conv2D):
            return module
    raise ValueError(f"{name} expects a model with a Conv2D, {model.label} has none")


def _layer(model: Module, layer: str | Module | None) -> Module:
    """The layer that is meant. Raises ValueError if the model has none like that."""
    if layer is None:
        return _first_convolution(model, "plot_feature_maps")
    named = _named_modules(model)
    for name, module in named.items():
        if layer in (name, module):
            return module
    wanted = layer.label if isinstance(layer, Module) else repr(layer)
    raise ValueError(
        f"plot_feature_maps: {model.label} has no layer {wanted}; its layers are {', '.join(named)}"
    )


def _named_modules(model: Module) -> dict[str, Module]:
    """All modules inside a model by their dotted names."""
    named: dict[str, Module] = {}
    seen = {id(model)}
    stack = [("", model)]
    while stack:
        prefix, module = stack.pop()
        for name, member in module.members():
            if isinstance(member, Module) and id(member) not in seen:
                seen.add(id(member))
                named[prefix + name] = member
                stack.append((f"{prefix}{name}.", member))
    return named


@contextmanager
def _outputs_of(layer: Module) -> Iterator[list[Tensor]]:
    """Collects the outputs of a layer inside a model that computes in this block."""
    outputs: list[Tensor] = []
    own = vars(layer).get("forward")
    forward = layer.forward

    def watched(x: Tensor, *pooling: Any) -> Tensor:
        outputs.append(forward(x))
        return forward(x, *pooling) if pooling else outputs[-1]

    layer.forward = watched  # type: ignore[method-assign]
    try:
        yield outputs
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own  # type: ignore[method-assign]
