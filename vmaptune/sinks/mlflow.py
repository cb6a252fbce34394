"""MLflow: a run with the config and the curves, and within it one of the winner, with its files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmaptune.sinks.contract import RunInfo, flattened
from vmaptune.sinks.summary import scalars
from vmaptune.store.record import Record

_BATCH = 100  # the most parameters that MLflow takes at once; of metrics it takes more
_LONGEST = 6000  # characters of a parameter's value
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_STEP = "generation/members"  # told with every generation


def mlflow(run: RunInfo, *, uri: str = "", experiment: str = "vmaptune") -> MLflow:
    """A run of an experiment of MLflow, and one below it of the winner.

    A server that is away or slow is given a few tries of 20 seconds at most, since the run waits for it; the variables
    MLFLOW_HTTP_REQUEST_MAX_RETRIES and MLFLOW_HTTP_REQUEST_TIMEOUT give it more.

    Args:
        run: The run.
        uri: Tracking URI, such as sqlite:///mlflow.db (in the current folder; give an absolute path if the run may go on
            from another) or http://127.0.0.1:5000; empty: MLflow's own, see MLFLOW_TRACKING_URI.
        experiment: Name of the experiment; made if it is not there.
    """
    return MLflow(run, f"sqlite:///{run.out}" if run.out and not uri else uri, experiment)


class MLflow:
    """Goes on with the MLflow run of this run, which is found by a tag, or begins one.

    Args:
        run: The run.
        uri: Tracking URI.
        experiment: Name of the experiment.
    """

    def __init__(self, run: RunInfo, uri: str, experiment: str) -> None:
        """Asks what MLflow holds of this run already."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._param = Metric, Param
        self._run, self._client = run, MlflowClient(tracking_uri=uri or None)
        files = Path(f"{run.out}.files").resolve().as_uri() if run.out else None  # else where MLflow keeps them
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment, files)
        self._id = self._find(run.key)
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._begin(run.key, run.name, {"vmaptune.folder": str(run.folder.resolve())}, run.flat_config())
        self.newest = max((metric.step for metric in self._client.get_metric_history(self._id, _STEP)), default=-1)
        self._status = "KILLED"

    def write(self, record: Record) -> None:
        """Logs the curves of a generation, at its number as the step, in one request: all of them or none."""
        self._log(self._id, scalars(record, self._run), record.generation)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Logs the winner of a finished run: hyperparameters, metrics, files; of one that was told before, what is new."""
        if facts["status"] != "finished":
            return
        self._status, best, key = "FINISHED", facts["best"], f"{self._run.key}/best"
        tags = {"mlflow.parentRunId": self._id, "vmaptune.trial": str(best["trial"])}
        child = self._find(key) or self._begin(key, f"{self._run.name}, best", tags, best["hyperparameters"])
        known = self._client.get_run(child).data.metrics
        metrics = {part: best[part] for part in ("train", "validation")} | {"test": facts["test"] or {}}
        self._log(child, {k: v for k, v in flattened(metrics).items() if k not in known}, best["generation"])
        if (self._run.folder / "best").is_dir():
            self._client.log_artifacts(child, str(self._run.folder / "best"), "best")
        self._client.set_terminated(child)

    def close(self) -> None:
        """Says that the run is over, or was stopped and can go on."""
        self._client.set_terminated(self._id, self._status)

    def _find(self, key: str) -> str:
        found = self._client.search_runs([self._experiment], f"tags.`vmaptune.run` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else ""

    def _begin(self, key: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        run = self._client.create_run(self._experiment, tags={"vmaptune.run": key, **tags}, run_name=name)
        given = [self._param(name, str(value)[:_LONGEST]) for name, value in params.items()]
        for first in range(0, len(given), _BATCH):
            self._client.log_batch(run.info.run_id, params=given[first : first + _BATCH])
        return str(run.info.run_id)

    def _log(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(run_id, [self._metric(name, value, now, step) for name, value in values.items()])
