"""R2 on diabetes over cuts and seeds, beside a ridge regression tuned on the same validation rows; writes results.csv.

python run.py [SEEDS]
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "scripts"))
from seeds import winners, write  # noqa: E402

SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10


def ridge(splits):
    """Validation and test R2 of the ridge regression whose strength validation chooses."""
    models = [Ridge(alpha=alpha).fit(*splits.train) for alpha in np.logspace(-3, 4, 71)]
    return max(([m.score(*splits.validation), m.score(*splits.test)] for m in models), key=lambda score: score[0])


def rows():
    """A row a cut and seed."""
    for seed, task, result, seconds in winners(HERE / "config.toml", SEEDS, cut=True):
        best, peer = result.best, ridge(task.splits)
        yield {
            "seed": seed,
            "validation_r2": best.validation["r2"],
            "test_r2": best.test["r2"],
            "ridge_validation_r2": peer[0],
            "ridge_test_r2": peer[1],
            "member_steps": result.member_steps,
            "seconds": seconds,
        }


write(HERE / "results.csv", rows())
