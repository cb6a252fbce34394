"""R2 on diabetes over cuts and seeds, beside a ridge regression tuned on the same validation rows; writes results.csv.

python run.py [SEEDS]
"""

import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge

import vmaptune as vt
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10


def ridge(splits):
    """Validation and test R2 of the ridge regression whose strength validation chooses."""
    models = [Ridge(alpha=alpha).fit(*splits.train) for alpha in np.logspace(-3, 4, 71)]
    return max(([m.score(*splits.validation), m.score(*splits.test)] for m in models), key=lambda score: score[0])


rows = []
for seed in range(SEEDS):
    config, task = load_config(HERE / "config.toml", [f"task.split_seed={seed}"], seed=seed)
    with tempfile.TemporaryDirectory() as root:
        begun = time.perf_counter()
        result = vt.tune(config, task=task, out=Path(root) / "run")
        seconds = time.perf_counter() - begun
    peer = ridge(task.splits)
    rows.append(
        {
            "seed": seed,
            "validation_r2": result.best.validation["r2"],
            "test_r2": result.best.test["r2"],
            "ridge_validation_r2": peer[0],
            "ridge_test_r2": peer[1],
            "member_steps": result.member_steps,
            "seconds": seconds,
        }
    )
    print(rows[-1], flush=True)
with (HERE / "results.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, int) else f"{v:.5g}" for k, v in row.items()} for row in rows)
