"""Optimizers and learning-rate schedules."""

from minidl.optim.optimizers import SGD, Adam, AdamW, Optimizer, clip_grad_norm
from minidl.optim.schedules import CosineDecay, OneCycle, Schedule, StepDecay, WarmUp

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineDecay",
    "OneCycle",
    "Optimizer",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "clip_grad_norm",
]
