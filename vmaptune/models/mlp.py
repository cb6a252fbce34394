"""The multilayer perceptron for tables and small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import jax
from flax import nnx

from vmaptune.models.dropout import Dropout, DropoutRate
from vmaptune.models.norm import Norm, make_norm

Activation = Literal["relu", "gelu", "silu", "tanh"]
"""What an activation may be called in a config."""
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nnx.relu,
    "gelu": nnx.gelu,
    "silu": nnx.silu,
    "tanh": nnx.tanh,
}
"""Activation functions by name, `f32[...] -> f32[...]`."""


class MLP(nnx.Module):
    """Fully connected layers, each followed by a norm, an activation and dropout; weights by He's rule, which suits ReLU.

    References:
        He et al., Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
        He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
        Ioffe & Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
        Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        activation: Activation = "relu",
        norm: Norm = "none",
        residual: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds `features -> hidden[0] -> ... -> outputs`.

        Args:
            features: Number of inputs.
            hidden: Width of each hidden layer; none: a linear model.
            outputs: Number of outputs.
            activation: Between layers.
            norm: Before each activation: over the batch (statistics are the member's own), over the layer, or none.
            residual: Whether a hidden layer that is as wide as its input is added to that, not put in its place.
            rngs: Streams of keys.
        """
        self.activation = activation
        self.residual = residual
        widths = [features, *hidden]
        he = nnx.initializers.he_normal()
        self.hidden = nnx.List([nnx.Linear(m, n, kernel_init=he, rngs=rngs) for m, n in pairwise(widths)])
        self.dropout = Dropout(rngs=rngs)
        self.head = nnx.Linear(widths[-1], outputs, rngs=rngs)
        # After all weights are drawn: they are the same with a norm and without.
        if norm != "none":
            self.norms = nnx.List([make_norm(norm, n, rngs=rngs) for n in hidden])

    def __call__(self, x: jax.Array, *, dropout: DropoutRate = 0.0) -> jax.Array:
        """Returns f32[batch, outputs] for f32[batch, features].

        Args:
            x: f32[batch, features].
            dropout: Probability of zeroing a hidden activation while training.
        """
        norms = getattr(self, "norms", [_identity] * len(self.hidden))
        for layer, norm in zip(self.hidden, norms, strict=True):
            y = self.dropout(ACTIVATIONS[self.activation](norm(layer(x))), dropout)
            x = x + y if self.residual and x.shape == y.shape else y
        return self.head(x)


def _identity(x: jax.Array) -> jax.Array:
    return x
