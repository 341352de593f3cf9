"""The fully connected layer."""

from __future__ import annotations

from minidl.init import Initializer, initializer
from minidl.layers.activation import Function, activation_function
from minidl.layers.module import Layer, Parameter, new_parameter, positive
from minidl.ops import products
from minidl.ops.elementwise import relu
from minidl.tensor import Tensor


class Dense(Layer):
    """activation(x @ weight + bias) on the last axis: (..., in) to (..., units).

    Args:
        units: number of outputs.
        activation: a name such as "relu", a function of a tensor, or None.
        use_bias: whether to add a bias.
        kernel_initializer: how the weight (in, units) starts; Keras's default.
        bias_initializer: how the bias (units,) starts; "pytorch" for both gives PyTorch's default.
        name: see `Layer`.

    Raises:
        ValueError: if units is not positive, or the input's last axis changes.
    """

    weight: Parameter
    bias: Parameter | None = None

    def __init__(
        self,
        units: int,
        activation: str | Function | None = None,
        use_bias: bool = True,
        *,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.units = positive(units, "units")
        self.activation = activation_function(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializer(kernel_initializer)
        self.bias_initializer = initializer(bias_initializer)

    def build(self, x: Tensor) -> None:
        """Make weight (in, units) and bias (units,)."""
        if x.ndim < 1:
            raise ValueError("expects input (..., in), got a single number")
        fans = x.shape[-1], self.units
        self.weight = new_parameter(self.kernel_initializer, fans, *fans, like=x)
        if self.use_bias:
            self.bias = new_parameter(self.bias_initializer, (self.units,), *fans, like=x)

    def forward(self, x: Tensor) -> Tensor:
        """The output (..., units)."""
        shape, inputs = x.data.shape, self.weight.data.shape[0]
        if not shape or shape[-1] != inputs:
            raise ValueError(f"expects input (..., {inputs}), got {shape}")
        if self.activation is relu:  # done on the way
            return products.dense(x, self.weight, self.bias, relu=True)
        out = products.dense(x, self.weight, self.bias)
        return self.activation(out) if self.activation else out
