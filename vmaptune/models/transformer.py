"""A small decoder-only transformer for sequences of tokens."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.models.dropout import Dropout, DropoutRate
from vmaptune.models.recurrent import Embedding


class Transformer(nnx.Module):
    """Causal self-attention and a dense layer in every block, normalised before each (pre-norm); learned positions.

    References:
        Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
        Xiong et al., On Layer Normalization in the Transformer Architecture, https://arxiv.org/abs/2002.04745
        Radford et al., Language Models are Unsupervised Multitask Learners, OpenAI 2019
    """

    def __init__(
        self, vocabulary: int, width: int, outputs: int, *, length: int, depth: int = 2, heads: int = 4, rngs: nnx.Rngs
    ) -> None:
        """Builds the blocks.

        Args:
            vocabulary: How many tokens there are.
            width: Numbers that stand for a step; a multiple of `heads`.
            outputs: Of the head.
            length: Steps that it can look at.
            depth: Blocks.
            heads: Of the attention.
            rngs: Random streams.
        """
        self.embedding = Embedding(vocabulary, width, rngs=rngs)
        self.positions = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (length, width)))
        self.blocks = nnx.List([Block(width, heads, depth, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.dropout = Dropout(rngs=rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x: jax.Array, *, dropout: DropoutRate = 0.0) -> jax.Array:
        """Returns f32[batch, time, outputs]; those of a step depend on its token and the tokens before.

        Args:
            x: i32[batch, time], at most `length` steps.
            dropout: Probability of zeroing, while training, a number that enters the first block or that a block adds.
        """
        y = self.embedding(x) + self.positions[...][None, : x.shape[1]]
        y = self.dropout(y, dropout)
        for block in self.blocks:
            y = block(y, dropout)
        return self.head(self.norm(y))


class Block(nnx.Module):
    """Attention, then a dense layer of four times the width; each adds to what comes in."""

    def __init__(self, width: int, heads: int, depth: int, *, rngs: nnx.Rngs) -> None:
        """Builds a block of a stack of `depth`; what it adds starts smaller the deeper the stack."""
        self.heads = heads
        small = nnx.initializers.variance_scaling(0.5 / depth, "fan_in", "normal")
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.inputs = nnx.Linear(width, 3 * width, rngs=rngs)
        self.outputs = nnx.Linear(width, width, kernel_init=small, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, kernel_init=small, rngs=rngs)
        self.dropout = nnx.List([Dropout(rngs=rngs) for _ in range(2)])

    def __call__(self, x: jax.Array, dropout: jax.Array | float) -> jax.Array:
        """Returns f32[batch, time, width] for f32[batch, time, width]."""
        query, key, value = (
            each.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads)
            for each in jnp.split(self.inputs(self.norms[0](x)), 3, axis=-1)
        )
        mixed = attention(query, key, value).reshape(x.shape)
        x = x + self.dropout[0](self.outputs(mixed), dropout)
        return x + self.dropout[1](self.down(nnx.gelu(self.up(self.norms[1](x)))), dropout)


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Causal scaled dot-product attention; the softmax is computed in float32, whatever comes in.

    Args:
        query: [batch, time, heads, features].
        key: The same.
        value: The same.

    Returns:
        [batch, time, heads, features], in the type of the values.

    References:
        Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
    """
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) / math.sqrt(query.shape[-1])
    time = jnp.arange(query.shape[1])
    seen = (time[:, None] >= time[None, :])[None, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
