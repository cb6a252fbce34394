"""Validation and test accuracy of the winner of each seed's run, and how long it took; writes results.csv.

python run.py [SEEDS]
"""

import csv
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import vmaptune as vt
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5

rows = []
for seed in range(SEEDS):
    began = time.perf_counter()
    config, task = load_config(HERE / "fashion_mnist.toml", [], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        result = vt.tune(config, task=task, out=Path(folder) / "run")
    rows.append(
        {
            "seed": seed,
            "validation_accuracy": round(result.best.validation["accuracy"], 4),
            "test_accuracy": round(result.best.test["accuracy"], 4),
            "member_steps": result.member_steps,
            "seconds": round(time.perf_counter() - began, 1),
        }
    )
    print(rows[-1], flush=True)
with (HERE / "results.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
found = [row["validation_accuracy"] for row in rows]
print(f"median {median(found)}, {min(found)} to {max(found)}, n = {len(found)}")
