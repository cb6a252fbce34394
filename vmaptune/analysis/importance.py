"""Which hyperparameters mattered: the share of the variance of the trials' scores that each axis explains."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.analysis.optuna_study import quiet, trials_of

LEAST, MOST = 10, 500  # sound trials: fewer tell nothing, more take long
_FOREST = {"n_trees": 32, "max_depth": 8}  # of half a second; whole trees of a thousand trials take a minute


class Importance(NamedTuple):
    """What was found.

    Attributes:
        shares: Of each axis, the largest first; they add up to 1. None if nothing can be said.
        method: The evaluator.
        trials: How many sound trials it was told of.
        of: How many there are.
        reason: Why nothing can be said; else "".
    """

    shares: Mapping[str, float] | None
    method: str
    trials: int
    of: int
    reason: str


@lru_cache(maxsize=4)
def importance_of(facts: RunFacts, *, seed: int = 0) -> Importance:
    """The importance of each axis, by functional analysis of variance over a random forest (Optuna's fANOVA).

    An observation is a trial: its own hyperparameters, those of its last sound record, and how good it was. Where members are
    copied (population-based training), that is its mean rank among its contemporaries, because a copy's score owes much to
    the weights it began with; elsewhere the rank of its last score. Trials gather where scores were good, so read the shares
    as what mattered within the searched ranges, among the trials that were made. Trials that diverged
    have no score and are left out. Of more than 500 trials, 500 evenly spread by number are used. Axes that only some trials
    have are left out.

    Args:
        facts: The run.
        seed: Of the forest: the same shares whenever it is asked.

    References:
        Hutter et al., An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014,
            https://proceedings.mlr.press/v32/hutter14.html
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.trial import TrialState

    sound = np.flatnonzero((facts.last_row >= 0) & np.isfinite(np.append(facts.score, np.nan)[facts.last_row]))
    rows = facts.last_row[sound]
    axes = [n for n in facts.axes if len(sound) and np.isfinite(v := facts.columns[n][rows]).all() and len(np.unique(v)) > 1]

    def nothing(reason: str) -> Importance:
        return Importance(None, "fANOVA", 0, len(sound), reason)

    if not axes:
        return nothing("no axis is searched that every sound trial has")
    if len(sound) < LEAST:
        return nothing(f"{len(sound)} sound trials; it takes {LEAST} to tell anything")
    chosen = sound[np.linspace(0, len(sound) - 1, min(len(sound), MOST)).round().astype(int)]
    rank = facts.quality[chosen]
    if len(np.unique(rank)) < 2:
        return nothing("all trials have the same score")
    with quiet():
        trials = trials_of(facts, chosen.tolist())
        for trial, value in zip(trials, rank.tolist(), strict=True):
            trial.state, trial.value = TrialState.COMPLETE, value
            trial.intermediate_values = {}
            trial.datetime_complete = trial.datetime_complete or trial.datetime_start
        study = optuna.create_study(direction="maximize")
        study.add_trials(trials)
        evaluator = FanovaImportanceEvaluator(**_FOREST, seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=axes)
    return Importance({name: float(share) for name, share in shares.items()}, "fANOVA", len(chosen), len(sound), "")
