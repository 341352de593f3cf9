"""Tensors, the graph that operations leave behind, and the walk back through it.

An operation computes its value with plain arrays, then calls `record(value, (input, rule), ...)`. A
rule is a function that turns the gradient with respect to the value into the gradient with respect
to that input; with `record_jointly`, one rule serves all inputs. If no input wants a gradient,
nothing is kept. Otherwise the new tensor gets a node with the rules and with edges, each leading to
the node of an input, or to the input itself if the user made it.
Nodes hold no values: what a rule needs it keeps itself, and all else is freed. `backward` starts
from a loss, visits each node once, those made last first, and lets go of it in passing. So it comes
to a node after everything that used it.

No operation's mathematics lives here; `minidl.ops` brings it, and binds the operators and methods
of `Tensor` that are only declared here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ContextDecorator
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from minidl import anomaly, backend
from minidl.backend import Array, array_module
from minidl.kernels import memory
from minidl.kernels.blas_threads import one_blas_thread

Rule: TypeAlias = Callable[[Array], Array]
Axis: TypeAlias = int | tuple[int, ...] | None

DEFAULT_FLOAT = np.dtype(np.float32)


class _Mode(threading.local):
    """Whether this thread records operations, and what it did before each `no_grad` it is in."""

    def __init__(self) -> None:
        self.recording = True
        self.before: list[bool] = []


_mode = _Mode()


class no_grad(ContextDecorator):  # noqa: N801  the name that PyTorch's users know
    """Compute without a graph: `with no_grad():` around a block, or `@no_grad()` on a function.

    Results inside do not require gradients, and intermediate values are freed at once. It holds for
    the current thread and may be nested.
    """

    def __enter__(self) -> Self:
        _mode.before.append(_mode.recording)
        _mode.recording = False
        return self

    def __exit__(self, *_: object) -> None:
        _mode.recording = _mode.before.pop()


class Node:
    """What one operation leaves in the graph.

    Attributes:
        edges: where gradients go, with None for one that nobody wants; None once `backward` has let
            them go.
        rule: turns the gradient of the operation's value into one for each edge, in their order.
        number: how many were made before it, by which it comes after all that it was computed from.
    """

    __slots__ = ("__weakref__", "edges", "number", "rule")

    _numbers = count()

    def __init__(
        self, edges: list[Edge | None], rule: Callable[[Array], Iterable[Array | None]]
    ) -> None:
        self.edges: list[Edge | None] | None = edges
        self.rule: Callable[[Array], Iterable[Any]] | None = rule
        self.number = next(self._numbers)

    def __lt__(self, other: Node) -> bool:
        """Whether `backward` visits it before another, as it does with those made later."""
        return self.number > other.number


# The way back from an operation to one of its inputs that wants a gradient: the operation that made
# the input, or the input itself if no operation did, and the shape and dtype of the input.
Edge: TypeAlias = "tuple[Node | Tensor, tuple[int, ...], np.dtype[Any]]"


if TYPE_CHECKING:

    class _Bound:
        """Operators and methods that `minidl.ops` binds, told to readers and type checkers."""

        __hash__ = object.__hash__

        def __add__(self, other: TensorLike) -> Tensor: ...
        def __radd__(self, other: TensorLike) -> Tensor: ...
        def __sub__(self, other: TensorLike) -> Tensor: ...
        def __rsub__(self, other: TensorLike) -> Tensor: ...
        def __mul__(self, other: TensorLike) -> Tensor: ...
        def __rmul__(self, other: TensorLike) -> Tensor: ...
        def __truediv__(self, other: TensorLike) -> Tensor: ...
        def __rtruediv__(self, other: TensorLike) -> Tensor: ...
        def __pow__(self, other: TensorLike) -> Tensor: ...
        def __rpow__(self, other: TensorLike) -> Tensor: ...
        def __iadd__(self, other: TensorLike) -> Tensor: ...
        def __isub__(self, other: TensorLike) -> Tensor: ...
        def __imul__(self, other: TensorLike) -> Tensor: ...
        def __itruediv__(self, other: TensorLike) -> Tensor: ...
        def __matmul__(self, other: TensorLike) -> Tensor: ...
        def __rmatmul__(self, other: TensorLike) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __lt__(self, other: TensorLike) -> Tensor: ...
        def __le__(self, other: TensorLike) -> Tensor: ...
        def __gt__(self, other: TensorLike) -> Tensor: ...
        def __ge__(self, other: TensorLike) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def astype(self, dtype: DTypeLike) -> Tensor: ...
        def clip(self, low: float | None = None, high: float | None = None) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def flatten(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def log_softmax(self, axis: int = -1) -> Tensor: ...
        def logsumexp(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def maximum(self, other: TensorLike) -> Tensor: ...
        def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def minimum(self, other: TensorLike) -> Tensor: ...
        def pad(self, widths: int | Sequence[Any], value: float = 0.0) -> Tensor: ...
        def relu(self) -> Tensor: ...
        def reshape(self, *shape: int | Sequence[int]) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        def softmax(self, axis: int = -1) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def transpose(self, *axes: int | Sequence[int]) -> Tensor: ...
        def var(self, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor: ...

else:
    _Bound = object


class Tensor(_Bound):
    """An array that remembers how it was computed.

    Args:
        array: a NumPy or CuPy array, which is not copied, or anything `numpy.asarray` takes. Python
            floats become float32; arrays keep their dtype, which must be boolean, integer, float32
            or float64.
        requires_grad: whether `backward` is to leave a gradient in `.grad`. Floating dtypes only.

    Attributes:
        data: the array. Operations hold on to it instead of a copy: who writes to it between an
            operation and `backward` gets gradients at what is there then.
        grad: after `backward`, the gradient as an array of the same shape and dtype, added up over
            calls until it is set to None; None before. Only tensors that the user made have one,
            not the results of operations.
        requires_grad: whether gradients flow to this tensor.

    Raises:
        TypeError: for a dtype that is not supported, or an integer tensor that requires a gradient.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")

    # NumPy then leaves `array + tensor` to Tensor.__radd__ instead of taking the tensor apart.
    __array_ufunc__ = None

    def __init__(self, array: Any, requires_grad: bool = False) -> None:
        self.data = _as_array(array)
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(
                f"only floating tensors can require a gradient, this one is {self.data.dtype}; "
                "convert it with .astype(numpy.float32)"
            )

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.data.dtype

    @property
    def device(self) -> str:
        """Where the array lives: "cpu" or "gpu"."""
        return backend.of(self.data).device

    @property
    def T(self) -> Tensor:  # noqa: N802  the name that NumPy's users know
        """The axes in reverse order, as `transpose()`."""
        return self.transpose()

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user: no operation on something with a gradient led here."""
        return self._node is None

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("a 0-d tensor has no parts to iterate over")
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100)
        notes = "" if self.dtype == DEFAULT_FLOAT else f", dtype={self.dtype}"
        notes += "" if self.device == "cpu" else f", device={self.device!r}"
        notes += ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}{notes})"

    # Out of the graph

    def item(self) -> Any:
        """The only element, as a Python number. Raises ValueError if there is not exactly one."""
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one element, this one is {self.shape}")
        return self.data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"a tensor of shape {self.shape} is neither true nor false; "
                "ask .data.any() or .data.all()"
            )
        return bool(self.item())

    def numpy(self) -> Array:
        """The values as a NumPy array: the same memory on the CPU, a copy from the GPU.

        No gradient flows through the array, whether the tensor requires one or not. That holds for
        what other libraries take, too, by `__array__` and by `__dlpack__`.
        """
        return backend.of(self.data).to_host(self.data)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """What `numpy.asarray` takes; TypeError on a GPU, which hands nothing over unasked."""
        if self.device != "cpu":
            raise TypeError("a tensor on the GPU becomes a NumPy array only by .numpy()")
        return np.array(self.data, dtype=dtype, copy=copy)

    def __dlpack__(self, **request: Any) -> Any:
        """What `from_dlpack` of another library takes: the memory itself, on either device."""
        return self.data.__dlpack__(**request)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The kind of device and its number, by which that library knows where the memory is."""
        return self.data.__dlpack_device__()

    def detach(self) -> Tensor:
        """The same array as a tensor of its own, which no gradient flows through."""
        return Tensor(self.data)

    def to(self, device: str) -> Tensor:
        """The tensor on another device ("cpu", "gpu" or "auto"); itself if it is there already.

        Gradients flow back across. Raises DeviceError where the device cannot be used.
        """
        here, there = backend.of(self.data), backend.named(device)
        if here is there:
            return self
        return record(there.asarray(self.data), (self, here.asarray))

    def zero_grad(self) -> None:
        """Forget the gradient, so that the next `backward` starts from zero."""
        self.grad = None

    # The way back

    def backward(self, grad: Any = None) -> None:
        """Add the gradient of this tensor to `.grad` of every tensor that it was computed from.

        Args:
            grad: gradient with respect to this tensor, an array of its shape; 1 if left out, which
                a tensor of one element allows.

        The graph is let go on the way: the values saved for the gradients are freed. If a rule
        fails, the graph is gone too, but each `.grad` is as it was. Arrays must be as they were
        when the loss was computed: after a step of an optimizer, compute it again.

        Raises:
            RuntimeError: if nothing here requires a gradient, or if the graph was let go before.
            ValueError: if `grad` has another shape, or is left out with more than one element.
            TypeError: if `grad` is itself to be differentiated.
        """
        seed = self._seed(grad)
        with one_blas_thread():  # here once, instead of in each rule
            _walk(self._node or self, seed)

    def _seed(self, grad: Any) -> Array:
        """The gradient that `backward` starts with, checked."""
        if not self.requires_grad:
            raise RuntimeError(
                "backward() on a tensor that no gradient flows to: it was computed from nothing "
                "with requires_grad=True, or inside no_grad()"
            )
        here = backend.of(self.data)
        if grad is None:
            if self.size != 1:
                raise ValueError(
                    f"backward() without a gradient needs a tensor of one element, this one is "
                    f"{self.shape}; take its sum() or mean(), or pass backward(grad)"
                )
            one = here.xp.empty(self.shape, dtype=self.dtype)
            one.fill(1)
            return one
        if isinstance(grad, Tensor):
            if grad.requires_grad:
                raise TypeError(
                    "backward(grad) with a gradient that requires a gradient: minidl computes "
                    "first derivatives only; pass grad.detach()"
                )
            grad = grad.data
        grad = _as_array(grad, beside=self.data)
        backend.shared_by(self.data, grad)
        if grad.shape != self.shape:
            raise ValueError(f"backward(grad): expected shape {self.shape}, got {grad.shape}")
        return grad.astype(self.dtype, copy=False)


TensorLike: TypeAlias = Tensor | Array | float | Sequence[Any]


def record(value: Array, *edges: tuple[Tensor, Rule]) -> Tensor:
    """Make the tensor that an operation returns, and note how gradients pass through it.

    Args:
        value: what the operation computed.
        edges: for each input that can have a gradient, the input and its rule: a function from the
            gradient with respect to `value` to the gradient with respect to the input. A rule need
            not undo broadcasting. It must not change the array it is given, and it returns that
            array, a view, or a new array: nothing that something else still holds.
    """
    if anomaly.blocks:
        checked = anomaly.checked(value, [s.data for s, _ in edges], [rule for _, rule in edges])
        edges = tuple((edge[0], rule) for edge, rule in zip(edges, checked, strict=True))
    wanted = [edge for edge in edges if edge[0].requires_grad] if _mode.recording else []
    if not wanted:
        return _result(value)
    inputs, rules = zip(*wanted, strict=True)  # rules are kept alone, so that arrays may be freed
    return _result(value, inputs, lambda g: (rule(g) for rule in rules))


def record_jointly(
    value: Array,
    inputs: Sequence[Tensor],
    rule: Callable[[Array, tuple[bool, ...]], Sequence[Array | None]],
) -> Tensor:
    """Make the tensor that an operation returns, where one rule knows the gradients of all inputs.

    Args:
        value: as for `record`.
        inputs: what can have a gradient.
        rule: a function from the gradient with respect to `value`, and a boolean for each input
            that says whether its gradient is wanted, to a gradient for each input. Those that are
            not wanted are not looked at. What holds for a rule of `record` holds here.
    """
    if anomaly.blocks:
        (rule,) = anomaly.checked(value, [source.data for source in inputs], [rule])
    wanted = tuple([source.requires_grad for source in inputs])
    if not _mode.recording or not any(wanted):
        return _result(value)
    return _result(value, inputs, lambda g: rule(g, wanted))


def wants_gradient(*inputs: Tensor) -> bool:
    """Whether `record` will keep anything for the gradient of an operation with these inputs."""
    return _mode.recording and any(source.requires_grad for source in inputs)


def _result(value: Any, inputs: Sequence[Tensor] = (), rule: Any = None) -> Tensor:
    """The tensor of an operation's value, with a node if there are inputs for the rule."""
    out = Tensor.__new__(Tensor)
    if type(value) is not np.ndarray:
        # A 0-d result is one of NumPy's numbers, which need no further look.
        value = np.asarray(value) if isinstance(value, np.generic) else _as_array(value)
    out.data = value
    out.grad = None
    out.requires_grad = bool(inputs)
    out._node = None
    if inputs:
        edges = [
            (x._node or x, x.data.shape, x.data.dtype) if x.requires_grad else None for x in inputs
        ]
        out._node = Node(edges, rule)
    return out


def _as_array(value: Any, beside: Array | None = None) -> Array:
    """An array of a supported dtype, from an array, a number or nested lists of numbers.

    Numbers have no device; they become an array on that of `beside`, or on the CPU.
    """
    try:
        backend.of(value)
        array = np.asarray(value) if isinstance(value, np.ndarray) else value
    except TypeError:
        if isinstance(value, Tensor):
            raise TypeError("expected an array, got a Tensor; its array is .data") from None
        if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
            raise TypeError("expected numbers, got a list of tensors; stack() joins them") from None
        array = np.asarray(value)
        if array.dtype == np.float64 and not hasattr(value, "dtype"):
            array = array.astype(DEFAULT_FLOAT)  # Python's floats have no precision to keep
        if beside is not None:
            array = backend.of(beside).asarray(array)
    if not array.dtype.isnative:  # as files may have it; kernels look at bits
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind not in "biu" and array.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"expected booleans, integers, float32 or float64, got {array.dtype}; "
            "convert the array first, for example with .astype(numpy.float32)"
        )
    return array


def _walk(root: Node | Tensor, seed: Array) -> None:
    """Pass the gradient of a root on, to each node and tensor below it once it is complete."""
    gradients: dict[Any, Any] = {root: seed}
    owned: set[Node | Tensor] = set()  # whose gradient no one else holds: it may be added to
    ready = [root] if type(root) is Node else []  # a heap, with the node that was made last on top
    while ready:
        here = heappop(ready)
        gradient = gradients.pop(here)
        if isinstance(gradient, np.generic):  # a 0-d result; rules are promised arrays
            gradient = np.asarray(gradient)
        edges, rule = here.edges, here.rule
        if edges is None or rule is None:
            raise RuntimeError(
                "this graph was let go by an earlier backward(); compute the loss again, or add up "
                "several losses before one backward()"
            )
        here.edges = here.rule = None
        for edge, passed in zip(edges, rule(gradient), strict=True):
            if edge is None:
                continue
            target, shape, dtype = edge
            if passed.shape != shape or passed.dtype != dtype:
                passed = _fit(passed, shape, dtype)
            if target not in gradients:
                gradients[target] = passed
                if passed is not gradient and memory.owns(passed):
                    owned.add(target)
                if type(target) is Node:
                    heappush(ready, target)
            elif target in owned:
                gradients[target] += passed
            else:
                gradients[target] = gradients[target] + passed
                owned.add(target)
    for leaf, gradient in gradients.items():  # what is left, now that no rule can fail any more
        _accumulate(leaf, gradient, leaf in owned)


def _fit(gradient: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Undo broadcasting and promotion: bring a gradient to the shape and dtype of its input."""
    if gradient.shape != shape:
        returned = gradient.shape
        added = gradient.ndim - len(shape)
        if added < 0:
            raise RuntimeError(f"a rule returned shape {returned} for an input of {shape}")
        stretched = tuple(
            axis + added
            for axis, length in enumerate(shape)
            if length == 1 and gradient.shape[axis + added] != 1
        )
        gradient = gradient.sum(axis=(*range(added), *stretched), keepdims=True)
        gradient = gradient.reshape(gradient.shape[added:])
        if gradient.shape != shape:
            raise RuntimeError(f"a rule returned shape {returned} for an input of {shape}")
    return gradient if gradient.dtype == dtype else gradient.astype(dtype)


def _accumulate(leaf: Tensor, gradient: Any, owned: bool) -> None:
    """Add to `.grad`, which never shares its memory with another array."""
    if leaf.grad is not None:
        leaf.grad += gradient
    elif owned and not isinstance(gradient, np.generic):
        leaf.grad = gradient
    else:
        leaf.grad = array_module(leaf.data).array(gradient)
