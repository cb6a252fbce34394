"""Runs both arms over the same seeds and writes every number to results.json: `python run.py`."""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import vmaptune as vt
from vmaptune.config import resolve
from vmaptune.toml import override, read_toml

HERE = Path(__file__).parent
ARMS = {"truncation": [], "random": ["search.method=random"]}


def run(arm: str, seed: int) -> dict:
    """One run of an arm; all that the README's table needs."""
    config, task = resolve(override(read_toml(HERE / "config.toml"), [*ARMS[arm], f"seed={seed}"]))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        result = vt.tune(config, task=task, out=Path(folder) / "run")
        seconds = time.perf_counter() - begun
    generations = result.history["generation"]
    first, last = (result.history[generations == g] for g in (0, generations.max()))
    return {
        "arm": arm,
        "seed": seed,
        "validation": result.best.validation,
        "test": result.best.test,
        "first_generation_best": float(np.nanmax(first["validation.accuracy"])),
        "last_generation_median": float(np.nanmedian(last["validation.accuracy"])),
        "seconds": {**result.seconds, "wall": seconds},
    }


def main() -> None:
    """Alternates the arms, so that a drift of the machine's speed touches both alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--first", type=int, default=100, help="the first seed (default 100)")
    options = parser.parse_args()
    rows = [run(arm, seed) for seed in range(options.first, options.first + options.seeds) for arm in ARMS]
    machine = f"{os.cpu_count()} x {platform.processor() or platform.machine()}, Python {platform.python_version()}"
    versions = {package: version(package) for package in ("vmaptune", "jax", "optax", "flax")}
    (HERE / "results.json").write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1) + "\n")
    for arm in ARMS:
        own = [row for row in rows if row["arm"] == arm]
        for name, values in (
            ("best validation accuracy", [row["validation"]["accuracy"] for row in own]),
            ("its test accuracy", [row["test"]["accuracy"] for row in own]),
            ("its test loss", [row["test"]["loss"] for row in own]),
            ("median of the last generation", [row["last_generation_median"] for row in own]),
            ("best of generation 0", [row["first_generation_best"] for row in own]),
            ("wall seconds", [row["seconds"]["wall"] for row in own]),
        ):
            spread = f"mean {statistics.mean(values):.4f}, sd {statistics.pstdev(values):.4f}"
            print(f"{arm:10}  {name:30}  median {statistics.median(values):.4f}  {spread}  n {len(values)}")


if __name__ == "__main__":
    main()
