"""What every test shares: two CPU devices, strict shapes, one compilation cache, and tasks small enough to train in a blink."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache" / "jax"
# Set before jax starts, and inherited by the processes that tests start.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# Programs that run for milliseconds: half of the suite's time was spent on optimising them. 0 tests what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Compiling is most of the rest: the older emitter of fused loops is three times as fast at it. It ends with jaxlib 0.10, the
# last for Python 3.11; later ones refuse the flag.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
os.environ["VMAPTUNE_CACHE"] = str(CACHE.parent / "vmaptune")

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import settings as hypothesis_settings

from vmaptune import models, tasks
from vmaptune.data.splits import Splits, split_classification

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes many objects and few cycles: a seventh of its time went into looking for them.
gc.freeze()
gc.set_threshold(100_000, 20, 50)
hypothesis_settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=15)
hypothesis_settings.load_profile("repeatable")

SMALL = {
    "task": {"hidden": [8], "dropout": {"low": 0.0, "high": 0.5}},
    "batch": {"size": 32},
    "optimizer": {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"},
        "weight_decay": {"low": 1e-6, "high": 1e-1, "scale": "log"},
    },
    "schedule": {"name": "cosine", "warmup": {"low": 0.0, "high": 0.3}},
    "population": {"size": 8, "segment_steps": 5, "generations": 4},
    "plan": {"generations_per_dispatch": 1},
}
"""A config of digits that trains in a second: 8 members, 4 generations of 5 steps, each of which can be stopped after."""


@pytest.fixture
def small() -> dict:
    """A fresh copy of `SMALL`."""
    return {section: dict(table) for section, table in SMALL.items()}


def forget() -> None:
    """Drops every compiled program of this process; those that another test wants are on disk."""
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Thousands of compiled programs make a worker slow, and large: 5 GB."""
    yield
    forget()


_TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def spare_memory_maps() -> Iterator[None]:
    """Each program holds about ten memory maps; where Linux has no more to give (65,530 a process), XLA crashes."""
    yield
    maps = Path("/proc/self/maps")  # slow to read where there are many: a test takes some hundreds at most
    if next(_TESTS) % 16 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        forget()


def blobs(n: int = 120, features: int = 4, classes: int = 3, seed: int = 0) -> Splits:
    """Gaussian clusters: a classification problem that a linear model solves."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = 3.0 * rng.normal(size=(classes, features))
    inputs = centres[labels] + rng.normal(size=(n, features))
    return split_classification(inputs.astype(np.float32), labels.astype(np.int32))


@pytest.fixture(scope="session")
def blob_task() -> tasks.Task:
    """A task that trains in a blink, with dropout as its one traced setting."""
    return tasks.classification(models.from_nnx(lambda rngs: models.MLP(4, [8], 3, rngs=rngs)), blobs())


class Normed(nnx.Module):
    """A module with batch statistics and two dropout layers of one shape: what could leak between members."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.List([nnx.Dropout(0.3, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)])
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop[1](self.drop[0](nnx.relu(self.norm(self.first(x))))))


@pytest.fixture(scope="session")
def normed_task() -> tasks.Task:
    """A task with model state."""
    return tasks.classification(models.from_nnx(lambda rngs: Normed(rngs=rngs)), blobs())
