"""The training loop and what surrounds it."""

from minidl.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    WeightAverage,
)
from minidl.training.classify import Prediction, classify
from minidl.training.history import History
from minidl.training.interruption import Interrupted
from minidl.training.metrics import accuracy, confusion_matrix, per_class_accuracy, top_k_accuracy
from minidl.training.plots import (
    computation_graph,
    plot_computation_graph,
    plot_confusion_matrix,
    plot_feature_maps,
    plot_filters,
    plot_history,
    plot_images,
    plot_predictions,
    plot_probabilities,
)
from minidl.training.saving import load, save
from minidl.training.trainer import Trainer
from minidl.training.weights import load_weights, save_weights

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "Interrupted",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Prediction",
    "ReduceLROnPlateau",
    "Trainer",
    "WeightAverage",
    "accuracy",
    "classify",
    "computation_graph",
    "confusion_matrix",
    "load",
    "load_weights",
    "per_class_accuracy",
    "plot_computation_graph",
    "plot_confusion_matrix",
    "plot_feature_maps",
    "plot_filters",
    "plot_history",
    "plot_images",
    "plot_predictions",
    "plot_probabilities",
    "save",
    "save_weights",
    "top_k_accuracy",
]
