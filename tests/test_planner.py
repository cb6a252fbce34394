"""The choice of a plan: what is pinned is kept to, what was measured is remembered, and what does not fit is not chosen.

Which plan wins is a matter of the machine, and nothing here depends on it.
"""

import json
import math
from itertools import product

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import SMALL
from vmaptune import planner
from vmaptune.cache import cache_folder
from vmaptune.config import resolve
from vmaptune.plan import Plan
from vmaptune.planner import choose_plan, memory_limit

CONVOLUTIONAL = {"name": "digits_cnn", "channels": [2]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of one's own, and rounds as short as they can be: who wins is not the question."""
    monkeypatch.setenv("VMAPTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(planner, "_ROUND_SECONDS", 0.0)
    return tmp_path / "cache" / "plans"


def work(**changes):
    """A resolved config and its task: SMALL, with sections changed."""
    tree = {section: dict(table) for section, table in SMALL.items()} | {"plan": {}}
    for section, values in changes.items():
        tree[section] = values if section == "task" else tree[section] | values
    return resolve(tree)


def measurements(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []


def limited(monkeypatch, limit):
    monkeypatch.setattr(planner, "memory_limit", lambda: limit)


# ------------------------------------------------------------------------------------------------------------ pinned


PINS = [
    {"devices": 1},
    {"chunk": 3},
    {"unroll": 2},
    {"lowering": "im2col"},
    {"lowering": "canonical", "chunk": 2},
    {"devices": 2, "chunk": 2, "lowering": "grouped", "unroll": 3},
    {"name": "strict"},
    {"name": "strict", "devices": 1, "chunk": 1},
]


def keeps_to(plan, pins, n):
    pins = pins | ({"chunk": 1} if pins.get("name") == "strict" else {})
    given = {key: value for key, value in pins.items() if key != "name"}
    if "chunk" in given:
        given["chunk"] = min(given["chunk"], math.ceil(n / plan.devices))
    return all(getattr(plan, key) == value for key, value in given.items())


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("task", [SMALL["task"], CONVOLUTIONAL], ids=["mlp", "cnn"])
@pytest.mark.parametrize("pins", PINS, ids=str)
def test_every_candidate_keeps_to_what_is_pinned(pins, task, n):
    config, made = work(plan=pins, task=task, population={"size": n})
    thumb = choose_plan(config, made, timed=False).plan
    asked = planner.Work(config, made)
    candidates = asked.candidates
    assert candidates[0] == thumb
    assert len(set(candidates)) == len(candidates)
    for plan in candidates:
        assert keeps_to(plan, pins, n), plan
        assert 1 <= plan.chunk <= math.ceil(n / plan.devices)
        assert 1 <= plan.devices <= 2


@pytest.mark.parametrize(
    "pins", [{"devices": 1}, {"chunk": 3}, {"name": "strict"}, {"lowering": "im2col", "unroll": 2}], ids=str
)
def test_the_timed_choice_keeps_to_what_is_pinned(pins):
    config, task = work(plan=pins, task=CONVOLUTIONAL)
    assert keeps_to(choose_plan(config, task, timed=True).plan, pins, 8)


@pytest.mark.parametrize(("pins", "plan"), [({"chunk": 3}, Plan(2, 3)), ({"name": "strict"}, Plan(2, 1))], ids=str)
def test_where_nothing_is_left_to_choose_nothing_is_timed(pins, plan, cache):
    config, task = work(plan=pins)
    choice = choose_plan(config, task, timed=True)
    assert (choice.plan, choice.source) == (plan, "rule of thumb")
    assert measurements(cache) == []


def test_the_strict_plan_is_one_and_the_same_for_every_n():
    """Results that do not depend on N cannot come from a lowering or devices that were chosen by N."""
    layouts = set()
    for n in (1, 3, 8):
        config, task = work(plan={"name": "strict"}, task=CONVOLUTIONAL, population={"size": n})
        asked = planner.Work(config, task)
        layouts |= set(asked.candidates)
    assert len(layouts) == 1, layouts


# --------------------------------------------------------------------------------------------------------- timed once


def test_a_short_run_goes_by_rule_of_thumb(cache):
    config, task = work()
    choice = choose_plan(config, task)
    assert choice.source == "rule of thumb"
    assert [candidate.plan for candidate in choice.candidates] == [choice.plan]
    assert choice.candidates[0].microseconds is None
    assert measurements(cache) == []


def test_a_long_run_is_worth_timing(cache):
    config, task = work(population={"generations": 4 * 10**8})  # days of it
    assert choose_plan(config, task, timed=False).source == "rule of thumb"
    assert choose_plan(config, task).source == "timed"
    assert len(measurements(cache)) == 1


def test_a_choice_is_timed_once(cache):
    config, task = work()
    choice = choose_plan(config, task, timed=True)
    assert choice.source == "timed"
    assert len(choice.candidates) >= 2
    times = [candidate.microseconds for candidate in choice.candidates]
    assert all(0 < time < math.inf for time in times)
    assert choice.candidates[times.index(min(times))].plan == choice.plan
    written = {path.name: path.read_bytes() for path in cache.iterdir()}
    again = choose_plan(*work(), timed=True)
    assert again == choice._replace(source="timed before")
    assert choose_plan(*work()).source == choose_plan(*work(), timed=False).source == "timed before"
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == written


def test_a_seed_or_another_search_is_the_same_work():
    one, task = work()
    for changes in ({"search": {"method": "random"}}, {"population": {"generations": 9}}):
        tree = one.tree | {section: one.tree[section] | values for section, values in changes.items()}
        tree["search"] = changes.get("search", tree["search"])
        other = resolve(tree | {"seed": 3})[0]
        assert planner.Work(one, task).key == planner.Work(other, task).key


def test_other_work_has_another_key():
    works = [
        work(),
        work(optimizer={"name": "sgd"}),
        work(task={"hidden": [9]}),
        work(task=CONVOLUTIONAL),
        work(batch={"size": 31}),
        work(batch={"order": "independent"}),
        work(population={"size": 9}),
    ]
    sgd = work(optimizer={"name": "sgd"})
    keys = [planner.Work(config, task).key for config, task in works]
    assert len(set(keys)) == len(keys)
    assert planner.Work(*sgd).key == keys[1]


@pytest.mark.parametrize("text", ["{", "null", '[{"plan": {"x": 1}, "bytes": 1, "microseconds": 1.0}]'])
def test_a_damaged_measurement_is_made_again(text, cache):
    config, task = work()
    choose_plan(config, task, timed=True)
    (path,) = cache.iterdir()
    path.write_text(text)
    assert choose_plan(config, task, timed=False).source == "rule of thumb"
    choice = choose_plan(config, task, timed=True)
    assert choice.source == "timed"
    assert len(json.loads(path.read_text())) == len(choice.candidates)


def test_what_was_measured_under_pins_does_not_bind_a_run_without():
    """Only the candidates of the pinned lowering were measured: the best of all may be another."""
    pinned, task = work(task=CONVOLUTIONAL, plan={"lowering": "im2col"})
    assert choose_plan(pinned, task, timed=True).source == "timed"
    free, task = work(task=CONVOLUTIONAL)
    choice = choose_plan(free, task, timed=True)
    assert {candidate.plan.lowering for candidate in choice.candidates} == {"canonical", "im2col"}


def test_without_a_cache_it_is_timed_every_time(monkeypatch, tmp_path):
    monkeypatch.setenv("VMAPTUNE_CACHE", "off")
    config, task = work()
    assert [choose_plan(config, task, timed=True).source for _ in range(2)] == ["timed", "timed"]
    assert not (tmp_path / "cache").exists()


# ------------------------------------------------------------------------------------------------------------- memory


def model_of(config, task, lowering="grouped"):
    return planner.Work(config, task).memory(lowering, 1)


def test_candidates_become_as_narrow_as_memory_asks(monkeypatch):
    config, task = work(population={"size": 32}, batch={"size": 512}, task={"hidden": [64]})
    asked = planner.Work(config, task)
    fixed, each = model_of(config, task)
    waiting = 2 * planner.bytes_of(asked.member) * 16
    free = choose_plan(config, task, timed=True)
    assert max(candidate.plan.chunk for candidate in free.candidates) == 16
    monkeypatch.setenv("VMAPTUNE_CACHE", "off")
    limit = int((fixed + waiting + 3.5 * each) / 0.8)  # room for three
    limited(monkeypatch, limit)
    choice = choose_plan(config, task, timed=True)
    assert choice.limit == limit
    assert {candidate.plan.chunk for candidate in choice.candidates} == {1, 3}
    assert all(0 < candidate.bytes <= 0.8 * limit for candidate in choice.candidates)


def test_where_nothing_fits_one_at_a_time_is_tried(monkeypatch):
    limited(monkeypatch, 1)
    choice = choose_plan(*work(), timed=True)
    assert [candidate.plan.chunk for candidate in choice.candidates] == [1]
    assert choice.candidates[0].bytes > 1


def test_a_choice_that_memory_narrowed_is_remembered_too(monkeypatch):
    config, task = work(population={"size": 32}, batch={"size": 512}, task={"hidden": [64]})
    fixed, each = model_of(config, task)
    waiting = 2 * planner.bytes_of(planner.Work(config, task).member) * 16
    limited(monkeypatch, int((fixed + waiting + 3.5 * each) / 0.8))
    monkeypatch.setattr(planner.Work, "timed", lambda _, found: [c._replace(microseconds=1.0 / c.plan.chunk) for c in found])
    first = choose_plan(config, task, timed=True)
    assert (first.source, first.plan.chunk) == ("timed", 3)
    assert choose_plan(config, task, timed=True) == first._replace(source="timed before")


@pytest.mark.parametrize("lowering", ["grouped", "im2col"])
def test_the_memory_model_agrees_with_the_compiler(lowering):
    """A line through two widths, held against the compiler's own account of others, wider than both."""
    config, task = work(task=CONVOLUTIONAL, batch={"size": 64})
    asked = planner.Work(config, task)
    fixed, each = asked.memory(lowering, 1)
    for n in (4, 12, 24):
        jitted, inputs = asked.segment(Plan(1, n, lowering), n)
        members = jax.eval_shape(
            asked.newborn,
            jax.ShapeDtypeStruct((n,), jnp.int32),
            jax.ShapeDtypeStruct((n, asked.recipe.space.dimension), jnp.float32),
        )
        m = jitted.lower(inputs, members, jnp.int32(1)).compile().memory_analysis()
        taken = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes
        assert fixed + each * n == pytest.approx(taken, rel=0.3)
    assert fixed > planner.bytes_of(task.splits.train)  # the data is held once, however many members there are
    assert each > 2 * planner.bytes_of(asked.member.params)  # weights and gradients, at least


def test_more_of_anything_takes_more_memory():
    base = model_of(*work(task=CONVOLUTIONAL))
    wider = model_of(*work(task=CONVOLUTIONAL | {"channels": [8]}))
    longer = model_of(*work(task=CONVOLUTIONAL, batch={"size": 256}))
    assert wider[1] > base[1]
    assert longer[1] > base[1]


def test_a_device_may_take_its_share_of_the_machine():
    import os

    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory_limit() <= machine // 2  # two CPU devices share it


# -------------------------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("word", ["off", "OFF", "0", "none"])
def test_the_cache_can_be_switched_off(word, monkeypatch):
    monkeypatch.setenv("VMAPTUNE_CACHE", word)
    assert cache_folder() is None


def test_the_cache_is_where_it_is_told_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("VMAPTUNE_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_the_cache_is_the_users_own_unless_told(tmp_path, monkeypatch):
    monkeypatch.delenv("VMAPTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = cache_folder()
    assert found is not None
    assert tmp_path in found.parents
    assert "vmaptune" in found.parts


def test_a_cache_that_cannot_be_made_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VMAPTUNE_CACHE", str(tmp_path / "file" / "below"))
    assert cache_folder() is None
    assert choose_plan(*work(), timed=True).source == "timed"


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(cache):
    """As on a full disk: the plans cannot be kept, because a file is in their place."""
    cache.parent.mkdir()
    cache.write_text("")
    assert [choose_plan(*work(), timed=True).source for _ in range(2)] == ["timed", "timed"]


def test_all_pins_together_are_the_plan():
    for devices, chunk, lowering, unroll in product((1, 2), (1, 4), ("grouped", "im2col"), (1, 2)):
        pins = {"devices": devices, "chunk": chunk, "lowering": lowering, "unroll": unroll}
        choice = choose_plan(*work(plan=pins), timed=True)
        assert (choice.plan, choice.source) == (Plan(devices, chunk, lowering, unroll), "rule of thumb")
