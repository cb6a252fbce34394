"""Validation error of a population of GRUs on the Mackey-Glass equation, beside linear prediction; writes results.csv.

python run.py [SEEDS]
"""

import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import vmaptune as vt
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def flat(part):
    """Windows as rows, with a column of ones, and their targets."""
    inputs, targets = part
    return np.column_stack([inputs.reshape(len(inputs), -1), np.ones(len(inputs))]).astype(np.float64), targets


def rmse(predicted, targets):
    """As the task's: the mean over steps ahead of the root of the mean square."""
    return round(float(np.sqrt(np.mean((predicted - targets) ** 2, axis=0)).mean()), 4)


_, task = load_config(HERE / "config.toml", [])
(train, answers), (held, targets) = flat(task.splits.train), flat(task.splits.validation)
weights = np.linalg.lstsq(train, answers, rcond=None)[0]
rows = [
    {"what": "last value", "seed": "", "rmse": rmse(task.splits.validation[0][:, -1], targets), "seconds": ""},
    {"what": "linear", "seed": "", "rmse": rmse(held @ weights, targets), "seconds": ""},
]
for seed in range(SEEDS):
    config, task = load_config(HERE / "config.toml", [], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        best = vt.tune(config, task=task, out=f"{folder}/run").best
        seconds = round(time.perf_counter() - begun)
    rows.append({"what": "gru", "seed": seed, "rmse": round(float(best.validation["rmse"]), 4), "seconds": seconds})
    print(rows[-1], flush=True)
with (HERE / "results.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
