"""Passes over all elements of an array that training makes in every step."""

from __future__ import annotations

from minidl.backend import CPU, Array, of
from minidl.kernels import memory
from minidl.kernels.threads import PIECE_BYTES, cut, pieces_of, share


def relu(x: Array) -> Array:
    """max(x, 0) for each element."""
    backend = of(x)
    if not x.ndim:
        return backend.xp.maximum(x, 0)
    out = memory.empty(backend, x.shape, x.dtype)
    share(lambda part: backend.xp.maximum(x[part], 0, out=out[part]), _parts(backend is CPU, x))
    return out


def pass_where(values: Array, where: Array, scale: float = 1.0) -> Array:
    """Each element times `scale` where a boolean array of the same shape is true, 0 elsewhere."""
    backend = of(values)
    if not values.ndim:
        return values * where * scale
    out = memory.empty(backend, values.shape, values.dtype)

    def work(part: slice) -> None:
        backend.xp.multiply(values[part], where[part], out=out[part])
        if scale != 1:
            out[part] *= scale

    share(work, _parts(backend is CPU, values))
    return out


def _parts(shared: bool, x: Array) -> list[slice]:
    """The parts of the first axis for `share`."""
    return cut(len(x), pieces_of(3 * x.nbytes, PIECE_BYTES) if shared else 1)
