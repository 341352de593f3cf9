"""The training loop and what surrounds it."""

from minidl.training.history import History
from minidl.training.metrics import (
    accuracy,
    confusion_matrix,
    per_class_accuracy,
    top_k_accuracy,
)
from minidl.training.plots import plot_history, plot_predictions
from minidl.training.trainer import Trainer
from minidl.training.weights import load_weights, save_weights

__all__ = [
    "History",
    "Trainer",
    "accuracy",
    "confusion_matrix",
    "load_weights",
    "per_class_accuracy",
    "plot_history",
    "plot_predictions",
    "save_weights",
    "top_k_accuracy",
]
