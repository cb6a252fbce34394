"""The convolutional network for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.errors import ConfigError
from vmaptune.models.dropout import Dropout, DropoutRate
from vmaptune.models.mlp import ACTIVATIONS, Activation
from vmaptune.models.norm import Norm, make_norm

Pooling = Literal["max", "average", "none"]


class CNN(nnx.Module):
    """Convolutions, each with a normalisation, an activation and pooling over 2x2, then dense layers; weights by He's rule.

    References:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE, 1998
        He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        norm: Norm = "none",
        pooling: Pooling = "max",
        activation: Activation = "relu",
        hidden: Sequence[int] = (),
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the layers.

        Args:
            shape: Height, width and channels of an image.
            channels: Of each convolution.
            outputs: Numbers that are returned for an image.
            kernel: Side of the convolutions' kernels, pixels. Edges are padded with zeros.
            stride: Pixels from one of their places to the next; 2 halves height and width.
            norm: Before the activation, scale and shift learnt for each channel. batch: each channel over the batch, by its
                moving averages (of about ten steps) when not training. layer: each image over all its pixels and channels.
            pooling: Over squares of 2x2 after the activation, which halves height and width.
            activation: After convolutions and hidden layers.
            hidden: Width of each dense layer before the last.
            rngs: Random streams.

        Raises:
            ConfigError: Nothing is left of the image before the dense layers.
        """
        height, width, depth = shape
        for _ in channels:
            height, width = -(-height // stride), -(-width // stride)
            if pooling != "none":
                height, width = height // 2, width // 2
        if not height * width:
            raise ConfigError(
                f"a CNN of {len(channels)} convolutions, stride {stride}, pooling {pooling}, "
                f"leaves nothing of an image of {shape[0]}x{shape[1]}; give fewer channels, a smaller stride or no pooling"
            )
        he = nnx.initializers.he_normal()
        self.convolutions = nnx.List(
            [nnx.Conv(m, n, (kernel, kernel), stride, kernel_init=he, rngs=rngs) for m, n in pairwise([depth, *channels])]
        )
        self.dropout = Dropout(rngs=rngs)
        widths = [height * width * [depth, *channels][-1], *hidden]
        self.hidden = nnx.List([nnx.Linear(m, n, kernel_init=he, rngs=rngs) for m, n in pairwise(widths)])
        self.head = nnx.Linear(widths[-1], outputs, rngs=rngs)
        self.norms = nnx.List([make_norm(norm, n, axes=(1, 2, 3), rngs=rngs) for n in channels if norm != "none"])
        self.pooling, self.activation = pooling, activation

    def __call__(self, x: jax.Array, *, dropout: DropoutRate = 0.0) -> jax.Array:
        """Returns f32[batch, outputs] for f32[batch, height, width, channels].

        Args:
            x: f32[batch, height, width, channels].
            dropout: Probability of zeroing an input of a dense layer while training.
        """
        activation = ACTIVATIONS[self.activation]
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)
            x = self.norms[i](x) if self.norms else x
            x = _pooled(activation(x), self.pooling)
        x = x.reshape(len(x), -1)
        for layer in self.hidden:
            x = activation(layer(self.dropout(x, dropout)))
        return self.head(self.dropout(x, dropout))


def _pooled(x: jax.Array, pooling: Pooling) -> jax.Array:
    """The maximum or mean over each 2x2 square; an odd last row or column is left out.

    By slices, not by `nnx.max_pool`, which takes nearly twice as long on CPUs, most of it for its gradient.
    """
    if pooling == "none":
        return x
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    top, bottom = x[:, 0:height:2, 0:width], x[:, 1:height:2, 0:width]
    if pooling == "max":
        rows = jnp.maximum(top, bottom)
        return jnp.maximum(rows[:, :, 0:width:2], rows[:, :, 1:width:2])
    rows = top + bottom
    return 0.25 * (rows[:, :, 0:width:2] + rows[:, :, 1:width:2])
