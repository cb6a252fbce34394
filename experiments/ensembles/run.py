"""The winner, a greedy ensemble and a soup of the same run, on digits and breast cancer over seeds; writes results.csv.

python run.py [SEEDS]; with 0, only results.csv is summarised once more
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

import vmaptune as vt
from vmaptune.studies.paired import signed_rank
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
METRICS = {"digits": "accuracy", "breast_cancer": "roc_auc"}


def of_run(name, seed):
    """Scores of the three, on validation and test, a row each."""
    if name == "digits":
        config, task = load_config(None, seed=seed)
    else:
        config, task = load_config(HERE / "config.toml", [f"task.split_seed={seed}"], seed=seed)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "run"
        vt.tune(config, task=task, out=folder)
        for method in ("greedy", "soup"):
            try:
                found = vt.ensemble(folder, method=method)
            except vt.StoreError as error:  # no relatives: the soup is the winner
                print(name, seed, error, flush=True)
                found = None
            for arm in ("single", "ensemble"):
                if arm == "single" and method == "soup":
                    continue
                row = {"data": name, "seed": seed, "arm": "winner" if arm == "single" else method}
                if found is None:
                    rows.append(rows[0] | row)
                    continue
                row |= {"networks": len(found.members) if arm == "ensemble" else 1}
                for part, scores in (("validation", found.validation), ("test", found.test)):
                    row |= {part: scores[arm][METRICS[name]], f"{part}_loss": scores[arm]["loss"]}
                rows.append(row)
    return rows


rows = []
for name in METRICS:
    for seed in range(SEEDS):
        rows += of_run(name, seed)
        for row in rows[-3:]:
            print(row, flush=True)
if rows:
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
with (HERE / "results.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
for name in METRICS:
    arms = {arm: [row for row in rows if (row["data"], row["arm"]) == (name, arm)] for arm in ("winner", "greedy", "soup")}
    for column in ("validation", "test", "validation_loss", "test_loss"):
        scores = {arm: np.array([float(row[column]) for row in found]) for arm, found in arms.items()}
        for arm, values in scores.items():
            change = values - scores["winner"]
            spread = f"mean {values.mean():.4f} sd {values.std(ddof=1):.4f} least {values.min():.4f} most {values.max():.4f}"
            paired = f"{change.mean():+.4f} sd {change.std(ddof=1):.4f}, {(change > 0).sum()} up, {(change < 0).sum()} down"
            print(name, column, arm, spread, "" if arm == "winner" else f"change {paired}, p {signed_rank(change)[0]:.3g}")
