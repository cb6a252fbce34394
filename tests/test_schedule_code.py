"""The winner's schedule elsewhere: as an optax schedule, and as code that is run here as its users would run it."""

from __future__ import annotations

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

import vmaptune as vt
from vmaptune.analysis.closed_forms import expression, rise
from vmaptune.analysis.schedule_code import knots, read_schedule, snippet
from vmaptune.errors import ConfigError, StoreError
from vmaptune.schedules import SCHEDULES
from vmaptune.settings import settings

STEPS = 40
FORMS = ["constant", "linear", "polynomial", "cosine", "sqrt", "rex", "step", "exponential", "inverse_sqrt", "power", "wsd"]


def knobs_of(family, **given):
    return {name: setting.default for name, setting in settings(SCHEDULES[family]).items()} | given


def rates_of(family, rate, knobs, steps=STEPS):
    t = jnp.arange(steps, dtype=jnp.float32) / steps
    return np.asarray(jnp.float32(rate) * SCHEDULES[family](t, **knobs), np.float32)


def left_behind(folder, rates, family="constant", knobs=None, rate=0.1):
    """What a run with such a winner leaves behind, as far as its schedule is concerned."""
    best = folder / "best"
    best.mkdir(parents=True)
    (folder / "config.toml").write_text("")
    with (best / "schedule.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "trial", "optimizer.learning_rate", "optimizer.b1"])
        writer.writerows([i, 0, str(np.float32(value)), "0.9"] for i, value in enumerate(rates))
    tree = {"schedule": {"name": family, **(knobs or knobs_of(family))}, "optimizer": {"learning_rate": rate}}
    tree["population"] = {"segment_steps": len(rates), "generations": 1}
    (best / "hyperparameters.toml").write_text(tomlkit.dumps(tree))
    return folder


def run_optax(code):
    scope = {}
    exec(code, scope)
    return scope["schedule"]


def run_torch(code):
    """The learning rates that LambdaLR would set: the optimizer's own, which the code says, times the multiplier."""
    scope = {}
    exec(code, scope)
    assert f"lr=PEAK)\n# scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, {scope['multiplier'].__name__})" in code
    return lambda step: scope["PEAK"] * scope["multiplier"](step)


@pytest.mark.parametrize("family", FORMS)
@given(data=st.data())
def test_expressions_say_what_the_families_do(family, data):
    unit, some = st.floats(0.0625, 0.9375, width=32), st.floats(0.25, 4.0, width=32)
    wide = {"power": some, "exponent": some, "beta": some, "warmup_power": some, "warmup": st.sampled_from([0.0, 0.2])}
    wide |= {
        "every": st.sampled_from([0.3, 0.47]),
        "decay": st.sampled_from([0.21, 0.63]),
    }  # whose multiples are no step: there, roundings decide
    texts = {"warmup_shape": ["linear", "cosine", "exponential", "polynomial"], "cooldown": ["linear", "cosine", "sqrt"]}
    draws = {k: st.sampled_from(texts[k]) if k in texts else wide.get(k, unit) for k in settings(SCHEDULES[family])}
    knobs = {name: data.draw(draw, label=name) for name, draw in draws.items()}
    t = np.arange(STEPS) / STEPS
    x = np.clip((t - knobs["warmup"]) / (1 - knobs["warmup"]), 0, 1)
    scope = {"np": np, "x": x, "t": t}
    found = eval(expression(family, knobs), scope) * np.ones(STEPS)
    if risen := rise(knobs):
        found = found * np.where(t < knobs["warmup"], eval(risen, scope), 1)
    np.testing.assert_allclose(found, rates_of(family, 1.0, knobs), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
@pytest.mark.parametrize("family", FORMS)
def test_a_lineage_of_one_formula_is_written_as_the_formula(tmp_path, family, warmup):
    knobs = knobs_of(family, warmup=warmup, warmup_shape="cosine")
    rates = rates_of(family, 0.03, knobs)
    folder = left_behind(tmp_path / "run", rates, family, knobs, 0.03)
    for library, run in (("optax", run_optax), ("torch", run_torch)):
        code = snippet(folder, library)
        schedule = run(code)
        assert "[" not in code  # no table
        assert len(code) < 700
        np.testing.assert_allclose([schedule(i) for i in range(STEPS)], rates, rtol=2e-5, atol=1e-8)
        np.testing.assert_allclose(schedule(10 * STEPS), rates[-1], rtol=2e-5, atol=1e-8)


def test_a_lineage_that_was_handed_on_is_written_as_a_table(tmp_path):
    one, other = rates_of("cosine", 0.1, knobs_of("cosine")), rates_of("linear", 0.03, knobs_of("linear", warmup=0.2))
    rates = np.concatenate([one[:15], other[15:30], np.full(70, one[30])])
    folder = left_behind(tmp_path / "run", rates, "cosine")
    for library, run in (("optax", run_optax), ("torch", run_torch)):
        code = snippet(folder, library)
        assert code.count(",") < 60  # the constant end and the line are two points each
        schedule = run(code)
        np.testing.assert_allclose([schedule(i) for i in range(100)], rates, rtol=1e-6)
        np.testing.assert_allclose(schedule(1000), rates[-1], rtol=1e-6)


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=40))
def test_between_knots_values_are_linear_to_a_unit_in_the_last_place(values):
    values = np.array(values, np.float32)
    steps = knots(values)
    found = np.interp(np.arange(len(values)), steps, values[steps].astype(np.float64))
    assert (np.abs(found - values) <= 1.001 * np.spacing(values)).all()
    assert (steps[0], steps[-1]) == (0, len(values) - 1)
    assert (np.diff(steps) > 0).all()


def test_lines_take_two_knots_and_corners_one_more():
    assert knots(np.float32(0.5) * np.ones(1000, np.float32)).tolist() == [0, 999]
    assert knots(np.abs(np.arange(-8, 9)).astype(np.float32)).tolist() == [0, 8, 16]


def test_the_optax_schedule_is_what_was_applied_to_the_bit(tmp_path):
    rates = np.random.default_rng(0).random(STEPS).astype(np.float32)
    folder = left_behind(tmp_path / "run", rates)
    schedule = vt.as_optax_schedule(folder)
    np.testing.assert_array_equal([schedule(i) for i in range(STEPS)], rates)
    steps = jnp.arange(STEPS + 5)
    held = np.append(rates, [rates[-1]] * 5)
    np.testing.assert_array_equal(jax.jit(jax.vmap(schedule))(steps), held)
    np.testing.assert_array_equal(jax.lax.map(schedule, steps), held)
    np.testing.assert_array_equal(vt.as_optax_schedule(folder, "optimizer.b1")(3), np.float32(0.9))
    np.testing.assert_array_equal(read_schedule(folder), rates)


def test_optax_steps_by_it(tmp_path):
    rates = np.array([0.5, 0.25, 0.125], np.float32)
    optimizer = optax.sgd(vt.as_optax_schedule(left_behind(tmp_path / "run", rates)))
    state, moved = optimizer.init(jnp.float32(0)), []
    for _ in range(4):
        update, state = optimizer.update(jnp.float32(1), state)
        moved.append(-float(update))
    assert moved == [0.5, 0.25, 0.125, 0.125]


def test_what_is_not_there_is_told_in_a_sentence(tmp_path):
    folder = left_behind(tmp_path / "run", [0.1, 0.2])
    with pytest.raises(ConfigError, match="expected optax or torch; given: 'keras'"):
        snippet(folder, "keras")
    with pytest.raises(ConfigError, match=r"no hyperparameter 'learning_rate'; did you mean 'optimizer.learning_rate'\?"):
        vt.as_optax_schedule(folder, "learning_rate")
    (folder / "best" / "schedule.csv").unlink()
    with pytest.raises(StoreError, match="the run has left no winner yet; finish it"):
        snippet(folder, "torch")
