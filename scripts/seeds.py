"""A config, run once a seed: what experiments share.

python seeds.py CONFIG.toml [SEEDS]    runs it, and writes results.csv beside the config: the winner's metrics, a row a seed
"""

import csv
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import vmaptune as vt
from vmaptune.toml import load_config


def winners(path, seeds, cut=False):
    """Yields (seed, task, result, seconds) of each seed's run; `cut`: the seed cuts the data too."""
    for seed in range(seeds):
        begun = time.perf_counter()
        config, task = load_config(path, [f"task.split_seed={seed}"] if cut else [], seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            result = vt.tune(config, task=task, out=Path(folder) / "run")
        yield seed, task, result, round(time.perf_counter() - begun, 1)


def write(path, rows):
    """Writes rows (an iterable of dicts, floats to five digits), and prints each as it comes."""
    kept = []
    for row in rows:
        kept.append({name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()})
        print(kept[-1], flush=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


if __name__ == "__main__":
    source, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    found = []

    def rows():
        """A row a seed."""
        for seed, task, result, seconds in winners(source, count):
            best = result.best
            found.append(best.validation[task.metric])
            parts = {"validation": best.validation[task.metric], "test": best.test[task.metric]}
            metrics = {f"{part}_{task.metric}": value for part, value in parts.items()}
            yield {"seed": seed, **metrics, "member_steps": result.member_steps, "seconds": seconds}

    write(source.parent / "results.csv", rows())
    print(f"median {median(found):.4f}, {min(found):.4f} to {max(found):.4f}, n = {count}")
