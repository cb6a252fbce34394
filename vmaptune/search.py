"""The host's part of a search: what trials have come to, and the proposals for those that begin.

Proposers have no state, and outcomes are rebuilt from the history where a run goes on, so neither needs a place in a
checkpoint; proposals are kept in the state of the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from vmaptune.config import RunConfig
from vmaptune.generation import Generations, State
from vmaptune.proposers import Told
from vmaptune.store.history import connect
from vmaptune.store.reading import read_events, read_history
from vmaptune.store.record import Record


class Search:
    """The search of one run.

    Args:
        config: What is run.
        history: What was recorded of it before, if it goes on.

    Attributes:
        seconds: Training time so far, that of earlier processes included.
        proposing: Wall time spent on proposals.
    """

    def __init__(self, config: RunConfig, history: Path | None) -> None:
        """Reads what is known."""
        self._space, self._seed, self._repeats = config.space, config.seed, config.repeats
        self._horizon, self._selector = config.population.horizon, config.selector()
        room = config.most_trials * self._repeats.replicates if self._selector.proposer else 0
        self._value, self._step, self._ended = np.full(room, np.nan), np.zeros(room, np.int64), np.zeros(room, bool)
        self._sound = False
        self.seconds = self.proposing = 0.0
        if history is not None:
            self._read(history)

    def _read(self, path: Path) -> None:
        rows = read_history(path)
        self._sound = bool(np.isfinite(rows["fitness"]).any())
        self.seconds = sum(e["detail"]["seconds"]["train"] for e in read_events(path) if e["kind"] == "generation")
        if self._selector.proposer:
            with closing(connect(path)) as db:
                ended = [row[0] for row in db.execute("SELECT trial FROM trial WHERE ended IS NOT NULL")]
            self._take(rows["trial"], rows["step"], rows["fitness"], np.isin(rows["trial"], ended))

    def saw(self, records: Iterable[Record]) -> Record | None:
        """Takes generations, in order. Returns the first of them after which there is no hope: all members have failed.

        Trials over slots may all fail in a moment and go on with others, once one has been sound.
        """
        for record in records:
            self.seconds += record.seconds["train"]
            if self._selector.proposer:
                self._take(record.trial, record.step, record.fitness, record.next_trial != record.trial)
            lost = not np.isfinite(self._together(record.fitness, measured=record.trial >= 0)).any()
            if lost and not (self._sound and self._selector.proposer):
                return record
            self._sound |= not lost
        return None

    def _together(self, fitness: np.ndarray, *, measured: np.ndarray) -> np.ndarray:
        """f64[M / replicates]: what each genotype is judged by, as in `vmaptune.selectors.replicates.grouped`."""
        known = np.where(np.isnan(fitness) & measured, -np.inf, fitness).reshape(-1, self._repeats.replicates)
        value = np.median(known, axis=1) if self._repeats.aggregate == "median" else known.mean(axis=1)
        return np.where(np.isfinite(value), value, np.nan)

    def _take(self, trial: np.ndarray, step: np.ndarray, fitness: np.ndarray, ended: np.ndarray) -> None:
        """Takes results of trials i64[M], by the order of generations: a later one replaces an earlier one."""
        real = trial >= 0
        self._value[trial[real]] = fitness[real]
        self._step[trial[real]] = step[real]
        self._ended[trial[real]] = ended[real]

    def told(self, genotype: np.ndarray) -> Told:
        """What is known of the trials that were proposed f32[T, D]: a row a genotype, all its replicates together."""
        size = self._repeats.replicates
        value, step, ended = (a[: len(genotype) * size] for a in (self._value, self._step, self._ended))
        whole = np.asarray(ended.reshape(-1, size).all(axis=1))
        newest = step.reshape(-1, size).max(axis=1)
        return Told(genotype, self._together(value, measured=step > 0), newest, whole, self._horizon)

    def propose(self, generations: Generations, state: State) -> State:
        """The state with a genotype for every trial that is to begin now."""
        begun = time.perf_counter()
        known, needed = int(state.known), int(generations.births(state).max(initial=-1)) + 1
        if self._selector.proposer and needed > known:
            rows = np.array(state.proposals)
            rows[known:needed] = self._selector.proposer.propose(
                self._space, self.told(rows[:known]), needed - known, self._seed
            )
            state = generations.with_proposals(state, rows, needed)
        self.proposing += time.perf_counter() - begun
        return state
