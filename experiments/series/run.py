"""Validation error of a population of GRUs on the Mackey-Glass equation, beside linear prediction; writes results.csv.

python run.py [SEEDS]
"""

import sys
from pathlib import Path

import numpy as np

from vmaptune.toml import load_config

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "scripts"))
from seeds import winners, write  # noqa: E402

SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def flat(part):
    """Windows as rows, with a column of ones, and their targets."""
    inputs, targets = part
    return np.column_stack([inputs.reshape(len(inputs), -1), np.ones(len(inputs))]).astype(np.float64), targets


def rmse(predicted, targets):
    """As the task's: the mean over steps ahead of the root of the mean square."""
    return round(float(np.sqrt(np.mean((predicted - targets) ** 2, axis=0)).mean()), 4)


def rows():
    """The baselines, which need no seed, and the winner of each seed."""
    _, task = load_config(HERE / "config.toml", [])
    (train, answers), (held, targets) = flat(task.splits.train), flat(task.splits.validation)
    weights = np.linalg.lstsq(train, answers, rcond=None)[0]
    for what, predicted in (("last value", task.splits.validation[0][:, -1]), ("linear", held @ weights)):
        yield {"what": what, "seed": "", "rmse": rmse(predicted, targets), "seconds": ""}
    for seed, _, result, seconds in winners(HERE / "config.toml", SEEDS):
        yield {"what": "gru", "seed": seed, "rmse": result.best.validation["rmse"], "seconds": seconds}


write(HERE / "results.csv", rows())
