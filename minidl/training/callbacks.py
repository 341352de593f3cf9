"""What is told how training goes, and may act on it.

`Trainer.fit` takes a list of callbacks and calls their methods in turn. The ones here bear Keras's
names and do what those do; where a default differs, it says so. Epochs are counted from 1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.data.files import check_replaceable
from minidl.layers.module import positive
from minidl.optim import Schedule
from minidl.tensor import Tensor
from minidl.training.forms import check_arrays, check_form
from minidl.training.weights import save_weights, tensors_of

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

Measures: TypeAlias = Mapping[str, float]
EpochFunction: TypeAlias = "Callable[[Trainer, int, Measures], object]"


class Callback:
    """Something that training reports to; a subclass overrides what it wants to hear.

    The trainer gives access to all: `trainer.model`, `trainer.optimizer`, `trainer.history`.
    Setting `trainer.stop_training = True` ends training after the epoch.

    In a world of several ranks each calls its own callbacks, with the same measures; what ends
    training on one ends it on all. The ones here write files on rank 0 alone; one of your own that
    writes or prints asks for `trainer.world.rank == 0`.
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

    def state_dict(self) -> dict[str, Any]:
        """What the callback knows of the training so far: arrays, and what JSON can hold.

        A checkpoint holds it. A subclass that remembers something overrides it.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know again what `state_dict` told; called after `on_train_begin`."""


class _EpochEnd(Callback):
    """Calls a function of the trainer, the epoch and its measures after each epoch."""

    def __init__(self, on_epoch_end: EpochFunction) -> None:
        self._function = on_epoch_end

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Call the function."""
        self._function(trainer, epoch, measures)


class CallbackList(Callback):
    """Hands what it hears on to several callbacks, in their order.

    Args:
        callbacks: callbacks, and functions to call after each epoch.

    Raises:
        TypeError: if something is neither, such as a class.
    """

    def __init__(self, callbacks: Iterable[Callback | EpochFunction]) -> None:
        if not isinstance(callbacks, Iterable):
            raise TypeError(f"callbacks must be a list, got {callbacks!r}; write [callback]")
        self._all = [_as_callback(callback) for callback in callbacks]
        # Most want nothing after a step, which may take less time than calling them all.
        deaf = Callback.on_batch_end
        self._after_batch = [c for c in self._all if type(c).on_batch_end is not deaf]

    @property
    def checkpoints(self) -> list[str]:
        """The last file that each `ModelCheckpoint` among them has written in this training."""
        saved = [c.last_saved for c in self._all if isinstance(c, ModelCheckpoint)]
        return [path for path in saved if path is not None]

    def on_train_begin(self, trainer: Trainer) -> None:
        """Training begins."""
        for callback in self._all:
            callback.on_train_begin(trainer)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """An epoch begins."""
        for callback in self._all:
            callback.on_epoch_begin(trainer, epoch)

    def on_batch_end(self, trainer: Trainer) -> None:
        """A step has been taken."""
        for callback in self._after_batch:
            callback.on_batch_end(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """An epoch is done."""
        for callback in self._all:
            callback.on_epoch_end(trainer, epoch, measures)

    def on_train_end(self, trainer: Trainer) -> None:
        """Training is over."""
        for callback in self._all:
            callback.on_train_end(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What each of them knows, with its class."""
        states = [{"class": type(c).__qualname__, "state": c.state_dict()} for c in self._all]
        return {"all": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let each know again what it knew. Raises ValueError if they are others."""
        kinds = [type(callback).__qualname__ for callback in self._all]
        if [one["class"] for one in state["all"]] != kinds:
            before = ", ".join(one["class"] for one in state["all"])
            raise ValueError(
                f"the callbacks were {before or 'none'}, here they are {', '.join(kinds) or 'none'}"
            )
        for callback, one in zip(self._all, state["all"], strict=True):
            callback.load_state_dict(one["state"])


def _as_callback(callback: Callback | EpochFunction) -> Callback:
    """A callback as it is, a function as one. Raises TypeError for anything else, also a class."""
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, type) or not callable(callback):
        raise TypeError(
            "callbacks must be instances of Callback or functions of trainer, epoch and measures, "
            f"got {callback!r}"
        )
    return _EpochEnd(callback)


class _Best:
    """The best value of a measure so far.

    Args:
        monitor: the name of the measure.
        mode: "min" if less is better, "max" if more is; "auto" for what the name says.
        min_delta: what counts as better differs by more than this.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'mode must be "auto", "min" or "max", got {mode!r}')
        if mode == "auto" and "acc" not in monitor and "loss" not in monitor:
            raise ValueError(
                f"mode cannot be told from the name {monitor!r}: say "
                'mode="max" if more is better, mode="min" if less is'
            )
        if not min_delta >= 0:
            raise ValueError(f"min_delta must not be negative, got {min_delta}")
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" or (mode == "auto" and "acc" in monitor) else -1.0
        self.min_delta = min_delta
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.value = math.nan

    def expect(self, names: Iterable[str]) -> None:
        """Raise ValueError if the measure is of validation data, of which there are none.

        Any other that `fit` does not know may be one that a callback adds.
        """
        if self.monitor.startswith("val_") and "val_loss" not in names:
            self.check(names)

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError if the measure is not among these."""
        names = list(names)
        if self.monitor not in names:
            raise ValueError(
                f"no measure is called {self.monitor!r}; there are {', '.join(names)}"
                + ("" if "val_loss" in names else " (val_ ones need validation_data)")
            )

    def is_beaten_by(self, measures: Measures) -> bool:
        """Whether the measure is better than ever, which is then the best. Not a number never is.

        Raises ValueError as `check`.
        """
        self.check(measures)
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
        patience: after how many epochs in a row that bring nothing better training ends; 0 is 1.
        min_delta: what counts as better differs by more than this.
        mode: "min" if less is better, "max" if more is; "auto" for more if the name speaks of
            accuracy, and less if of a loss.
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
        self._patience = _patience(patience)
        self._restore = restore_best_weights
        self._weights: dict[str, Array] | None = None
        self._tensors: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.best_epoch = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget an earlier training. Raises ValueError if it lacks validation data."""
        self._best.expect(trainer.measure_names)
        self._best.forget()
        self._weights = None
        self._tensors = {n: (t.shape, t.dtype) for n, t in tensors_of(trainer.model)}
        self.best_epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """The best value, its epoch and its weights."""
        return {
            "best": self._best.value,
            "best_epoch": self.best_epoch,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know them again. Raises ValueError if they are not of such a model."""
        weights = None, {str: np.ndarray}
        check_form(state, {"best": float, "best_epoch": int, "weights": weights}, "EarlyStopping")
        if state["weights"] is not None:
            check_arrays(state["weights"], self._tensors, "what EarlyStopping kept")
        self._best.value = state["best"]
        self.best_epoch = state["best_epoch"]
        self._weights = state["weights"]

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Keep the weights if they are the best, stop if that has not been for too long."""
        if self._best.is_beaten_by(measures):
            self.best_epoch = epoch
            if self._restore:
                self._weights = trainer.model.state_dict()
        elif epoch - self.best_epoch >= self._patience:
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

    Attributes:
        last_saved: path of the last file that this training wrote; None before the first.

    Raises:
        ValueError: in training, if there is no such measure, or path names what is none.
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
        self.last_saved: str | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget an earlier training. Raises errors that are to be expected after an epoch."""
        if self._best_only:
            self._best.expect(trainer.measure_names)
        if trainer.world.rank == 0 and "{" not in self._path:
            check_replaceable(self._path)
        self._best.forget()
        self.last_saved = None

    def state_dict(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self._best.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know it again. Raises ValueError if it is none."""
        check_form(state, {"best": float}, "ModelCheckpoint")
        self._best.value = state["best"]

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Save the weights if that is due."""
        if not self._best_only or self._best.is_beaten_by(measures):
            try:
                path = self._path.format(epoch=epoch, **measures)
            except (LookupError, ValueError) as error:
                raise ValueError(
                    f"{self._path}: expected epoch or one of {', '.join(measures)} between the "
                    f"braces: {error}"
                ) from error
            if trainer.world.rank == 0:
                save_weights(trainer.model, path)
            self.last_saved = path


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch.

    Args:
        schedule: a function of the epoch, counted from 1, and of the learning rate so far, that
            returns the next one.

    For a rate that changes with every step, give the optimizer a schedule such as `CosineDecay`.

    Raises:
        ValueError: in training, if the optimizer has such a schedule already.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self._schedule = schedule

    def on_train_begin(self, trainer: Trainer) -> None:
        """Raise ValueError if the learning rate is a schedule."""
        _check_rate(trainer)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Set the learning rate."""
        optimizer = trainer.optimizer
        optimizer.lr = float(self._schedule(epoch, optimizer.current_lr))


class ReduceLROnPlateau(Callback):
    """Lowers the learning rate when a measure has stopped getting better.

    Args:
        monitor: the measure.
        factor: what the learning rate is multiplied with, between 0 and 1.
        patience: after how many epochs in a row that bring nothing better it is lowered; 0 is 1.
        min_delta: what counts as better differs by more than this.
        min_lr: the lowest learning rate.
        mode: see `EarlyStopping`.

    Raises:
        ValueError: if an argument is out of range; in training, if there is no such measure, or the
            learning rate is a schedule.
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
        self._patience = _patience(patience)
        self._since = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Forget an earlier training.

        Raises ValueError if the learning rate is a schedule, or validation data are missing.
        """
        _check_rate(trainer)
        self._best.expect(trainer.measure_names)
        self._best.forget()
        self._since = 0

    def state_dict(self) -> dict[str, Any]:
        """The best value, and for how long nothing has been better."""
        return {"best": self._best.value, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know them again. Raises ValueError if they are none."""
        check_form(state, {"best": float, "since": int}, "ReduceLROnPlateau")
        self._best.value = state["best"]
        self._since = state["since"]

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Lower the learning rate if nothing has got better for too long."""
        self._since = 0 if self._best.is_beaten_by(measures) else self._since + 1
        if self._since >= self._patience:
            self._since = 0
            rate = trainer.optimizer.current_lr
            if rate > self._min_lr:
                trainer.optimizer.lr = max(rate * self._factor, self._min_lr)


class CSVLogger(Callback):
    """Writes a line of measures after each epoch to a CSV file, which can be read meanwhile.

    Args:
        path: of the file, which ends in .csv, in an existing folder. An older one is replaced.

    Raises:
        ValueError: if the path ends otherwise.
        OSError: in training, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        if self._path.suffix != ".csv":
            raise ValueError(f"{path}: expected a path that ends in .csv")

    def on_train_begin(self, trainer: Trainer) -> None:
        """Raise OSError if the file could not be written."""
        if trainer.world.rank == 0:
            check_replaceable(self._path)

    def on_epoch_end(self, trainer: Trainer, epoch: int, measures: Measures) -> None:
        """Write the history so far."""
        if trainer.world.rank == 0:
            trainer.history.save(self._path)


class WeightAverage(Callback):
    """Averages the weights of all steps, later ones more, and ends training with the average [1].

    After each step, average = d * average + (1 - d) * weights, for parameters and floating buffers
    alike. d is decay, but smaller at first: at most (1 + t) / (10 + t) after t steps, so that the
    start is soon forgotten. During training the model keeps its own weights, and is validated with
    them. Of this and an `EarlyStopping` in one list, the one that stands last has the last word.

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
        self._tensors: dict[str, Tensor] = {}
        self._averages: dict[str, Array] = {}

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start from the weights that the model has."""
        self._steps = 0
        self._tensors = {n: t for n, t in tensors_of(trainer.model) if t.dtype.kind == "f"}
        self._averages = {name: tensor.data.copy() for name, tensor in self._tensors.items()}

    def on_batch_end(self, trainer: Trainer) -> None:
        """Let the new weights in."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, average in self._averages.items():
            average += (1 - decay) * (self._tensors[name].data - average)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, and the averages."""
        averages = {name: backend.on_host(a) for name, a in self._averages.items()}
        return {"steps": self._steps, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know them again. Raises ValueError if they are not of such a model."""
        check_form(state, {"steps": int, "averages": {str: np.ndarray}}, "WeightAverage")
        own = {name: (a.shape, a.dtype) for name, a in self._averages.items()}
        check_arrays(state["averages"], own, "what WeightAverage kept")
        self._steps = state["steps"]
        for name, average in self._averages.items():
            average[...] = backend.of(average).asarray(state["averages"][name])

    def on_train_end(self, trainer: Trainer) -> None:
        """Give the model the average."""
        for name, average in self._averages.items():
            self._tensors[name].data[...] = average
        self._tensors, self._averages = {}, {}


def _patience(epochs: int) -> int:
    """A number of epochs, at least one. Raises ValueError if it is no integer from 0 on."""
    return positive(1 if epochs == 0 else epochs, "patience")


def _check_rate(trainer: Trainer) -> None:
    """Raise ValueError if the learning rate is a schedule, which a callback would put an end to."""
    if isinstance(trainer.optimizer.lr, Schedule):
        raise ValueError(
            f"the optimizer's lr is a schedule, {type(trainer.optimizer.lr).__name__}, which sets "
            "the learning rate of each step; give it a number, or leave the callback out"
        )
