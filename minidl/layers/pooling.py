"""Pooling layers: many pixels to one, channel by channel."""

from __future__ import annotations

from minidl.kernels.window import Padding, Pair, check_padding, pair
from minidl.layers.module import Layer
from minidl.ops import images, reductions
from minidl.ops.operands import check_images
from minidl.tensor import Tensor


class _Pool(Layer):
    """What both pooling layers are: a window and how it moves."""

    def __init__(
        self,
        pool_size: int | Pair = 2,
        strides: int | Pair | None = None,
        padding: Padding = "valid",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.pool_size = pair(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else pair(strides, "strides")
        self.padding = check_padding(padding)


class MaxPool(_Pool):
    """The largest value of each window: (N, H, W, C) to (N, OH, OW, C).

    Args:
        pool_size: height and width of the window, one number or a pair.
        strides: pixels between windows, which may overlap; as many as pool_size if None.
        padding: as for `Conv2D`. "valid" leaves out what does not fill a window; padded places
            never win.
        name: see `Layer`.

    Raises:
        ValueError: if an argument is out of range, or the window does not fit on an input.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The output (N, OH, OW, C)."""
        return images.max_pool(x, self.pool_size, self.strides, self.padding)


class AvgPool(_Pool):
    """The mean of each window, padding not counted: (N, H, W, C) to (N, OH, OW, C).

    Arguments and errors as for `MaxPool`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The output (N, OH, OW, C)."""
        return images.avg_pool(x, self.pool_size, self.strides, self.padding)


class GlobalAvgPool(Layer):
    """The mean of each channel over the whole image: (N, H, W, C) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """The output (N, C)."""
        check_images(x)
        return reductions.mean(x, axis=(1, 2))
