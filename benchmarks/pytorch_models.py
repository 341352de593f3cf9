"""The models of `models.py` built in PyTorch, which only the comparing benchmarks import."""

from __future__ import annotations

import numpy as np
import torch
from models import Model
from torch import nn


def in_pytorch(model: Model, channels_last: bool) -> nn.Module:
    """The model in PyTorch, in the memory format that is asked for."""
    shape = model.input_shape
    images = len(shape) == 3
    height, channels = shape[0], shape[-1]
    features = channels
    layers: list[nn.Module] = []
    for i, (kind, *arguments) in enumerate(model.layers):
        if kind == "conv":
            filters, size, padding = arguments
            if padding == "same" and size % 2 == 0:  # one more zero at the bottom and the right
                layers.append(nn.ZeroPad2d((0, size - 1, 0, size - 1)))
            around = (size - 1) // 2 if padding == "same" and size % 2 else 0
            layers += [nn.Conv2d(channels, filters, size, padding=around), nn.ReLU()]
            channels = filters
            height -= 0 if padding == "same" else size - 1
        elif kind == "pool":
            layers.append(nn.MaxPool2d(2))
            height //= 2
        elif kind == "flatten":
            layers.append(nn.Flatten())
            features = height * height * channels if images else height * features
        elif kind == "dropout":
            layers.append(nn.Dropout(*arguments))
        else:
            layers.append(nn.Linear(features, *arguments))
            (features,) = arguments
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
