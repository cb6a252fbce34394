"""The multilayer perceptron for tables and small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import jax
from flax import nnx

from vmaptune.models.dropout import Dropout, DropoutRate

Activation = Literal["relu", "gelu", "silu", "tanh"]
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nnx.relu,
    "gelu": nnx.gelu,
    "silu": nnx.silu,
    "tanh": nnx.tanh,
}


class MLP(nnx.Module):
    """Fully connected layers with an activation and dropout between them; weights by He's rule, which suits ReLU.

    References:
        He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
    """

    def __init__(
        self, features: int, hidden: Sequence[int], outputs: int, *, activation: Activation = "relu", rngs: nnx.Rngs
    ) -> None:
        """Builds `features -> hidden[0] -> ... -> outputs`."""
        self.activation = activation
        widths = [features, *hidden]
        he = nnx.initializers.he_normal()
        self.hidden = nnx.List([nnx.Linear(m, n, kernel_init=he, rngs=rngs) for m, n in pairwise(widths)])
        self.dropout = Dropout(rngs=rngs)
        self.head = nnx.Linear(widths[-1], outputs, rngs=rngs)

    def __call__(self, x: jax.Array, *, dropout: DropoutRate = 0.0) -> jax.Array:
        """Returns f32[batch, outputs] for f32[batch, features].

        Args:
            x: f32[batch, features].
            dropout: Probability of zeroing a hidden activation while training.
        """
        for layer in self.hidden:
            x = self.dropout(ACTIVATIONS[self.activation](layer(x)), dropout)
        return self.head(x)
