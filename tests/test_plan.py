"""A layout decides where and how wide members are computed, and nothing else: `spread` is `vmap`, whatever the plan."""

import math
import os
import subprocess
import sys
import textwrap
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

import vmaptune as vt
from tests.conftest import SMALL
from vmaptune import models, tasks
from vmaptune.data.splits import split_classification
from vmaptune.errors import ConfigError
from vmaptune.optimizers import adamw
from vmaptune.plan import AXIS, Plan, make_plan, spread
from vmaptune.population import Offspring, inherit, init_population, make_newborn
from vmaptune.schedules import cosine
from vmaptune.space import Axis, Space
from vmaptune.train import make_evaluate, make_segment

SPACE = Space(
    {
        "optimizer.learning_rate": Axis(1e-3, 1e-1, "log"),
        "schedule.warmup": Axis(0.0, 0.3),
        "task.dropout": Axis(0.0, 0.5),
    }
)
LOWERINGS = ("grouped", "canonical", "im2col")


def equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def first(tree, n):
    return jax.tree.map(lambda leaf: leaf[:n], tree)


# -------------------------------------------------------------------------------------------------------- arithmetic


@given(st.integers(1, 500), st.integers(1, 16), st.integers(1, 70))
def test_chunks_hold_everybody_and_little_else(n, devices, chunk):
    plan = Plan(devices, chunk)
    count, width = plan.chunks(n)
    block = math.ceil(n / devices)
    assert plan.padded(n) == devices * count * width
    assert count * width >= block  # so that every device's block fits, and with it everybody
    assert 1 <= width <= chunk
    assert (count - 1) * chunk < block  # not one chunk more than the width allows
    assert (count - 1) * width < block  # nor one of dead slots alone
    assert (width - 1) * count < block  # nor any wider than needed: balanced
    assert 0 <= plan.padded(n) - n < devices * count


@given(st.integers(1, 500), st.integers(1, 16))
def test_a_chunk_as_wide_as_the_block_is_the_block(n, devices):
    block = math.ceil(n / devices)
    for chunk in (block, block + 1, 10 * block):
        assert Plan(devices, chunk).chunks(n) == (1, block)
    assert Plan(devices, 1).chunks(n) == (block, 1)


@pytest.mark.parametrize(
    ("n", "plan", "chunks", "padded"),
    [
        (64, Plan(2, 8), (4, 8), 64),
        (7, Plan(2, 8), (1, 4), 8),
        (7, Plan(2, 3), (2, 2), 8),
        (9, Plan(1, 4), (3, 3), 9),
        (10, Plan(1, 4), (3, 4), 12),
        (1, Plan(2, 1), (1, 1), 2),
        (5, Plan(4, 8), (1, 2), 8),  # the last device has nobody
    ],
)
def test_chunks_of_some_populations(n, plan, chunks, padded):
    assert (plan.chunks(n), plan.padded(n)) == (chunks, padded)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(1, 1), "1 device x 1 member, grouped"),
        (Plan(2, 8, "canonical"), "2 devices x 8 members, canonical"),
        (Plan(1, 16, "im2col", 4), "1 device x 16 members, im2col, unroll 4"),
    ],
)
def test_a_plan_in_words(plan, words):
    assert str(plan) == words


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_slots_are_parted_where_they_come_out_even_and_held_whole_where_not(n):
    plan = Plan(2, 4)
    array = jax.device_put(jnp.arange(n), plan.slots(n))
    held = sorted(shard.data.shape[0] for shard in array.addressable_shards)
    assert held == ([n // 2] * 2 if n % 2 == 0 else [n, n])
    assert plan.slots(n).spec == (PartitionSpec(AXIS) if n % 2 == 0 else PartitionSpec())


def test_everywhere_is_whole_on_each_of_the_plans_devices_and_no_other():
    for devices in (1, 2):
        array = jax.device_put(jnp.arange(6), Plan(devices, 1).everywhere)
        assert [shard.data.shape for shard in array.addressable_shards] == [(6,)] * devices
        assert array.devices() == set(jax.devices()[:devices])


# --------------------------------------------------------------------------------------------------------- make_plan


@pytest.mark.parametrize(
    ("n", "options", "sentence"),
    [
        (8, {"devices": 3}, r"^plan.devices: only 2 available; given: 3$"),
        (1, {"devices": 2}, r"^plan.devices: more than population.size = 1; given: 2$"),
        (8, {"strict": True, "chunk": 2}, r"^plan.chunk: the strict plan trains members one by one, in chunks of 1; given: 2$"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(n, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_plan(n, **options)


@pytest.mark.parametrize(
    ("n", "options", "plan"),
    [
        (1, {}, Plan(1, 1, "canonical")),
        (3, {}, Plan(2, 2, "canonical")),
        (64, {}, Plan(2, 8, "canonical")),  # eight: what a CPU's caches hold
        (64, {"devices": 1}, Plan(1, 8, "canonical")),
        (64, {"chunk": 5}, Plan(2, 5, "canonical")),
        (64, {"chunk": 1000}, Plan(2, 32, "canonical")),  # no wider than the block
        (64, {"lowering": "im2col", "unroll": 4}, Plan(2, 8, "im2col", 4)),
        (64, {"strict": True}, Plan(2, 1, "canonical")),
        (64, {"strict": True, "chunk": 1}, Plan(2, 1, "canonical")),
        (5, {"strict": True, "devices": 1}, Plan(1, 1, "canonical")),
    ],
)
def test_the_rule_of_thumb_on_two_devices(n, options, plan):
    assert make_plan(n, **options) == plan


@given(
    st.integers(1, 100),
    st.integers(0, 2),
    st.integers(0, 40),
    st.sampled_from([None, *LOWERINGS]),
    st.integers(0, 5),
    st.booleans(),
)
def test_what_is_given_is_kept_to(n, devices, chunk, lowering, unroll, strict):
    if (devices > n and not strict) or (strict and chunk > 1):
        with pytest.raises(ConfigError, match=r"^plan\.(devices|chunk): "):
            make_plan(n, devices=devices, chunk=chunk, lowering=lowering, unroll=unroll, strict=strict)
        return
    plan = make_plan(n, devices=devices, chunk=chunk, lowering=lowering, unroll=unroll, strict=strict)
    assert plan.devices == (devices or (2 if strict else min(2, n)))
    assert plan.chunk <= math.ceil(n / plan.devices)
    if chunk:
        assert plan.chunk == min(chunk, math.ceil(n / plan.devices))
    if strict:
        assert plan.chunk == 1
    assert plan.lowering == (lowering or "canonical")
    assert plan.unroll == (unroll or 1)


# ------------------------------------------------------------------------------------------------------------ spread


def draws(shared, member):
    """A result that needs all of a member, keys included, and all that is shared; has leaves of every kind."""
    offset, tables = shared
    noise = jax.random.normal(member["key"], (3,))
    picked = tables["rows"][member["number"]]
    return {
        "noise": noise + offset,
        "pick": picked * member["scale"],
        "number": member["number"] + tables["int"],
        "key": jax.random.fold_in(member["key"], member["number"]),
        "flag": member["number"] % 2 == 0,
    }


def members_of(n, seed=0):
    key = jax.random.key(seed)
    return {
        "key": jax.random.split(key, n),
        "number": jnp.arange(n),
        "scale": jax.random.normal(jax.random.fold_in(key, 1), (n, 2)),
    }


SHARED = (jnp.float32(3.0), {"rows": jnp.arange(40.0).reshape(20, 2), "int": jnp.int32(7)})


def as_data(tree):
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf, tree
    )


@effort(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 2), st.integers(1, 10), st.sampled_from(LOWERINGS))
def test_spread_is_vmap(n, devices, chunk, lowering):
    """No arithmetic here depends on the width, so the results are the same to the bit."""
    members, plan = members_of(n), Plan(devices, chunk, lowering)
    found = jax.jit(lambda shared, members: spread(draws, plan, shared, members))(SHARED, members)
    expected = jax.jit(jax.vmap(draws, in_axes=(None, 0)))(SHARED, members)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    equal(as_data(found), as_data(expected))


@pytest.mark.parametrize("plan", [Plan(1, 2), Plan(2, 1), Plan(2, 2), Plan(2, 9)])
def test_nothing_need_be_shared_and_nothing_jitted(plan):
    members = jnp.arange(5.0)
    np.testing.assert_array_equal(spread(lambda shared, x: x * 2 if shared is None else x, plan, None, members), members * 2)


@effort(max_examples=25)
@given(st.integers(2, 9), st.integers(1, 2), st.integers(1, 5), st.data())
def test_who_stands_beside_a_member_is_nothing_to_it(n, devices, chunk, data):
    """Also not the copies that fill the last chunk, which stand in for the last member: breaking one breaks one."""
    plan, broken = Plan(devices, chunk), data.draw(st.integers(0, n - 1))
    members = jnp.arange(1.0, n + 1)
    run = jax.jit(lambda members: spread(lambda _, x: (jnp.log(x), x * jnp.arange(3.0)), plan, None, members))
    before, after = run(members), run(members.at[broken].set(jnp.nan))
    others = np.arange(n) != broken
    for one, other in zip(before, after, strict=True):
        assert one.shape[0] == n
        np.testing.assert_array_equal(one[others], other[others])
        assert np.isnan(other[broken]).all()
        assert np.isfinite(one).all()


def test_a_spread_runs_on_the_devices_of_its_plan():
    """A block a device, in the order of slots."""

    def where(_, x):
        return x + 0 * jax.lax.axis_index(AXIS), jax.lax.axis_index(AXIS)

    for n, devices, expected in ((6, 2, [0, 0, 0, 1, 1, 1]), (5, 2, [0, 0, 0, 1, 1]), (3, 1, [0, 0, 0])):
        numbers, devices_used = jax.jit(lambda x, d=devices: spread(where, Plan(d, 3), None, x))(jnp.arange(n))
        assert numbers.tolist() == list(range(n))
        assert devices_used.tolist() == expected


def test_a_spread_is_as_wide_as_its_chunk():
    """What the compiler sees side by side is a chunk, not a population."""
    shapes = ((Plan(1, 3), "3x5"), (Plan(2, 8), "4x5"), (Plan(1, 100), "8x5"), (Plan(2, 1), "5"))  # alone: no axis at all
    for plan, shape in shapes:
        text = jax.jit(lambda x, p=plan: spread(lambda _, v: jnp.sin(v), p, None, x)).lower(jnp.zeros((8, 5))).as_text()
        sines = [line for line in text.splitlines() if "sine" in line]
        assert sines
        assert all(f"tensor<{shape}xf32>" in line for line in sines), (plan, sines)


# ---------------------------------------------------------------------------------------- plans that train the same


class Pixels(nnx.Module):
    """The smallest network with a convolution, and dropout to draw keys."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.drop = models.Dropout(rngs=rngs)
        self.head = nnx.Linear(3 * 4 * 4, 3, rngs=rngs)

    def __call__(self, x: jax.Array, *, dropout: float = 0.0) -> jax.Array:
        x = nnx.relu(self.conv(x))
        return self.head(self.drop(x.reshape(len(x), -1), dropout))


@pytest.fixture(scope="module")
def pixel_task():
    """Tiny images: so that a lowering has something to lower."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.normal(size=(90, 4, 4, 1)) + labels[:, None, None, None] * rng.normal(size=(4, 4, 1))
    splits = split_classification(images.astype(np.float32), labels.astype(np.int32))
    return tasks.classification(models.from_nnx(lambda rngs: Pixels(rngs=rngs)), splits)


def trained(task, n, plan, *, segments=1, seed=0):
    """A population born and trained under a plan, on batches of its own for each trial."""
    population = init_population(task, SPACE, adamw, size=n, seed=seed, plan=plan)
    segment = make_segment(
        task, SPACE, adamw, cosine, steps=4, horizon=8, batch_size=8, order="independent", seed=seed, plan=plan
    )
    metrics = None
    for generation in range(segments):
        population, metrics = segment(population, generation)
    return jax.device_get((population, metrics))


def layouts(n):
    """Devices and widths of chunks; wider than a device's block is the block again."""
    return [(d, c) for d in (1, 2) for c in sorted({1, 2, 3, math.ceil(n / d)}) if c <= math.ceil(n / d)]


HOW = list(product(LOWERINGS, (1, 3)))
PLANS = [(3, Plan(*layouts(3)[-1], *how)) for how in HOW]  # all ways of one layout; all layouts, in each way in turn
PLANS += [(n, Plan(*layout, *HOW[(i + n) % 6])) for n in (1, 3, 7, 8) for i, layout in enumerate(layouts(n))]
PLANS = list(dict.fromkeys(PLANS))


@pytest.fixture(scope="module")
def side_by_side(pixel_task):
    """What the plans are held against: everybody side by side on one device."""
    return {n: trained(pixel_task, n, Plan(1, n)) for n in (1, 3, 7, 8)}


@pytest.mark.parametrize(("n", "plan"), PLANS, ids=lambda value: str(value))
def test_every_plan_trains_the_same_population(n, plan, pixel_task, side_by_side):
    found, expected = trained(pixel_task, n, plan), side_by_side[n]
    assert np.isfinite(expected[1]["loss"]).all()
    assert found[0].step.tolist() == [4] * n
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), found, expected)


@pytest.mark.parametrize("plan", [Plan(1, 2), Plan(2, 1, "im2col"), Plan(2, 8, "canonical")])
def test_every_plan_measures_the_same(plan, pixel_task):
    population = init_population(pixel_task, SPACE, adamw, size=7)
    expected = make_evaluate(pixel_task, plan=Plan(1, 7))(population)
    found = make_evaluate(pixel_task, batch_size=16, plan=plan)(population)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert len(np.unique(expected["loss"])) == 7


# ------------------------------------------------------------------------------------------------------- strict plan


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("lowering", LOWERINGS)
def test_one_by_one_a_members_bits_do_not_depend_on_the_population(devices, lowering, blob_task, pixel_task):
    for task in (pixel_task,) if lowering != "canonical" else (pixel_task, blob_task):  # nothing to lower without convolutions
        most = trained(task, 8, Plan(devices, 1, lowering), segments=2)
        for n in (1, 3):
            equal(trained(task, n, Plan(devices, 1, lowering), segments=2), first(most, n))


@pytest.mark.parametrize("devices", [1, 2])
def test_one_by_one_a_births_bits_depend_on_its_trial_alone(devices, blob_task):
    """Trial 8, born anew at the end of populations of every size, is the trial 8 that a larger population begins with."""
    newborn = make_newborn(blob_task, adamw, seed=1, plan=Plan(devices, 1))
    begun = jax.device_get(init_population(blob_task, SPACE, adamw, size=9, seed=1, plan=Plan(devices, 1)))
    for n in (1, 3, 5, 8):
        population = init_population(blob_task, SPACE, adamw, size=n, seed=1, plan=Plan(devices, 1))
        population = jax.device_get(population)._replace(trial=np.arange(8 - n, 8, dtype=np.int32))
        genotype = np.concatenate([population.genotype[:-1], begun.genotype[8:]])
        order = Offspring(np.array([*range(n - 1), -1], np.int32), genotype)
        after = jax.device_get(jax.jit(lambda p, o: inherit(p, o, newborn))(population, order))
        assert after.trial[-1] == 8
        equal(jax.tree.map(lambda leaf: leaf[-1], after), jax.tree.map(lambda leaf: leaf[8], begun))
        equal(first(after, n - 1), first(population, n - 1))


def strict_run(folder, n):
    tree = SMALL | {"population": {"size": n, "segment_steps": 5, "generations": 1}, "plan": {"name": "strict"}}
    return vt.tune(tree, out=folder / str(n))


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A strict run of eight members."""
    return strict_run(tmp_path_factory.mktemp("strict"), 8)


@pytest.mark.parametrize("n", [1, 5])
def test_a_strict_run_of_any_size_begins_with_the_same_members_to_the_bit(n, tmp_path, eight):
    """Through `tune`: the rows of the first generation, and the weights after it."""
    run = strict_run(tmp_path, n)
    assert len(run.history) == n
    np.testing.assert_array_equal(np.asarray(run.history), np.asarray(eight.history[:n]))
    equal(jax.device_get(run.population), first(jax.device_get(eight.population), n))


def test_side_by_side_a_members_bits_do_depend_on_it(blob_task):
    """Otherwise the strict plan would have no reason, and the tests above could not fail."""
    wide = trained(blob_task, 8, Plan(1, 8), segments=2)
    one_by_one = trained(blob_task, 8, Plan(1, 1), segments=2)
    same = jax.tree.map(np.array_equal, wide[0].params, one_by_one[0].params)
    assert not all(jax.tree.leaves(same))


# ------------------------------------------------------------------------------------------------- devices of a script


def script(text):
    """Runs a script as a user would; stdout and stderr."""
    kept = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    command = [sys.executable, "-c", textwrap.dedent(text)]
    return subprocess.run(command, env=kept, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("first", ["vt.models", "vt.Axis", "vt.tune"])
def test_a_script_that_uses_vmaptune_first_gets_a_device_a_core(first):
    count = "import jax, vmaptune.plan\nprint(jax.device_count(), vmaptune.plan._cores())"
    found = script(f"import vmaptune as vt\n{first}\n{count}")
    devices, cores = found.stdout.split()
    assert devices == cores


def test_a_script_that_started_jax_first_is_told_that_cores_stay_idle(tmp_path):
    text = f"""
        import jax
        jax.devices()
        import vmaptune.plan
        vmaptune.plan._cores = lambda: 3  # whatever this machine has
        import vmaptune as vt
        size = {{"size": 4, "segment_steps": 1, "generations": 1}}
        vt.tune({{"population": size, "task": {{"hidden": [4]}}}}, out={str(tmp_path / "run")!r})
    """
    told = script(text).stderr
    assert "so 2 stay idle: use vmaptune first, or set JAX_NUM_CPU_DEVICES" in told
