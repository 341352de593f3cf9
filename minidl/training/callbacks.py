"""What is told how training goes, and may act on it.

`Trainer.fit` takes a list of callbacks and calls their methods in turn. The ones here bear Keras's
names and do what those do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from minidl.backend import Array
from minidl.tensor import Tensor
from minidl.training.weights import save_weights

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

Measures: TypeAlias = Mapping[str, float]
EpochFunction: TypeAlias = "Callable[[Trainer, int, Measures], object]"


class Callback:
    """Something that training reports to; a subclass overrides what it wants to hear.

    The trainer gives access to all: `trainer.model`, `trainer.optimizer`, `trainer.history`.
    Setting `trainer.stop_training = True` ends training after the epoch.
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Training begins."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """An epoch begins, counted from 1."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """A step has been taken."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """An epoch is done and, if there is validation data, validated."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Training is over, unless an error ended it."""

    @property
    def hears_batches(self) -> bool:
        """Whether there is anything to call after each step."""
        return type(self).on_batch_end is not Callback.on_batch_end


class LambdaCallback(Callback):
    """Calls a function of the trainer, the epoch and its measures after each epoch."""

    def __init__(self, on_epoch_end: EpochFunction) -> None:
        self._function = on_epoch_end

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Call the function."""
        self._function(trainer, epoch, measures)


def as_callback(callback: Callback | EpochFunction) -> Callback:
    """A callback as it is, a function as one. Raises TypeError for anything else, also a class."""
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, type) or not callable(callback):
        raise TypeError(
            "callbacks must be instances of Callback or functions of trainer, epoch and measures, "
            f"got {callback!r}"
        )
    return LambdaCallback(callback)


class _Best:
    """The best value of a measure so far.

    Args:
        monitor: the name of the measure.
        mode: "min" if less is better, "max" if more is; "auto" for more if the name speaks of
            accuracy, and less otherwise.
        min_delta: what counts as better differs by more than this.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'mode must be "auto", "min" or "max", got {mode!r}')
        if not min_delta >= 0:
            raise ValueError(f"min_delta must not be negative, got {min_delta}")
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" or (mode == "auto" and "acc" in monitor) else -1.0
        self.min_delta = min_delta
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.value = math.nan

    def is_beaten_by(self, measures: Measures) -> bool:
        """Whether the measure is better than ever, which is then the best. Not a number never is.

        Raises ValueError if there is no such measure.
        """
        if self.monitor not in measures:
            raise ValueError(
                f"no measure is called {self.monitor!r}; there are {', '.join(measures)}"
                + ("" if "val_loss" in measures else " (val_ ones need validation_data)")
            )
        value = measures[self.monitor]
        first = math.isnan(self.value) and not math.isnan(value)
        if first or self.sign * (value - self.value) > self.min_delta:
            self.value = value
            return True
        return False


class EarlyStopping(Callback):
    """Ends training when a measure has stopped getting better, and brings the best weights back.

    Args:
        monitor: the measure, such as "val_loss" or "val_accuracy".
        patience: epochs in a row that may bring nothing better before the next such one ends it;
            0 ends at the first.
        min_delta: what counts as better differs by more than this.
        mode: "min" if less is better, "max" if more is; "auto" for more if the name speaks of
            accuracy, and less otherwise.
        restore_best_weights: whether the model ends with the weights of its best epoch, also if
            training ends by itself. Keras leaves those of the last epoch unless asked.

    Attributes:
        best_epoch: the epoch of the best value, counted from 1; 0 before there is one.

    Raises:
        ValueError: if an argument is out of range; in training, if there is no such measure.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = True,
    ) -> None:
        self._best = _Best(monitor, mode, min_delta)
        self._patience = _count(patience, "patience")
        self._restore = restore_best_weights
        self._weights: dict[str, Array] | None = None
        self.best_epoch = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget an earlier training."""
        self._best.forget()
        self._weights = None
        self.best_epoch = 0

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Keep the weights if they are the best, stop if that has not been for too long."""
        if self._best.is_beaten_by(measures):
            self.best_epoch = epoch
            if self._restore:
                self._weights = trainer.model.state_dict()
        elif epoch - self.best_epoch > self._patience:
            trainer.stop_training = True

    def on_train_end(self, trainer: Trainer) -> None:
        """Bring the best weights back."""
        if self._weights is not None:
            trainer.model.load_state_dict(self._weights)
            self._weights = None


class ModelCheckpoint(Callback):
    """Saves the weights after each epoch, or after those that are better than all before.

    Args:
        path: of the safetensors file, in an existing folder. It may name the epoch and measures, as
            in "weights-{epoch:02d}-{val_loss:.3f}.safetensors".
        monitor: the measure that says what is better.
        save_best_only: whether to save only then. Keras saves after every epoch unless asked.
        mode: see `EarlyStopping`.

    Raises:
        ValueError: in training, if there is no such measure.
        OSError: in training, if the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = True,
        mode: str = "auto",
    ) -> None:
        self._path = os.fspath(path)
        self._best = _Best(monitor, mode)
        self._best_only = save_best_only

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget an earlier training."""
        self._best.forget()

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Save the weights if that is due."""
        if not self._best_only or self._best.is_beaten_by(measures):
            save_weights(trainer.model, self._path.format(epoch=epoch, **measures))


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch.

    Args:
        schedule: a function of the epoch, counted from 1, and of the learning rate so far, that
            returns the next one.

    For a rate that changes with every step, give the optimizer a schedule such as `CosineDecay`.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self._schedule = schedule

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Set the learning rate."""
        optimizer = trainer.optimizer
        optimizer.lr = float(self._schedule(epoch, optimizer.current_lr))


class ReduceLROnPlateau(Callback):
    """Lowers the learning rate when a measure has stopped getting better.

    Args:
        monitor: the measure.
        factor: what the learning rate is multiplied with, between 0 and 1.
        patience: epochs in a row that may bring nothing better before the next such one lowers it.
        min_delta: what counts as better differs by more than this.
        min_lr: the lowest learning rate.
        mode: see `EarlyStopping`.

    Raises:
        ValueError: if an argument is out of range; in training, if there is no such measure.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        min_lr: float = 0.0,
        mode: str = "auto",
    ) -> None:
        if not 0 < factor < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor}")
        self._best = _Best(monitor, mode, min_delta)
        self._factor, self._min_lr = factor, min_lr
        self._patience = _count(patience, "patience")
        self._since = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget an earlier training."""
        self._best.forget()
        self._since = 0

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Lower the learning rate if nothing has got better for too long."""
        self._since = 0 if self._best.is_beaten_by(measures) else self._since + 1
        if self._since > self._patience:
            self._since = 0
            optimizer = trainer.optimizer
            optimizer.lr = max(optimizer.current_lr * self._factor, self._min_lr)


class CSVLogger(Callback):
    """Writes a line of measures after each epoch to a CSV file, which can be read meanwhile.

    Args:
        path: of the file, in an existing folder. An older one is replaced.

    Raises:
        OSError: in training, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Write the history so far."""
        trainer.history.save(self._path)


class WeightAverage(Callback):
    """Averages the weights of all steps, later ones more, and ends training with the average [1].

    After each step, average = decay * average + (1 - decay) * weights, for parameters and buffers
    alike; d is smaller at first, min(decay, (1 + t) / (10 + t)) after t steps, so that the start is
    soon forgotten. During training the model keeps its own weights, and is validated with them.

    Args:
        decay: between 0 and 1; 1 / (1 - decay) is about the number of steps that count.

    Raises:
        ValueError: if decay is out of range.

    [1] B. Polyak, A. Juditsky: Acceleration of stochastic approximation by averaging, 1992; in this
    form, exponential and with a growing decay, TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self._decay = decay
        self._steps = 0
        self._tensors: list[Tensor] = []
        self._averages: list[Array] = []

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start from the weights that the model has."""
        model = trainer.model
        self._steps = 0
        self._tensors = [t for _, t in (*model.named_parameters(), *model.named_buffers())]
        self._averages = [tensor.data.copy() for tensor in self._tensors]

    def on_batch_end(self, trainer: Trainer) -> None:
        """Let the new weights in."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for average, tensor in zip(self._averages, self._tensors, strict=True):
            average += (1 - decay) * (tensor.data - average)

    def on_train_end(self, trainer: Trainer) -> None:
        """Give the model the average."""
        for average, tensor in zip(self._averages, self._tensors, strict=True):
            tensor.data[...] = average
        self._tensors, self._averages = [], []


def _count(number: int, name: str) -> int:
    """A number of epochs. Raises ValueError below zero."""
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return number
