"""Data that is streamed to the devices: the same history, and never more than two chunks on a device."""

import gc
import itertools

import jax
import numpy as np
import pytest

import vmaptune as vt
from tests.conftest import blobs
from vmaptune import models, tasks
from vmaptune.config import resolve
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError, StoreError
from vmaptune.feed import gathered, placed
from vmaptune.plan import Plan

TREE = {
    "task": {"dropout": {"low": 0.0, "high": 0.5}},
    "batch": {"size": 7},
    "population": {"size": 4, "segment_steps": 3, "generations": 3},
    "search": {"method": "random", "trials": 6, "stop": "asha"},  # slots are refilled: several rounds of the order
    "fitness": {"lookahead": {"steps": 2}},
}


def mapped(folder, splits):
    """The splits with a training part that is memory-mapped."""
    leaves = []
    for i, leaf in enumerate(splits.train):
        np.save(folder / f"{i}.npy", leaf)
        leaves.append(np.load(folder / f"{i}.npy", mmap_mode="r"))
    return splits._replace(train=tuple(leaves))


def task_of(splits):
    return tasks.classification(models.from_nnx(lambda rngs: models.MLP(4, [8], 3, rngs=rngs)), splits)


def test_streaming_gives_the_same_history(tmp_path):
    task = task_of(mapped(tmp_path, blobs()))
    assert isinstance(task.splits.train[0], np.memmap)
    found = {}
    for placement in ("device", "host"):
        tree = TREE | {"data": {"placement": placement}, "batch": {"size": 7, "balance": "batch"}}
        found[placement] = vt.tune(tree, task=task, out=tmp_path / placement)
    device, host = found["device"], found["host"]
    assert host.history.tobytes() == device.history.tobytes()
    assert host.best.test == device.best.test
    assert host.compilations["generations"] == 1
    verified = vt.verify(host.run, task=task)  # which streams as well
    assert verified.first is None


def test_a_run_may_go_on_elsewhere(tmp_path):
    task = task_of(blobs())
    vt.tune(TREE | {"data": {"placement": "host"}}, task=task, out=tmp_path / "run", until=2)
    moved = vt.tune(TREE | {"data": {"placement": "device"}}, task=task, out=tmp_path / "run", resume=True)
    whole = vt.tune(TREE, task=task, out=tmp_path / "whole")
    assert moved.history.tobytes() == whole.history.tobytes()


def test_a_device_never_holds_more_than_two_chunks():
    n, width, steps, size = 640, 50, 4, 8
    images = np.arange(n * width, dtype=np.float32).reshape(n, width)
    labels = np.arange(n, dtype=np.int32) % 3
    splits = Splits((images, labels), (images[:9, :], labels[:9]), (images[:9, :], labels[:9]))
    task = tasks.classification(models.from_nnx(lambda rngs: models.MLP(width, [4], 3, rngs=rngs)), splits)
    population = {"size": 2, "segment_steps": steps, "generations": 20}
    config, task = resolve({"batch": {"size": size}, "population": population, "data": {"placement": "host"}}, task=task)
    feed = config.feed(config.recipe(task), config.batches(task), seed=0, plan=Plan(1, 2))

    def held():
        gc.collect()
        return sum(a.shape[0] for a in jax.live_arrays() if a.ndim == 2 and a.shape[1] == width)

    before = held()
    for generation in range(20):
        inputs = feed(generation)
        feed.prepare(generation + 1)
        assert inputs.train[0].shape == (steps * size, width)
        assert held() - before <= 2 * steps * size
        first = np.array(inputs.train[0])[:, 0]  # a copy: a view would keep the chunk
        np.testing.assert_array_equal(np.array(inputs.train[1]), (first / width).astype(int) % 3)  # labels go with inputs
        del inputs


def test_where_data_lie(monkeypatch):
    task = task_of(blobs())
    config, task = resolve(TREE, task=task)
    batches = config.batches(task)
    assert not batches.streamed
    taken = sum(leaf.nbytes for part in task.splits[:2] for leaf in part)
    for limit, order in itertools.product((2 * taken, 3 * taken), ("shared", "independent")):
        monkeypatch.setattr("vmaptune.feed.memory_limit", lambda limit=limit: limit)
        asked = placed(batches._replace(order=order), task, "auto", steps=5)
        assert asked.streamed == (limit == 2 * taken and order == "shared")
        assert not placed(batches, task, "auto", steps=6).streamed  # two chunks would be larger than the data
    with pytest.raises(ConfigError, match=r"^config: data.placement: host needs batch.order = 'shared'; given: 'independent'$"):
        resolve(TREE | {"batch": {"size": 7, "order": "independent"}, "data": {"placement": "host"}}, task=task)


def test_a_run_goes_on_with_its_own_data_only(tmp_path):
    run = tmp_path / "run"
    vt.tune(TREE, task=task_of(blobs()), out=run, until=1)
    for other in (blobs(seed=1), blobs(n=150)):
        with pytest.raises(StoreError, match=r"begun with other data, and cannot go on with these; choose another --out$"):
            vt.tune(TREE, task=task_of(other), out=run, resume=True)
    with pytest.warns(vt.VmaptuneWarning, match="the data are not what they were"):
        vt.verify(run, task=task_of(blobs(seed=1)))
    assert vt.tune(TREE, task=task_of(blobs()), out=run, resume=True).status == "finished"


def test_streamed_data_are_not_replayed(tmp_path):
    vt.tune(TREE | {"data": {"placement": "host"}}, task=task_of(blobs()), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"its training data are streamed from the host, .* data\.placement = 'device'"):
        vt.replay(tmp_path / "run", task=task_of(blobs()), seeds=1)


def test_gathered_is_indexing(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(5000, 2)))
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    for count in (0, 1, 4095, 9000):
        rows = rng.integers(0, 5000, count)
        np.testing.assert_array_equal(gathered(array, rows), array[rows])
