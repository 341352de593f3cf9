"""The batch normalisation layer."""

from __future__ import annotations

from minidl.kernels.normalization import update_running
from minidl.layers.module import Buffer, Layer, Parameter, new_buffer, new_parameter
from minidl.ops import normalization
from minidl.tensor import Tensor


class BatchNorm(Layer):
    """Normalise each channel to mean 0 and variance 1, then scale by gamma and shift by beta [1].

    In training the statistics are those of the batch, over all axes but the last, and running means
    of them are kept; in evaluation the running means are used. Defaults are Keras's.

    Args:
        momentum: share of the running statistics that each batch leaves as it was.
        eps: added to the variance.
        name: see `Layer`.

    Raises:
        ValueError: if momentum is not within 0 to 1, eps is not positive, the number of channels
            changes, or a training batch is empty.

    [1] S. Ioffe, C. Szegedy: Batch normalization: accelerating deep network training by reducing
        internal covariate shift, 2015.
    """

    gamma: Parameter
    beta: Parameter
    running_mean: Buffer
    running_variance: Buffer

    def __init__(
        self, momentum: float = 0.99, eps: float = 1e-3, *, name: str | None = None
    ) -> None:
        super().__init__(name)
        if not 0 <= momentum <= 1:
            raise ValueError(f"BatchNorm expects momentum from 0 to 1, got {momentum}")
        if not eps > 0:
            raise ValueError(f"BatchNorm expects eps > 0, got {eps}")
        self.momentum = float(momentum)
        self.eps = float(eps)

    def build(self, x: Tensor) -> None:
        """Make gamma, beta and the running statistics, all (C,)."""
        if x.ndim < 2:
            raise ValueError(f"expects input (N, ..., C), got {x.shape}")
        shape = (x.shape[-1],)
        self.gamma = new_parameter("ones", shape, 1, 1, like=x)
        self.beta = new_parameter("zeros", shape, 1, 1, like=x)
        self.running_mean = new_buffer("zeros", shape, like=x)
        self.running_variance = new_buffer("ones", shape, like=x)

    def forward(self, x: Tensor) -> Tensor:
        """The output, of the shape of x."""
        if x.shape[-1] != len(self.gamma):
            raise ValueError(f"expects input (..., {len(self.gamma)}), got {x.shape}")
        if not self.training:
            statistics = self.running_mean.data, self.running_variance.data
            return normalization.batch_norm(x, self.gamma, self.beta, self.eps, statistics)[0]
        if not x.size:
            raise ValueError(f"expects at least one sample to train on, got {x.shape}")
        out, of_batch = normalization.batch_norm(x, self.gamma, self.beta, self.eps)
        for running, now in zip((self.running_mean, self.running_variance), of_batch, strict=True):
            update_running(running.data, now, self.momentum)
        return out
