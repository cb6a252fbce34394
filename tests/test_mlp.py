"""What the settings of the multilayer perceptron do, against flax layers that are called one after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.conftest import blobs
from vmaptune import models, tasks

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (16, 4))


def adapted(**settings):
    return models.from_nnx(lambda rngs: models.MLP(4, [6, 6, 5], 3, rngs=rngs, **settings))


def test_weights_do_not_depend_on_norm_and_residual():
    plain = adapted().init(KEY)[0]
    for norm in ("batch", "layer"):
        params = adapted(norm=norm, residual=True).init(KEY)[0]
        assert {*params} - {*plain} == {"norms"}
        jax.tree.map(np.testing.assert_array_equal, {k: params[k] for k in plain}, plain)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_network_is_what_its_layers_say(norm, residual):
    model = adapted(norm=norm, residual=residual, activation="tanh")
    params, state = model.init(KEY)
    found, after = model.apply(params, state, X, KEY, train=True)
    x = X
    for i in range(3):
        layer = params["hidden"][i]
        y = x @ layer["kernel"] + layer["bias"][None]
        if norm == "layer":
            y = nnx.LayerNorm(y.shape[1], rngs=nnx.Rngs(0))(y)
        if norm == "batch":
            mean, variance = y.mean(axis=0, keepdims=True), y.var(axis=0, keepdims=True)
            np.testing.assert_allclose(after["norms"][i]["mean"], 0.1 * mean[0], atol=1e-6)
            np.testing.assert_allclose(after["norms"][i]["var"], 0.9 + 0.1 * variance[0], rtol=1e-5)
            y = (y - mean) / jnp.sqrt(variance + 1e-5)
        y = jnp.tanh(y)
        x = x + y if residual and i == 1 else y  # 4 -> 6 -> 6 -> 5: one layer as wide as its input
    np.testing.assert_allclose(found, x @ params["head"]["kernel"] + params["head"]["bias"][None], rtol=1e-5, atol=1e-5)


def test_batch_norm_goes_by_its_averages_when_it_does_not_train():
    model = adapted(norm="batch")
    params, state = model.init(KEY)
    step = jax.jit(lambda state: model.apply(params, state, 3 * X + 1, KEY, train=True)[1])
    for _ in range(60):
        state = step(state)
    one, same = model.apply(params, state, (3 * X + 1)[:1], KEY, train=False)
    whole = model.apply(params, state, 3 * X + 1, KEY, train=True)[0]
    np.testing.assert_allclose(one, whole[:1], rtol=2e-2, atol=2e-2)
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_no_hidden_layer_is_a_linear_model():
    network = models.from_nnx(lambda rngs: models.MLP(4, [], 3, norm="batch", residual=True, rngs=rngs))
    params, state = tasks.classification(network, blobs()).init(KEY, None)
    assert {*params} == {"head"}
    assert jax.tree.leaves(state) == []
