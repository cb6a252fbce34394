"""Trials ended per step of a slot, with refill and without, and what is found with equally many; writes results.json.

Without refill, a stopped trial's slot waits for the round to end, as it does where a population is trained in lockstep: a
round of 64 trials takes its 20 generations, and the next round follows. Both are real runs.

python run.py [SEEDS]
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import vmaptune as vt
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10


def run(seed, folder, *assignments):
    config, task = load_config(HERE / "config.toml", assignments, seed=seed)
    return vt.tune(config, task=task, out=folder)


rows = []
for seed in range(SEEDS):
    with tempfile.TemporaryDirectory() as root:
        refilled = run(seed, Path(root) / "refilled")
        generations = int(refilled.history["generation"].max()) + 1
        rounds = round(generations / 20)
        alone = [run(1000 + 100 * seed + i, Path(root) / f"{i}", "search.trials=64") for i in range(rounds)]
        best = min(alone, key=lambda result: result.best.validation["loss"]).best
        trained = np.mean([result.member_steps for result in alone]) / (64 * 20 * 100)
        row = {
            "seed": seed,
            "refill": {"trials": 640, "generations": generations, "busy": refilled.member_steps / (64 * generations * 100)},
            "no_refill": {"trials": 64 * rounds, "generations": 20 * rounds, "busy": float(trained)},
        }
        for name, found in (("refill", refilled.best), ("no_refill", best)):
            row[name] |= {"validation": found.validation["loss"], "test": found.test["loss"]}
        rows.append(row)
        print(json.dumps(row), flush=True)
(HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
