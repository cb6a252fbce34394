from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vmaptune import models
from vmaptune.models.recurrent import GRU, LSTM, Embedding, Recurrent

KEY = jax.random.key(0)
CELLS = {"gru": (GRU, nnx.GRUCell), "lstm": (LSTM, nnx.OptimizedLSTMCell)}


def flax_outputs(kind, layer, x):
    """What flax's own cell gives with the layer's weights, step by step."""
    cell = CELLS[kind][1](x.shape[-1], len(layer["outputs"]["kernel"]), rngs=nnx.Rngs(0))
    cell.dense_i.kernel[...] = layer["inputs"]["kernel"]
    cell.dense_h.kernel[...] = layer["outputs"]["kernel"]
    bias = cell.dense_i.bias if kind == "gru" else cell.dense_h.bias
    bias[...] = layer["inputs"]["bias"]
    zeros = jnp.zeros((x.shape[1], len(layer["outputs"]["kernel"])))
    carry, outputs = (zeros, zeros) if kind == "lstm" else zeros, []
    for now in x:
        carry, output = cell(carry, now)
        outputs.append(output)
    return jnp.stack(outputs)


@pytest.mark.parametrize("kind", CELLS)
def test_a_layer_of_members_side_by_side_equals_the_cell_of_flax_in_value_and_gradient(kind):
    x = jax.random.normal(KEY, (5, 2, 3))
    graph, params = nnx.split(CELLS[kind][0](3, 4, rngs=nnx.Rngs(1)))
    layer = jax.tree.map(lambda leaf: leaf + 0.1, nnx.to_pure_dict(params))  # no bias is zero

    def ours(layer, x):
        module = nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(layer)))
        return module(x)

    weight = jnp.arange(40.0).reshape(5, 2, 4)  # every output counts, each differently

    members = [layer, jax.tree.map(lambda leaf: 0.5 * leaf, layer)]

    @jax.jit
    def both(members, x):
        def gradients(forward):
            return jax.value_and_grad(lambda layer, x: jnp.sum(weight * forward(layer, x)), argnums=(0, 1))

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        together = jax.vmap(gradients(ours), in_axes=(0, None))(stacked, x)
        return together, [gradients(partial(flax_outputs, kind))(member, x) for member in members]

    found, expected = both(members, x)
    for i, alone in enumerate(expected):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-4), found, alone)


def test_the_forget_gate_starts_open_and_recurrent_weights_orthogonal():
    layer = LSTM(3, 4, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer.inputs.bias[...], [0] * 4 + [1] * 4 + [0] * 8)
    kernel = layer.outputs.kernel[...]
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(4), atol=1e-5)


def test_an_embedding_is_a_lookup():
    embedding = Embedding(7, 3, rngs=nnx.Rngs(0))
    tokens = jnp.array([[0, 6, 2], [2, 2, 1]])
    np.testing.assert_array_equal(embedding(tokens), embedding.table[...][tokens])


def test_an_example_depends_on_its_own_past_alone_and_dropout_on_the_key():
    model = models.from_nnx(lambda rngs: Recurrent(5, 8, 6, layer="lstm", depth=2, embedding=3, every_step=True, rngs=rngs))
    params, state = jax.jit(model.init)(KEY)
    tokens = jax.random.randint(KEY, (2, 6), 0, 5)

    @jax.jit
    def forward(tokens, key):
        rate = {"dropout": jnp.float32(0.5)}
        return [model.apply(params, state, tokens, key, train=train, **rate)[0] for train in (False, True)]

    before, dropped = forward(tokens, KEY)
    after, _ = forward(tokens.at[0, 3].set((tokens[0, 3] + 1) % 5), KEY)
    assert before.shape == (2, 6, 6)
    np.testing.assert_array_equal(before[0, :3], after[0, :3])
    np.testing.assert_array_equal(before[1], after[1])
    assert (np.abs(before[0, 3:] - after[0, 3:]).max(axis=-1) > 1e-4).all()
    measured, other = forward(tokens, jax.random.key(1))
    np.testing.assert_array_equal(before, measured)
    assert np.abs(dropped - other).max() > 1e-3


def test_numbers_are_read_at_the_last_step_and_bfloat16_weights_compute_in_it():
    model = models.from_nnx(lambda rngs: Recurrent(3, 4, 2, rngs=rngs))
    params, state = jax.jit(model.init)(KEY)
    x = jax.random.normal(KEY, (2, 5, 3))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)

    @jax.jit
    def run():
        hidden = flax_outputs("gru", params["layers"][0], jnp.swapaxes(x, 0, 1))[-1]
        exact = model.apply(params, state, x, KEY, train=False)[0]
        total = jax.value_and_grad(lambda p: model.apply(p, state, x.astype(jnp.bfloat16), KEY, train=True)[0].sum())
        return exact, hidden @ params["head"]["kernel"] + params["head"]["bias"][None], total(half)

    exact, expected, (value, gradient) = run()
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(float(value), float(exact.sum()), atol=0.05)


def test_the_gradient_has_the_precision_that_was_asked_for():
    layer = GRU(3, 4, rngs=nnx.Rngs(0))

    def loss(x):
        with jax.default_matmul_precision("highest"):
            return layer(x).sum()

    text = str(jax.make_jaxpr(jax.grad(loss))(jnp.ones((5, 2, 3))))
    dots = text.count("dot_general[")
    assert dots > 3
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") + text.count("precision=Precision.HIGHEST") == dots
