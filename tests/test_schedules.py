"""Every row of `SCHEDULES` meets one contract; a new row needs a reference here and gets the rest of the tests for free."""

import functools
import itertools
import math
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.schedules import SCHEDULES
from vmaptune.settings import convert, settings

# ---------------------------------------------------------------------------------------------------------- references


def constant(t):
    return np.ones_like(t)


def warmup_cosine(t, warmup, floor):
    values = np.empty_like(t)
    for i, p in enumerate(t):
        if p < warmup:
            values[i] = p / warmup
        else:
            values[i] = floor + (1 - floor) * (1 + math.cos(math.pi * (p - warmup) / (1 - warmup))) / 2
    return values


REFERENCES = {"constant": constant, "warmup_cosine": warmup_cosine}
"""NumPy float64 functions of t f64[n] and the row's settings, written from the papers and not from our code."""

# --------------------------------------------------------------------------------------------------------------- knobs
PROGRESS = (np.arange(1000) / 1000).astype(np.float32)
OPEN = 10.0  # as far as a knob without an upper bound is tried
FAMILIES = list(SCHEDULES)
KNOBS = [(name, knob) for name, family in SCHEDULES.items() for knob in settings(family)]


def _range(setting):
    """Smallest and largest float32 that the annotation allows."""
    metas = get_args(setting.annotation)[1:]
    bound = {k: getattr(m, k) for m in metas for k in ("gt", "ge", "lt", "le") if getattr(m, k, None) is not None}
    low = np.float32(bound.get("ge", bound.get("gt", -OPEN)))
    high = np.float32(bound.get("le", bound.get("lt", low + np.float32(OPEN))))
    tiny = np.finfo(np.float32).tiny  # devices flush anything smaller to zero
    if "gt" in bound:
        low = np.maximum(np.nextafter(low, np.float32(np.inf)), tiny) if low == 0 else np.nextafter(low, np.float32(np.inf))
    if "lt" in bound:
        high = np.nextafter(high, np.float32(-np.inf))
    return float(low), float(high)


def _legal(setting):
    """A strategy of the values that a setting may have."""
    if setting.traced:
        return st.floats(*_range(setting), width=32, allow_subnormal=False)
    return st.sampled_from(_candidates(setting))


def _candidates(setting):
    """A few legal values that cover the ends and the middle of a setting's range."""
    if setting.traced:
        low, high = _range(setting)
        return [low, low + (high - low) / 4, low + (high - low) / 2, high]
    if setting.annotation is bool:
        return [False, True]
    if get_origin(setting.annotation) is Literal:
        return list(get_args(setting.annotation))
    return [setting.default, setting.default + 1]


def _corners(family):
    """Every combination of candidates, by name."""
    known = settings(family)
    return [dict(zip(known, values, strict=True)) for values in itertools.product(*map(_candidates, known.values()))]


@functools.cache
def _compiled(name, static):
    family = functools.partial(SCHEDULES[name], **dict(static))
    return jax.jit(jax.vmap(lambda t, knobs: family(t, **knobs), in_axes=(0, None)))


def curve(name, t, values):
    """The multiplier f32[n] at progress f32[n], compiled once a row: knobs are traced, other settings are not."""
    known = settings(SCHEDULES[name])
    static = tuple((k, v) for k, v in values.items() if not known[k].traced)
    knobs = {k: jnp.float32(v) for k, v in values.items() if known[k].traced}
    return np.asarray(_compiled(name, static)(jnp.asarray(t), knobs))


# ------------------------------------------------------------------------------------------------------------ contract


def test_every_row_has_a_reference():
    assert set(REFERENCES) == set(SCHEDULES)


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
def test_a_family_equals_its_reference(name, data):
    values = {k: data.draw(_legal(s), label=k) for k, s in settings(SCHEDULES[name]).items()}
    expected = REFERENCES[name](PROGRESS.astype(np.float64), **values)
    np.testing.assert_allclose(curve(name, PROGRESS, values), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_its_reference_at_the_ends_of_its_knobs(name):
    for values in _corners(SCHEDULES[name]):
        expected = REFERENCES[name](PROGRESS.astype(np.float64), **values)
        np.testing.assert_allclose(curve(name, PROGRESS, values), expected, rtol=1e-5, atol=2e-6, err_msg=str(values))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_finite_for_every_progress_and_horizon(name):
    horizons = [np.arange(h, dtype=np.float32) / np.float32(h) for h in (1, 2, 3)]
    t = np.concatenate([PROGRESS, *horizons, [np.nextafter(np.float32(1), np.float32(0))]]).astype(np.float32)
    for values in _corners(SCHEDULES[name]):
        assert np.isfinite(curve(name, t, values)).all(), values


@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_no_knob_is_dead(name, knob):
    known = settings(SCHEDULES[name])
    reached = set()
    for others in _corners(SCHEDULES[name]):
        curves = [curve(name, PROGRESS, others | {knob: value}) for value in _candidates(known[knob])]
        reached |= {i for i, c in enumerate(curves) if not np.allclose(c, curves[0], atol=1e-3)}
    assert reached == set(range(1, len(_candidates(known[knob])))), "some value of the knob changes no curve"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_traces_with_every_knob_batched(name):
    """As in training: each member has its own knobs, and its own progress."""
    known = settings(SCHEDULES[name])
    static = {k: s.default for k, s in known.items() if not s.traced}
    rng = np.random.default_rng(0)
    ranges = {k: _range(s) for k, s in known.items() if s.traced}
    knobs = {k: rng.uniform(*ends, 16).astype(np.float32) for k, ends in ranges.items()}
    t = rng.uniform(0, 1, 16).astype(np.float32)
    together = jax.jit(jax.vmap(lambda t, knobs: SCHEDULES[name](t, **static, **knobs)))(t, knobs)
    assert together.shape == (16,)
    assert together.dtype == jnp.float32
    for i in range(16):
        alone = {k: float(v[i]) for k, v in knobs.items()}
        expected = REFERENCES[name](t[i : i + 1].astype(np.float64), **static, **alone)
        np.testing.assert_allclose(together[i], expected[0], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_a_float32_scalar(name):
    known = settings(SCHEDULES[name])
    static = {k: s.default for k, s in known.items() if not s.traced}
    knobs = {k: jnp.float32(s.default) for k, s in known.items() if s.traced}
    out = jax.eval_shape(lambda t, knobs: SCHEDULES[name](t, **static, **knobs), jnp.float32(0), knobs)
    assert out == jax.ShapeDtypeStruct((), jnp.float32)


@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_every_knob_is_explained_and_its_default_is_legal(name, knob):
    setting = settings(SCHEDULES[name])[knob]
    assert setting.help
    assert convert(setting, setting.default, knob) == setting.default


# ----------------------------------------------------------------------------------------------------------- each family


@pytest.mark.parametrize(("warmup", "floor"), [(0.0, 0.0), (0.25, 0.0), (0.1, 0.1), (0.5, 0.9), (0.99, 0.5), (0.3, 1.0)])
def test_warmup_cosine_is_that_of_optax(warmup, floor):
    steps = 200
    theirs = optax.warmup_cosine_decay_schedule(0.0, 1.0, round(warmup * steps), steps, floor)
    expected = [float(theirs(step)) for step in range(steps)]
    t = (np.arange(steps) / steps).astype(np.float32)
    ours = curve("warmup_cosine", t, {"warmup": warmup, "floor": floor})
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_warmup_cosine_rises_to_one_and_falls_to_the_floor():
    ours = curve("warmup_cosine", np.float32([0.0, 0.125, 0.25, 0.625, 1.0]), {"warmup": 0.25, "floor": 0.2})
    np.testing.assert_allclose(ours, [0.0, 0.5, 1.0, 0.6, 0.2], atol=1e-6)


def test_warmup_cosine_without_warmup_starts_at_one():
    assert curve("warmup_cosine", np.float32([0.0]), {"warmup": 0.0, "floor": 0.0}) == [1.0]


def test_constant_is_one():
    assert (curve("constant", PROGRESS, {}) == 1).all()
