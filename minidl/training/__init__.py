"""The training loop and what surrounds it."""

from minidl.training.history import History
from minidl.training.metrics import (
    accuracy,
    confusion_matrix,
    per_class_accuracy,
    top_k_accuracy,
)
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
from minidl.training.trainer import Trainer
from minidl.training.weights import load_weights, save_weights

__all__ = [
    "History",
    "Trainer",
    "accuracy",
    "computation_graph",
    "confusion_matrix",
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
    "save_weights",
    "top_k_accuracy",
]
