"""A stand-in for CuPy where there is no GPU: arrays that keep to themselves, as a device's do.

They hold NumPy arrays inside, but refuse to become one unasked or to meet one, return 0-d arrays
from reductions, take numbers out of range for others when they are indexed by an array, and have
random generators that cannot be copied. What computes with them computes with what CuPy allows.
Every transfer between the host and the device is counted.
"""

import operator
import os
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import stand_in_nccl

__version__ = "stand-in"

# How many arrays and numbers have gone "to_host" and "to_device".
transfers: Counter[str] = Counter()


def _fetched(value):
    transfers["to_host"] += 1
    return value


class ndarray:  # noqa: N801
    __slots__ = ("inside", "owner")

    def __init__(self, inside, owner=None):
        self.inside = inside
        self.owner = owner

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc, method, *arguments, **options):
        raise TypeError(f"numpy.{ufunc.__name__} on an array of the stand-in")

    def __array_function__(self, function, *_):
        raise TypeError(f"numpy.{function.__name__} on an array of the stand-in")

    def __dlpack_device__(self):
        return 2, 0  # CUDA's first

    @property
    def base(self):
        return None if self.inside.base is None else self

    @property
    def flags(self):
        names = "c_contiguous", "f_contiguous", "fnc", "forc", "owndata"  # and not "writeable"
        return SimpleNamespace(**{name: getattr(self.inside.flags, name) for name in names})

    @property
    def data(self):
        return SimpleNamespace(ptr=self.inside.ctypes.data)

    @property
    def T(self):
        return wrap(self.inside.T)

    def __getattr__(self, name):
        if name.startswith("__array_"):  # by which NumPy would see what is inside
            raise AttributeError(name)
        value = getattr(self.inside, name)
        if not callable(value) or name == "dtype":
            return value
        if name in ("item", "tolist"):
            return lambda *arguments: _fetched(value(*arguments))
        if name == "take":
            return lambda index, axis=None: wrap(value(unwrap(index), axis, mode="wrap"))
        return lambda *arguments, **options: wrap(value(*unwrap(arguments), **unwrap(options)))

    def __len__(self):
        return len(self.inside)

    def __getitem__(self, index):
        return wrap(self.inside[around(unwrap(index), self.inside.shape)])

    def __setitem__(self, index, value):
        self.inside[around(unwrap(index), self.inside.shape)] = unwrap(value)

    def __bool__(self):
        return _fetched(bool(self.inside))

    def __float__(self):
        return _fetched(float(self.inside))

    def __format__(self, spec):
        return _fetched(format(self.inside.item(), spec))

    __hash__ = None


def unwrap(value):
    """What is inside, through tuples, lists and dicts; a NumPy array has no business here."""
    if isinstance(value, ndarray):
        return value.inside
    if type(value) is np.ndarray:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(unwrap(item) for item in value)
    return value


def around(index, shape):
    """An index whose arrays of numbers go round and round each axis, as CuPy's do."""
    parts = list(index) if isinstance(index, tuple) else [index]
    kinds = [
        np.asarray(part).dtype.kind if isinstance(part, (np.ndarray, list)) else ""
        for part in parts
    ]
    axes = [
        0 if part is None or part is Ellipsis else np.ndim(part) if kind == "b" else 1
        for part, kind in zip(parts, kinds, strict=True)
    ]
    axis = 0
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        if part is Ellipsis:
            axis += len(shape) - sum(axes)
        if kind in ("i", "u"):
            parts[place] = np.asarray(part) % max(shape[axis], 1)
        axis += axes[place]
    return tuple(parts) if isinstance(index, tuple) else parts[0]


def wrap(value):
    """NumPy's results as arrays of the stand-in, scalars too."""
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    return value


def _binary(name):
    reflected = name.startswith("__r")
    compute = getattr(operator, name.replace("__r", "__") if reflected else name)

    def method(self, other):
        if getattr(type(other), "__array_ufunc__", 0) is None:
            return NotImplemented
        pair = (self.inside, unwrap(other))
        return wrap(compute(*(reversed(pair) if reflected else pair)))

    return method


def _in_place(name):
    compute = getattr(operator, name)

    def method(self, other):
        self.inside = compute(self.inside, unwrap(other))
        return self

    return method


for _name in ["add", "sub", "mul", "truediv", "pow", "matmul"]:
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _binary(f"__r{_name}__"))
for _name in ["lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor"]:
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
for _name in ["iadd", "isub", "imul", "itruediv", "iand", "ior", "ixor"]:
    setattr(ndarray, f"__{_name}__", _in_place(f"__{_name}__"))
ndarray.__neg__ = lambda self: wrap(-self.inside)


def asarray(value):
    if isinstance(value, ndarray):
        return value
    transfers["to_device"] += 1
    return ndarray(np.array(value))


def array(value):
    return ndarray(np.array(value.inside if isinstance(value, ndarray) else value))


def asnumpy(value):
    return _fetched(value.inside.copy())


def where(condition, a, b):
    return wrap(np.where(condition.inside, unwrap(a), unwrap(b)))  # CuPy takes no plain bool


class cuda:  # noqa: N801
    @staticmethod
    def is_available():
        return True

    class Device:
        @property
        def pci_bus_id(self):
            first, *_ = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
            return f"0000:0{first}:00.0"

    @staticmethod
    def get_current_stream():
        return SimpleNamespace(ptr=stand_in_nccl.STREAM)

    nccl = stand_in_nccl

    class runtime:  # noqa: N801
        free = 2**30

        @classmethod
        def memGetInfo(cls):
            return cls.free, 2**33

        class CUDARuntimeError(RuntimeError):
            def __init__(self, status):
                super().__init__(f"status {status}")
                self.status = status

    class driver:  # noqa: N801
        class CUDADriverError(RuntimeError):
            def __init__(self, status):
                super().__init__(f"status {status}")
                self.status = status

    class cublas:  # noqa: N801
        class CUBLASError(RuntimeError):
            def __init__(self, status):
                super().__init__(f"status {status}")
                self.status = status

    class memory:  # noqa: N801
        class OutOfMemoryError(MemoryError):
            pass


class pool:  # noqa: N801
    @staticmethod
    def free_bytes():
        return 0


def get_default_memory_pool():
    return pool


class lib:  # noqa: N801
    class stride_tricks:  # noqa: N801
        @staticmethod
        def as_strided(x, shape, strides):
            return ndarray(np.lib.stride_tricks.as_strided(x.inside, shape, strides))


class random:  # noqa: N801
    class XORWOW:
        def __init__(self, seed):
            self.lock = threading.Lock()  # what keeps CuPy's from being copied
            self.stream = np.random.default_rng(seed)

    class Generator:
        def __init__(self, bits):
            self.bits = bits

        def integers(self, *arguments, **options):
            return ndarray(self.bits.stream.integers(*arguments, **options))

        def random(self, *arguments, **options):
            return ndarray(self.bits.stream.random(*arguments, **options))


class add:  # noqa: N801
    @staticmethod
    def at(target, index, values):
        np.add.at(target.inside, around(unwrap(index), target.inside.shape), unwrap(values))


def __getattr__(name):
    """All else is NumPy's, on what is inside."""
    value = getattr(np, name)
    if not callable(value) or isinstance(value, type):
        return value

    def function(*arguments, **options):
        result = wrap(value(*unwrap(arguments), **unwrap(options)))
        return options.get("out", result)

    return function
