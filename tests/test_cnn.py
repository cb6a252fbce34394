"""What the settings of the convolutional network do, against the definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmaptune import models
from vmaptune.errors import ConfigError
from vmaptune.lowering import canonical, im2col

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 9, 7, 2)).astype(np.float32)


def adapted(channels=(3, 4), shape=X.shape[1:], **settings):
    return models.from_nnx(lambda rngs: models.CNN(shape, channels, 5, rngs=rngs, **settings))


def convolved(x, layer, stride):
    """A convolution by its definition, edges padded with zeros so that ceil(size / stride) places remain."""
    kernel = np.asarray(layer["kernel"])
    places = [-(-size // stride) for size in x.shape[1:3]]
    missing = [max((p - 1) * stride + len(kernel) - size, 0) for p, size in zip(places, x.shape[1:3], strict=True)]
    x = np.pad(x, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
    out = np.empty((len(x), *places, kernel.shape[-1]))
    for i, j in np.ndindex(*places):
        seen = x[:, i * stride :, j * stride :][:, : len(kernel), : len(kernel)]
        out[:, i, j] = np.einsum("nhwc,hwco->no", seen, kernel) + layer["bias"]
    return out


def pooled(x, of):
    height, width = x.shape[1] // 2, x.shape[2] // 2
    squares = x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1)
    return of(squares, axis=(2, 4))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kernel": 5, "pooling": "average", "activation": "tanh", "hidden": (6, 4)},
        {"stride": 2, "pooling": "none", "norm": "batch", "activation": "tanh"},
        {"kernel": 2, "pooling": "none", "norm": "layer", "hidden": (3,)},
    ],
)
def test_the_network_is_what_its_settings_say(settings):
    model = adapted(**settings)
    params, state = jax.jit(model.init)(KEY)
    both = jax.jit(lambda p, s: [model.apply(p, s, X, KEY, train=train) for train in (True, False)])
    (found, after), (measured, same) = both(params, state)
    params, after = jax.device_get((params, after))
    activation = np.tanh if settings.get("activation") == "tanh" else lambda x: np.maximum(x, 0)
    x = X.astype(np.float64)
    for i in range(2):
        x = convolved(x, params["convolutions"][i], settings.get("stride", 1))
        axes = {"batch": (0, 1, 2), "layer": (1, 2, 3)}.get(settings.get("norm"))
        if axes:
            mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
            x = (x - mean) / np.sqrt(variance + (1e-5 if axes[0] == 0 else 1e-6))
        if axes == (0, 1, 2):
            np.testing.assert_allclose(after["norms"][i]["mean"], 0.1 * mean.ravel(), atol=1e-6)
            np.testing.assert_allclose(after["norms"][i]["var"], 0.9 + 0.1 * variance.ravel(), rtol=1e-5)
        x = activation(x)
        if settings.get("pooling") != "none":
            x = pooled(x, np.mean if settings.get("pooling") == "average" else np.max)
    x = x.reshape(len(x), -1)
    for layer in params.get("hidden", {}).values():
        x = activation(x @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(found, x @ params["head"]["kernel"] + params["head"]["bias"], rtol=1e-4, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    assert np.allclose(measured, found, rtol=1e-4, atol=1e-5) == (settings.get("norm") != "batch")  # its averages are fresh


def test_weights_do_not_depend_on_norm():
    models = adapted(), adapted(norm="batch"), adapted(norm="layer", activation="gelu")
    plain, *normed = jax.jit(lambda: [model.init(KEY)[0] for model in models])()
    for params in normed:
        assert {*params} - {*plain} == {"norms"}
        jax.tree.map(np.testing.assert_array_equal, {name: params[name] for name in plain}, plain)


def test_every_lowering_gives_the_same_gradients_and_statistics():
    model = adapted(channels=(2,), stride=2, norm="batch", pooling="none")
    params, state = jax.jit(jax.vmap(model.init))(jax.random.split(KEY, 2))

    def loss(params, state, x):
        outputs, state = model.apply(params, state, x, KEY, train=True)
        return (outputs**2).mean(), state

    def gradients(loss):
        return jax.vmap(jax.grad(loss, has_aux=True), in_axes=(0, 0, None))

    ways = {"grouped": gradients(loss), "canonical": canonical(gradients(loss)), "im2col": gradients(im2col(loss))}
    found = {name: jax.jit(way)(params, state, jnp.asarray(X)) for name, way in ways.items()}
    for name in ("canonical", "im2col"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found[name], found["grouped"])
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], found["grouped"][1]) for i in range(2))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))  # statistics are each member's own


def test_dropout_zeroes_inputs_of_each_dense_layer():
    model = adapted(channels=(3,), hidden=(40,), activation="tanh")
    params, state = jax.jit(model.init)(KEY)

    @jax.jit
    def used(rate):
        """The share of each dense layer's inputs that one example's outputs depend on."""
        gradient = jax.grad(lambda p: model.apply(p, state, X[:1], KEY, train=True, dropout=rate)[0].sum())(params)
        return [(layer["kernel"] != 0).any(1).mean() for layer in (gradient["hidden"][0], gradient["head"])]

    np.testing.assert_array_equal(used(0.0), [1.0, 1.0])
    np.testing.assert_allclose(used(0.5), [0.5, 0.5], atol=0.25)


def test_an_image_of_which_nothing_is_left_is_refused():
    adapted(channels=(1, 1), shape=(4, 4, 1))
    with pytest.raises(ConfigError, match="of 3 convolutions, stride 1, pooling max, leaves nothing of an image of 4x9"):
        adapted(channels=(1, 1, 1), shape=(4, 9, 1))
    adapted(channels=(1,) * 9, shape=(4, 4, 1), stride=2, pooling="none")
