"""Optuna: as many trials as there are members, TPE with its defaults, in memory; every trial trains to the end."""

from __future__ import annotations

import time

import optuna
from network import Solo
from work import LEARNING_RATE, WEIGHT_DECAY, asked, report, trained

work = asked()
optuna.logging.set_verbosity(optuna.logging.WARNING)
begun = time.perf_counter()
solo = Solo(work.seed, work.steps)


def objective(trial: optuna.Trial) -> float:
    learning_rate = trial.suggest_float("learning_rate", *LEARNING_RATE, log=True)
    weight_decay = trial.suggest_float("weight_decay", *WEIGHT_DECAY, log=True)
    state, accuracy = solo.new(trial.number), 0.0
    for generation in range(1, work.generations + 1):
        state, accuracy = solo.train(state, trial.number, generation, learning_rate, weight_decay)
        trained(work.count, work.steps, accuracy, generation)
    return accuracy


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=work.seed))
study.optimize(objective, n_trials=work.members)
report(work, time.perf_counter() - begun)
