"""Files of models and of weights, and how they are broken."""

import json
import signal
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import minidl
from fuzzing.mutations import Parser, number, some_bytes
from minidl.layers import BatchNorm, Conv2D, Dense, Flatten, LeakyReLU, MaxPool, Sequential

WORDS = (
    *("F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4", "X", "", "a" * 300),
    *("relu", "same", "he_normal", "float64", "Dense", "Sequential", "\0", "\x1b[2J", "\ud800"),
)

WIDTHS = {
    "F64": 8,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "BOOL": 1,
    "U8": 1,
    "C64": 8,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


def small_model() -> Sequential:
    return Sequential(
        [Conv2D(2, 2, activation=LeakyReLU()), BatchNorm(), MaxPool(2), Flatten(), Dense(3)],
        input_shape=(5, 5, 1),
    )


def anything(rng: Random, depth: int = 0) -> Any:
    """Any value that JSON can hold, and some that it cannot."""
    match rng.randrange(9 if depth < 3 else 6):
        case 0:
            return rng.choice((None, True, False, 0.5, -1.5, 1e300, float("nan"), float("-inf")))
        case 1 | 2:
            return rng.choice((1, -1)) * number(rng)
        case 3:
            return rng.choice((10**30, 10**400, -(2**63)))
        case 4 | 5:
            return rng.choice(WORDS)
        case 6:
            return [anything(rng, depth + 1) for _ in range(rng.randrange(5))]
        case 7:
            inside = anything(rng, depth + 1)
            for _ in range(rng.choice((3, 100, 2000))):
                inside = [inside]
            return inside
        case _:
            return {rng.choice(WORDS): anything(rng, depth + 1) for _ in range(rng.randrange(4))}


def changed(rng: Random, value: Any) -> Any:
    """A value of JSON with something in it changed, wherever it is."""
    if rng.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        return anything(rng)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {name: inside for name, inside in value.items() if name != key}
            case 1:
                return {**value, rng.choice(WORDS): value[key]}
            case _:
                return {**value, key: changed(rng, value[key])}
    place = rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            return value[:place] + value[place + 1 :]
        case 1:
            return [*value[:place], *[value[place]] * rng.choice((2, 3, 1000)), *value[place + 1 :]]
        case _:
            return [*value[:place], changed(rng, value[place]), *value[place + 1 :]]


def mutate(rng: Random, content: bytes) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    text, data = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.15:  # a header of another length than it says
        return struct.pack("<Q", rng.choice((number(rng), length + rng.randrange(-9, 9)))) + text
    header = json.loads(text)
    about = header.get("__metadata__", {})
    tensors = [name for name in header if name != "__metadata__"]
    choice = rng.randrange(8)
    if choice < 3 and about:
        ((key, described),) = about.items()
        header["__metadata__"] = {key: json.dumps(changed(rng, json.loads(described)))}
    elif choice == 3:
        entry = header[rng.choice(tensors)]
        first, last = entry["data_offsets"]
        entry["data_offsets"] = rng.choice(
            ([first, number(rng)], [number(rng), last], [last, first])
        )
    elif choice == 4:
        entry = header[rng.choice(tensors)]
        entry["shape"] = rng.choice((entry["shape"][::-1], [*entry["shape"], 1], changed(rng, [1])))
    elif choice == 5:  # a tensor of another type, with as many bytes as it needs
        name = rng.choice(tensors)
        _, last = header[name]["data_offsets"]
        count = int(np.prod(header[name]["shape"]))
        kind, size = rng.choice(list(WIDTHS.items()))
        more = count * size - (last - header[name]["data_offsets"][0])
        header[name]["dtype"] = kind
        for other in tensors:
            first, end = header[other]["data_offsets"]
            if other == name:
                header[other]["data_offsets"] = [first, end + more]
            elif first >= last:
                header[other]["data_offsets"] = [first + more, end + more]
        data = data[: last + min(more, 0)] + bytes(max(more, 0)) + data[last:]
    elif choice == 6:
        header = changed(rng, header)
    else:
        data = rng.choice((data[:-1], data + some_bytes(rng), rng.randbytes(len(data)), b""))
    text = json.dumps(header, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        text = text[:-1] + b"," + text[1:]  # every name twice
    text += b" " * rng.choice((0, 0, 0, 5, 5000))
    return struct.pack("<Q", len(text)) + text + data


def read_model(path: Path) -> None:
    model = minidl.load(path)
    assert isinstance(model, Sequential)
    state = model.state_dict()
    assert all(array.dtype in (np.float32, np.float64) for array in state.values())
    assert sum(array.nbytes for array in state.values()) < path.stat().st_size


def read_weights(path: Path) -> None:
    """Reads into a model, which must be as it was if that fails, and of the same form if not."""
    model = small_model()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    try:
        minidl.load_weights(model, path)
    except (OSError, ValueError):
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, before[name])
        raise
    after = model.state_dict()
    assert {name: (a.shape, a.dtype) for name, a in after.items()} == {
        name: (a.shape, a.dtype) for name, a in before.items()
    }


class Interrupt(minidl.Callback):
    """Interrupts training after so many steps; never, if None."""

    def __init__(self, steps: int | None = None) -> None:
        self._steps = steps

    def on_batch_end(self, trainer: minidl.Trainer) -> None:  # noqa: ARG002
        if self._steps is not None:
            self._steps -= 1
            if self._steps == 0:
                signal.raise_signal(signal.SIGINT)


def train(interrupt: Interrupt, **options: Any) -> minidl.Trainer:
    """Train a small model for two epochs of three steps."""
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 5, 5, 1), dtype=np.float32), rng.integers(0, 3, 6)
    model = small_model()
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters()))
    callbacks = [minidl.EarlyStopping(), interrupt]
    with suppress(minidl.Interrupted):
        trainer.fit(x, y, 2, 2, validation_data=(x, y), callbacks=callbacks, verbose=0, **options)
    return trainer


def read_checkpoint(path: Path) -> None:
    """Goes on from a checkpoint to the end, or to where its numbers lead."""
    trainer = None
    with suppress(minidl.NonFiniteError), np.errstate(all="ignore"):
        trainer = train(Interrupt(), resume=path, checkpoint=path.with_name("written"))
    if trainer is None:
        return
    history = trainer.history.history
    assert all(type(value) is float for values in history.values() for value in values)


def file_of(write: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        write(path)
        return path.read_bytes()


minidl.seed(0)
SAVED = file_of(lambda path: minidl.save(small_model(), path, ["a", "b", "c"]))
MODEL = Parser("model", "model.safetensors", (SAVED,), mutate, read_model)
WEIGHTS = Parser(
    "weights",
    "weights.safetensors",
    (file_of(lambda path: minidl.save_weights(small_model(), path)), SAVED),
    mutate,
    read_weights,
)
CHECKPOINT = Parser(
    "checkpoint",
    "training.safetensors",
    tuple(
        file_of(lambda path, steps=steps: train(Interrupt(steps), checkpoint=path))
        for steps in (1, 3, 5, None)
    ),
    mutate,
    read_checkpoint,
)
