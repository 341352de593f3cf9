"""`Module`, which finds parameters in its attributes, and `Layer`, which makes them when it can.

A module is any class with a `forward`. Parameters, buffers and modules are found by looking through
its attributes, and through lists, tuples and dicts in them, each time they are asked for: nothing
is registered. A tensor is a parameter by its class, `Parameter`, whether it is frozen or not.
"""

from __future__ import annotations

import operator
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from minidl import backend
from minidl.backend import Array, DeviceError, Generator
from minidl.init import Initializer, initializer
from minidl.ops.operands import tensor
from minidl.tensor import Tensor, TensorLike


class Parameter(Tensor):
    """A tensor that training changes. Assigned to an attribute of a module, it is found there."""

    __slots__ = ()

    def __init__(self, array: Any) -> None:
        super().__init__(array, requires_grad=True)


class Buffer(Tensor):
    """A tensor that belongs to a module's state but not to its training, such as a running mean."""

    __slots__ = ()


class Module:
    """Something with parameters that turns tensors into tensors.

    Write a subclass, assign parameters and other modules to attributes in `__init__`, and compute
    the output in `forward`.

    Attributes:
        training: whether dropout drops and batch normalisation uses the batch; see `train`, `eval`.
        name: how errors and tables call it.
        output_shape: shape of the last output with None for the batch; None before the first.
    """

    training: bool = True
    name: str | None = None
    output_shape: tuple[int | None, ...] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output with `forward`."""
        out = self.forward(*args, **kwargs)
        if isinstance(out, Tensor):
            self.output_shape = (None, *out.shape[1:])
        return out

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    # What it is made of

    def members(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The parameters, buffers and modules that its attributes hold, but not what those hold."""
        for name, value in vars(self).items():
            yield from _found(name, value)

    def modules(self) -> Iterator[Module]:
        """This module and all modules inside it, each once."""
        seen: set[int] = set()
        stack: list[Module] = [self]
        while stack:
            module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield module
                inside = [member for _, member in module.members() if isinstance(member, Module)]
                stack.extend(reversed(inside))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names, each once.

        Raises RuntimeError if a layer inside has none yet because its input is unknown, and
        ValueError if two have one name.
        """
        return ((name, t) for name, t in self._named_tensors() if isinstance(t, Parameter))

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """All buffers with their dotted names, each once."""
        return ((name, t) for name, t in self._named_tensors() if isinstance(t, Buffer))

    def parameters(self) -> list[Parameter]:
        """All parameters, each once. Raises errors as `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters()]

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        names: set[str] = set()
        stack: list[tuple[str, Tensor | Module]] = [("", self)]
        while stack:
            name, member = stack.pop()
            if id(member) in seen:
                continue
            seen.add(id(member))
            if isinstance(member, Tensor):
                if name in names:
                    raise ValueError(f"two tensors of {self.label} are named {name!r}")
                names.add(name)
                yield name, member
                continue
            member._check_built()
            prefix = f"{name}." if name else ""
            inside = [(prefix + own, found) for own, found in member.members()]
            stack.extend(reversed(inside))

    def _check_built(self) -> None:
        """Raise RuntimeError if parameters are still to be made."""

    # Its state

    def state_dict(self) -> dict[str, Array]:
        """A copy of every parameter and buffer as a NumPy array, by dotted name."""
        return {name: np.array(t.numpy()) for name, t in self._named_tensors()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy values in from a `state_dict`. Nothing changes unless everything fits.

        Raises:
            ValueError: naming every entry that is missing, unknown, of another shape, or not of
                real numbers; or one with numbers too large for the dtype of the module, or for
                an array that is read-only.
        """
        state = {name: backend.on_host(value) for name, value in state.items()}
        self.check_shapes({name: value.shape for name, value in state.items()})
        wrong = [
            f"{name!r} expects real numbers, got {value.dtype}"
            for name, value in state.items()
            if value.dtype.kind not in "biuf"
        ]
        if wrong:
            raise ValueError(f"state does not fit {self.label}: {'; '.join(wrong)}")
        own = dict(self._named_tensors())
        for name, t in own.items():
            try:
                with np.errstate(over="raise", invalid="ignore"):
                    state[name] = state[name].astype(t.dtype)  # a copy: it may be our own memory
            except FloatingPointError:
                raise ValueError(f"{name!r} holds numbers too large for {t.dtype}") from None
            if not getattr(t.data.flags, "writeable", True):
                raise ValueError(f"{name!r} cannot be changed: its array is read-only")
        for name, t in own.items():
            t.data[...] = backend.of(t.data).asarray(state[name])

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compare the shapes of a `state_dict`, by name, with those of the module.

        Raises:
            ValueError: naming every entry that is missing, unknown or of another shape.
        """
        own = dict(self._named_tensors())
        wrong = [f"missing {name!r}" for name in own if name not in shapes]
        wrong += [f"unknown {name!r}" for name in shapes if name not in own]
        wrong += [
            f"{name!r} expects shape {t.shape}, got {shapes[name]}"
            for name, t in own.items()
            if name in shapes and shapes[name] != t.shape
        ]
        if wrong:
            raise ValueError(f"state does not fit {self.label}: {'; '.join(wrong)}")

    # Its mode and place

    def train(self, mode: bool = True) -> Self:
        """Switch this module and all inside to training, or with False to evaluation."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation: dropout passes all, batch norm uses its running statistics."""
        return self.train(False)

    @contextmanager
    def mode(self, training: bool) -> Iterator[None]:
        """Training or evaluation until the block ends; then each module's own mode again."""
        modes = [(module, module.training) for module in self.modules()]
        self.train(training)
        try:
            yield
        finally:
            for module, before in modes:
                module.training = before

    def to(self, device: str) -> Self:
        """Move all parameters and buffers to "cpu", "gpu" or "auto"; gradients are let go.

        Raises DeviceError where the device cannot be used.
        """
        there = backend.named(device)
        for _, t in self._named_tensors():
            t.data = there.asarray(t.data)
            t.grad = None
        return self

    def astype(self, dtype: DTypeLike) -> Self:
        """Convert all parameters and buffers to float32 or float64; gradients are let go.

        Raises TypeError for any other dtype.
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"a model is float32 or float64, got {np.dtype(dtype)}")
        for _, t in self._named_tensors():
            t.data = t.data.astype(dtype)
            t.grad = None
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    # How it shows

    @property
    def label(self) -> str:
        """What errors call it: its class, and its name if it has one."""
        kind = type(self).__name__
        return f"{kind} {self.name!r}" if self.name else kind

    def summary(self) -> None:
        """Print the layers with their output shapes and numbers of parameters, and the totals.

        Raises RuntimeError if a layer has not been built yet.
        """
        from minidl.layers.summary import Row, print_summary  # rich, only for those who ask

        parts = [
            (name, m, [t for _, t in m._named_tensors()])
            for name, m in self.members()
            if isinstance(m, Module)
        ]
        own = [t for _, t in self.members() if isinstance(t, Tensor)]
        if own or not parts:
            parts.append((self.name or snake_case(type(self).__name__), self, own))
        rows = []
        for name, module, tensors in parts:
            if module.output_shape is None:
                raise RuntimeError(
                    f"{module.label} has no output shape yet; give Sequential an input_shape, or "
                    "pass one batch through the model first"
                )
            rows.append(Row(name, type(module).__name__, module.output_shape, tensors))
        print_summary(self.label, rows, [t for _, t in self._named_tensors()])


class Layer(Module):
    """A module with one input, whose parameters are made when it first sees what comes in.

    A subclass makes its parameters in `build` and computes its output in `forward`. Errors that
    arise there are given the layer's name. Inputs are floating, of the parameters' dtype; what
    takes integers, such as a table of embeddings, is a `Module`. A parameter that is there before,
    such as one of another layer that this one is to share, stays.

    Args:
        name: how errors, tables and weight files call it; Sequential gives one if None.
    """

    built: bool = False

    def __init__(self, name: str | None = None) -> None:
        if name == "":
            raise ValueError("the name of a layer must not be empty")
        self.name = name

    def build(self, x: Tensor) -> None:
        """Make the parameters for inputs like x, with `new_parameter`. Nothing by default."""

    def __call__(self, x: TensorLike, *args: Any) -> Tensor:
        """The output for a batch, made of a tensor or an array; `args` go to `forward`."""
        x = tensor(x)
        try:
            self._check_dtype(x)
            if not self.built:
                given = {n: v for n, v in vars(self).items() if isinstance(v, (Parameter, Buffer))}
                self.build(x)
                vars(self).update(given)
                self.built = True
            out: Tensor = self.forward(x, *args)
        except (ValueError, TypeError, DeviceError) as error:
            if type(error) not in (ValueError, TypeError, DeviceError):
                raise  # a subclass may not be made from a message alone
            raise type(error)(f"{self.label}: {error}") from error
        self.output_shape = (None, *out.shape[1:])
        return out

    def _check_dtype(self, x: Tensor) -> None:
        own = None
        for value in reversed(
            vars(self).values()
        ):  # parameters, made in `build`, are among the last
            if isinstance(value, Parameter):
                own = value.data.dtype
                break
        dtype = x.data.dtype
        if own != dtype and (own is not None or dtype.kind != "f"):
            raise TypeError(
                f"expects {own or 'float32 or float64'} input, got {dtype}; convert it with "
                f".astype({own or 'numpy.float32'}), or the model with .astype(dtype)"
            )

    def _check_built(self) -> None:
        if not self.built and type(self).build is not Layer.build:
            raise RuntimeError(
                f"{self.label} has no parameters yet, because the shape of its input is unknown; "
                "give Sequential an input_shape, or pass one batch through the model first"
            )


def new_parameter(
    how: str | Initializer,
    shape: tuple[int, ...],
    fan_in: int,
    fan_out: int,
    like: Tensor,
    generator: Generator | None = None,
) -> Parameter:
    """A parameter with drawn initial values, on the device and in the dtype of a tensor.

    Args:
        how: the name of an initializer, or one.
        shape: of the parameter.
        fan_in: inputs of one unit of the layer's weight.
        fan_out: outputs of one unit of the layer's weight.
        like: the layer's input.
        generator: where the randomness comes from; the default generator, see `seed`, if None.

    Raises:
        ValueError: if the shape is empty, the initializer is unknown or returns another shape.
    """
    return Parameter(_initial_values(how, shape, fan_in, fan_out, like, generator))


def new_buffer(how: str, shape: tuple[int, ...], like: Tensor) -> Buffer:
    """A buffer with initial values, on the device and in the dtype of a tensor.

    Arguments and errors as for `new_parameter`.
    """
    return Buffer(_initial_values(how, shape, 1, 1, like, None))


class _Making(threading.local):
    """Whether what this thread makes gets values."""

    values = True


_making = _Making()


@contextmanager
def shapes_only() -> Iterator[None]:
    """Parameters and buffers made until the block ends have a shape and a dtype, but no values.

    For a model whose values come from elsewhere: nothing is drawn from a generator, and no memory
    is needed, however large a shape is. It holds for the current thread.
    """
    before, _making.values = _making.values, False
    try:
        yield
    finally:
        _making.values = before


def _initial_values(
    how: str | Initializer,
    shape: tuple[int, ...],
    fan_in: int,
    fan_out: int,
    like: Tensor,
    generator: Generator | None,
) -> Array:
    """What `new_parameter` makes a parameter of."""
    if 0 in shape:
        raise ValueError(f"an input of shape {like.shape} would need a parameter of shape {shape}")
    draw = initializer(how)
    here = backend.of(like.data)
    if not _making.values:
        return here.xp.broadcast_to(here.xp.zeros((), dtype=like.dtype), shape)
    rng = (generator or backend.default_generator).host
    values = np.asarray(draw(shape, fan_in, fan_out, rng))
    if values.shape != shape:
        raise ValueError(f"the initializer returned shape {values.shape} instead of {shape}")
    return here.asarray(values.astype(like.dtype))


def positive(number: int, name: str) -> int:
    """An argument that counts something. Raises ValueError, naming it, if it is no integer >= 1."""
    try:
        count = operator.index(number)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {number!r}")
    return count


def snake_case(name: str) -> str:
    """A class name as the name of a layer: MaxPool to max_pool, Conv2D to conv2d."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _found(name: str, value: Any) -> Iterator[tuple[str, Tensor | Module]]:
    """The parameters, buffers and modules in one attribute."""
    if isinstance(value, (Parameter, Buffer, Module)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _found(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _found(f"{name}.{key}", item)
