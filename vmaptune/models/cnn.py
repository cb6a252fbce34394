"""The small convolutional network for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.models.dropout import Dropout, DropoutRate


class CNN(nnx.Module):
    """Convolutions of 3x3 with ReLU, each followed by max-pooling over 2x2, then one dense layer; weights by He's rule.

    References:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE, 1998
        He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
    """

    def __init__(self, shape: tuple[int, int, int], channels: Sequence[int], outputs: int, *, rngs: nnx.Rngs) -> None:
        """Builds the layers for images of `shape` (height, width, channels); each convolution halves height and width."""
        height, width, depth = shape
        he = nnx.initializers.he_normal()
        self.convolutions = nnx.List(
            [nnx.Conv(m, n, kernel_size=(3, 3), kernel_init=he, rngs=rngs) for m, n in pairwise([depth, *channels])]
        )
        self.dropout = Dropout(rngs=rngs)
        features = (height >> len(channels)) * (width >> len(channels)) * [depth, *channels][-1]
        self.head = nnx.Linear(features, outputs, rngs=rngs)

    def __call__(self, x: jax.Array, *, dropout: DropoutRate = 0.0) -> jax.Array:
        """Returns f32[batch, outputs] for f32[batch, height, width, channels].

        Args:
            x: f32[batch, height, width, channels].
            dropout: Probability of zeroing an input of the dense layer while training.
        """
        for convolution in self.convolutions:
            x = _pooled(nnx.relu(convolution(x)))
        return self.head(self.dropout(x.reshape(len(x), -1), dropout))


def _pooled(x: jax.Array) -> jax.Array:
    """The maximum over each 2x2 square; an odd last row or column is left out.

    By slices, not by `nnx.max_pool`, which takes nearly twice as long on CPUs, most of it for its gradient.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    rows = jnp.maximum(x[:, 0:height:2], x[:, 1:height:2])
    return jnp.maximum(rows[:, :, 0:width:2], rows[:, :, 1:width:2])
