"""ROC AUC on breast cancer over cuts and seeds, beside scikit-learn's logistic regression; writes results.csv.

python run.py [SEEDS]
"""

import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import vmaptune as vt
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10


def logistic(splits):
    """Validation and test AUC of the logistic regression whose strength validation chooses."""
    models = [LogisticRegression(C=c, max_iter=10_000).fit(*splits.train) for c in np.logspace(-4, 2, 13)]
    scores = [[roc_auc_score(y, m.decision_function(x)) for x, y in (splits.validation, splits.test)] for m in models]
    return max(scores, key=lambda score: score[0])


rows = []
for seed in range(SEEDS):
    config, task = load_config(HERE / "config.toml", [f"task.split_seed={seed}"], seed=seed)
    with tempfile.TemporaryDirectory() as root:
        begun = time.perf_counter()
        result = vt.tune(config, task=task, out=Path(root) / "run")
        seconds = time.perf_counter() - begun
    peer = logistic(task.splits)
    rows.append(
        {
            "seed": seed,
            "validation_auc": result.best.validation["roc_auc"],
            "test_auc": result.best.test["roc_auc"],
            "logistic_validation_auc": peer[0],
            "logistic_test_auc": peer[1],
            "member_steps": result.member_steps,
            "seconds": seconds,
        }
    )
    print(rows[-1], flush=True)
with (HERE / "results.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, int) else f"{v:.5g}" for k, v in row.items()} for row in rows)
