"""The state of a training on disk: numbers and words in a safetensors file, and no code to run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.backend import Generator, default_generator
from minidl.data.files import replacing
from minidl.data.loader import DataLoader, Pass
from minidl.training.callbacks import Callback
from minidl.training.forms import check_form
from minidl.training.interruption import end
from minidl.training.means import Means
from minidl.training.parallel import Single
from minidl.training.weights import check_types, declared, opened, shortened

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

# Where the metadata holds all that is no array, and what stands there in the place of one.
KEY = "minidl-training"
ARRAY = "array"

# What a state looks like. Its data are compared with those at hand; generators and callbacks look
# at theirs themselves.
FORM = {
    "data": {"samples": int, "batch_size": int, "shuffle": bool, "drop_last": bool},
    "model": {str: np.ndarray},
    "optimizer": {
        "step_count": int,
        "taken": [int],
        "lr": (None, float),
        "memory": {str: np.ndarray},
    },
    "generators": [dict],
    "history": {"history": {str: [float]}, "seconds": [float]},
    "stop_training": bool,
    "callbacks": {"all": [{"class": str, "state": dict}]},
    "epoch": (
        None,
        {
            "number": int,
            "batches": {"order": (None, np.ndarray), "seed": int, "next": int},
            "means": {
                "samples": int,
                "sums": {str: float},
                "measured": int,
                "waiting": [{"loss": np.ndarray, "outputs": np.ndarray, "labels": np.ndarray}],
            },
            "seconds": float,
        },
    ),
}


@dataclass
class Epoch:
    """An epoch under way.

    Attributes:
        number: counted from 1.
        batches: those that are left.
        means: of what has been measured.
        began: when that was, on the clock of `time.perf_counter`; later by what an interruption
            took.
    """

    number: int
    batches: Pass
    means: Means
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self.began


@dataclass
class Checkpoints:
    """Writes the state of a training after each epoch, and when a signal ends it before its time.

    Rank 0 does, for all ranks of a world. The file says nothing of them: any number of ranks can go
    on from there.

    Attributes:
        path: of the file; None for none.
        trainer: of the training.
        loader: that goes through its data.
        told: what hears of it.
        parallel: tells of the signal.
    """

    path: str | os.PathLike[str] | None
    trainer: Trainer
    loader: DataLoader
    told: Callback
    parallel: Single

    def after_step(self, epoch: Epoch) -> None:
        """Write the state inside an epoch, and end training, if a signal came."""
        if self.parallel.signal:
            epoch.means.add_up(self.trainer.world)
            self._write(epoch)
            self._end_if_interrupted(epoch)

    def after_epoch(self, epoch: Epoch) -> None:
        """Write the state, and end training if a signal came."""
        self._write(None)
        self._end_if_interrupted(epoch)

    def _write(self, epoch: Epoch | None) -> None:
        if self.path is not None and self.trainer.world.rank == 0:
            state = training_state(self.trainer, self.loader, self.told, epoch)
            write_checkpoint(self.path, state)

    def _end_if_interrupted(self, epoch: Epoch) -> None:
        if self.path is not None and self.parallel.signal:
            self.trainer.world.barrier()  # nobody leaves before the file is complete
            end(
                self.parallel.signal,
                f"training was interrupted in epoch {epoch.number}, after {epoch.batches.done} of "
                f"{len(epoch.batches)} batches; fit(..., resume={os.fspath(self.path)!r}) goes on "
                "from there",
                self.trainer.world.rank,
            )


def training_state(
    trainer: Trainer, loader: DataLoader, told: Callback, epoch: Epoch | None
) -> dict[str, Any]:
    """All that the rest of a training depends on.

    Args:
        trainer: of the training.
        loader: that goes through its data.
        told: what hears of it.
        epoch: the one under way; None between two.
    """
    return {
        "data": loader.settings(),
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "generators": [g.state_dict() for g in generators_of(trainer, loader)],
        "history": trainer.history.state_dict(),
        "stop_training": trainer.stop_training,
        "callbacks": told.state_dict(),
        "epoch": None
        if epoch is None
        else {
            "number": epoch.number,
            "batches": epoch.batches.state_dict(),
            "means": epoch.means.state_dict(),
            "seconds": epoch.seconds,
        },
    }


def restore_training(
    path: str | os.PathLike[str], trainer: Trainer, loader: DataLoader, told: Callback
) -> Epoch | None:
    """Bring a training to where that of a checkpoint stood.

    Returns:
        The epoch to go on with; None to begin the next.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, if it is none of `write_checkpoint`, or not of a training like
            this one; all is as it was then.
    """
    state = read_checkpoint(path)
    before = training_state(trainer, loader, told, None)
    try:
        return _restore(state, trainer, loader, told)
    except BaseException as error:
        _restore(before, trainer, loader, told)
        if isinstance(error, MemoryError) or not isinstance(error, Exception):
            raise
        # Whatever it is: a callback may raise any error for what it does not know.
        raise ValueError(
            f"{path}: not a checkpoint of this training: {shortened(error)}"
        ) from error


def _restore(
    state: Mapping[str, Any], trainer: Trainer, loader: DataLoader, told: Callback
) -> Epoch | None:
    check_form(state, FORM, "checkpoint")
    if state["data"] != loader.settings():
        raise ValueError(f"it went through {state['data']}, this one through {loader.settings()}")
    trainer.model.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    generators = generators_of(trainer, loader)
    for generator, stood in zip(generators, state["generators"], strict=True):
        generator.load_state_dict(stood)
    recorded, names = set(state["history"]["history"]), set(trainer.measure_names)
    of_validation = {name for name in recorded if name.startswith("val_")}
    if recorded and not of_validation <= names <= recorded:  # callbacks may add others
        raise ValueError(
            f"it recorded {', '.join(sorted(recorded))}; this one would record "
            f"{', '.join(sorted(names))}"
        )
    trainer.history.load_state_dict(state["history"])
    trainer.stop_training = state["stop_training"]
    told.load_state_dict(state["callbacks"])
    under_way = state["epoch"]
    if under_way is None:
        return None
    for batch in under_way["means"]["waiting"]:
        _check_measurable(batch["outputs"], batch["labels"], trainer, loader)
    like = trainer.optimizer.params[0].data
    means = Means(trainer.metrics)
    measured = under_way["means"]
    if trainer.world.rank:  # rank 0 counts what all have measured before
        number = measured["measured"] + len(measured["waiting"])
        measured = {"samples": 0, "sums": {}, "measured": number, "waiting": []}
    means.load_state_dict(measured, like)
    batches = loader.one_pass(like, under_way["batches"], trainer.world)
    began = time.perf_counter() - under_way["seconds"]
    return Epoch(under_way["number"], batches, means, began)


def _check_measurable(
    outputs: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    trainer: Trainer,
    loader: DataLoader,
) -> None:
    """Raise ValueError if these cannot be measured together with what training goes on with."""
    shape = trainer.model.output_shape
    if (shape is not None and outputs.shape[1:] != shape[1:]) or (
        loader.y is not None
        and (labels.shape[1:], labels.dtype) != (loader.y.shape[1:], loader.y.dtype)
    ):
        raise ValueError(
            f"outputs {outputs.shape} or labels {labels.shape} of {labels.dtype} are of others"
        )


def generators_of(trainer: Trainer, loader: DataLoader) -> list[Generator]:
    """All generators that training draws from, each once."""
    own = [getattr(module, "generator", None) for module in trainer.model.modules()]
    found = [default_generator, loader.generator, *own]
    return list(dict.fromkeys(g for g in found if isinstance(g, Generator)))


def write_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state to a file, which replaces an older one when it is complete.

    Args:
        path: of the file, in an existing folder.
        state: dicts with strings as keys and lists, down to NumPy arrays, numbers, strings and
            None.

    Raises:
        OSError: if the file cannot be written.
    """
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    text = json.dumps(_without_arrays(state, arrays))
    with replacing(Path(path)) as file:
        file.write(save(arrays, {KEY: text}))


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, if it is no such file, or damaged.
    """
    with opened(path) as file:
        text = (file.metadata() or {}).get(KEY)
        if text is None:
            raise ValueError("expected a checkpoint of fit, got weights alone")
        check_types(declared(file))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
        try:
            state: dict[str, Any] = _with_arrays(json.loads(text), arrays)
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"expected a whole checkpoint of fit: {error}") from error
    return state


def _without_arrays(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """A state for JSON, whose arrays are put into a dict and named in their places."""
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = np.asarray(value, order="C")
        return {ARRAY: name}
    if isinstance(value, Mapping):
        parts = {name: _without_arrays(part, arrays) for name, part in value.items()}
        return {ARRAY: parts} if parts.keys() == {ARRAY} else parts  # lest it reads as an array
    if isinstance(value, (list, tuple)):
        return [_without_arrays(part, arrays) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """A state with its arrays back in their places."""
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            held = value[ARRAY]
            if isinstance(held, dict):
                return {ARRAY: _with_arrays(held[ARRAY], arrays)}
            return arrays[held]
        return {name: _with_arrays(part, arrays) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_arrays(part, arrays) for part in value]
    return value
