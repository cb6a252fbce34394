"""The locked test split of a run that is over: what was read of it, and a second look, which is put on record."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from vmaptune.analysis.predictor import require_winner
from vmaptune.analysis.retraining import opened_again
from vmaptune.analysis.weights import as_trained, shapes_of, tree_from
from vmaptune.cache import use_compilation_cache
from vmaptune.data.digest import digest
from vmaptune.data.weights import read_weights
from vmaptune.errors import warn
from vmaptune.plan import prepare_backend
from vmaptune.population import Member, Status
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History
from vmaptune.store.ledger import read_test
from vmaptune.store.reading import read_digest, read_run, test_reads
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task
from vmaptune.winner import test_metrics


@dataclass(frozen=True)
class LockedTest:
    """What is on record of a run's test split.

    Attributes:
        run: The run folder.
        status: Of the run.
        metric: What its members are selected by.
        validation: Metrics of its winner; empty before there is one.
        test: Metrics of its winner on the test split; None if it was not read.
        reads: Every reading, in order; see `vmaptune.store.reading.test_reads`.
    """

    run: Path
    status: str
    metric: str
    validation: dict[str, float]
    test: dict[str, float] | None
    reads: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """As strict JSON values."""
        return finite_json({name: getattr(self, name) for name in self.__dataclass_fields__} | {"run": str(self.run)})


def locked_test(run: str | Path) -> LockedTest:
    """Reads what is on record, not the test split.

    Raises:
        StoreError: Not a run folder.
    """
    folder = RunFolder(run)
    row = read_run(folder)
    result = row["result"] or {}
    validation = result.get("best", {}).get("validation", {})
    return LockedTest(folder.path, row["status"], row["metric"], validation, result.get("test"), test_reads(folder.history))


def warn_of_other_data(folder: RunFolder, task: Task) -> None:
    """Says so if a task's data are not those of the run: cut anew, they may have what was trained on in the other parts."""
    if read_digest(folder.history) not in (None, digest(task.splits)):
        changed = "the data are not what they were when the run was begun"
        warn(f"{folder.path}: {changed}: what it trained on may be among the validation and test splits by now")


def look_again(run: str | Path, *, task: Task | None = None) -> dict[str, float]:
    """Reads the test split once more for a run's winner, from the weights on file. On record, before and after.

    Raises:
        StoreError: Not a run folder, one in use, or no winner yet.
        ConfigError: The task was passed from Python and is not given.
    """
    prepare_backend()
    use_compilation_cache()
    folder = RunFolder(run)
    with folder.require_run().locked():
        row = read_run(folder)
        require_winner(folder)
        _, task = opened_again(folder, row, task, "load")
        warn_of_other_data(folder, task)
        file = str(folder.best / "weights.safetensors")
        params, model_state = as_trained(task, *tree_from(read_weights(file, "test").arrays, shapes_of(task), file))
        best, zero = row["result"]["best"], jnp.zeros((), jnp.int32)
        member = Member(jnp.zeros(0), params, model_state, (), zero, zero, zero + Status.OK, jnp.zeros(0))
        subject = {"what": "best", "trial": best["trial"], "generation": best["generation"]}
        with closing(History(folder.history)) as history:
            return read_test(history, folder.history, subject, lambda: test_metrics(task, member), again=True)
