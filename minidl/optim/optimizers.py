"""Optimizers: from gradients to the next parameters.

Each holds its parameters, what it remembers of earlier gradients, and the number of steps taken.
The arithmetic is in `minidl.kernels.optimizer`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.kernels import optimizer as kernels
from minidl.kernels.threads import training_step_done
from minidl.optim.schedules import Schedule, learning_rate
from minidl.tensor import Tensor


class Optimizer(ABC):
    """What all optimizers share.

    Args:
        params: the tensors to change, such as `model.parameters()`.
        lr: learning rate, a number or a schedule.

    Attributes:
        params: the parameters, a list.
        lr: learning rate or schedule; may be set at any time.
        step_count: steps taken.

    Raises:
        ValueError: if there is nothing to change, something that cannot be or comes twice, or a
            number is out of range.
        TypeError: for a tensor in the place of a list of them.
    """

    def __init__(self, params: Iterable[Tensor], lr: float | Schedule) -> None:
        self.params = _several(params)
        if not self.params:
            raise ValueError("an optimizer needs at least one parameter, got none")
        for param in self.params:
            if not isinstance(param, Tensor) or not param.requires_grad:
                raise ValueError(
                    "an optimizer takes tensors with requires_grad=True, got "
                    f"{type(param).__name__} without; leave out what is not to change"
                )
            if not param.is_leaf:
                raise ValueError(
                    "an optimizer takes tensors with requires_grad=True that you made, "
                    "got the result of an operation, which never has a .grad"
                )
            if not getattr(param.data.flags, "writeable", True):
                raise ValueError(
                    f"an optimizer changes its parameters in place, but one of shape {param.shape} "
                    "is read-only; give the tensor a copy of its array"
                )
        if len({id(param) for param in self.params}) < len(self.params):
            raise ValueError("an optimizer takes each parameter once, got one of them twice")
        if not isinstance(lr, Schedule):
            _at_least_zero(lr=lr)
        self.lr = lr
        self.step_count = 0
        # Counted for each parameter: one that had no gradient yet starts its own correction.
        self._taken = [0] * len(self.params)
        self._memory: dict[str, Array] = {}
        self._layouts: dict[tuple[int, int], kernels.Layout] = {}  # of the last step
        self._ends = [0, *accumulate(param.size for param in self.params)]

    @property
    def current_lr(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.lr, self.step_count)

    def step(self) -> None:
        """Change every parameter that has a gradient, in place."""
        lr = self.current_lr
        self.step_count += 1
        used = {}
        for run in self._runs():
            layout = used[run.start, run.stop] = self._layout(run)
            gradients = [param.grad for param in self.params[run] if param.grad is not None]
            self._update(layout, gradients, lr, self._taken[run.start])
        self._layouts = used
        training_step_done()

    def _runs(self) -> Iterator[slice]:
        """Neighbours with a gradient, of one dtype, that have taken as many steps."""
        kinds = [
            None if param.grad is None else (steps, param.data.dtype)
            for param, steps in zip(self.params, self._taken, strict=True)
        ]
        start = 0
        for kind, neighbours in groupby(kinds):
            stop = start + len(list(neighbours))
            if kind is not None:
                self._taken[start:stop] = [kind[0] + 1] * (stop - start)
                yield slice(start, stop)
            start = stop

    @property
    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """What is remembered after a step, in the order of `_remembered`."""

    @abstractmethod
    def _update(
        self, layout: kernels.Layout, gradients: list[Array], lr: float, step_number: int
    ) -> None:
        """Change some parameters in place, for which it is the step of this number."""

    def _layout(self, run: slice) -> kernels.Layout:
        """Some neighbouring parameters with what is remembered of them.

        It is that of the step before, unless an array is another one since.
        """
        params = [param.data for param in self.params[run]]
        remembered = [self._memory.get(name) for name in self._names]
        layout = self._layouts.get((run.start, run.stop))
        if layout is None or not layout.is_made_of([*params, *remembered]):
            layout = kernels.Layout(params, *self._remembered(), start=self._ends[run.start])
        return layout

    def _remembered(self) -> list[Array]:
        """What is remembered: arrays of all parameters, end to end, zeros at first.

        They lie where the first of all parameters lies now, in the most precise of their dtypes.
        """
        here = backend.of(self.params[0].data)
        dtypes = {param.data.dtype for param in self.params}
        dtype = max(dtypes, key=attrgetter("itemsize"))
        for name in self._names:
            memory = self._memory.get(name)
            if memory is None:
                memory = np.zeros(self._ends[-1], dtype=dtype)
            self._memory[name] = here.asarray(memory).astype(dtype, copy=False)
        return [self._memory[name] for name in self._names]

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on besides parameters and gradients.

        Returns:
            "step_count"; "taken", the steps of each parameter; "lr" if it is a number; and
            "memory": a copy of each array that is remembered, as a NumPy array, by name.
        """
        return {
            "step_count": self.step_count,
            "taken": list(self._taken),
            "lr": None if isinstance(self.lr, Schedule) else float(self.lr),
            "memory": {name: np.array(backend.on_host(m)) for name, m in self._memory.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another optimizer of the same kind and parameters stood.

        Args:
            state: from its `state_dict`. A schedule goes on by its own step; it is not replaced.

        Raises:
            ValueError: if the state does not fit; nothing is changed then.
        """
        here = backend.of(self.params[0].data)
        taken, lr = list(state["taken"]), state["lr"]
        shapes = {name: memory.shape for name, memory in state["memory"].items()}
        if len(taken) != len(self.params) or set(shapes.values()) - {(self._ends[-1],)}:
            raise ValueError(
                f"expected the state of an optimizer of {len(self.params)} parameters of "
                f"{self._ends[-1]} numbers, got {len(taken)} and {shapes}"
            )
        if min(taken) < 0 or state["step_count"] < 0:
            raise ValueError(f"expected counts of steps, got {taken} and {state['step_count']}")
        if (lr is None) != isinstance(self.lr, Schedule):
            kinds = "a number", "a schedule"
            raise ValueError(
                f"the learning rate was {kinds[lr is None]}, here it is {kinds[lr is not None]}"
            )
        if set(shapes) != set(self._names) and (shapes or any(taken)):
            raise ValueError(
                f"expected the state of {type(self).__name__}, which remembers "
                f"{list(self._names)} from its first step on, got {list(shapes)}"
            )
        self.step_count, self._taken = int(state["step_count"]), taken
        memory = {name: here.asarray(array.copy()) for name, array in state["memory"].items()}
        self._memory = memory
        if lr is not None:
            self.lr = lr

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: all but views of arrays that are not its own."""
        return {**vars(self), "_layouts": {}}

    def zero_grad(self) -> None:
        """Forget all gradients, so that the next `backward` starts from zero."""
        for param in self.params:
            param.grad = None


class SGD(Optimizer):
    """Stochastic gradient descent, `torch.optim.SGD` without dampening; the default lr is Keras's.

    Args:
        params: the tensors to change.
        lr: learning rate, a number or a schedule.
        momentum: share of the last step that the next one keeps.
        nesterov: look ahead along the momentum; needs momentum > 0.
        weight_decay: L2 penalty, added to the gradient as weight_decay * parameter.

    Raises:
        ValueError: if a number is negative, or nesterov has no momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        _at_least_zero(momentum=momentum, weight_decay=weight_decay)
        if nesterov and not momentum:
            raise ValueError("nesterov=True needs momentum > 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay

    @property
    def _names(self) -> tuple[str, ...]:
        return ("velocity",) if self.momentum else ()

    def _update(
        self,
        layout: kernels.Layout,
        gradients: list[Array],
        lr: float,
        step_number: int,
    ) -> None:
        if not self.momentum:
            kernels.sgd(layout, gradients, lr=lr, weight_decay=self.weight_decay)
            return
        kernels.momentum_sgd(
            layout,
            gradients,
            lr=lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
            step_number=step_number,
        )


class Adam(Optimizer):
    """Adam: steps scaled by running estimates of the gradient's mean and square [1].

    Formulas and defaults are those of `torch.optim.Adam`.

    Args:
        params: the tensors to change.
        lr: learning rate, a number or a schedule.
        betas: how much of the running mean and the running square each step keeps.
        eps: added to the root of the square, so that nothing is divided by zero.

    Raises:
        ValueError: if a number is out of range.

    [1] D. Kingma, J. Ba: Adam: a method for stochastic optimization, 2015, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Schedule = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr)
        _at_least_zero(eps=eps)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers from 0 to 1, 1 excluded; got {betas}")
        self.betas, self.eps = betas, eps
        self.weight_decay = 0.0

    @property
    def _names(self) -> tuple[str, ...]:
        return "mean", "square"

    def _update(
        self, layout: kernels.Layout, gradients: list[Array], lr: float, step_number: int
    ) -> None:
        kernels.adam(
            layout,
            gradients,
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            step_number=step_number,
        )


class AdamW(Adam):
    """Adam with weight decay that shrinks parameters directly, past the gradient's scaling [1].

    Args:
        params: the tensors to change.
        lr: learning rate, a number or a schedule.
        betas: as `Adam`.
        eps: as `Adam`.
        weight_decay: each step multiplies parameters by 1 - lr * weight_decay.

    Raises:
        ValueError: if a number is out of range.

    [1] I. Loshchilov, F. Hutter: Decoupled weight decay regularization, 2019, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Schedule = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps)
        _at_least_zero(weight_decay=weight_decay)
        self.weight_decay = weight_decay


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their joint norm is at most `max_norm`.

    Args:
        params: tensors, of which those without a gradient are passed over.
        max_norm: the largest Euclidean norm, over all gradients as one vector.

    Returns:
        The norm before. As in `torch.nn.utils.clip_grad_norm_`, gradients are scaled by
        max_norm / (norm + 1e-6) where that is below one.

    Raises:
        ValueError: if max_norm is not positive.
        TypeError: for a tensor in the place of a list of them.
    """
    return float(scale_to_norm(params, max_norm))


def scale_to_norm(params: Iterable[Tensor], max_norm: float) -> float | Array:
    """As `clip_grad_norm`, but a norm on a GPU stays there, (), so that nobody waits for it."""
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    grads = [param.grad for param in _several(params) if param.grad is not None]
    if not grads:
        return 0.0
    flat = [grad.reshape(-1) for grad in grads]
    squares = sum((grad @ grad).astype(np.float64) for grad in flat)
    here = backend.of(grads[0])
    if here is backend.CPU:
        norm = math.sqrt(squares)
        scale = max_norm / (norm + 1e-6)
        if scale < 1:
            for grad in grads:
                grad *= scale
        return norm
    on_device = here.xp.sqrt(squares)
    share = here.xp.minimum(max_norm / (on_device + 1e-6), 1.0)
    for grad in grads:
        grad *= share.astype(grad.dtype)
    return on_device


def _several(params: Iterable[Tensor]) -> list[Tensor]:
    """Parameters as a list. Raises TypeError for a tensor, whose rows would pass for a list."""
    if isinstance(params, Tensor):
        raise TypeError("expected a list of tensors, got one tensor; write [tensor]")
    return list(params)


def _at_least_zero(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= 0:
            raise ValueError(f"{name} must not be negative, got {number}")
