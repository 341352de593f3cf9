"""A model of minidl as a classifier of scikit-learn: for its pipelines, searches and scores.

This file imports scikit-learn, so it is itself imported only when its class is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from minidl.backend import Array, default_generator
from minidl.layers import Dense, Flatten, Module, Sequential
from minidl.layers.module import positive
from minidl.losses import cross_entropy
from minidl.optim import Adam, Optimizer, Schedule
from minidl.training.callbacks import Callback, EpochFunction
from minidl.training.classify import probabilities
from minidl.training.trainer import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'NeuralNetClassifier needs scikit-learn 1.6 or newer: pip install "scikit-learn>=1.6" '
        f"({error})"
    ) from error


class NeuralNetClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn that trains a `Sequential` with cross-entropy.

    Args:
        model: a function of the number of classes that returns the layers, the last of which gives
            one output for each class; say, `lambda classes: [Conv2D(8, 3), Flatten(),
            Dense(classes)]`. Each `fit` trains copies of them. If None, dense layers.
        hidden: units of each hidden layer, with ReLU, where model is None.
        optimizer: a class such as `Adam`, or a function of parameters and `lr=`, such as
            `functools.partial(SGD, momentum=0.9)`.
        lr: learning rate, a number or a schedule.
        epochs: how often to go through the data.
        batch_size: samples a step.
        callbacks: as for `Trainer.fit`. There are no validation data, so that those that watch a
            measure must watch that of the training: `EarlyStopping("loss")`.
        device: "cpu", "gpu" or "auto".
        verbose: as for `Trainer.fit`.
        random_state: an integer or a `numpy.random.RandomState`, that decides on initial weights,
            the order of samples and dropout; None for the generator that `seed` seeds, as it is.

    Attributes:
        classes_: the labels, sorted, (C,).
        history_: the `History` of the training.
        model_: the trained `Sequential`, in evaluation mode.
        n_features_in_: features a sample; of images, the length of their first axis.

    Labels are integers, strings or whatever scikit-learn takes. Samples are rows of a table (N, F),
    or images as the model wants them, (N, H, W) or (N, H, W, C); in a pipeline that makes tables,
    `FunctionTransformer(lambda X: X.reshape(-1, 28, 28, 1))` makes images of them. The model
    computes in float32.

    Trainings with a random_state take turns within one process, for they lend it to the generator
    that `seed` seeds, which afterwards goes on as before; `n_jobs` uses several processes.
    """

    def __init__(
        self,
        model: Callable[[int], Iterable[Module]] | None = None,
        *,
        hidden: Sequence[int] = (128,),
        optimizer: Callable[..., Optimizer] = Adam,
        lr: float | Schedule = 0.001,
        epochs: int = 10,
        batch_size: int = 32,
        callbacks: Sequence[Callback | EpochFunction] = (),
        device: str = "cpu",
        verbose: int | str = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.hidden = hidden
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.callbacks = callbacks
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new model.

        Args:
            X: samples (N, ...), not sparse.
            y: labels (N,), of at least two classes.

        Returns:
            The classifier.

        Raises:
            ValueError, TypeError: if the data are not such, or an argument of the classifier is
                not what it should be.
            NonFiniteError, MemoryError, DeviceError: as `Trainer.fit`.
        """
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} expects labels of 2 classes or more, y has 1 class: "
                f"{classes.tolist()[0]!r}"
            )
        if not callable(self.optimizer):
            raise TypeError(
                "optimizer must be a class such as minidl.Adam, or a function of parameters and "
                f"lr, got {self.optimizer!r}"
            )
        epochs = positive(self.epochs, "epochs")
        with _random_numbers_of(self.random_state):
            model = self._new_model(X.shape[1:], len(classes)).to(self.device)
            optimizer = self.optimizer(model.parameters(), lr=self.lr)
            history = Trainer(model, cross_entropy, optimizer).fit(
                X,
                numbers,
                epochs,
                self.batch_size,
                callbacks=self.callbacks,
                verbose=self.verbose,
            )
        model.zero_grad()  # a copy or a file need not take gradients along
        self.classes_, self.history_, self.model_ = classes, history, model.eval()
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class for samples (N, ...): an array (N, C), as `classes_`.

        Raises:
            NotFittedError: before `fit`.
            ValueError, TypeError: if the samples are not like those of `fit`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True)
        if X.shape[1:] != self.model_.input_shape:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} is expecting "
                f"{self.model_.input_shape}"
            )
        return np.stack(probabilities(self.model_, X))

    def predict(self, X: Any) -> Array:
        """The most likely label for each of the samples (N, ...): an array (N,).

        Raises as `predict_proba`.
        """
        places = self.predict_proba(X).argmax(axis=1)
        return self.classes_[places]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is told of the classifier."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _new_model(self, input_shape: tuple[int, ...], classes: int) -> Sequential:
        """An untrained model for samples of a shape. Raises ValueError or TypeError as `fit`."""
        layers: Iterable[Module]
        if self.model is None:
            if not isinstance(self.hidden, (tuple, list)):
                raise TypeError(
                    f"hidden must be a tuple of numbers, such as (128,), got {self.hidden!r}"
                )
            layers = [Flatten(), *(Dense(n, "relu") for n in self.hidden), Dense(classes)]
        elif not callable(self.model) or isinstance(self.model, Module):
            raise TypeError(
                "model must be a function of the number of classes that returns layers, got "
                f"{type(self.model).__name__}"
            )
        else:
            layers = copy.deepcopy(list(self.model(classes)))  # they may be the same at each call
        model = Sequential(layers, input_shape)
        if model.output_shape != (None, classes):
            raise ValueError(
                f"model must return layers that give (N, {classes}) for {classes} classes, they "
                f"give {model.output_shape} where None stands for N"
            )
        return model


@contextmanager
def _random_numbers_of(random_state: int | np.random.RandomState | None) -> Iterator[None]:
    """Let the default generator start from a random state, and after the block go on as before."""
    if random_state is None:
        yield
        return
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    with default_generator.replaying():
        default_generator.seed(seed)
        yield
