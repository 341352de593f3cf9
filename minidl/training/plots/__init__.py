"""Pictures of data, of a training and of a model.

Each is a function that returns a matplotlib figure, which its caller writes with
`figure.savefig(path)`. Figures are made without matplotlib's interactive side: no window or display
is needed, and the user's own figures are left alone.
"""

from minidl.training.plots.confusion import plot_confusion_matrix
from minidl.training.plots.convolution import plot_feature_maps, plot_filters
from minidl.training.plots.curves import plot_history
from minidl.training.plots.graph import computation_graph, plot_computation_graph
from minidl.training.plots.images import plot_images
from minidl.training.plots.predictions import plot_predictions, plot_probabilities

__all__ = [
    "computation_graph",
    "plot_computation_graph",
    "plot_confusion_matrix",
    "plot_feature_maps",
    "plot_filters",
    "plot_history",
    "plot_images",
    "plot_predictions",
    "plot_probabilities",
]
