"""Streaming against data on the device: a CNN on images, member-steps a second of both in turn, and the chunk's share.

The data are random, 28x28, memory-mapped from a file. One JSON line.

python scripts/streaming.py [--examples 10000] [--members 4] [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import vmaptune as vt
from vmaptune import models, tasks
from vmaptune.config import resolve
from vmaptune.data.splits import Splits
from vmaptune.generation import Generations
from vmaptune.planner import choose_plan


def mapped(folder: Path, examples: int) -> Splits:
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.random((examples, 28, 28, 1), np.float32))
    np.save(folder / "y.npy", rng.integers(0, 10, examples, np.int32))
    train = tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")
    return Splits(train, *[tuple(np.array(leaf[:100]) for leaf in train)] * 2)


def runner(task: vt.Task, placement: str, members: int, segment_steps: int):
    """Runs so many generations and returns the seconds that they took."""
    tree = {
        "batch": {"size": 64},
        "population": {"size": members, "segment_steps": segment_steps, "generations": 10_000},
        "data": {"placement": placement},
        "optimizer": {"learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}},
    }
    config, task = resolve(tree, task=task)
    generations = Generations(config, task, choose_plan(config, task, timed=False).plan)
    state, done = generations.begin(), 0

    def run(count: int) -> float:
        nonlocal state, done
        begun = time.perf_counter()
        for _ in range(count):
            state, facts, _ = generations(state, done, 1)
            jax.device_get(facts)
            done += 1
        return time.perf_counter() - begun

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25, help="of a generation")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        splits = mapped(Path(folder), given.examples)
        network = models.from_nnx(lambda rngs: models.CNN((28, 28, 1), (16, 32), 10, rngs=rngs))
        task = tasks.classification(network, splits)
        runs = {name: runner(task, name, given.members, given.steps) for name in ("device", "host")}
        for run in runs.values():
            run(1)  # compiles
        seconds = {name: [] for name in runs}
        for i in range(given.rounds):
            for name in sorted(runs, reverse=bool(i % 2)):
                seconds[name].append(runs[name](3))
    ratio = [d / h for d, h in zip(seconds["device"], seconds["host"], strict=True)]
    steps = 3 * given.steps * given.members
    print(
        json.dumps(
            {
                "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
                "examples": given.examples,
                "chunk_share": given.steps * 64 / given.examples,
                "member_steps_per_s": {name: round(steps / statistics.median(s), 1) for name, s in seconds.items()},
                "ratio": {"median": round(statistics.median(ratio), 3), "lowest": round(min(ratio), 3), "rounds": len(ratio)},
            }
        )
    )


if __name__ == "__main__":
    main()
