"""Every row of `OPTIMIZERS` meets one contract; a new row gets these tests for free."""

import functools
import itertools
import math
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vmaptune.optimizers import OPTIMIZERS
from vmaptune.settings import convert, settings
from vmaptune.train import _as_before

MEMBERS = 5
STEPS = 6
ROWS = list(OPTIMIZERS)
SETTINGS = [(row, name) for row in ROWS for name in settings(OPTIMIZERS[row])]


def traced(row):
    return {name: s for name, s in settings(OPTIMIZERS[row]).items() if s.traced}


def statics(row):
    """Every combination of the settings that are shapes or branches."""
    known = {name: s for name, s in settings(OPTIMIZERS[row]).items() if not s.traced}
    return [dict(zip(known, values, strict=True)) for values in itertools.product(*map(candidates, known.values()))]


def candidates(setting):
    """Legal values of a setting that differ enough to matter, the default among them."""
    if not setting.traced:
        if setting.annotation is bool:
            return [False, True]
        if get_origin(setting.annotation) is Literal:
            return list(get_args(setting.annotation))
        return [setting.default, setting.default + 1]
    metas = get_args(setting.annotation)[1:]
    bounded = any(getattr(m, k, None) is not None for m in metas for k in ("lt", "le"))
    if setting.default == math.inf:
        return [math.inf, 0.5, 2.0, 8.0]
    if bounded:
        return [setting.default, 0.0, 0.5, 0.97]
    if setting.default == 0:
        return [0.0, 0.01, 0.1, 1.0]
    return [setting.default * factor for factor in (1, 3, 10, 1e6 if setting.default < 1e-6 else 30)]


def grid(row, n=MEMBERS):
    """n different values of every float setting, f32[n] by name; the first member has the defaults."""
    rng = np.random.default_rng(0)
    return {
        name: np.float32([s.default, *rng.choice(candidates(s), n - 1)]) for name, s in traced(row).items() if not s.required
    }


def start(dtype=jnp.float32, seed=0):
    """Parameters far from the minimum, so that gradients are long enough for clip_norm to bite."""
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        "w": (5 * jax.random.normal(keys[0], (3, 2))).astype(dtype),
        "b": (5 * jax.random.normal(keys[1], (2,))).astype(dtype),
    }


def gradient(params, step):
    """Of a quadratic with curvatures 1 and 2 about a moving target."""
    target = 1.0 + 0.1 * step
    return {"w": (params["w"] - target).astype(params["w"].dtype), "b": (2 * (params["b"] + target)).astype(params["b"].dtype)}


def trained(row, params, values, static, steps=STEPS):
    """Trains as `vmaptune.train` does: rebuilt in every step from traced scalars, state cast back leafwise, in a scan."""
    optimizer = functools.partial(OPTIMIZERS[row], **static)

    def step(carry, i):
        params, state = carry
        updates, new_state = optimizer(**values).update(gradient(params, i), state, params)
        return (optax.apply_updates(params, updates), _as_before(new_state, state)), None

    return jax.lax.scan(step, (params, optimizer(**values).init(params)), jnp.arange(steps))[0]


@functools.cache
def _solo(row, static, steps=STEPS):
    return jax.jit(lambda params, values: trained(row, params, values, dict(static), steps))


def solo(row, params, values, static):
    return _solo(row, tuple(static.items()))(params, {k: jnp.float32(v) for k, v in values.items()})


def member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def assert_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), **tolerance)


# ------------------------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("row", ROWS)
def test_vmapped_equals_looped(row):
    """Members differ in their parameters and in every float setting."""
    values = grid(row)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(start(seed=i) for i in range(MEMBERS)))
    for static in statics(row):
        together = jax.jit(jax.vmap(lambda p, v, static=static: trained(row, p, v, static)))(params, values)
        for i in range(MEMBERS):
            assert_close(member(together, i), solo(row, member(params, i), member(values, i), static), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_the_state_does_not_depend_on_values(row):
    """One executable holds members of all values, so a momentum of 0 must keep its buffer."""
    for static in statics(row):
        shapes = set()
        for i in range(MEMBERS):
            optimizer = OPTIMIZERS[row](**static, **{k: float(v[i]) for k, v in grid(row).items()})
            state = optimizer.init(start())
            after = optimizer.update(gradient(start(), 0), state, start())[1]
            for tree in (state, after):
                shapes.add((jax.tree.structure(tree), tuple((x.shape, x.dtype) for x in jax.tree.leaves(tree))))
        assert len(shapes) == 1


@pytest.mark.parametrize("row", ROWS)
def test_the_state_is_alike_for_python_floats_and_traced_ones(row):
    optimizer = functools.partial(OPTIMIZERS[row])
    values = {name: s.default for name, s in traced(row).items()}
    concrete = jax.eval_shape(lambda p: optimizer(**values).init(p), start())
    abstract = jax.eval_shape(lambda p, v: optimizer(**v).init(p), start(), {k: jnp.float32(v) for k, v in values.items()})
    assert concrete == abstract


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("row", ROWS)
def test_dtypes_are_kept(row, dtype):
    """Without the cast back, traced float32 settings promote bfloat16 state and the scan does not even trace."""
    params = start(dtype)
    values = {k: v[0] for k, v in grid(row).items()} | {"learning_rate": np.float32(0.1)}
    for static in statics(row):
        before = OPTIMIZERS[row](**static, **values).init(params)
        after, state = solo(row, params, values, static)
        assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, params)
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, before)
        exact, _ = solo(row, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params), values, static)
        assert_close(after, exact, atol=0.1, rtol=0.02)
        assert all((after[name] != params[name]).any() for name in params)


@pytest.mark.parametrize(("row", "name"), SETTINGS)
def test_no_setting_is_dead(row, name):
    """Each value tried moves the parameters elsewhere than the default does."""
    known = settings(OPTIMIZERS[row])
    base = {k: s.default for k, s in known.items()} | {"learning_rate": 0.1}
    tries = [v for v in candidates(known[name]) if v != base[name]]
    assert tries
    outcomes = []
    for value in [base[name], *tries]:
        values = base | {name: value}
        static = {k: v for k, v in values.items() if not known[k].traced}
        params, _ = solo(row, start(), {k: v for k, v in values.items() if known[k].traced}, static)
        outcomes.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    moved = [abs(outcome - outcomes[0]).max() > 1e-5 for outcome in outcomes[1:]]
    assert moved[-1], f"{name} = {tries[-1]} trains like {base[name]}"
    assert all(moved) or known[name].default < 1e-6  # a tiny eps is felt only when it is large


@pytest.mark.parametrize("row", ROWS)
def test_the_minimum_of_a_parabola_is_reached(row):
    """The learning rate falls to zero, so that rows whose steps keep their length arrive too."""
    minimum, curvature, steps = jnp.array([3.0, -2.0]), jnp.array([1.0, 3.0]), 400
    fixed = {"weight_decay": 0.0} if "weight_decay" in traced(row) else {}

    @jax.jit
    def train(params):
        def step(carry, i):
            params, state = carry
            optimizer = OPTIMIZERS[row](learning_rate=0.3 * (1 - i / steps), **fixed)
            updates, state = optimizer.update(curvature * (params - minimum), state, params)
            return (optax.apply_updates(params, updates), state), None

        state = OPTIMIZERS[row](learning_rate=0.3, **fixed).init(params)
        return jax.lax.scan(step, (params, state), jnp.arange(steps))[0][0]

    np.testing.assert_allclose(train(jnp.array([-1.0, 2.0])), minimum, atol=1e-3)


@pytest.mark.parametrize("row", ROWS)
def test_a_learning_rate_of_zero_moves_nothing(row):
    values = {k: v[1] for k, v in grid(row).items()} | {"learning_rate": 0.0}
    for static in statics(row):
        assert_close(solo(row, start(), values, static)[0], start(), rtol=0, atol=0)


@pytest.mark.parametrize(("row", "name"), SETTINGS)
def test_every_setting_is_explained_and_its_default_is_legal(row, name):
    setting = settings(OPTIMIZERS[row])[name]
    assert setting.help
    assert convert(setting, setting.default, name) == setting.default


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_learning_rate_and_the_gradient_rules(row):
    assert {"learning_rate", "clip_norm"} <= set(traced(row))


# ----------------------------------------------------------------------------------------------------------- references


def plain(optimizer, params, steps=STEPS):
    """Trains with a transformation made once from Python floats, step by step."""
    state = optimizer.init(params)
    for i in range(steps):
        updates, state = optimizer.update(gradient(params, i), state, params)
        params = optax.apply_updates(params, updates)
    return params


ADAMW = {"learning_rate": 0.05, "b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.2}
SGD = {"learning_rate": 0.05, "momentum": 0.7, "weight_decay": 0.2}
CLIPS = pytest.mark.parametrize("clip_norm", [math.inf, 2.0])
NESTEROV = pytest.mark.parametrize("nesterov", [False, True])


@CLIPS
@NESTEROV
def test_adamw_is_that_of_optax(clip_norm, nesterov):
    theirs = optax.chain(optax.clip_by_global_norm(clip_norm), optax.adamw(**ADAMW, nesterov=nesterov))
    ours, _ = solo("adamw", start(), ADAMW | {"clip_norm": clip_norm}, {"nesterov": nesterov})
    assert_close(ours, plain(theirs, start()), rtol=1e-4)


@CLIPS
@NESTEROV
def test_sgd_is_that_of_optax(clip_norm, nesterov):
    theirs = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.add_decayed_weights(SGD["weight_decay"]),
        optax.sgd(SGD["learning_rate"], momentum=SGD["momentum"], nesterov=nesterov),
    )
    ours, _ = solo("sgd", start(), SGD | {"clip_norm": clip_norm}, {"nesterov": nesterov})
    assert_close(ours, plain(theirs, start()), rtol=1e-4)


def _flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


def _clipped(params, i, clip_norm):
    """The gradient in float64, scaled down to clip_norm if it is longer."""
    b, w = params[:2], params[2:]
    target = 1.0 + 0.1 * i
    g = np.concatenate([2 * (b + target), w - target])
    return g * min(1.0, clip_norm / np.linalg.norm(g))


@CLIPS
def test_adamw_is_that_of_the_paper(clip_norm):
    """Loshchilov & Hutter, algorithm 2, with the decay scaled by the learning rate."""
    x = _flat(start())
    m = v = np.zeros_like(x)
    for i in range(STEPS):
        g = _clipped(x, i, clip_norm)
        m = ADAMW["b1"] * m + (1 - ADAMW["b1"]) * g
        v = ADAMW["b2"] * v + (1 - ADAMW["b2"]) * g**2
        step = m / (1 - ADAMW["b1"] ** (i + 1)) / (np.sqrt(v / (1 - ADAMW["b2"] ** (i + 1))) + ADAMW["eps"])
        x = x - ADAMW["learning_rate"] * (step + ADAMW["weight_decay"] * x)
    ours, _ = solo("adamw", start(), ADAMW | {"clip_norm": clip_norm}, {"nesterov": False})
    np.testing.assert_allclose(_flat(ours), x, rtol=1e-4)


@CLIPS
@NESTEROV
def test_sgd_is_that_of_pytorch(clip_norm, nesterov):
    x = _flat(start())
    momentum = np.zeros_like(x)
    for i in range(STEPS):
        g = _clipped(x, i, clip_norm) + SGD["weight_decay"] * x
        momentum = SGD["momentum"] * momentum + g
        x = x - SGD["learning_rate"] * (g + SGD["momentum"] * momentum if nesterov else momentum)
    ours, _ = solo("sgd", start(), SGD | {"clip_norm": clip_norm}, {"nesterov": nesterov})
    np.testing.assert_allclose(_flat(ours), x, rtol=1e-4)


def test_clipping_keeps_the_direction_and_the_length():
    params = start()
    long = gradient(params, 0)
    length = np.linalg.norm(_flat(long))
    assert length > 8.0
    optimizer = OPTIMIZERS["sgd"](learning_rate=1.0, momentum=0.0, clip_norm=2.0)
    updates, _ = optimizer.update(long, optimizer.init(params), params)
    expected = jax.tree.map(lambda g: -2.0 * g / length, long)
    assert_close(updates, expected, rtol=1e-5)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_without_a_clip_norm_nothing_is_clipped(name, traced):
    """inf as Python's number, which leaves the rule out (no norm can overflow), or traced, beside members that clip."""
    given, plain = {"adamw": (ADAMW, optax.adamw), "sgd": ({"learning_rate": 0.1, "momentum": 0.9}, optax.sgd)}[name]
    clip_norm = jnp.float32(jnp.inf) if traced else math.inf
    ours, theirs = OPTIMIZERS[name](**given, clip_norm=clip_norm), plain(**given)
    params = {"w": jnp.array([1.0, -2.0, 300.0]), "b": jnp.array([0.5])}
    states = ours.init(params), theirs.init(params)
    for scale in (1.0, 1e6, 1e-6) if traced else (1.0, 1e25, 1e-25):
        gradient = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
        (found, one), (wanted, other) = (o.update(gradient, s, params) for o, s in zip((ours, theirs), states, strict=True))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
        states = one, other


def test_the_state_has_one_structure_whether_a_norm_is_clipped_or_not():
    """Members are born without settings and trained with them."""
    params = {"w": jnp.ones(3)}
    for row in OPTIMIZERS.values():
        structures = {jax.tree.structure(row(clip_norm=clip).init(params)) for clip in (math.inf, 1.0, jnp.float32(2.0))}
        assert len(structures) == 1
