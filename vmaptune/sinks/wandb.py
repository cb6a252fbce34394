"""Weights & Biases: curves and histograms over the members, offline unless told otherwise."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from vmaptune.sinks.contract import RunInfo, flattened
from vmaptune.sinks.summary import scalars, spreads
from vmaptune.store.record import Record


def wandb(
    run: RunInfo, *, project: str = "vmaptune", entity: str = "", mode: Literal["offline", "online"] = "offline"
) -> WandB:
    """A run of a project of Weights & Biases.

    Args:
        run: The run.
        project: Name of the project.
        entity: Whose it is; empty: the one who logged in.
        mode: offline: kept in the run folder, and sent by `wandb sync`. online: sent as it comes (`wandb login` first).
    """
    return WandB(run, project, entity, mode)


class WandB:
    """Goes on with the W&B run of this run, whose id there is made from this one's, or begins it.

    Offline it writes all of it anew, from the first generation on: what a killed process had told may not be on disk.

    Args:
        run: The run.
        project: Name of the project.
        entity: Whose it is.
        mode: offline or online.
    """

    def __init__(self, run: RunInfo, project: str, entity: str, mode: Literal["offline", "online"]) -> None:
        """Begins a run of its own: one that the user has in this process is left alone."""
        import wandb

        folder = run.place("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(run.key.encode()).hexdigest()[:12]
        for old in folder.glob(f"wandb/offline-run-*-{name}"):
            shutil.rmtree(old)
        self._run, self._histogram = run, wandb.Histogram
        self._wandb = wandb.init(
            project=project,
            entity=entity or None,
            mode=mode,
            id=name,
            name=run.name,
            resume="allow",
            dir=folder,
            config=dict(run.config),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.newest = self._wandb.step - 1  # of what W&B has, it goes on after the last

    def write(self, record: Record) -> None:
        """Logs a generation, at its number as the step."""
        spread = spreads(record, self._run).items()
        histograms = {f"members/{name}": self._histogram(np_histogram=np.histogram(values, 64)) for name, values in spread}
        self._wandb.log(scalars(record, self._run) | histograms, step=record.generation, commit=True)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Keeps the winner and its test result in the summary."""
        best = flattened({"best": facts["best"], "test": facts["test"] or {}})
        self._wandb.summary.update({name.replace(".", "/", 1): value for name, value in best.items() if value is not None})

    def close(self) -> None:
        """Waits until all is written, or sent."""
        self._wandb.finish()
