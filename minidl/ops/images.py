"""Convolution and pooling of channels-last images (N, H, W, C)."""

from __future__ import annotations

from minidl import backend
from minidl.backend import Array
from minidl.kernels import convolution, pooling
from minidl.kernels.convolution_plan import Convolution
from minidl.kernels.window import (
    Padding,
    Pair,
    Window,
    check_padding,
    pair,
    place_window,
)
from minidl.ops.operands import check_images, floating, tensor
from minidl.tensor import Tensor, TensorLike, record, record_jointly, wants_gradient


def conv2d(
    x: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    strides: int | Pair = 1,
    padding: Padding = "valid",
    dilation: int | Pair = 1,
    *,
    relu: bool = False,
    pool_size: int | Pair = 1,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation, as the field uses the word).

    Args:
        x: images (N, H, W, C_in).
        weight: filters (KH, KW, C_in, C_out).
        bias: (C_out,) or None.
        strides: pixels between places of the filter, one number or (rows, columns).
        padding: "valid" for none; "same" for ceil(H / stride) places, as Keras pads; or zeros for
            each side: an integer, (rows, columns) or ((top, bottom), (left, right)).
        dilation: pixels between taps of the filter, one number or (rows, columns).
        relu: whether max(x, 0) follows.
        pool_size: rows and columns of a max pooling that follows; 1 for none.
            Convolution, max(x, 0) and pooling in one go take less time and memory than one after
            the other.

    Returns:
        (N, OH, OW, C_out).

    Raises:
        ValueError: if the shapes do not fit together.
        TypeError: if images and weight differ in dtype.
    """
    x, weight = floating(x), floating(weight)
    images, filters = x.data, weight.data
    if images.ndim != 4 or filters.ndim != 4 or images.shape[3] != filters.shape[2]:
        raise ValueError(
            "conv2d expects images (N, H, W, C_in) and weight (KH, KW, C_in, C_out), "
            f"got {images.shape} and {filters.shape}"
        )
    backend.shared_by(images, filters)
    if images.dtype != filters.dtype:
        raise TypeError(
            "conv2d expects images and weight of one dtype, "
            f"got {images.dtype} and {filters.dtype}; convert one with .astype"
        )
    inputs = [x, weight]
    if bias is not None:
        bias = tensor(bias)
        backend.shared_by(filters, bias.data)
        if bias.shape != filters.shape[3:]:
            raise ValueError(f"conv2d expects a bias of {filters.shape[3:]}, got {bias.shape}")
        inputs.append(bias)
    image = images.shape[1], images.shape[2]
    window = place_window(
        image,
        (filters.shape[0], filters.shape[1]),
        pair(strides, "strides"),
        check_padding(padding),
        pair(dilation, "dilation"),
    )
    how = Convolution(window, relu, pair(pool_size, "pool_size"))
    if min(how.places(image)) < 1:
        raise ValueError(
            f"the max pooling of {how.pool} that follows does not fit on an output of "
            f"{window.positions(image)}; use a smaller one"
        )
    out, remembered = convolution.conv2d(
        images, filters, None if bias is None else bias.data, how, wants_gradient(*inputs)
    )

    def rule(g: Array, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
        asked = wanted[0], wanted[1], len(wanted) == 3 and wanted[2]
        gradients = convolution.conv2d_gradients(images, filters, how, g, remembered, asked)
        return gradients[: len(wanted)]

    return record_jointly(out, inputs, rule)


def max_pool(
    x: TensorLike,
    pool_size: int | Pair = 2,
    strides: int | Pair | None = None,
    padding: Padding = "valid",
) -> Tensor:
    """The largest value of each window: (N, H, W, C) to (N, OH, OW, C).

    Args:
        x: images (N, H, W, C).
        pool_size: height and width of the window, one number or a pair.
        strides: pixels between windows; as many as pool_size if None.
        padding: as for `conv2d`. Padded places never win.

    The first of several equal values takes the gradient. ValueError is raised if shapes do not fit.
    """
    x = floating(x)
    window = _pooling_window(x, pool_size, strides, padding)
    images = x.data
    out = pooling.max_pool(images, window)
    return record(out, (x, lambda g: pooling.max_pool_gradient(images, out, g, window)))


def avg_pool(
    x: TensorLike,
    pool_size: int | Pair = 2,
    strides: int | Pair | None = None,
    padding: Padding = "valid",
) -> Tensor:
    """The mean of each window: (N, H, W, C) to (N, OH, OW, C); padded places are not counted.

    Arguments and errors as for `max_pool`.
    """
    x = floating(x)
    window = _pooling_window(x, pool_size, strides, padding)
    image = x.shape[1], x.shape[2]
    return record(
        pooling.average_pool(x.data, window),
        (x, lambda g: pooling.average_pool_gradient(g, window, image)),
    )


def _pooling_window(
    x: Tensor,
    pool_size: int | Pair,
    strides: int | Pair | None,
    padding: Padding,
) -> Window:
    """The window of a pooling operation. Raises ValueError if the shapes do not fit."""
    check_images(x)
    size = pair(pool_size, "pool_size")
    step = size if strides is None else pair(strides, "strides")
    window = place_window((x.shape[1], x.shape[2]), size, step, check_padding(padding))
    if any(max(sides) >= taps for sides, taps in zip(window.padding, size, strict=True)):
        raise ValueError(
            f"padding {window.padding} would leave windows of {size} with padding alone; "
            "pad by less than the window"
        )
    return window
