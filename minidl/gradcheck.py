"""Numerical gradient checking: what `backward` computes, held against the slope of the function.

The slope is measured by central differences, (f(x + eps) - f(x - eps)) / (2 * eps), whose error
falls with eps squared. In float64 it agrees with a right gradient to eight digits or so, and with a
wrong one not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.tensor import Tensor, no_grad


class GradientError(AssertionError):
    """The gradient differs from the slope; the message says where, and both values."""


@runtime_checkable
class Model(Protocol):
    """What `gradcheck` asks of a model: every `minidl.Module` has it."""

    def __call__(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def modules(self) -> Iterator[Any]: ...  # noqa: D102
    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...  # noqa: D102
    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...  # noqa: D102
    def astype(self, dtype: Any) -> Any: ...  # noqa: D102


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    *,
    loss: Callable[[Tensor], Tensor] | None = None,
    samples: int = 200,
    seed: int = 0,
) -> bool:
    """Compare the gradients of a function or a model with central differences, in float64.

    Args:
        fn: a function of tensors that returns a tensor, or a model.
        inputs: its inputs, one array or tensor or a sequence of them. Floating ones are checked;
            for a model, so is every parameter, in float64 for the time of the check.
        eps: half the distance between the two points of a difference.
        rtol: relative tolerance: |gradient - slope| <= atol + rtol * |slope|.
        atol: absolute tolerance.
        loss: applied to the output, for example `lambda out: cross_entropy(out, labels)`. An output
            of more than one element is otherwise multiplied with fixed random numbers and summed.
        samples: how many elements of each input are checked one by one, drawn at random where
            there are more. All elements together are checked along a random direction.
        seed: for what is drawn here. Dropout draws the same mask in every evaluation.

    Returns:
        True.

    Raises:
        GradientError: naming the input, the index and both values, at the first difference.
        ValueError: if no input is floating.
    """
    rng = np.random.default_rng(seed)
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    tensors = [_double(value) for value in given]
    checked = {f"input {i}": t for i, t in enumerate(tensors) if t.requires_grad}
    with _in_double(fn) as parameters:
        checked.update(parameters)
        if not checked:
            raise ValueError("gradcheck needs at least one floating input, got none")

        def evaluate() -> Tensor:
            with _same_randomness(fn):
                out = fn(*tensors)
                if loss is not None:
                    out = loss(out)
            if out.size == 1:
                return out.reshape(())
            weights = np.random.default_rng(seed + 1).standard_normal(out.shape)
            return (out * backend.of(out.data).asarray(weights)).sum()

        gradients = _gradients(evaluate, checked)
        for name, x in checked.items():
            _check_elements(evaluate, name, x, gradients[name], eps, rtol, atol, samples, rng)
        _check_direction(evaluate, checked, gradients, eps, rtol, atol, rng)
    return True


def _gradients(evaluate: Callable[[], Tensor], checked: dict[str, Tensor]) -> dict[str, Array]:
    """What `backward` says, on the host."""
    evaluate().backward()
    gradients = {}
    for name, x in checked.items():
        grad = x.grad
        gradients[name] = np.zeros(x.shape) if grad is None else backend.of(grad).to_host(grad)
        x.grad = None
    return gradients


def _check_direction(
    evaluate: Callable[[], Tensor],
    checked: dict[str, Tensor],
    gradients: dict[str, Array],
    eps: float,
    rtol: float,
    atol: float,
    rng: np.random.Generator,
) -> None:
    """Move all inputs at once: one comparison in which every element takes part."""
    directions = {name: rng.standard_normal(x.shape) for name, x in checked.items()}
    norm = sum(float((d * d).sum()) for d in directions.values()) ** 0.5 or 1.0
    starts = {name: x.data for name, x in checked.items()}

    def value(step: float) -> float:
        for name, x in checked.items():
            start = starts[name]
            here = backend.of(start)
            x.data = here.xp.asarray(start + here.xp.asarray(directions[name] * (step / norm)))
        with no_grad():
            return float(evaluate())

    try:
        slope = (value(eps) - value(-eps)) / (2 * eps)
    finally:
        for name, x in checked.items():
            x.data = starts[name]
    gradient = sum(float((gradients[n] * d).sum()) for n, d in directions.items()) / norm
    _compare("all inputs along a random direction", gradient, slope, rtol, atol)


def _check_elements(
    evaluate: Callable[[], Tensor],
    name: str,
    x: Tensor,
    gradient: Array,
    eps: float,
    rtol: float,
    atol: float,
    samples: int,
    rng: np.random.Generator,
) -> None:
    """Move one element at a time, so that a difference can be named."""
    flat = np.arange(x.size)
    chosen = flat if x.size <= samples else np.sort(rng.choice(flat, samples, replace=False))
    for number in chosen:
        index = tuple(int(i) for i in np.unravel_index(number, x.shape))
        start = float(x.data[index])
        ends = []
        for step in (eps, -eps):
            x.data[index] = start + step
            with no_grad():
                ends.append(float(evaluate()))
        x.data[index] = start
        slope = (ends[0] - ends[1]) / (2 * eps)
        _compare(f"{name} at {index}", float(gradient[index]), slope, rtol, atol)


def _compare(where: str, gradient: float, slope: float, rtol: float, atol: float) -> None:
    if not abs(gradient - slope) <= atol + rtol * abs(slope):  # nan fails too
        raise GradientError(
            f"{where}: backward gives {gradient:.10g}, central differences give {slope:.10g} "
            f"(tolerance {atol:g} + {rtol:g} of the latter)"
        )


def _double(value: Any) -> Tensor:
    """A copy to check: float64 with a gradient if floating, as it is otherwise."""
    x = value if isinstance(value, Tensor) else Tensor(value)
    if x.dtype.kind != "f":
        return x.detach()
    return Tensor(x.data.astype(np.float64), requires_grad=True)


@contextmanager
def _in_double(fn: Any) -> Iterator[dict[str, Tensor]]:
    """The parameters of a model by name, in float64 until the block ends; none of a function."""
    if not isinstance(fn, Model):
        yield {}
        return
    held = [t for _, t in (*fn.named_parameters(), *fn.named_buffers())]
    before = [(t, t.data, t.grad) for t in held]
    fn.astype(np.float64)
    for t in held:
        t.grad = None
        t.data = t.data.copy()  # astype may return the user's own memory
    try:
        yield {name: param for name, param in fn.named_parameters() if param.requires_grad}
    finally:
        for t, data, grad in before:
            t.data, t.grad = data, grad


@contextmanager
def _same_randomness(fn: Any) -> Iterator[None]:
    """Let all generators of a model, and the default one, draw the same in every evaluation."""
    generators = {id(backend.default_generator): backend.default_generator}
    if isinstance(fn, Model):
        for module in fn.modules():
            for value in vars(module).values():
                if isinstance(value, backend.Generator):
                    generators[id(value)] = value
    with ExitStack() as replaying:
        for generator in generators.values():
            replaying.enter_context(generator.replaying())
        yield
