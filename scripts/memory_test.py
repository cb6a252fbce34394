"""Lets a real run run out of memory: it must go on in narrower chunks, and end as a run that was narrow from the start.

    python scripts/memory_test.py

From its first generation on, the process may take no more memory than three quarters of what a dispatch wants (Linux only).
What a dispatch takes for itself is one large allocation, which fails by itself; half as much, or a quarter, is there.
Exits with 1 if something differs. Takes about 2 GB and a minute.
"""

import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import vmaptune as vt
from vmaptune import models, tasks
from vmaptune.config import resolve
from vmaptune.data.splits import split_classification
from vmaptune.generation import Generations
from vmaptune.plan import Plan

TREE = {
    "batch": {"size": 1024},
    "optimizer": {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1e-1}},
    "population": {"size": 8, "segment_steps": 1, "generations": 4},
    "plan": {"devices": 1, "chunk": 8, "generations_per_dispatch": 1},
}


def task():
    """Little to compute, much to hold: activations of 128 MiB a member."""
    labels = np.arange(2000, dtype=np.int32) % 3
    inputs = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32) + labels[:, None].astype(np.float32)
    return tasks.classification(
        models.from_nnx(lambda rngs: models.MLP(4, [2**15], 3, rngs=rngs)), split_classification(inputs, labels)
    )


def held():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")]
    return 1024 * int(line.split()[1])


def main(folder):
    config, made = resolve(TREE, task=task())
    generations = Generations(config, made, Plan(1, 8))
    zero = jnp.int32(0)
    compiled = generations._program._jitted.lower(generations._inputs, generations.begin(), zero, zero).compile()
    dispatch = compiled.memory_analysis().temp_size_in_bytes
    narrow = {section: dict(table) for section, table in TREE.items()}
    narrow["plan"]["chunk"] = 1
    vt.tune(narrow, task=made, out=folder / "before")  # threads and libraries have what they need
    idle = held()

    most = idle + dispatch * 3 // 4

    def limit():
        until = time.monotonic() + 10
        while (
            resource.getrlimit(resource.RLIMIT_DATA)[0] != most and held() > idle + dispatch // 2 and time.monotonic() < until
        ):
            time.sleep(0.05)  # until the first dispatch has given back what it took
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
        return False

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = vt.tune(TREE, task=made, out=folder / "run", should_stop=limit)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    narrower = [str(w.message) for w in caught if "out of memory" in str(w.message)]
    print("\n".join(narrower))
    narrow["plan"]["chunk"] = 4
    expected = vt.tune(narrow, task=made, out=folder / "narrow").history
    same = all(np.allclose(result.history[name], expected[name], rtol=1e-4, atol=1e-6) for name in expected.dtype.names)
    if not narrower or result.status != "finished" or not same:
        sys.exit(f"out of memory {len(narrower)} times, {result.status}, {'equal' if same else 'not equal'} to a narrow run")
    print("went on, and ended equal to a run in narrow chunks")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="vmaptune-memory-") as place:
        main(Path(place))
