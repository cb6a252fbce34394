"""Proposers beside Optuna's own samplers, on closed-form functions: regret after the same number of trials.

    python scripts/searchers.py --seeds 20 --out experiments/searchers/results.json

Every arm is asked for a few trials at a time and told all of them, as slots would. Prints the table of
experiments/searchers/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from scipy import stats

from vmaptune.proposers import PROPOSERS, Told
from vmaptune.space import Axis, Space


def branin(u):
    x, y = -5 + 15 * u[0], 15 * u[1]
    return (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10


_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_A = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]])
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(u):
    return -_ALPHA @ np.exp(-(_A * (u - _P) ** 2).sum(axis=1))


def rosenbrock(u):
    x = -2.048 + 4.096 * u
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


FUNCTIONS: dict[str, tuple[int, Callable, float]] = {  # dimension, function of the unit cube, minimum
    "Branin": (2, branin, 0.397887),
    "Hartmann 6": (6, hartmann6, -3.32237),
    "Rosenbrock 2": (2, rosenbrock, 0.0),
    "Rosenbrock 4": (4, rosenbrock, 0.0),
}

SAMPLERS: dict[str, Callable] = {
    "Optuna random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "Optuna QMC": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
    "Optuna TPE": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "Optuna CMA-ES": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}
OURS = ("random", "sobol", "tpe", "cmaes", "evolution", "gp")
CROSSED = {"random": "Optuna random", "sobol": "Optuna QMC", "tpe": "Optuna TPE", "cmaes": "Optuna CMA-ES", "gp": "tpe"}


def with_optuna(make, function, dimension, trials, at_a_time, seed):
    study = optuna.create_study(sampler=make(seed))
    axes = {f"x{d}": optuna.distributions.FloatDistribution(0, 1) for d in range(dimension)}
    values: list[float] = []
    while len(values) < trials:
        asked = [study.ask(axes) for _ in range(at_a_time)]
        values += [float(function(np.array([trial.params[name] for name in axes]))) for trial in asked]
        for trial, value in zip(asked, values[-at_a_time:], strict=True):
            study.tell(trial, value)
    return values[:trials]


def with_proposer(proposer, function, dimension, trials, at_a_time, seed):
    space = Space({f"x{d}": Axis(0, 1) for d in range(dimension)})
    genotype, value = np.zeros((0, dimension), np.float32), np.zeros(0)
    while len(value) < trials:
        n = len(value)
        told = Told(genotype, value, np.ones(n, np.int64), np.ones(n, bool), 1)
        drawn = proposer.propose(space, told, at_a_time, seed)
        genotype = np.concatenate([genotype, drawn])
        value = np.append(value, [-float(function(row.astype(float))) for row in drawn])
    return list(-value[:trials])


def run(trials, at_a_time, seeds, arms, names):
    """Regret after all trials, by function and arm, one number a seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        dimension, function, minimum = FUNCTIONS[name]
        found[name] = {}
        for arm in arms:
            begun = time.perf_counter()
            play, by = (with_optuna, SAMPLERS[arm]) if arm in SAMPLERS else (with_proposer, PROPOSERS[arm]())
            curves = [play(by, function, dimension, trials, at_a_time, seed) for seed in seeds]
            found[name][arm] = [min(curve) - minimum for curve in curves]
            print(f"{name}, {arm}: median {np.median(found[name][arm]):.3g}, {time.perf_counter() - begun:.0f} s", flush=True)
    return found


def table(found):
    arms = list(next(iter(found.values())))
    lines = ["| method | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for arm in arms:
        cells = ["{1:.3g} ({0:.3g} to {2:.3g})".format(*np.quantile(found[name][arm], [0.25, 0.5, 0.75])) for name in found]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += ["", "| pair | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for ours, other in CROSSED.items():
        if ours in arms and other in arms:
            p = [stats.mannwhitneyu(found[name][ours], found[name][other]).pvalue for name in found]
            lower = [np.mean(np.less.outer(found[name][ours], found[name][other])) for name in found]
            cells = [f"{share:.2f} (p = {value:.2g})" for share, value in zip(lower, p, strict=True)]
            lines.append(f"| {ours} below {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--at-a-time", type=int, default=8, help="how many are asked for at once")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=[*SAMPLERS, *OURS])
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    found = run(given.trials, given.at_a_time, seeds, given.arms, given.functions)
    print(table(found))
    if given.out:
        rounded = {name: {arm: [float(f"{r:.5g}") for r in own] for arm, own in arms.items()} for name, arms in found.items()}
        about = {
            "trials": given.trials,
            "at_a_time": given.at_a_time,
            "seeds": list(seeds),
            "machine": f"{os.cpu_count()} CPU cores",
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(about | {"regret": rounded}, indent=1) + "\n")


if __name__ == "__main__":
    main()
