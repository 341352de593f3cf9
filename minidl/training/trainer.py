"""The training loop: batches in, gradients back, one step of the optimizer, and what came of it.

Nothing here is more than convenience. A loop written by hand over the same model, loss and
optimizer does the same; `examples/training_loop.py` shows one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from minidl import backend
from minidl.backend import Array, Generator, default_generator
from minidl.data.batches import batch_count, batch_indices
from minidl.kernels.threads import Ahead
from minidl.layers import Module
from minidl.losses import cross_entropy
from minidl.optim import Optimizer, clip_grad_norm
from minidl.tensor import Tensor, no_grad
from minidl.training.history import History
from minidl.training.metrics import accuracy
from minidl.training.outputs import ends_in_softmax, outputs_of
from minidl.training.progress import progress

Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Cut: TypeAlias = Callable[[slice | Array], Tensor]


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
            loss is cross_entropy.
        clip_norm: the largest norm of all gradients together, see `clip_grad_norm`; None for any.

    Attributes:
        history: what the last `fit` has recorded so far, also if it was interrupted.

    Inputs of every dtype are converted, batch by batch, to the dtype and the device of the model.
    Threads that share a trainer take turns: `fit`, `evaluate` and `predict` switch the model
    between training and evaluation.
    """

    def __init__(
        self,
        model: Module,
        loss: Measure,
        optimizer: Optimizer,
        *,
        metrics: Mapping[str, Measure] | None = None,
        clip_norm: float | None = None,
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
        self.metrics = dict(metrics)
        self.history = History()
        self._turn = threading.RLock()
        self.clip_norm = clip_norm

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: all but the lock."""
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._turn = threading.RLock()

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, Any] | None = None,
        *,
        shuffle: bool = True,
        verbose: int | str = "auto",
        generator: Generator = default_generator,
    ) -> History:
        """Train on every sample once an epoch.

        Args:
            x: inputs, (N, ...).
            y: labels, (N, ...), as the loss takes them.
            epochs: how often to go through the data.
            batch_size: samples a step; the last batch of an epoch may be smaller.
            validation_data: inputs and labels to evaluate after each epoch, which nothing is
                learned from.
            shuffle: whether each epoch takes the samples in another order.
            verbose: 0 shows nothing, 1 a bar with the time left, 2 a line an epoch; "auto" is 1 on
                a terminal and 2 elsewhere.
            generator: where the order comes from; the one that `seed` seeds by default.

        Returns:
            Loss and metrics of each epoch.

        Raises:
            ValueError, TypeError: if there is no data, inputs and labels differ in number, or a
                batch does not suit the model or the loss.
        """
        samples = _check(x, y, "fit")
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise ValueError("validation_data must be a pair, (inputs, labels)")
            _check(*validation_data, "validation_data")
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        with (
            self._turn,
            progress(verbose, epochs, batch_count(samples, batch_size)) as shown,
            self.model.mode(training=True),
        ):
            history = self.history = History()
            for epoch in range(1, epochs + 1):
                started = time.perf_counter()
                shown.start(epoch)
                means = _Means(self.metrics)
                rng = generator.host if shuffle else None
                indices = batch_indices(samples, batch_size, rng)
                batches = self._batches(x, y, indices, batch_size)
                for inputs, labels in batches:
                    means.add(*self._learn(inputs, labels, batches.prepare), labels)
                    shown.advance(means.values)
                measures = means.values()
                if validation_data is not None:
                    for name, value in self.evaluate(*validation_data).items():
                        measures[f"val_{name}"] = value
                seconds = time.perf_counter() - started
                history.append(measures, seconds)
                shown.finish(epoch, measures, seconds)
        return history

    def train_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step on one batch: loss, gradients, update.

        Args:
            x: inputs (N, ...), in the dtype and on the device of the model.
            y: labels (N, ...), on the device of the model.

        Returns:
            The loss and the metrics of the batch, before the update.
        """
        loss, outputs = (result.detach() for result in self._learn(x, y))
        measured = {name: metric(outputs, y) for name, metric in self.metrics.items()}
        return {"loss": loss, **measured}

    def _learn(
        self, x: Tensor, y: Tensor, half_way: Callable[[], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step on one batch; the loss and the outputs before the update."""
        outputs = self.model(x)
        if half_way:
            half_way()
        loss = self.loss(outputs, y)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm is not None:
            clip_grad_norm(self.optimizer.params, self.clip_norm)
        self.optimizer.step()
        return loss, outputs

    def evaluate(self, x: Any, y: Any, batch_size: int = 256) -> dict[str, float]:
        """The mean loss and metrics over a data set, in evaluation mode.

        Args:
            x: inputs, (N, ...).
            y: labels, (N, ...).
            batch_size: samples at a time; the result does not depend on it but for rounding.

        Returns:
            "loss" and one entry for each metric.

        Raises:
            ValueError, TypeError: as `fit`.
        """
        samples = _check(x, y, "evaluate")
        means = _Means(self.metrics)
        batches = list(batch_indices(samples, batch_size))
        with self._turn, no_grad(), self.model.mode(training=False):
            outputs = outputs_of(self.model, batches, self._cutting(x, convert=True))
            all_labels = map(self._cutting(y, convert=False), batches)
            for labels, out in zip(all_labels, outputs, strict=True):
                means.add(self.loss(out, labels), out, labels)
        return means.values()

    def predict(self, x: Any, batch_size: int = 256) -> Array:
        """The model's outputs for every sample, in evaluation mode.

        Args:
            x: inputs, (N, ...).
            batch_size: samples at a time; each thread may work on a batch of its own.

        Returns:
            A NumPy array (N, ...).

        Raises:
            ValueError, TypeError: if there is no data, or it does not suit the model.
        """
        samples = _length(x, "predict")
        batches = list(batch_indices(samples, batch_size))
        with self._turn, self.model.mode(training=False):
            outputs = outputs_of(self.model, batches, self._cutting(x, convert=True))
            return np.concatenate([out.numpy() for out in outputs])

    def _cutting(self, data: Any, convert: bool) -> Cut:
        """What cuts batches out of a data set, on the device of the model.

        Args:
            data: an array or a tensor.
            convert: whether to bring it to the dtype of the model too.
        """
        like = self.optimizer.params[0].data
        here = backend.of(like)
        array = data.data if isinstance(data, Tensor) else data

        def cut(index: slice | Array) -> Tensor:
            some = here.asarray(array[index] if isinstance(index, slice) else array.take(index, 0))
            return Tensor(some.astype(like.dtype, copy=False) if convert else some)

        return cut

    def _batches(
        self, x: Any, y: Any, indices: Iterator[slice | Array], batch_size: int
    ) -> _Batches:
        """Inputs and labels of each batch, the next one cut out ahead if that is worth it."""
        on_cpu = self.optimizer.params[0].device == "cpu"
        large = x.size * x.dtype.itemsize // len(x) * batch_size >= _Batches.LARGE
        inputs, labels = self._cutting(x, convert=True), self._cutting(y, convert=False)
        return _Batches(lambda index: (inputs(index), labels(index)), indices, on_cpu and large)


class _Batches:
    """Each batch in turn, with the next one cut out ahead where that is asked for.

    What a helper has cut out lies in its core's cache: with small batches that costs more than it
    gains.
    """

    LARGE = 1 << 17  # bytes of the inputs

    def __init__(
        self,
        cut: Callable[[slice | Array], tuple[Tensor, Tensor]],
        indices: Iterator[slice | Array],
        ahead: bool,
    ) -> None:
        self._cut, self._indices, self._ahead = cut, indices, ahead
        self._next: Ahead[tuple[Tensor, Tensor]] | None = None

    def prepare(self) -> None:
        """Let an idle helper cut out the next batch.

        Halfway through a step is a good time: the last layers, the loss and their gradients are
        small, and leave helpers idle.
        """
        if self._ahead:
            index = next(self._indices, None)
            self._next = None if index is None else Ahead(partial(self._cut, index))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self._ahead:
            yield from map(self._cut, self._indices)
        self.prepare()
        while self._next:
            yield self._next.result()


class _Means:
    """Means over samples of the loss and the metrics.

    A metric takes as long for many batches as for one, and on a GPU nobody should wait for numbers
    in every step. So outputs are collected, and measured some batches at a time.
    """

    MOST_BATCHES = 64
    MOST_BYTES = 1 << 20

    def __init__(self, metrics: Mapping[str, Measure]) -> None:
        self.metrics = metrics
        self.samples = 0
        self.sums: dict[str, float] = {}
        self.waiting: list[tuple[Array, Array, Array]] = []
        self.bytes = 0

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Add one batch: its mean loss, outputs (N, ...) and labels (N, ...)."""
        self.waiting.append((loss.data, outputs.data, labels.data))
        self.bytes += outputs.data.nbytes
        if len(self.waiting) >= self.MOST_BATCHES or self.bytes >= self.MOST_BYTES:
            self._measure()

    def values(self) -> dict[str, float]:
        """The means so far."""
        self._measure()
        return {name: total / self.samples for name, total in self.sums.items()}

    def _measure(self) -> None:
        """Add what is waiting to the sums."""
        if not self.waiting:
            return
        losses, outputs, labels = zip(*self.waiting, strict=True)
        xp = backend.of(outputs[0]).xp
        sizes = np.array([len(part) for part in labels])
        # Sums are float64: thousands of batches add up, and float32 would show it.
        mean = backend.on_host(xp.stack(losses)).astype(np.float64)
        self._add("loss", float(mean @ sizes))
        if self.metrics:
            joined = Tensor(xp.concatenate(outputs)), Tensor(xp.concatenate(labels))
            for name, metric in self.metrics.items():
                self._add(name, float(metric(*joined)) * int(sizes.sum()))
        self.samples += int(sizes.sum())
        self.waiting, self.bytes = [], 0

    def _add(self, name: str, amount: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + amount


def _length(x: Any, name: str) -> int:
    """The number of samples. Raises ValueError if there is none, TypeError if x is no array."""
    if not isinstance(x, Tensor):
        try:
            backend.of(x)
        except TypeError:
            raise TypeError(
                f"{name} expects arrays or tensors, got {type(x).__name__}; "
                "convert it with numpy.asarray"
            ) from None
    if x.ndim < 1 or not len(x):
        raise ValueError(f"{name} expects at least one sample, got data of shape {x.shape}")
    return len(x)


def _check(x: Any, y: Any, name: str) -> int:
    """The number of samples. Raises ValueError or TypeError if x and y are no data set."""
    samples = _length(x, name)
    if _length(y, name) != samples:
        raise ValueError(
            f"{name} expects as many labels as inputs, got {samples} inputs and {len(y)} labels"
        )
    return samples
