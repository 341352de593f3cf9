"""The convolutional layer."""

from __future__ import annotations

from operator import sub
from typing import TypeGuard

from minidl.init import Initializer, initializer
from minidl.kernels.window import Padding, Pair, check_padding, pair, place_window
from minidl.layers.activation import Function, activation_function
from minidl.layers.module import Layer, Module, Parameter, new_parameter, positive
from minidl.layers.pooling import MaxPool
from minidl.ops import images
from minidl.ops.elementwise import relu
from minidl.ops.operands import check_images
from minidl.tensor import Tensor


class Conv2D(Layer):
    """activation(x convolved with weight + bias): (N, H, W, C_in) to (N, OH, OW, filters).

    Args:
        filters: number of output channels.
        kernel_size: height and width of the filters, one number or a pair.
        strides: pixels between places of the filter, one number or a pair.
        padding: "valid", "same" as Keras pads, or zeros for each side: an integer, (rows, columns)
            or ((top, bottom), (left, right)).
        dilation: pixels between taps of the filter, one number or a pair.
        activation: a name such as "relu", a function of a tensor, or None.
        use_bias: whether to add a bias.
        kernel_initializer: how the weight (KH, KW, C_in, filters) starts; Keras's default.
        bias_initializer: how the bias (filters,) starts; "pytorch" for both is PyTorch's default.
        name: see `Layer`.

    Raises:
        ValueError: if an argument is out of range, or an input does not fit.
    """

    weight: Parameter
    bias: Parameter | None = None

    def __init__(
        self,
        filters: int,
        kernel_size: int | Pair,
        strides: int | Pair = 1,
        padding: Padding = "valid",
        dilation: int | Pair = 1,
        activation: str | Function | None = None,
        use_bias: bool = True,
        *,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.filters = positive(filters, "filters")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.strides = pair(strides, "strides")
        self.padding = check_padding(padding)
        self.dilation = pair(dilation, "dilation")
        self.activation = activation_function(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializer(kernel_initializer)
        self.bias_initializer = initializer(bias_initializer)

    def build(self, x: Tensor) -> None:
        """Make weight (KH, KW, C_in, filters) and bias (filters,)."""
        check_images(x)
        taps = self.kernel_size[0] * self.kernel_size[1]
        fans = taps * x.shape[3], taps * self.filters
        shape = (*self.kernel_size, x.shape[3], self.filters)
        self.weight = new_parameter(self.kernel_initializer, shape, *fans, like=x)
        if self.use_bias:
            self.bias = new_parameter(self.bias_initializer, (self.filters,), *fans, like=x)

    def forward(self, x: Tensor, pool_size: Pair = (1, 1)) -> Tensor:
        """The output (N, OH, OW, filters), after a max pooling of this size if there is one."""
        check_images(x)
        channels = self.weight.shape[2]
        if x.shape[3] != channels:
            raise ValueError(f"expects images (N, H, W, {channels}), got {x.shape}")
        rectified = self.activation is relu  # done on the way
        out = images.conv2d(
            x,
            self.weight,
            self.bias,
            self.strides,
            self.padding,
            self.dilation,
            relu=rectified,
            pool_size=pool_size,
        )
        return self.activation(out) if self.activation and not rectified else out

    def can_pool(self, following: Module | None, x: Tensor) -> TypeGuard[MaxPool]:
        """Whether a layer is a max pooling that `pooled` can compute together with this one."""
        return (
            type(self) is Conv2D
            and type(following) is MaxPool
            and self.built
            and self.activation in (None, relu)
            and following.strides == following.pool_size
            and following.padding in ("valid", ((0, 0), (0, 0)))
            and min(map(sub, self._places(x), following.pool_size)) >= 0
        )

    def pooled(self, x: Tensor, pool: MaxPool) -> Tensor:
        """What a max pooling makes of the output, computed in one go."""
        out = self(x, pool.pool_size)
        pool.output_shape = (None, *out.shape[1:])
        self.output_shape = (None, *self._places(x), self.filters)
        return out

    def _places(self, x: Tensor) -> Pair:
        """Rows and columns of the output before a pooling; none for what is no batch of images."""
        if x.ndim != 4:
            return 0, 0
        image = x.shape[1], x.shape[2]
        try:
            return place_window(
                image, self.kernel_size, self.strides, self.padding, self.dilation
            ).positions(image)
        except ValueError:
            return 0, 0
