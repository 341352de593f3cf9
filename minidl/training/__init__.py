"""The training loop and what surrounds it."""

from minidl.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    WeightAverage,
)
from minidl.training.history import History
from minidl.training.metrics import accuracy
from minidl.training.plots import plot_history, plot_predictions
from minidl.training.trainer import Trainer
from minidl.training.weights import load_weights, save_weights

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "Trainer",
    "WeightAverage",
    "accuracy",
    "load_weights",
    "plot_history",
    "plot_predictions",
    "save_weights",
]
