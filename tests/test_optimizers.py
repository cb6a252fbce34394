"""Every row of `OPTIMIZERS` meets one contract; a new row gets these tests for free."""

import functools
import math
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from vmaptune.errors import ConfigError
from vmaptune.optimizers import OPTIMIZERS, averages, evaluation_params, opened
from vmaptune.optimizers.matrices import _as_matrices
from vmaptune.settings import convert, settings
from vmaptune.train import _as_before

MEMBERS = 5
STEPS = 6
ROWS = list(OPTIMIZERS)
SETTINGS = [(row, name) for row in ROWS for name in settings(OPTIMIZERS[row])]


def traced(row):
    return {name: s for name, s in settings(OPTIMIZERS[row]).items() if s.traced}


SHARED_STATICS = {"decay", "decay_mask"}
# What makes six steps on the parabola below feel every setting.
BASE = {
    "adadelta": {"learning_rate": 1.0, "eps": 1e-2},
    "lars": {"learning_rate": 30.0, "eps": 1.0},  # without eps, the length of the gradient is nothing to it
    "lion": {"learning_rate": 2.0, "b2": 0.9},
    "radam": {"learning_rate": 0.1, "b2": 0.9},
    "rmsprop": {"learning_rate": 0.1, "momentum": 0.5},
    "prodigy": {"learning_rate": 1.0, "estim_lr0": 0.1},
}
TRIES = {
    "accumulate": [1.0, 2.0, 3.0, 5.0],
    "clip_adaptive": [math.inf, 0.01, 0.1, 0.5],
    "clip_value": [math.inf, 2.0, 0.5],
    "clipping_threshold": [1.0, 0.3, 0.1],
    "threshold": [5.0, 4.0, 8.0],
    "min_dim_size_to_factor": [128, 2],
}
FREE = ["schedule_free_adamw", "schedule_free_sgd"]


def base(row):
    return {"learning_rate": 0.1} | BASE.get(row, {})


def statics(row):
    """The defaults, each of the row's own shapes and branches changed alone, and the shared ones changed together."""
    known = {name: s for name, s in settings(OPTIMIZERS[row]).items() if not s.traced}
    defaults = {name: s.default for name, s in known.items()}
    alone = [{name: v} for name, s in known.items() if name not in SHARED_STATICS for v in candidates(s) if v != s.default]
    together = {name: v for name in SHARED_STATICS & set(known) for v in candidates(known[name]) if v != defaults[name]}
    return [defaults | changed for changed in ({}, *alone, together)]


def candidates(setting):
    """Legal values of a setting that differ enough to matter, the default among them."""
    return [value for value in _candidates(setting) if legal(setting, value)]


def legal(setting, value):
    try:
        return convert(setting, value, setting.name) == value
    except ConfigError:
        return False


def _candidates(setting):
    if setting.name in TRIES:
        return TRIES[setting.name]
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
    return [*(setting.default * factor for factor in (1, 3, 10)), max(30 * setting.default, 1e-2)]


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


def compiled(function):
    """Compiled in less time: what is tested does not depend on how fast it runs."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def _solo(row, static, steps=STEPS):
    return compiled(lambda params, values: trained(row, params, values, dict(static), steps))


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
    rtol = 1e-4 if row == "prodigy" else 1e-5  # some of whose members leave far and fast
    static = statics(row)[0]
    together = compiled(jax.vmap(lambda p, v: trained(row, p, v, static)))(params, values)
    for i in range(MEMBERS):
        assert_close(member(together, i), solo(row, member(params, i), member(values, i), static), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_the_state_does_not_depend_on_values(row):
    """One executable holds members of all values, so a momentum of 0 must keep its buffer."""
    for static in statics(row):
        shapes = set()
        for i in range(MEMBERS):
            optimizer = OPTIMIZERS[row](**static, **{k: v[i] for k, v in grid(row).items()})
            state = jax.eval_shape(optimizer.init, start())
            after = jax.eval_shape(optimizer.update, start(), state, start())[1]
            shapes |= {str(tree) for tree in (state, after)}
        assert len(shapes) == 1


@pytest.mark.parametrize("row", ROWS)
def test_the_state_is_alike_for_python_floats_and_traced_ones(row):
    """Where the floats are not those that leave a rule with state out: see the tests of `opened`."""
    optimizer = functools.partial(OPTIMIZERS[row])
    values = {name: s.default for name, s in traced(row).items()} | {"accumulate": 2.0, "average": 0.5}
    concrete = jax.eval_shape(lambda p: optimizer(**values).init(p), start())
    abstract = jax.eval_shape(lambda p, v: optimizer(**v).init(p), start(), {k: jnp.float32(v) for k, v in values.items()})
    assert concrete == abstract


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("row", ROWS)
def test_dtypes_are_kept(row, dtype):
    """Without the cast back, traced float32 settings promote bfloat16 state and the scan does not even trace."""
    params = start(dtype)
    values = {k: v[0] for k, v in grid(row).items()} | {k: np.float32(v) for k, v in base(row).items()}
    static = statics(row)[0]
    before = OPTIMIZERS[row](**static, **values).init(params)
    after, state = solo(row, params, values, static)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, params)
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, before)
    assert jax.tree.map(jnp.result_type, evaluation_params(state, after)) == jax.tree.map(jnp.result_type, params)
    exact, _ = solo(row, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params), values, static)
    assert_close(after, exact, atol=0.1, rtol=0.02)
    assert all((after[name] != params[name]).any() for name in params)


# weight_lr_power acts when the learning rate changes: see test_weights_count_by_their_learning_rate.
@pytest.mark.parametrize(("row", "name"), [(row, name) for row, name in SETTINGS if name != "weight_lr_power"])
def test_no_setting_is_dead(row, name):
    """Each value tried moves the weights to be evaluated elsewhere than the default does."""
    known = settings(OPTIMIZERS[row])
    values = {k: s.default for k, s in known.items()} | base(row)
    if name in SHARED_STATICS:
        values["weight_decay"] = 0.1
    tries = [v for v in candidates(known[name]) if v != values[name]]
    assert tries
    outcomes = []
    for value in [values[name], *tries]:
        tried = values | {name: value}
        static = {k: v for k, v in tried.items() if not known[k].traced}
        params, state = solo(row, start(), {k: v for k, v in tried.items() if known[k].traced}, static)
        outcomes.append(_flat(evaluation_params(state, params)))
    moved = [not abs(outcome - outcomes[0]).max() <= 1e-5 for outcome in outcomes[1:]]
    assert moved[-1], f"{name} = {tries[-1]} trains like {values[name]}"
    assert all(moved) or known[name].default <= 1e-6  # a tiny eps is felt only when it is large


RATES = {"adadelta": 30.0, "adagrad": 1.0, "lamb": 0.1, "lars": 10.0, "lion": 0.1, "prodigy": 1.0, "schedule_free_adamw": 1.0}
NEAR = {"lamb": 1e-2, "lars": 1e-2}  # their steps have the length of the weights, not of the gradient


@pytest.mark.parametrize("row", ROWS)
def test_the_minimum_of_a_parabola_is_reached(row):
    """The learning rate falls to zero, so that rows whose steps keep their length arrive too."""
    minimum, curvature, steps = jnp.array([3.0, -2.0]), jnp.array([1.0, 3.0]), 400
    rate = RATES.get(row, 0.3)

    @compiled
    def train(params):
        def step(carry, i):
            params, state = carry
            optimizer = OPTIMIZERS[row](learning_rate=rate * (1 - i / steps))
            updates, state = optimizer.update(curvature * (params - minimum), state, params)
            return (optax.apply_updates(params, updates), state), None

        params, state = jax.lax.scan(step, (params, OPTIMIZERS[row](learning_rate=rate).init(params)), jnp.arange(steps))[0]
        return evaluation_params(state, params)

    np.testing.assert_allclose(train(jnp.array([-1.0, 2.0])), minimum, atol=NEAR.get(row, 1e-3))


@pytest.mark.parametrize("row", ROWS)
def test_a_learning_rate_of_zero_moves_nothing(row):
    values = {k: v[1] for k, v in grid(row).items()} | {"learning_rate": 0.0}
    values |= {"rho": 0.9} if row == "rmsprop" else {}  # centered, a mean over one gradient has no variance
    rounding = 1e-6 if row in FREE else 0  # which recompute their average from the weights
    for static in statics(row)[:-1]:
        assert_close(solo(row, start(), values, static)[0], start(), rtol=rounding, atol=0)


@pytest.mark.parametrize(("row", "name"), SETTINGS)
def test_every_setting_is_explained_and_its_default_is_legal(row, name):
    setting = settings(OPTIMIZERS[row])[name]
    assert setting.help
    assert convert(setting, setting.default, name) == setting.default


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_learning_rate_and_the_gradient_rules(row):
    rules = {"clip_norm", "clip_value", "clip_adaptive", "l1", "weight_decay", "accumulate", "average"}
    assert {"learning_rate"} | rules <= set(traced(row))
    assert {"decay_mask", "decay"} <= set(settings(OPTIMIZERS[row])) | ({"decay"} if row == "schedule_free_sgd" else set())


@pytest.mark.parametrize("row", ROWS)
def test_every_row_says_where_its_learning_rate_is_searched(row):
    low, high, _ = traced(row)["learning_rate"].usual
    assert 0 < low < traced(row)["learning_rate"].default <= high


# ----------------------------------------------------------------------------------------------------------- references


def plain(optimizer, params, steps=STEPS):
    """Trains with a transformation made once from Python floats."""

    @compiled
    def train(params):
        def step(carry, i):
            params, state = carry
            updates, new_state = optimizer.update(gradient(params, i), state, params)
            return (optax.apply_updates(params, updates), _as_before(new_state, state)), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return train(params)


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


B = {"b1": 0.8, "b2": 0.95}
ALIKE = {  # row: (settings of ours, optax's own)
    "adam": (B | {"learning_rate": 0.1, "eps": 1e-3}, lambda s: optax.adam(**s)),
    "nadamw": (B | {"learning_rate": 0.1, "weight_decay": 0.2}, lambda s: optax.nadamw(**s)),
    "radam": ({"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "threshold": 4.5}, lambda s: optax.radam(**s)),
    "adabelief": (B | {"learning_rate": 0.1, "eps": 1e-3, "eps_root": 1e-4}, lambda s: optax.adabelief(**s)),
    "adamax": (B | {"learning_rate": 0.1, "eps": 1e-3}, lambda s: optax.adamax(**s)),
    "yogi": (B | {"learning_rate": 0.1, "eps": 1e-2}, lambda s: optax.yogi(**s)),
    "lamb": (B | {"learning_rate": 0.1, "weight_decay": 0.2}, lambda s: optax.lamb(**s)),
    "rmsprop": (
        {"learning_rate": 0.1, "rho": 0.8, "momentum": 0.5, "eps": 1e-3},
        lambda s: optax.rmsprop(decay=s.pop("rho"), **s),
    ),
    "adagrad": ({"learning_rate": 0.5, "initial_accumulator_value": 0.3, "eps": 1e-2}, lambda s: optax.adagrad(**s)),
    "adadelta": ({"learning_rate": 2.0, "rho": 0.8, "eps": 1e-2, "weight_decay": 0.2}, lambda s: optax.adadelta(**s)),
    "adafactor": (
        {"learning_rate": 0.3, "decay_rate": 0.7, "clipping_threshold": 0.9, "momentum": 0.4, "weight_decay": 0.2},
        lambda s: optax.adafactor(weight_decay_rate=s.pop("weight_decay") * s["learning_rate"], **s),
    ),
    "lars": (
        {"learning_rate": 5.0, "momentum": 0.8, "trust_coefficient": 0.01, "weight_decay": 0.2},
        lambda s: optax.lars(**s),
    ),
    "lion": (B | {"learning_rate": 0.1, "weight_decay": 0.2}, lambda s: optax.lion(**s)),
    "muon": (
        {"learning_rate": 0.1, "beta": 0.9, "adam_b1": 0.8, "adam_b2": 0.95, "weight_decay": 0.2},
        lambda s: contrib.muon(adam_weight_decay=s["weight_decay"], **s),
    ),
    "schedule_free_sgd": (
        {"learning_rate": 0.2, "b1": 0.8, "weight_lr_power": 1.5, "weight_decay": 0.2},
        lambda s: contrib.schedule_free_sgd(**s),
    ),
    "schedule_free_adamw": (B | {"learning_rate": 0.2, "weight_decay": 0.2}, lambda s: contrib.schedule_free_adamw(**s)),
    "prodigy": (
        B | {"learning_rate": 1.0, "estim_lr0": 0.05, "estim_lr_coef": 2.0, "weight_decay": 0.2},
        lambda s: contrib.prodigy(betas=(s.pop("b1"), s.pop("b2")), **s),
    ),
}


def test_every_row_is_compared_with_optax():
    assert set(ALIKE) | {"adamw", "sgd"} == set(OPTIMIZERS)


@pytest.mark.parametrize("row", ALIKE)
def test_is_that_of_optax(row):
    values, theirs = ALIKE[row]
    found = compiled(lambda params: trained(row, params, values, {})[0])(start())
    assert_close(found, plain(theirs(dict(values)), start()), rtol=1e-4)


@pytest.mark.parametrize(
    ("row", "static", "theirs"),
    [
        ("adam", {"nesterov": True}, optax.nadam(0.1)),
        ("radam", {"nesterov": True}, optax.radam(0.1, nesterov=True)),
        ("adabelief", {"nesterov": True}, optax.adabelief(0.1, nesterov=True)),
        ("rmsprop", {"centered": True, "eps": 1e-3}, optax.rmsprop(0.1, centered=True, eps=1e-3)),
        ("lars", {"nesterov": True}, optax.lars(0.1, nesterov=True)),
        ("adafactor", {"min_dim_size_to_factor": 2}, optax.adafactor(0.1, min_dim_size_to_factor=2)),
        ("adafactor", {"multiply_by_parameter_scale": False}, optax.adafactor(0.1, multiply_by_parameter_scale=False)),
        ("muon", {"nesterov": False, "ns_steps": 3}, contrib.muon(0.1, nesterov=False, ns_steps=3)),
        ("muon", {"consistent_rms": True, "adam_ratio": 0.3}, contrib.muon(0.1, consistent_rms=0.2, adam_learning_rate=0.03)),
        ("prodigy", {"safeguard_warmup": True}, contrib.prodigy(0.1, safeguard_warmup=True)),
    ],
)
def test_its_branches_are_those_of_optax(row, static, theirs):
    found = compiled(lambda params: trained(row, params, {"learning_rate": 0.1}, static)[0])(start())
    assert_close(found, plain(theirs, start()), rtol=1e-4)


def test_muon_sees_a_kernel_as_a_matrix():
    """Steps of a 3 x 3 convolution from 2 to 8 channels are orthogonal to one another as 18 x 8 matrices."""
    params = {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 2, 8)), "b": jnp.ones(8)}
    optimizer = OPTIMIZERS["muon"](learning_rate=1.0)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    sizes = np.linalg.svd(np.reshape(updates["kernel"], (18, 8)), compute_uv=False)
    assert (sizes > 0.6).all()
    assert (sizes < 1.3).all()
    assert _as_matrices(params)["b"] is None


# ---------------------------------------------------------------------------------------------------------- shared rules


def first_step(row, params, given, **values):
    """Weights after one step."""
    optimizer = OPTIMIZERS[row](**values)
    return optax.apply_updates(params, optimizer.update(given, optimizer.init(params), params)[0])


PLAIN = {"learning_rate": 0.1, "momentum": 0.0}


def test_adaptive_clipping_is_that_of_optax():
    theirs = optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(0.1, momentum=0.0))
    found, _ = solo("sgd", start(), PLAIN | {"clip_adaptive": 0.1}, {})
    assert_close(found, plain(theirs, start()), rtol=1e-5)


def test_clip_value_cuts_each_number():
    params = start()
    given = gradient(params, 0)
    expected = jax.tree.map(lambda p, g: p - 0.1 * np.clip(g, -0.5, 0.5), params, given)
    assert_close(first_step("sgd", params, given, **PLAIN, clip_value=0.5), expected, rtol=1e-6)


def test_clips_are_applied_in_order_and_penalties_after_them():
    params = start()
    given = gradient(params, 0)
    scale = min(1.0, 4.0 / np.linalg.norm(_flat(given)))
    cut = jax.tree.map(lambda g: np.clip(g * scale, -1.0, 1.0), given)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.3 * np.sign(p) + 0.2 * p), params, cut)
    found = first_step("sgd", params, given, **PLAIN, clip_norm=4.0, clip_value=1.0, l1=0.3, weight_decay=0.2)
    assert_close(found, expected, rtol=1e-5)


@pytest.mark.parametrize("row", [row for row in ROWS if row != "schedule_free_sgd"])
@pytest.mark.parametrize("mask", ["all", "matrices"])
def test_l2_is_a_gradient(row, mask):
    params = start()
    given = gradient(params, 0)
    steeper = {name: g + (0.2 * params[name] if mask == "all" or name == "w" else 0) for name, g in given.items()}
    found = first_step(row, params, given, **base(row), weight_decay=0.2, decay="l2", decay_mask=mask)
    assert_close(found, first_step(row, params, steeper, **base(row)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ("lamb", "prodigy", *FREE)])
@pytest.mark.parametrize("mask", ["all", "matrices"])
def test_decoupled_decay_is_a_step_of_its_own(row, mask):
    """Not for lamb, which sets the length of both together, nor for those whose first step is shorter than the rate."""
    params = start()
    given = gradient(params, 0)
    without = first_step(row, params, given, **base(row))
    rate = base(row)["learning_rate"]
    expected = {n: p - (rate * 0.01 * params[n] if mask == "all" or n == "w" else 0) for n, p in without.items()}
    found = first_step(row, params, given, **base(row), weight_decay=0.01, decay="decoupled", decay_mask=mask)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_rests_is_left_out_of_the_program():
    """Plain numbers that turn a rule off cost nothing; traced ones stay."""

    def size(**values):
        optimizer = OPTIMIZERS["adamw"](**values)
        state = optimizer.init(start())
        return len(jax.make_jaxpr(optimizer.update)(start(), state, start()).eqns)

    off = {"clip_norm": math.inf, "clip_value": math.inf, "clip_adaptive": math.inf}
    off |= {"l1": 0.0, "weight_decay": 0.0, "accumulate": 1.0, "average": 0.0}
    assert size() == size(**off)
    for name, value in off.items():
        assert size(**{name: np.float32(value)}) > size()


@pytest.mark.parametrize("row", ROWS)
def test_members_are_born_with_the_state_they_are_trained_with(row):
    """Whatever is traced: nothing, everything, or one of those with state."""
    names = list(traced(row))
    for given in ([], names, ["accumulate"], ["average"], ["weight_decay", "clip_norm"]):
        values = {name: np.float32(traced(row)[name].default) for name in given}
        wanted = jax.eval_shape(lambda p, v: OPTIMIZERS[row](**v).init(p), start(), values)
        assert jax.eval_shape(lambda p, given=given: opened(OPTIMIZERS[row], given)().init(p), start()) == wanted


def test_a_later_keyword_overrides_what_is_opened():
    params = start()
    optimizer = opened(OPTIMIZERS["sgd"], ["learning_rate", "momentum"])
    updates, _ = (o := optimizer(**PLAIN)).update(params, o.init(params), params)
    assert_close(updates, jax.tree.map(lambda p: -0.1 * p, params), rtol=1e-6)


def test_a_function_of_ones_own_is_opened_by_what_its_types_allow():
    def own(*, learning_rate: float, decay: float = 0.5) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=decay)

    found = opened(own, ["learning_rate", "decay"])
    assert found.keywords == {"learning_rate": 1.0, "decay": 0.5}
    assert not any(isinstance(value, float) for value in found.keywords.values())


# ---------------------------------------------------------------------------------------------------------- accumulation


def fed(row, params, gradients, counts, **values):
    """Weights after each of the given gradients, the count in force changing from one to the next."""

    def step(carry, given):
        params, state = carry
        each, count = given
        optimizer = OPTIMIZERS[row](**values, accumulate=count)
        updates, new_state = optimizer.update(each, state, params)
        params = optax.apply_updates(params, updates)
        return (params, _as_before(new_state, state)), params

    state = OPTIMIZERS[row](**values, accumulate=jnp.float32(1.0)).init(params)
    return jax.lax.scan(step, (params, state), (gradients, counts))[1]


def gradients_of(n, shape=(3,)):
    return jax.random.normal(jax.random.key(1), (n, *shape))


@pytest.mark.parametrize("row", ["adamw", "muon", "schedule_free_adamw", "prodigy"])
def test_an_update_is_one_step_on_the_mean_gradient(row):
    """Clipping included, which therefore sees the mean."""
    params, given, values = jnp.ones(3), gradients_of(6), base(row) | {"clip_norm": 0.5}
    found = fed(row, params, given, jnp.full(6, 3.0), **values)
    expected = fed(row, params, given.reshape(2, 3, 3).mean(axis=1), jnp.ones(2), **values)
    np.testing.assert_allclose(found, np.stack([params, params, expected[0], expected[0], expected[0], expected[1]]), rtol=1e-5)


def test_members_accumulate_each_by_its_own_count():
    params, given = jnp.ones(3), gradients_of(12)
    counts = jnp.array([1.0, 2.4, 2.6, 4.0])
    found = jax.vmap(lambda k: fed("adamw", params, given, jnp.full(12, k), **base("adamw"))[-1])(counts)
    for k, last in zip([1, 2, 3, 4], found, strict=True):
        expected = fed("adamw", params, given.reshape(-1, k, 3).mean(axis=1), jnp.ones(12 // k), **base("adamw"))[-1]
        np.testing.assert_allclose(last, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([2, 2, 4, 4, 4, 4], [[0, 1], [2, 3, 4, 5]]),
        ([2, 4, 4, 4, 4, 1], [[0, 1, 2, 3], [4, 5]]),  # grows and shrinks while it waits
        ([5, 5, 5, 2, 2, 2], [[0, 1, 2, 3], [4, 5]]),  # shrinks below what it has: due at once, and nothing is lost
        ([0.2, 0.2, 1, 1, 3, 0], [[0], [1], [2], [3], [4, 5]]),  # a schedule may shape it to less than one
    ],
)
def test_a_count_may_change_midway(counts, groups):
    params, given = jnp.ones(3), gradients_of(6)
    found = fed("sgd", params, given, jnp.array(counts, jnp.float32), learning_rate=0.1)
    means = jnp.stack([given[jnp.array(group)].mean(axis=0) for group in groups])
    expected = fed("sgd", params, means, jnp.ones(len(groups)), learning_rate=0.1)
    np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-5)
    for group, after in zip(groups, expected, strict=True):
        np.testing.assert_allclose(found[group[-1]], after, rtol=1e-5)


def test_the_state_waits_with_the_weights():
    params, given = jnp.ones(3), gradients_of(1)[0]
    optimizer = OPTIMIZERS["adamw"](accumulate=2.0, average=0.9)
    before = optimizer.init(params)
    _, after = optimizer.update(given, before, params)
    jax.tree.map(np.testing.assert_array_equal, after.inner, before.inner)
    assert int(after.gathered) == 1


def test_an_update_that_is_not_due_spoils_nothing():
    """An infinite step of a partial mean is not multiplied by zero."""
    params = jnp.ones(2)
    optimizer = OPTIMIZERS["sgd"](learning_rate=math.inf, accumulate=2.0)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_array_equal(updates, 0)


# ------------------------------------------------------------------------------------------------------------- averaging


@pytest.mark.parametrize("decays", [[0.9] * STEPS, [0.5, 0.5, 0.9, 0.9, 0.0, 0.7]])
def test_the_average_is_the_recursion(decays):
    """Without bias, and with a decay that changes on the way."""
    params, kept = jnp.array([3.0, -2.0]), []
    state = OPTIMIZERS["adam"](average=np.float32(0.5)).init(params)
    np.testing.assert_array_equal(evaluation_params(state, params), params)
    for decay in decays:
        optimizer = OPTIMIZERS["adam"](learning_rate=0.3, average=np.float32(decay))
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
        kept.append(np.asarray(params, np.float64))
    shares = np.array([(1 - d) * np.prod(decays[i + 1 :]) for i, d in enumerate(decays)])
    expected = (shares / shares.sum()) @ np.stack(kept)
    np.testing.assert_allclose(evaluation_params(state, params), expected, rtol=1e-5)
    assert averages(state)


def test_the_average_does_not_disturb_training_and_feels_small_steps_in_bfloat16():
    params = {"w": jnp.full(3, 256.0, jnp.bfloat16)}
    static, values = {}, {"learning_rate": 1.0, "momentum": 0.0}
    alone, _ = solo("sgd", params | {"b": jnp.ones(2, jnp.bfloat16)}, values, static)
    after, state = solo("sgd", params | {"b": jnp.ones(2, jnp.bfloat16)}, values | {"average": 0.999}, static)
    jax.tree.map(np.testing.assert_array_equal, after, alone)
    assert state.mean["w"].dtype == jnp.float32
    assert evaluation_params(state, after)["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize("row", ["sgd", "muon", *FREE])
def test_weights_are_evaluated_as_they_are_where_nothing_is_averaged(row):
    params = start()
    for accumulate in (1.0, 2.0):
        state = OPTIMIZERS[row](accumulate=accumulate).init(params)
        assert averages(state) == (row in FREE)
        assert (evaluation_params(state, params) is params) == (row not in FREE)


@pytest.mark.parametrize("accumulate", [1.0, 2.0])
def test_schedule_free_weights_are_evaluated_as_in_optax(accumulate):
    params = start()
    values = {"learning_rate": 0.1, "b1": 0.7, "accumulate": accumulate}
    ours = compiled(lambda p: trained("schedule_free_sgd", p, values, {}))(params)
    given = optax.MultiSteps(contrib.schedule_free_sgd(0.1, b1=0.7), int(accumulate)).gradient_transformation()
    state = given.init(params)
    for i in range(STEPS):
        updates, state = given.update(gradient(params, i), state, params)
        params = optax.apply_updates(params, updates)
    expected = contrib.schedule_free_eval_params(state.inner_opt_state, params)
    assert_close(evaluation_params(ours[1], ours[0]), expected, rtol=1e-4, atol=1e-5)


def test_a_schedule_free_average_outlives_a_change_of_b1():
    """Members are born before their b1 is known, and a selector may change it: x and z stay where they are."""
    params = start()
    state = OPTIMIZERS["schedule_free_sgd"]().init(params)
    for i, b1 in enumerate([0.5, 0.5, 0.5]):
        optimizer = OPTIMIZERS["schedule_free_sgd"](learning_rate=0.1, b1=b1)
        updates, state = optimizer.update(gradient(params, i), state, params)
        params = optax.apply_updates(params, updates)
    average = evaluation_params(state, params)
    still = OPTIMIZERS["schedule_free_sgd"](learning_rate=0.0, b1=0.9, weight_lr_power=200.0)
    updates, state = still.update(gradient(params, 3), state, params)
    assert any(abs(leaf).max() > 1e-2 for leaf in jax.tree.leaves(updates))
    assert_close(evaluation_params(state, optax.apply_updates(params, updates)), average, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", FREE)
def test_weights_count_by_their_learning_rate(row):
    """After a warm-up, late weights count more than early ones, by the power."""

    def average(power):
        params = start()
        state = OPTIMIZERS[row]().init(params)
        for i in range(3):
            optimizer = OPTIMIZERS[row](learning_rate=0.1 * (i + 1), weight_lr_power=power)
            updates, state = optimizer.update(gradient(params, i), state, params)
            params = optax.apply_updates(params, updates)
        return _flat(evaluation_params(state, params))

    assert abs(average(2.0) - average(0.5)).max() > 1e-3


def test_an_average_of_schedule_free_weights_is_of_those_evaluated():
    params = start()
    optimizer = OPTIMIZERS["schedule_free_sgd"](learning_rate=0.1, average=0.5)
    updates, state = optimizer.update(gradient(params, 0), optimizer.init(params), params)
    params = optax.apply_updates(params, updates)
    assert_close(evaluation_params(state, params), evaluation_params(state.inner, params), rtol=1e-6)


def test_prodigy_survives_a_warm_up_from_zero_and_starts_from_its_own_estimate():
    params = start()
    state = OPTIMIZERS["prodigy"]().init(params)  # born before its estim_lr0 is known
    for i, rate in enumerate([0.0, 0.0, 1.0, 1.0]):
        optimizer = OPTIMIZERS["prodigy"](learning_rate=rate, estim_lr0=0.05)
        updates, state = optimizer.update(gradient(params, i), state, params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
        params = optax.apply_updates(params, updates)
        assert (_flat(params) == _flat(start())).all() == (rate == 0.0)
