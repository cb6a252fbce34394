"""Recurrent networks for sequences of tokens or of numbers: GRU and LSTM.

The gates of a layer are one affine map of its inputs and one of its own last output. The first, of all time steps at once,
is a single matrix product outside the scan over time, and so are the weights' gradients; the scan keeps what cannot be had
without the step before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.models.dropout import Dropout, DropoutRate

_config: Any = jax.config  # whose type does not know its options

Memory = tuple[jax.Array, ...]
"""What goes from step to step, [batch, width] each; the first is the output."""

Cell = Callable[[jax.Array, jax.Array, Memory], Memory]
"""`(from_inputs, from_output, memory) -> memory`, elementwise: what comes from the inputs and from the last output."""


class Embedding(nnx.Module):
    """A vector for each token, as a matrix product: a lookup's gradient is a scatter, which is slow under `vmap`."""

    def __init__(self, vocabulary: int, features: int, *, rngs: nnx.Rngs) -> None:
        """Draws a table [vocabulary, features] with vectors of about unit length."""
        draw = nnx.initializers.variance_scaling(1.0, "fan_out", "normal")
        self.table = nnx.Param(draw(rngs.params(), (vocabulary, features)))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns [..., features] for i32[...]."""
        table = self.table[...]
        return jax.nn.one_hot(tokens, len(table), dtype=table.dtype) @ table


class GRU(nnx.Module):
    """A layer of gated recurrent units, with the equations and the weights of `flax.nnx.GRUCell`.

    References:
        Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, https://arxiv.org/abs/1406.1078
    """

    def __init__(self, features: int, width: int, *, rngs: nnx.Rngs) -> None:
        """Builds the gates, in the order reset, update, new."""
        self.inputs = nnx.Linear(features, 3 * width, rngs=rngs)
        self.outputs = nnx.Linear(width, 3 * width, use_bias=False, kernel_init=nnx.initializers.orthogonal(), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns f32[time, batch, width] for f32[time, batch, features]; the first step follows zeros."""
        return _scanned(_gru, 1, _config.jax_default_matmul_precision, self.inputs(x), self.outputs.kernel[...])


class LSTM(nnx.Module):
    """A layer of long short-term memory, with the equations and the weights of `flax.nnx.OptimizedLSTMCell`.

    The forget gate's bias starts at 1, so that gradients reach back from the start.

    References:
        Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 9, 1997
        Jozefowicz et al., An Empirical Exploration of Recurrent Network Architectures, ICML 2015
    """

    def __init__(self, features: int, width: int, *, rngs: nnx.Rngs) -> None:
        """Builds the gates, in the order input, forget, new, output."""
        self.inputs = nnx.Linear(features, 4 * width, use_bias=True, bias_init=partial(_forget_nothing, width), rngs=rngs)
        self.outputs = nnx.Linear(width, 4 * width, use_bias=False, kernel_init=nnx.initializers.orthogonal(), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns f32[time, batch, width] for f32[time, batch, features]; the first step follows zeros."""
        return _scanned(_lstm, 2, _config.jax_default_matmul_precision, self.inputs(x), self.outputs.kernel[...])


LAYERS: dict[str, type[GRU] | type[LSTM]] = {"gru": GRU, "lstm": LSTM}


class Recurrent(nnx.Module):
    """Recurrent layers one on the other, with dropout after each, and a dense head.

    References:
        Zaremba et al., Recurrent Neural Network Regularization, https://arxiv.org/abs/1409.2329
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        *,
        layer: Literal["gru", "lstm"] = "gru",
        depth: int = 1,
        embedding: int = 0,
        every_step: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        """Builds the layers.

        Args:
            inputs: Tokens of the vocabulary if there is an embedding, else columns of numbers.
            width: Units of a layer.
            outputs: Of the head.
            layer: Which kind.
            depth: How many.
            embedding: Numbers that stand for a token; 0: the inputs are numbers.
            every_step: True: the head is read after every step; False: after the last.
            rngs: Random streams.
        """
        self.embedding = Embedding(inputs, embedding, rngs=rngs) if embedding else None
        widths = [embedding or inputs, *[width] * depth]
        self.layers = nnx.List([LAYERS[layer](n, width, rngs=rngs) for n in widths[:-1]])
        self.dropout = nnx.List([Dropout(rngs=rngs) for _ in widths[1:]])
        self.head = nnx.Linear(width, outputs, rngs=rngs)
        self.every_step = every_step

    def __call__(self, x: jax.Array, *, dropout: DropoutRate = 0.0) -> jax.Array:
        """Returns f32[batch, time, outputs], or f32[batch, outputs] of the last step.

        Args:
            x: i32[batch, time] tokens, or f32[batch, time, inputs] numbers.
            dropout: Probability of zeroing an output of a layer while training; the recurrent connections are left alone.
        """
        x = jnp.swapaxes(x, 0, 1)
        if self.embedding is not None:
            x = self.embedding(x)
        for layer, drop in zip(self.layers, self.dropout, strict=True):
            x = drop(layer(x), dropout)
        return jnp.swapaxes(self.head(x), 0, 1) if self.every_step else self.head(x[-1])


def _gru(from_inputs: jax.Array, from_output: jax.Array, memory: Memory) -> Memory:
    r_in, z_in, n_in = jnp.split(from_inputs, 3, axis=-1)
    r_out, z_out, n_out = jnp.split(from_output, 3, axis=-1)
    update = nnx.sigmoid(z_in + z_out)
    new = jnp.tanh(n_in + nnx.sigmoid(r_in + r_out) * n_out)
    return (new + update * (memory[0] - new),)


def _lstm(from_inputs: jax.Array, from_output: jax.Array, memory: Memory) -> Memory:
    i, f, g, o = jnp.split(from_inputs + from_output, 4, axis=-1)
    cell = nnx.sigmoid(f) * memory[1] + nnx.sigmoid(i) * jnp.tanh(g)
    return nnx.sigmoid(o) * jnp.tanh(cell), cell


def _forget_nothing(width: int, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The bias of an LSTM: 1 for the forget gate, 0 for the others."""
    del key
    return jnp.zeros(shape, dtype).at[width : 2 * width].set(1.0)


# --------------------------------------------------------------------------------------------------- the scan over time


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scanned(cell: Cell, memories: int, precision: Any, from_inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Outputs of a layer, one step after the other, from zeros.

    JAX would add up the kernel's gradient inside the backward scan: a whole matrix read and written at every step. Here it is
    one product over all steps, afterwards.

    Args:
        cell: What happens in a step.
        memories: How many arrays its memory has.
        precision: Of matrix products: JAX's own default of the moment, which would be over when the gradient is traced.
        from_inputs: [time, batch, gates], what the inputs bring to each step's gates.
        kernel: [width, gates], from the last output to the gates.

    Returns:
        [time, batch, width].
    """
    return _forward(cell, memories, precision, from_inputs, kernel)[0]


def _forward(cell: Cell, memories: int, precision: Any, from_inputs: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    product = partial(jnp.matmul, precision=precision)

    def step(memory: Memory, now: jax.Array) -> tuple[Memory, Any]:
        after, pullback = jax.vjp(cell, now, product(memory[0], kernel), memory)
        return after, (after[0], memory[0], pullback)

    start = (jnp.zeros((from_inputs.shape[1], len(kernel)), from_inputs.dtype),) * memories
    outputs, lasts, pullbacks = jax.lax.scan(step, start, from_inputs)[1]
    return outputs, (kernel, lasts, pullbacks)


def _backward(cell: Cell, memories: int, precision: Any, residuals: Any, outputs_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    del cell  # its derivatives were saved on the way
    kernel, lasts, pullbacks = residuals

    product = partial(jnp.matmul, precision=precision)

    def step(memory_bar: Memory, now: Any) -> tuple[Memory, Any]:
        output_bar, pullback = now
        from_inputs_bar, from_output_bar, before_bar = pullback((memory_bar[0] + output_bar, *memory_bar[1:]))
        return (before_bar[0] + product(from_output_bar, kernel.T), *before_bar[1:]), (from_inputs_bar, from_output_bar)

    end = (jnp.zeros_like(lasts[0]),) * memories
    from_inputs_bar, from_outputs_bar = jax.lax.scan(step, end, (outputs_bar, pullbacks), reverse=True)[1]
    return from_inputs_bar, jnp.einsum("tbh,tbg->hg", lasts, from_outputs_bar, precision=precision)


_scanned.defvjp(_forward, _backward)
