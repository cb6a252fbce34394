"""What `tune` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmaptune.config import RunConfig
from vmaptune.population import Member
from vmaptune.store.reading import HistoryArray
from vmaptune.strict_json import finite_json


@dataclass(frozen=True)
class Best:
    """The finished member that validation chose (the best so far, where none has finished), as it was at that moment.

    Attributes:
        trial: Number of its trial.
        generation: When it was measured.
        step: Steps its weights had been trained.
        hyperparameters: Searched settings by dotted name.
        train: Mean training metrics of that generation.
        validation: Validation metrics; what it was chosen by.
        test: Test metrics, read once, after the choice; None if the run has not finished.
        replicates: Of its settings, where they were trained with several seeds: their fitness, and how many other settings
            it is tied with; see `vmaptune.spread`. Else None.
        params: Its weights, on the host.
        model_state: Its model state, on the host.
    """

    trial: int
    generation: int
    step: int
    hyperparameters: dict[str, float]
    train: dict[str, float]
    validation: dict[str, float]
    test: dict[str, float] | None
    replicates: dict[str, float] | None
    params: Any
    model_state: Any


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        run: The run folder.
        status: "finished", or "interrupted" if it was asked to stop early and can be resumed.
        config: What was run.
        best: The member that validation chose.
        history: Every record, a structured array; `.to_pandas()` makes it a data frame.
        population: The last generation, N members.
        member_steps: Training steps of all members, by this and earlier processes of the run.
        seconds: Wall time of this process by part.
        compilations: How often each program was compiled by this process.
    """

    run: Path
    status: str
    config: RunConfig
    best: Best
    history: HistoryArray
    population: Member
    member_steps: int
    seconds: Mapping[str, float]
    compilations: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The facts of the run as strict JSON values."""
        best = self.best
        return finite_json(
            {
                "run": str(self.run),
                "status": self.status,
                "best": {
                    "trial": best.trial,
                    "generation": best.generation,
                    "step": best.step,
                    "hyperparameters": best.hyperparameters,
                    "train": best.train,
                    "validation": best.validation,
                    "replicates": best.replicates,
                },
                "test": best.test,
                "population": self.config.population.size,
                "generations": int(self.history["generation"].max()) + 1,
                "member_steps": self.member_steps,
                "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
                "compilations": dict(self.compilations),
            }
        )
