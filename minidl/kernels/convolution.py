"""Two-dimensional convolution as matrix products: im2col, a few images at a time.

Every patch that the kernel sees becomes one row of a matrix, so that the convolution is one product
of (patches, KH*KW*C_in) with (KH*KW*C_in, C_out) [1]. Written out for a whole batch, that matrix is
KH*KW times the size of the batch. Here it exists for a few images only, in scratch memory small
enough to stay in the processor's cache, and is built again for the gradients.

All arrays are channels-last: images (N, H, W, C), weights (KH, KW, C_in, C_out).

[1] K. Chellapilla, S. Puri, P. Simard: High performance convolutional neural networks for document
    processing, 2006.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from minidl.backend import Array, array_module, of
from minidl.kernels import scratch
from minidl.kernels.window import Window

# What the columns of one turn may take, chosen by measurement: larger ones leave the cache before
# the product reads them, smaller ones make products too small to run at full speed.
COLUMN_BYTES = {"cpu": 1 << 21, "gpu": 1 << 28}


def conv2d(x: Array, weight: Array, bias: Array | None, window: Window) -> Array:
    """Convolve (cross-correlate, as deep learning names it) a batch with a set of filters.

    Args:
        x: images (N, H, W, C_in).
        weight: filters (KH, KW, C_in, C_out).
        bias: (C_out,) or None.
        window: where the filters are placed.

    Returns:
        (N, OH, OW, C_out).
    """
    filters = weight.shape[3]
    places = window.positions((x.shape[1], x.shape[2]))
    out = array_module(x).empty((len(x), *places, filters), dtype=x.dtype)
    matrix = weight.reshape(-1, filters)
    for images, columns in im2col(x, window):
        product = out[images].reshape(-1, filters)
        array_module(x).matmul(columns, matrix, out=product)
        if bias is not None:
            product += bias
    return out


def conv2d_weight_gradient(x: Array, d: Array, window: Window) -> Array:
    """Gradient of a convolution with respect to its weight.

    Args:
        x: the images (N, H, W, C_in) of the forward pass.
        d: gradient with respect to the output, (N, OH, OW, C_out).
        window: the window of the forward pass.

    Returns:
        (KH, KW, C_in, C_out), the sum over the batch, added in the order of the images.
    """
    xp = array_module(x)
    filters = d.shape[3]
    gradient = xp.zeros((*window.size, x.shape[3], filters), dtype=d.dtype)
    total = gradient.reshape(-1, filters)
    with scratch.borrow(of(x), total.shape, d.dtype) as part:
        for images, columns in im2col(x, window):
            xp.matmul(columns.T, d[images].reshape(-1, filters), out=part)
            total += part
    return gradient


def conv2d_input_gradient(d: Array, weight: Array, window: Window, image: tuple[int, int]) -> Array:
    """Gradient of a convolution with respect to its images.

    Args:
        d: gradient with respect to the output, (N, OH, OW, C_out).
        weight: the filters (KH, KW, C_in, C_out) of the forward pass.
        window: the window of the forward pass.
        image: (H, W) of the images of the forward pass.

    Returns:
        (N, H, W, C_in).
    """
    mirrored = _mirrored(window)
    if mirrored is None:
        return col2im(d, weight, window, image)
    # With stride one each pixel collects from the places around it: that is a convolution of the
    # gradient with the filters turned by 180 degrees, and it writes every pixel only once.
    turned = array_module(d).ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
    return conv2d(d, turned, None, mirrored)


def _mirrored(window: Window) -> Window | None:
    """The window of the convolution that is the input gradient; None where there is no such one."""
    padding = tuple(
        (extent - before, extent - after)
        for extent, (before, after) in zip(window.extent, window.padding, strict=True)
    )
    if window.strides != (1, 1) or min(min(sides) for sides in padding) < 0:
        return None
    return window._replace(padding=(padding[0], padding[1]))


def im2col(x: Array, window: Window) -> Iterator[tuple[slice, Array]]:
    """Walk over a batch a few images at a time, with their patches written out as rows.

    Args:
        x: images (N, H, W, C).
        window: the places to take patches from.

    Yields:
        (images, columns): which images these are, and their patches (n * OH * OW, KH * KW * C),
        in scratch memory that the next turn overwrites.
    """
    count, height, width, channels = x.shape
    if window == Window((1, 1)) and x.flags.c_contiguous:  # the pixels are the patches
        yield slice(0, count), x.reshape(-1, channels)
        return
    places = window.positions((height, width))
    (top, bottom), (left, right) = window.padding
    patch = window.size[0] * window.size[1] * channels
    step = _images_at_a_time(x, places[0] * places[1] * patch)
    with ExitStack() as borrowed:
        columns = borrowed.enter_context(
            scratch.borrow(of(x), (step, *places, *window.size, channels), x.dtype)
        )
        if window.padding == ((0, 0), (0, 0)):
            padded = None
            patches = window.patches(x, places)
        else:
            shape = (step, height + top + bottom, width + left + right, channels)
            padded = borrowed.enter_context(scratch.borrow(of(x), shape, x.dtype))
            _clear_border(padded, window)
            patches = window.patches(padded, places)
        for start in range(0, count, step):
            images = slice(start, min(start + step, count))
            n = images.stop - start
            if padded is None:
                columns[:n] = patches[images]
            else:
                padded[:n, top : top + height, left : left + width] = x[images]
                columns[:n] = patches[:n]
            yield images, columns[:n].reshape(-1, patch)


def col2im(d: Array, weight: Array, window: Window, image: tuple[int, int]) -> Array:
    """Input gradient for any stride: the gradient of each patch, added back where the patch lay.

    Shapes as in `conv2d_input_gradient`.
    """
    backend = of(d)
    count, *places, filters = d.shape
    channels = weight.shape[2]
    height, width = image
    (top, bottom), (left, right) = window.padding
    out = backend.xp.empty((count, height, width, channels), dtype=d.dtype)
    transposed = weight.reshape(-1, filters).T
    patch = transposed.shape[1]
    step = _images_at_a_time(d, places[0] * places[1] * patch)
    columns_shape = (step, *places, *window.size, channels)
    padded_shape = (step, height + top + bottom, width + left + right, channels)
    with (
        scratch.borrow(backend, columns_shape, d.dtype) as columns,
        scratch.borrow(backend, padded_shape, d.dtype) as padded,
    ):
        for start in range(0, count, step):
            images = slice(start, min(start + step, count))
            n = images.stop - start
            product = columns[:n].reshape(-1, patch)
            backend.xp.matmul(d[images].reshape(-1, filters), transposed, out=product)
            padded.fill(0)
            for row in range(window.size[0]):
                for column in range(window.size[1]):
                    seen = window.tap(padded[:n], row, column, (places[0], places[1]))
                    seen += columns[:n, :, :, row, column]
            out[images] = padded[:n, top : top + height, left : left + width]
    return out


def _images_at_a_time(x: Array, column_elements: int) -> int:
    """How many images' columns fit the budget, at least one and at most the batch."""
    budget = COLUMN_BYTES[of(x).device] // max(column_elements * x.itemsize, 1)
    return max(1, min(budget, len(x)))


def _clear_border(padded: Array, window: Window) -> None:
    """Write zeros where no image will be written."""
    (top, bottom), (left, right) = window.padding
    padded[:, :top] = 0
    padded[:, padded.shape[1] - bottom :] = 0
    padded[:, :, :left] = 0
    padded[:, :, padded.shape[2] - right :] = 0
