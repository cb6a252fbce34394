"""ROC AUC on breast cancer over cuts and seeds, beside scikit-learn's logistic regression; writes results.csv.

python run.py [SEEDS]
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "scripts"))
from seeds import winners, write  # noqa: E402

SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10


def logistic(splits):
    """Validation and test AUC of the logistic regression whose strength validation chooses."""
    models = [LogisticRegression(C=c, max_iter=10_000).fit(*splits.train) for c in np.logspace(-4, 2, 13)]
    scores = [[roc_auc_score(y, m.decision_function(x)) for x, y in (splits.validation, splits.test)] for m in models]
    return max(scores, key=lambda score: score[0])


def rows():
    """A row a cut and seed."""
    for seed, task, result, seconds in winners(HERE / "config.toml", SEEDS, cut=True):
        best, peer = result.best, logistic(task.splits)
        yield {
            "seed": seed,
            "validation_auc": best.validation["roc_auc"],
            "test_auc": best.test["roc_auc"],
            "logistic_validation_auc": peer[0],
            "logistic_test_auc": peer[1],
            "member_steps": result.member_steps,
            "seconds": seconds,
        }


write(HERE / "results.csv", rows())
