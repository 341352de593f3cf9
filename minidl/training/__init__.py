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
from minidl.training.classify import Prediction, classify
from minidl.training.history import History
from minidl.training.metrics import accuracy
from minidl.training.plots import plot_history, plot_predictions
from minidl.training.saving import load, save
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
    "Prediction",
    "ReduceLROnPlateau",
    "Trainer",
    "WeightAverage",
    "accuracy",
    "classify",
    "load",
    "load_weights",
    "plot_history",
    "plot_predictions",
    "save",
    "save_weights",
]
