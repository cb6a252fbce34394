import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.conftest import Normed
from vmaptune.models import ACTIVATIONS, MLP, Dropout, from_nnx
from vmaptune.settings import settings

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (16, 4))


def test_the_adapter_computes_what_the_module_computes():
    module = MLP(4, [8, 6], 3, rngs=nnx.Rngs(KEY))
    module.eval()
    model = from_nnx(lambda rngs: MLP(4, [8, 6], 3, rngs=rngs))
    params, state = model.init(KEY)
    outputs, _ = model.apply(params, state, X, KEY, train=False)
    np.testing.assert_array_equal(outputs, module(X))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("gelu", lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),  # Hendrycks & Gimpel 2016
        ("silu", lambda x: x / (1 + np.exp(-x))),
        ("tanh", np.tanh),
    ],
)
def test_the_activation_stands_between_the_layers(name, function):
    assert len(ACTIVATIONS) == 4
    model = from_nnx(lambda rngs: MLP(4, [8], 3, activation=name, rngs=rngs))
    params, state = model.init(KEY)
    hidden, head = (jax.device_get(layer) for layer in (params["hidden"][0], params["head"]))
    expected = function(np.asarray(X) @ hidden["kernel"] + hidden["bias"]) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(params, state, X, KEY, train=False)[0], expected, rtol=1e-4, atol=1e-5)


def test_float_parameters_of_the_call_become_settings():
    model = from_nnx(lambda rngs: MLP(4, [8], 3, rngs=rngs))
    assert {name: s.traced for name, s in settings(model.apply).items()} == {"dropout": True}


def test_no_key_is_stored_in_a_member():
    model = from_nnx(lambda rngs: MLP(4, [8], 3, rngs=rngs))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(model.init(KEY))}
    assert dtypes == {jnp.dtype("float32")}


def test_randomness_comes_from_the_key_of_the_call_alone():
    model = from_nnx(lambda rngs: MLP(4, [8], 3, rngs=rngs))
    params, state = model.init(KEY)
    a, b, c = (model.apply(params, state, X, jax.random.key(k), train=True, dropout=0.5)[0] for k in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_two_dropout_layers_of_one_shape_draw_different_masks():
    class Twice(nnx.Module):
        def __init__(self, *, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)])

        def __call__(self, x):
            return jnp.stack([layer(x) for layer in self.layers])

    model = from_nnx(lambda rngs: Twice(rngs=rngs))
    (first, second), _ = model.apply(*model.init(KEY), jnp.ones((32, 32)), KEY, train=True)
    assert 0.4 < jnp.mean(first != second) < 0.6


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.9])
def test_dropout_keeps_the_mean_and_drops_at_its_rate(rate):
    layer = Dropout(rngs=nnx.Rngs(0))
    dropped = layer(jnp.ones(40_000), rate)
    se = np.sqrt(rate * (1 - rate) / 40_000)
    assert abs(jnp.mean(dropped == 0) - rate) <= 4 * se
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_is_the_identity_in_evaluation():
    layer = Dropout(rngs=nnx.Rngs(0))
    layer.eval()
    np.testing.assert_array_equal(layer(X, 0.9), X)


def test_dropout_rates_are_traced_one_a_member():
    model = from_nnx(lambda rngs: MLP(4, [64], 3, rngs=rngs))
    params, state = model.init(KEY)
    rates = jnp.array([0.0, 0.3, 0.6])
    apply = jax.jit(jax.vmap(lambda rate: model.apply(params, state, X, KEY, train=True, dropout=rate)[0]))
    plain = model.apply(params, state, X, KEY, train=False)[0]
    batched = apply(rates)
    np.testing.assert_allclose(batched[0], plain, atol=1e-6)
    assert (batched[1] != batched[2]).any()


def test_batch_statistics_move_in_training_and_rest_in_evaluation():
    model = from_nnx(lambda rngs: Normed(rngs=rngs))
    params, state = model.init(KEY)
    _, trained = model.apply(params, state, X, KEY, train=True)
    _, rested = model.apply(params, trained, X, KEY, train=False)
    params = jax.device_get(params)
    hidden = np.asarray(X) @ params["first"]["kernel"] + params["first"]["bias"]
    np.testing.assert_allclose(trained["norm"]["mean"], 0.01 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, trained, rested)


def test_weights_follow_he_rule():
    params, _ = from_nnx(lambda rngs: MLP(400, [300], 3, rngs=rngs)).init(KEY)
    assert np.std(params["hidden"][0]["kernel"]) == pytest.approx(np.sqrt(2 / 400), rel=0.02)
