from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmaptune import models
from vmaptune.models.transformer import Transformer

KEY = jax.random.key(0)
MODEL = models.from_nnx(lambda rngs: Transformer(5, 8, 6, length=7, depth=2, heads=2, rngs=rngs))
TOKENS = np.random.default_rng(0).integers(0, 5, (2, 6)).astype(np.int32)


def normalised(x, norm):
    spread = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / spread * norm["scale"] + norm["bias"]


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def by_numpy(params, tokens, heads=2):
    """One sequence, one head, one step at a time, from the definitions."""
    x = params["embedding"]["table"][tokens] + params["positions"][: len(tokens)]
    for block in params["blocks"].values():
        query, key, value = np.split(dense(normalised(x, block["norms"][0]), block["inputs"]), 3, axis=-1)
        mixed, features = np.zeros_like(x), x.shape[1] // heads
        for h in range(heads):
            own = slice(h * features, (h + 1) * features)
            for t in range(len(tokens)):
                scores = np.exp(key[: t + 1, own] @ query[t, own] / np.sqrt(features))
                mixed[t, own] = scores / scores.sum() @ value[: t + 1, own]
        x = x + dense(mixed, block["outputs"])
        x = x + dense(gelu(dense(normalised(x, block["norms"][1]), block["up"])), block["down"])
    return dense(normalised(x, params["norm"]), params["head"])


@pytest.fixture(scope="module")
def params():
    """Weights none of which is 0 or 1."""
    drawn = jax.jit(MODEL.init)(KEY)[0]
    leaves, tree = jax.tree.flatten(jax.device_get(drawn))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


@jax.jit
def forward(params, tokens, key):
    """Outputs as measured, and while training with dropout."""
    apply = partial(MODEL.apply, params, {}, tokens, key)
    return apply(train=False)[0], apply(train=True, dropout=jnp.float32(0.5))[0]


def test_outputs_equal_numpy_s_and_no_token_changes_an_earlier_one(params):
    found, dropped = forward(params, TOKENS, KEY)
    exact = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    for outputs, tokens in zip(found, TOKENS, strict=True):
        np.testing.assert_allclose(outputs, by_numpy(exact, tokens), rtol=1e-4, atol=1e-4)
    others = TOKENS.copy()
    others[0, 3] = (others[0, 3] + 1) % 5
    changed, _ = forward(params, others, KEY)
    np.testing.assert_array_equal(changed[0, :3], found[0, :3])
    np.testing.assert_array_equal(changed[1], found[1])
    assert (np.abs(changed[0, 3:] - found[0, 3:]).max(axis=-1) > 1e-4).all()
    measured, other = forward(params, TOKENS, jax.random.key(1))
    np.testing.assert_array_equal(measured, found)
    assert np.abs(dropped - other).max() > 1e-2


def test_bfloat16_weights_compute_in_bfloat16(params):
    half = forward(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), TOKENS, KEY)[0]
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), forward(params, TOKENS, KEY)[0], atol=0.2)
