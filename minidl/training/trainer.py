"""The training loop: batches in, gradients back, one step of the optimizer, and what came of it.

Nothing here is more than convenience. A loop written by hand over the same model, loss and
optimizer does the same; `examples/training_loop.py` shows one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from minidl.anomaly import NonFiniteError
from minidl.backend import Array, Generator
from minidl.data.files import check_replaceable
from minidl.data.loader import DataLoader, Pass, Transformation
from minidl.distributed import Alone, World
from minidl.kernels.blas_threads import one_blas_thread
from minidl.layers import Buffer, Module
from minidl.layers.module import positive
from minidl.losses import cross_entropy
from minidl.optim import Optimizer
from minidl.optim.optimizers import scale_to_norm
from minidl.tensor import Tensor, no_grad
from minidl.training import divergence
from minidl.training.callbacks import Callback, CallbackList, EpochFunction
from minidl.training.checkpoint import Checkpoints, Epoch, generators_of, restore_training
from minidl.training.failures import explains_failures
from minidl.training.history import History
from minidl.training.interruption import interruptible
from minidl.training.means import Means, Measure
from minidl.training.metrics import accuracy
from minidl.training.outputs import ends_in_softmax, outputs_of
from minidl.training.parallel import Single, parallel, settings_of
from minidl.training.progress import Silent, progress

# What a history holds besides metrics.
RESERVED = ("loss", "seconds")


class Trainer:
    """Fits a model to data, and says how well it does.

    Args:
        model: whose parameters have been made, by an input_shape or a first batch.
        loss: a function of outputs and labels that returns a single number to minimise, the mean
            over the batch. `cross_entropy`, also as a `functools.partial`, takes the outputs of a
            Sequential that ends in softmax for the probabilities they are; for a module of your
            own that ends so, pass `partial(cross_entropy, from_logits=False)`.
        optimizer: over the model's parameters.
        metrics: further functions of outputs and labels, by name, each the mean over the samples it
            is given, which may be those of several batches; {"accuracy": accuracy} if None and the
            loss is cross_entropy. No metric can be named "loss", "seconds" or "val_...".
        clip_norm: the largest norm of all gradients together, see `clip_grad_norm`; None for any.
        world: the processes that train together, `minidl.world()`; None for this process alone.

    Attributes:
        history: what the last `fit` has recorded so far, also if it was interrupted.
        measure_names: what `fit` measures in each epoch, known before the first.
        stop_training: set to True, for example by a callback, it ends `fit` after the epoch.

    Inputs of every dtype are converted, batch by batch, to the dtype and the device of the model.
    Threads that share a trainer take turns: `fit`, `evaluate` and `predict` switch the model
    between training and evaluation.

    In a world of several ranks, each calls `fit` with the same arguments and all of the data, and
    takes its share of each batch. Before a step, gradients are averaged over the whole batch, so
    that all ranks hold the same model throughout, that of rank 0 at first; this needs a loss that
    is a mean over samples. Two things depend on the number of ranks: what is random about a sample,
    for each rank's dropout and transforms draw numbers of their own; and batch normalisation, which
    takes the statistics of each rank's share, as PyTorch's DistributedDataParallel does. Of its
    running statistics, and of all floating buffers, the mean over the batch is taken in each step.
    """

    def __init__(
        self,
        model: Module,
        loss: Measure,
        optimizer: Optimizer,
        *,
        metrics: Mapping[str, Measure] | None = None,
        clip_norm: float | None = None,
        world: World | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        of_classes = getattr(loss, "func", loss) is cross_entropy  # as it is, or in a partial
        if metrics is None:
            metrics = {"accuracy": accuracy} if of_classes else {}
        chosen = "from_logits" in getattr(loss, "keywords", {})
        if of_classes and not chosen and ends_in_softmax(model):
            loss = partial(loss, from_logits=False)  # type: ignore[call-arg]
        self.loss = loss
        if not isinstance(metrics, Mapping) or any(
            name in RESERVED or str(name).startswith("val_") for name in metrics
        ):
            raise ValueError(
                "metrics must be functions by names other than "
                f"{' and '.join(RESERVED)}, which do not begin with val_, such as "
                f'{{"accuracy": accuracy}}, got {metrics!r}'
            )
        self.metrics = dict(metrics)
        self.history = History()
        self.measure_names: tuple[str, ...] = ()
        self.stop_training = False
        self._turn = threading.RLock()
        self._shared: Single | None = None
        self.clip_norm = clip_norm
        self.world = Alone() if world is None else world

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: all but the lock, and what speaks with other ranks."""
        left = "_turn", "_shared"
        return {name: value for name, value in vars(self).items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._turn = threading.RLock()
        self._shared = None

    @explains_failures
    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int | None = None,
        validation_data: tuple[Any, Any] | DataLoader | None = None,
        *,
        shuffle: bool | None = None,
        transform: Transformation | None = None,
        callbacks: Sequence[Callback | EpochFunction] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        verbose: int | str = "auto",
        generator: Generator | None = None,
    ) -> History:
        """Train on every sample once an epoch.

        Args:
            x: inputs, (N, ...); or a DataLoader of inputs and labels, which then decides on all
                that concerns batches.
            y: labels, (N, ...), as the loss takes them.
            epochs: how often to go through the data.
            batch_size: samples a step, 32 if None; the last batch of an epoch may be smaller.
            validation_data: inputs and labels, or a DataLoader of them, to evaluate after each
                epoch, which nothing is learned from.
            shuffle: whether each epoch takes the samples in another order; None for yes.
            transform: what is done to the inputs of training batches, such as `HorizontalFlip()`.
            callbacks: what is told how training goes, see `Callback`; or functions of the trainer,
                the epoch, counted from 1, and its measures, called after each epoch.
            checkpoint: a file that is to hold everything after each epoch, and when Ctrl-C or
                SIGTERM ends training before its time; that of `resume`, if None.
            resume: such a file, to go on from. With the same data, model, optimizer and arguments,
                weights and history become what they had become without the interruption, to the
                last bit; on a GPU but for what dropout and transforms draw. None to start.
            verbose: 0 shows nothing, 1 a bar with the time left, 2 a line an epoch; "auto" is 1 on
                a terminal and 2 elsewhere.
            generator: where orders and transforms come from; if None, the one that `seed` seeds.

        Returns:
            Loss and metrics of each epoch.

        Raises:
            ValueError, TypeError: if there is no data, inputs and labels differ in number, a batch
                does not suit the model or the loss, or `resume` is no checkpoint of this training.
            Interrupted: after Ctrl-C, if there is to be a checkpoint; it says how to go on.
            OSError: if the checkpoint cannot be read, or written, which is looked at before the
                first step.
            NonFiniteError: if the loss, a gradient or a weight becomes nan or infinite; see below.
            MemoryError: if a batch needs more memory than there is, which is let go again.
            DeviceError: if the device stops working; or, on every rank, if the GPUs of several
                cannot work together, see `world`.
            RanksDifferError: a ValueError, on every rank, if the ranks of a world do not train the
                same model on the same data with the same arguments; it names the first difference.

        In a world of several ranks all record the same history, whose measures are those of all
        ranks; validation data are shared as batches are. Rank 0 alone shows progress, its bar that
        of its own share, and writes the checkpoint, which any number of ranks can read to go on: to
        the same weights but for rounding, and for what dropout and transforms draw. A signal to one
        rank interrupts all after the same step. Any other error of one rank ends all: it is
        printed, and the program is aborted.

        A step whose loss is not finite is not taken, nor one whose gradients are not, as far as the
        bias of the first layer shows it: the model stays as it was. That holds on the CPU. On a GPU
        losses are fetched some steps at a time, and the error comes after steps that have spoilt
        the weights. Weights are looked at after each epoch, before callbacks could save them.
        """
        loader = _training_data(x, y, batch_size, shuffle, transform, generator)
        validation = None if validation_data is None else _validation_data(validation_data)
        epochs = positive(epochs, "epochs")
        loader = loader.on_device_of(self._like)
        validation = None if validation is None else validation.on_device_of(self._like)
        told = CallbackList(callbacks or ())
        path = resume if checkpoint is None else checkpoint
        if path is not None and self.world.rank == 0:
            check_replaceable(path)
        with (
            self._turn,
            progress(verbose, epochs, len(loader), self.world.rank) as shown,
            self.model.mode(training=True),
            interruptible(path is not None) as interruption,
        ):
            shared = parallel(self, interruption)
            checkpoints = Checkpoints(path, self, loader, told, shared)
            history = self.history = History()
            names = "loss", *self.metrics
            of_validation = () if validation is None else tuple(f"val_{name}" for name in names)
            self.measure_names = names + of_validation
            self.stop_training = False
            told.on_train_begin(self)
            under_way = None
            if resume is not None:
                under_way = restore_training(resume, self, loader, told)
            settings = settings_of(
                self,
                loader,
                epochs=f"{len(history)} to {epochs}",
                validation_data=0 if validation is None else len(validation.x),
                checkpoint=path is not None,
            )
            with shared.together(settings, loader.y, generators_of(self, loader)):
                while len(history) < epochs and not self.stop_training:
                    epoch = under_way or self._begin(len(history) + 1, loader, told)
                    under_way = None
                    shown.start(epoch.number, done=epoch.batches.done)
                    try:
                        measures = self._finish(epoch, shown, told, checkpoints, shared)
                    except NonFiniteError as error:
                        written = path if resume is not None or epoch.number > 1 else None
                        step = f"step {epoch.batches.done} of {len(epoch.batches)}"
                        raise NonFiniteError(
                            f"epoch {epoch.number}, {step}: {error}; {_last_saved(told, written)}"
                        ) from error
                    if validation is not None:
                        validated = self._evaluate(validation, self.world)
                        measures |= {f"val_{name}": value for name, value in validated.items()}
                    seconds = shared.of_first(epoch.seconds)
                    history.append(measures, seconds)
                    shown.finish(epoch.number, measures, seconds)
                    told.on_epoch_end(self, epoch.number, measures)
                    self.stop_training = shared.agree(self.stop_training)
                    checkpoints.after_epoch(epoch)
                told.on_train_end(self)
        return history

    def _begin(self, number: int, loader: DataLoader, told: Callback) -> Epoch:
        """Begin an epoch."""
        told.on_epoch_begin(self, number)
        batches = loader.one_pass(like=self._like, world=self.world)
        return Epoch(number, batches, Means(self.metrics))

    def _finish(
        self,
        epoch: Epoch,
        shown: Silent,
        told: Callback,
        checkpoints: Checkpoints,
        shared: Single,
    ) -> dict[str, float]:
        """A step on every batch that is left; the loss and the metrics over all of the epoch.

        Raises NonFiniteError as `fit`, and Interrupted or SystemExit after a signal.
        """
        means, batches = epoch.means, epoch.batches
        buffers = self._buffers()
        for inputs, labels in batches:
            if len(inputs):
                means.add(*self._learn(inputs, labels, buffers, shared, batches), labels)
            else:  # of a last batch of fewer samples than ranks
                self.optimizer.zero_grad()
                self._step(0, buffers, [buffer.data for buffer in buffers], shared)
            self._check_losses(means, batches)
            shown.advance(means.values)
            told.on_batch_end(self)
            checkpoints.after_step(epoch)
        means.add_up(self.world)
        measures = means.values()
        self._check_losses(means, batches)
        if spoilt := divergence.in_weights(self.model):
            raise NonFiniteError(spoilt)
        return measures

    def _check_losses(self, means: Means, batches: Pass) -> None:
        """Raise NonFiniteError if one of the losses that have been fetched is nan or infinite."""
        number = means.not_finite
        if number is None:
            return
        x, y = batches.inputs(number), batches.labels(number)
        found = divergence.in_batch(x, y, batches.samples(number))
        found = found or divergence.in_labels(self.model, self.loss, x, y)
        raise NonFiniteError(
            f"the loss of step {number + 1} was nan or infinite; "
            + (found or "detect_anomaly() around a training from the start finds where it began")
            + "; the weights have been changed since"
        )

    def train_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step on one batch: loss, gradients, update.

        Args:
            x: inputs (N, ...), in the dtype and on the device of the model.
            y: labels (N, ...), on the device of the model.

        In a world of several ranks, all call it together, each with its share of the batch; their
        weights must be the same, as they are after `fit`.

        Returns:
            The loss and the metrics of the batch, before the update; in such a world, of the share.

        Raises:
            NonFiniteError: on the CPU, before the update, if the loss is nan or infinite, or the
                gradients are; see `fit`.
        """
        if self._shared is None or not self._shared.serves(self):
            self._shared = parallel(self, interruptible(active=False))
        learned = self._learn(x, y, self._buffers(), self._shared)
        loss, outputs = (result.detach() for result in learned)
        measured = {name: metric(outputs, y) for name, metric in self.metrics.items()}
        return {"loss": loss, **measured}

    def _learn(
        self,
        x: Tensor,
        y: Tensor,
        buffers: Sequence[Buffer],
        shared: Single,
        batches: Pass | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One step on one batch; the loss and the outputs before the update.

        Args:
            x: inputs (N, ...).
            y: labels (N, ...).
            buffers: what is to be as before if there is no update.
            shared: makes the step one of all ranks.
            batches: the pass over the data that the batch comes from.
        """
        before = [buffer.data.copy() for buffer in buffers]
        with one_blas_thread():  # here once, instead of in each part of the step
            try:
                outputs = self.model(x)
                if batches is not None:
                    batches.prepare()
                loss = self.loss(outputs, y)
                self.optimizer.zero_grad()
                loss.backward()
                if symptom := divergence.symptom(loss, self.optimizer.params, self.model):
                    samples = None if batches is None else batches.samples(batches.done - 1)
                    cause = divergence.cause(self.model, self.loss, x, y, samples)
                    raise NonFiniteError(f"{symptom}; {cause}")
            except NonFiniteError:
                for buffer, values in zip(buffers, before, strict=True):
                    buffer.data[...] = values
                self.optimizer.zero_grad()
                raise
            self._step(len(x), buffers, before, shared)
        return loss, outputs

    def _step(
        self, samples: int, buffers: Sequence[Buffer], before: Sequence[Array], shared: Single
    ) -> None:
        """The update, from the gradients of this rank's samples; arguments as `Single.average`."""
        shared.average(samples, buffers, before)
        if self.clip_norm is not None:
            scale_to_norm(self.optimizer.params, self.clip_norm)
        self.optimizer.step()

    def _buffers(self) -> list[Buffer]:
        """What a step changes besides parameters, and must be known as it was before.

        Where one process trains on a GPU nobody asks: no step is undone, and no change averaged.
        """
        needed = self.world.size > 1
        return [b for _, b in self.model.named_buffers() if needed or b.device == "cpu"]

    @explains_failures
    def evaluate(self, x: Any, y: Any = None, batch_size: int | None = None) -> dict[str, float]:
        """The mean loss and metrics over a data set, in evaluation mode, on this rank alone.

        Args:
            x: inputs, (N, ...); or a DataLoader of inputs and labels, which then has the say on
                batches.
            y: labels, (N, ...).
            batch_size: samples at a time, 256 if None; the result does not depend on it but for
                rounding.

        Returns:
            "loss" and one entry for each metric.

        Raises:
            ValueError, TypeError: as `fit`.
        """
        loader = _loader("evaluate", x, y, batch_size)
        _check_labels(loader, "evaluate")
        return self._evaluate(loader, Alone())

    def _evaluate(self, loader: DataLoader, world: World) -> dict[str, float]:
        """The mean loss and metrics over a data set, shared by the ranks, in evaluation mode."""
        means = Means(self.metrics)
        with self._turn, no_grad(), self.model.mode(training=False):
            batches = loader.one_pass(like=self._like, world=world)
            numbers = [number for number in range(len(batches)) if batches.size(number)]
            outputs = outputs_of(self.model, numbers, batches.inputs)
            for number, out in zip(numbers, outputs, strict=True):
                labels = batches.labels(number)
                means.add(self.loss(out, labels), out, labels)
            means.add_up(world)
            measures = means.values()
            if (wrong := means.not_finite) is not None:
                x, y = batches.inputs(wrong), batches.labels(wrong)
                if found := divergence.in_labels(self.model, self.loss, x, y):
                    raise ValueError(found)
        return measures

    @explains_failures
    def predict(self, x: Any, batch_size: int | None = None) -> Array:
        """The model's outputs for every sample, in evaluation mode.

        Args:
            x: inputs, (N, ...); or a DataLoader, which then has the say on batches, and whose
                labels are not looked at.
            batch_size: samples at a time, 256 if None; each thread may work on a batch of its own.

        Returns:
            A NumPy array (N, ...).

        Raises:
            ValueError, TypeError: if there is no data, it does not suit the model, or a DataLoader
                shuffles it or leaves some of it out.
        """
        loader = _loader("predict", x, None, batch_size)
        if loader.shuffle or loader.drop_last:
            raise ValueError(
                "predict returns an output for every sample, in their order; "
                "give it a DataLoader without shuffle and drop_last"
            )
        with self._turn, self.model.mode(training=False):
            batches = loader.one_pass(like=self._like)
            outputs = outputs_of(self.model, range(len(batches)), batches.inputs)
            return np.concatenate([out.numpy() for out in outputs])

    @property
    def _like(self) -> Array:
        """An array of the model's dtype and on its device."""
        return self.optimizer.params[0].data


def _loader(name: str, x: Any, y: Any, batch_size: int | None) -> DataLoader:
    """What goes through some data. Raises ValueError for a loader that is told how to besides."""
    if not isinstance(x, DataLoader):
        return DataLoader(x, y, 256 if batch_size is None else batch_size)
    if y is not None or batch_size is not None:
        raise ValueError(f"{name} with a DataLoader takes no labels and no batch_size besides")
    return x


def _training_data(
    x: Any,
    y: Any,
    batch_size: int | None,
    shuffle: bool | None,
    transform: Transformation | None,
    generator: Generator | None,
) -> DataLoader:
    """What goes through the data that `fit` was given. Raises as `fit`."""
    if isinstance(x, DataLoader):
        if any(argument is not None for argument in (y, batch_size, shuffle, transform, generator)):
            raise ValueError(
                "fit with a DataLoader takes no y, batch_size, shuffle, transform or generator; "
                "give them to the DataLoader"
            )
        loader = x
    else:
        loader = DataLoader(
            x,
            y,
            32 if batch_size is None else batch_size,
            shuffle=True if shuffle is None else shuffle,
            transform=transform,
            generator=generator,
        )
    _check_labels(loader, "fit")
    return loader


def _validation_data(data: tuple[Any, Any] | DataLoader) -> DataLoader:
    """Validation data as a loader. Raises ValueError or TypeError if they are none."""
    if isinstance(data, DataLoader):
        _check_labels(data, "validation_data")
        return data
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError("validation_data must be a pair, (inputs, labels), or a DataLoader")
    try:
        loader = DataLoader(*data, batch_size=256)
    except (ValueError, TypeError) as error:
        raise type(error)(f"validation_data: {error}") from error
    _check_labels(loader, "validation_data")
    return loader


def _last_saved(told: CallbackList, path: str | os.PathLike[str] | None) -> str:
    """Where the last weights are that were good."""
    saved = [*told.checkpoints, *([] if path is None else [os.fspath(path)])]
    if not saved:
        return "no checkpoint was written"
    return f"the last checkpoint is {', '.join(saved)}"


def _check_labels(loader: DataLoader, name: str) -> None:
    """Raise ValueError if there are none."""
    if loader.y is None:
        raise ValueError(f"{name} expects inputs and labels, got inputs alone")
