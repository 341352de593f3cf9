"""The models of `models.py` built, trained and asked in PyTorch.

Only the comparing benchmarks import this.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from models import Batch, Model
from torch import nn


class Setting(NamedTuple):
    """A way to run PyTorch."""

    threads: int
    channels_last: bool
    device: str = "cpu"

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return threads + ", channels last" * self.channels_last


def memory_formats(model: Model) -> list[bool]:
    """Whether channels are to lie last: both ways for images, which alone have channels."""
    return [False, True] if len(model.input_shape) == 3 else [False]


def build(model: Model, channels_last: bool) -> nn.Module:
    """The model in PyTorch, in the memory format that is asked for."""
    layers: list[nn.Module] = []
    for i, ((kind, *arguments), shape) in enumerate(
        zip(model.layers, model.shapes()[:-1], strict=True)
    ):
        if kind == "conv":
            filters, size, padding = arguments
            if padding == "same" and size % 2 == 0:  # one more zero at the bottom and the right
                layers.append(nn.ZeroPad2d((0, size - 1, 0, size - 1)))
            around = (size - 1) // 2 if padding == "same" and size % 2 else 0
            layers += [nn.Conv2d(shape[-1], filters, size, padding=around), nn.ReLU()]
        elif kind == "pool":
            layers.append(nn.MaxPool2d(2))
        elif kind == "flatten":
            layers.append(nn.Flatten())
        elif kind == "dropout":
            layers.append(nn.Dropout(*arguments))
        else:
            layers.append(nn.Linear(shape[-1], *arguments))
            if i < len(model.layers) - 1:
                layers.append(nn.ReLU())
    built = nn.Sequential(*layers)
    return built.to(memory_format=torch.channels_last) if channels_last else built


def as_torch(images: np.ndarray, channels_last: bool) -> torch.Tensor:
    """Images (N, H, W, C) as PyTorch takes them, (N, C, H, W); all else as it is."""
    if images.ndim != 4:
        return torch.tensor(images)
    batch = torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return batch.contiguous(memory_format=torch.channels_last) if channels_last else batch


def training(model: Model, data: list[Batch], setting: Setting) -> Callable[[], None]:
    """What does one training step at each call, on the next of the batches."""
    built = build(model, setting.channels_last).to(setting.device)
    device = setting.device
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[model.optimizer]
    optimizer = make(built.parameters(), lr=0.001)
    turn = itertools.cycle(
        [
            (as_torch(images, setting.channels_last).to(device), torch.tensor(y).to(device))
            for images, y in data
        ]
    )

    def step() -> None:
        torch.set_num_threads(setting.threads)  # takes a ten-thousandth of a millisecond
        images, labels = next(turn)
        loss = nn.functional.cross_entropy(built(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def prediction(model: Model, data: list[Batch], setting: Setting) -> Callable[[], None]:
    """What computes the outputs for all batches at each call, without a graph."""
    built = build(model, setting.channels_last).eval()
    inputs = [as_torch(images, setting.channels_last) for images, _ in data]

    def predict() -> None:
        torch.set_num_threads(setting.threads)
        with torch.inference_mode():
            for images in inputs:
                built(images)

    return predict
