"""The tree-structured Parzen estimator, around Optuna's sampler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from vmaptune.proposers.contract import Proposer, Told, generator
from vmaptune.proposers.memory import even, thinned
from vmaptune.settings import Count, Natural
from vmaptune.space import Space

_AT_A_TIME = 64  # proposals from one study, whose every ask reads all that is in it


def tpe(*, startup: Natural = 10, candidates: Count = 24, multivariate: bool = True, memory: Natural = 256) -> Proposer:
    """Tree-structured Parzen estimator: a density of the best tenth of trials (at most 25), and one of the others.

    A trial begins where their ratio is high. Optuna's `TPESampler` does the mathematics.

    Trials rank as in Optuna: those trained to the horizon by fitness, then the others, running or stopped, by how far they
    came and then by fitness. Failed trials rank last, so what fails is avoided. Trials not measured yet, and those proposed
    with the same call, count as bad ones: a batch spreads out.

    Args:
        startup: Uniform draws until so many trials are measured.
        candidates: Draws from the density of good trials, of which the one with the best ratio is proposed.
        multivariate: The densities know how axes depend on each other; false: each axis by itself.
        memory: The densities are made of at most so many trials: the best quarter, and an even sample of the others; and of
            as many not measured yet. 0: of all, which takes longer the more there are. From 250 on the best trials that
            count, 25, are always among them.

    References:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization, https://papers.nips.cc/paper/4443
        Watanabe, Tree-Structured Parzen Estimator, https://arxiv.org/abs/2304.11127
    """

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        from optuna.samplers import TPESampler

        genotype = np.zeros((count, space.dimension), np.float32)
        if not space.dimension:
            return genotype
        rng = generator(seed, len(told.value))
        known, pending = _thinned(told, memory)
        pending_genotype = told.genotype[pending]
        for first in range(0, count, _AT_A_TIME):
            sampler = TPESampler(
                n_startup_trials=startup, n_ei_candidates=candidates, multivariate=multivariate, seed=int(rng.integers(2**32))
            )
            asked = min(_AT_A_TIME, count - first)
            waiting = np.concatenate([pending_genotype, genotype[:first]])
            genotype[first : first + asked] = _ask(
                space, told, known, waiting[even(len(waiting), memory or len(waiting))], sampler, asked
            )
        return genotype

    return Proposer(propose)


def _thinned(told: Told, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the trials to learn from, ascending, and of those not measured yet."""
    sound = np.isfinite(told.value)
    full = sound & told.ended & (told.step >= told.horizon)
    # Optuna's ranking: full trials by value, others by step and value, failed ones last.
    rank = np.lexsort((-np.where(sound, told.value, -np.inf), np.where(full, -np.inf, -told.step), ~sound))
    known = rank[(sound | told.ended)[rank]] if sound.any() else rank[:0]  # with nothing to compare with, failures say nothing
    return thinned(known, memory), np.flatnonzero(~sound & ~told.ended)


def _ask(space: Space, told: Told, known: np.ndarray, waiting: np.ndarray, sampler: Any, count: int) -> np.ndarray:
    """f32[count, D]: proposals of a study that knows these trials."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.trial import FrozenTrial, TrialState, create_trial

    sizes = {f"{d:04}": len(axis.choices) for d, axis in enumerate(space.axes.values())}  # in the order of names
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(range(size)) if size else FloatDistribution(0, 1) for name, size in sizes.items()
    }

    def trial(genotype: np.ndarray, state: TrialState, **fields: Any) -> FrozenTrial:
        genes = zip(sizes.items(), genotype.tolist(), strict=True)
        params = {name: min(int(gene * size), size - 1) if size else gene for (name, size), gene in genes}
        return create_trial(state=state, params=params, distributions=distributions, **fields)

    trials = []
    for i in known:
        value, step = float(told.value[i]), int(told.step[i])
        if not np.isfinite(value):
            trials.append(trial(told.genotype[i], TrialState.PRUNED))  # without a value it ranks behind all that have one
        elif told.ended[i] and step >= told.horizon:
            trials.append(trial(told.genotype[i], TrialState.COMPLETE, value=value))
        else:
            trials.append(trial(told.genotype[i], TrialState.PRUNED, intermediate_values={step: value}))
    trials += [trial(genotype, TrialState.RUNNING) for genotype in waiting]
    with _quiet():
        study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    asked = [study.ask(distributions).params for _ in range(count)]
    genes = [[(p[name] + 0.5) / size if size else p[name] for name, size in sizes.items()] for p in asked]
    return np.array(genes, np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces every study."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
