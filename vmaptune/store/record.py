"""What is known of one generation once it is over, and who may want to hear of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Record:
    """The frozen facts of one generation of N members, on the host.

    Attributes:
        generation: Number of the generation, from 0.
        trial: i32[N], the trial in each slot while the generation trained; -1: none, the slot was empty.
        step: i32[N], steps each had trained at its end.
        status: i32[N], a `vmaptune.population.Status`.
        fitness: f32[N], higher is better; NaN for a failed member.
        metrics: f32[N] by name: `train.loss`, `validation.accuracy`, ...
        hyperparameters: f32[N] by dotted name, the searched ones, decoded.
        parent: i32[N], the slot that each slot's next member comes from; own slot: it survives; -1: born anew; -2: none.
        next_trial: i32[N], the trial in each slot in the next generation.
        seconds: Wall time by part: `train`, of the dispatch that ran it, shared out evenly among its generations.
    """

    generation: int
    trial: np.ndarray
    step: np.ndarray
    status: np.ndarray
    fitness: np.ndarray
    metrics: Mapping[str, np.ndarray]
    hyperparameters: Mapping[str, np.ndarray]
    parent: np.ndarray
    next_trial: np.ndarray
    seconds: Mapping[str, float]

    @property
    def failed(self) -> np.ndarray:
        """bool[N]: members that diverged or whose metric is not finite."""
        return ~np.isfinite(self.fitness) & (self.trial >= 0)


class Sink(Protocol):
    """Anything that wants to hear of each generation: the history, a progress bar, a tracker.

    A sink may also have, without having to:

    `finish(facts)`: told once the run has ended, before `close`: its "status", "best", "test" and "member_steps", as in
    `Result.as_json`; "test" is None in a run that can go on.

    `newest`: the last generation that it holds from before, -1: none. It is then told of all after that one, also of those
    that were trained before the run was resumed.
    """

    def write(self, record: Record) -> None:
        """Takes one generation. Called in order, once each; after a resume it starts at the resumed generation."""
        ...

    def close(self) -> None:
        """No more records will come."""
        ...
