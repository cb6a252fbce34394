import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import Normed, blobs
from vmaptune import models, tasks
from vmaptune.config import resolve
from vmaptune.errors import ConfigError
from vmaptune.finetuning import frozen
from vmaptune.lowering import im2col
from vmaptune.precision import precise
from vmaptune.settings import settings

KEY = jax.random.key(0)
MEMBERS = jax.random.split(jax.random.key(1), 2)


def equations(jaxpr):
    """All equations of a program, those of the programs within it too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def graded(task):
    """Loss, what comes with it, and gradient of one member on the first 16 examples."""
    batch = jax.tree.map(lambda x: jnp.asarray(x[:16]), task.splits.train)

    def of(key):
        params, state = task.init(key, task.sample)
        return jax.value_and_grad(task.loss, has_aux=True)(params, state, batch, KEY, train=True)

    return of


def products(fn, *args):
    names = ("dot_general", "conv_general_dilated")
    return [eqn for eqn in equations(jax.make_jaxpr(fn)(*args).jaxpr) if eqn.primitive.name in names]


def trained(task, steps=8):
    """Losses f32[steps, 2] of two members under AdamW, and what they end with."""
    adamw = optax.adamw(1e-2)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:32]), task.splits.train)

    @jax.jit
    @jax.vmap
    def run(key):
        params, state = task.init(key, task.sample)

        def step(carry, i):
            params, state, opt_state = carry
            draw = jax.random.fold_in(key, i)
            (loss, (state, _)), gradient = jax.value_and_grad(task.loss, has_aux=True)(params, state, batch, draw, train=True)
            updates, opt_state = adamw.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), state, opt_state), loss

        carry, losses = jax.lax.scan(step, (params, state, adamw.init(params)), jnp.arange(steps))
        return losses, carry

    losses, carry = run(MEMBERS)
    return losses.T, carry


def test_bfloat16_computes_in_it_and_keeps_float32(normed_task):
    """Every rounding is off by 2^-9 at most: a few in a row change a loss by no more than 3 %."""
    found = products(graded(precise(tasks.digits(hidden=(4,)), compute="bfloat16")), KEY)
    assert len(found) >= 4
    assert {v.aval.dtype for eqn in found for v in (*eqn.invars, *eqn.outvars)} == {jnp.dtype("bfloat16")}
    (exact, _), (rounded, kept) = trained(normed_task), trained(precise(normed_task, compute="bfloat16"))
    np.testing.assert_allclose(rounded, exact, rtol=0.03)
    assert not np.array_equal(rounded, exact)
    assert np.all(rounded[-1] < 0.8 * rounded[0])
    floats = [leaf.dtype for leaf in jax.tree.leaves((kept, rounded)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}


@pytest.mark.parametrize("lowered", [lambda loss: loss, im2col], ids=["plain", "im2col"])
def test_remat_changes_nothing_but_what_is_kept(lowered):
    """Of a convolutional network with dropout and batch statistics: gradients to the bit of rounding, fewer residuals."""
    task = tasks.digits_cnn(channels=(4,))
    again = precise(task, remat=True)
    plain, less = (t._replace(loss=lowered(t.loss)) for t in (task, again))

    @jax.jit
    @jax.vmap
    def both(key):
        return graded(plain)(key), graded(less)(key)

    for one, other in zip(*map(jax.tree.leaves, both(MEMBERS)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)

    def kept(task, **given):
        """Bytes that the forward pass leaves to the backward pass."""
        params, state = task.init(KEY, task.sample)
        batch = jax.tree.map(lambda x: jnp.asarray(x[:16]), task.splits.train)

        def backward(params):
            return jax.vjp(lambda p: task.loss(p, state, batch, KEY, train=True, **given)[0], params)[1]

        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(backward, params)))

    assert kept(less, dropout=jnp.float32(0.2)) < 0.8 * kept(plain, dropout=jnp.float32(0.2))


@pytest.mark.parametrize(("matmul", "expected"), [("default", None), ("high", "HIGH"), ("highest", "HIGHEST")])
def test_products_have_the_precision_asked_for_on_the_way_back_too(matmul, expected):
    task = precise(tasks.digits_cnn(channels=(2,)), matmul=matmul)
    found = products(graded(task), KEY)
    assert {eqn.primitive.name for eqn in found} == {"dot_general", "conv_general_dilated"}
    precisions = {p and p.name for eqn in found for p in (eqn.params["precision"] or (None, None))}
    assert precisions == {expected}


def test_evaluation_is_cast_and_settings_stay(normed_task):
    config, task = resolve(
        {"batch": {"size": 32}, "precision": {"compute": "bfloat16", "matmul": "high", "remat": True}},
        task=tasks.classification(models.from_nnx(lambda rngs: Normed(rngs=rngs)), blobs(), metric="balanced_accuracy"),
    )
    assert settings(task.loss) == settings(normed_task.loss)
    params, state = task.init(KEY, task.sample)
    outputs = jax.eval_shape(task.predict, params, state, task.sample)
    assert outputs.dtype == jnp.float32
    batch = jax.tree.map(lambda x: jnp.asarray(x[:16]), task.splits.train)
    measured = jax.make_jaxpr(lambda p: task.loss(p, state, batch, KEY, train=False))(params).jaxpr
    assert not any("checkpoint" in eqn.primitive.name or "remat" in eqn.primitive.name for eqn in equations(measured))
    # Frozen parameters are computed with as all others are.
    half = frozen(task, "first.*")
    whole, part = (jax.jit(lambda t=t: t.loss(*t.init(KEY, task.sample), batch, KEY, train=False)[0])() for t in (task, half))
    np.testing.assert_allclose(whole, part, rtol=1e-5)
    others = [{}, {"compute": "bfloat16"}, {"matmul": "high"}, {"remat": True}]
    ids = {resolve({"batch": {"size": 32}, "precision": p}, task=normed_task)[0].run_id for p in others}
    assert len(ids) == len(others)
    assert config.with_values({}).precision == config.precision


def test_unknown_precisions_are_refused_in_one_sentence(normed_task):
    for given, sentence in (
        ({"compute": "float16"}, "compute: expected float32 | bfloat16; given: 'float16'"),
        ({"matmul": "low"}, "matmul: expected default | high | highest; given: 'low'"),
        ({"remat": 1}, "remat: expected bool; given: 1"),
    ):
        with pytest.raises(ConfigError) as error:
            resolve({"batch": {"size": 32}, "precision": given}, task=normed_task)
        assert str(error.value) == f"config: precision.{sentence}"
