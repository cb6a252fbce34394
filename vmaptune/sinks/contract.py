"""What a sink is told when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_run
from vmaptune.store.replaying import measured_and_searched


@dataclass(frozen=True)
class RunInfo:
    """The facts of a run that stay while it goes.

    Attributes:
        folder: The run folder.
        name: Its name.
        key: What tells this run from all others, also from one of the same config: the config's id and when it began.
        config: The whole config, as TOML values.
        metric: Name of the metric that members are judged by.
        direction: "max" or "min".
        size: Members, N.
        steps: Steps that a member trains in a generation, those of look-ahead included.
        generations: How many there will be, at most.
        metrics: Names of all that is measured: `train.loss`, ...; the keys of `Record.metrics`, in the history's order.
        hyperparameters: Dotted names of all that is searched; the keys of `Record.hyperparameters`, in the history's order.
        out: Where to write, if that is not the run folder: what `vmaptune export --out` was given.
    """

    folder: Path
    name: str
    key: str
    config: Mapping[str, Any]
    metric: str
    direction: str
    size: int
    steps: int
    generations: int
    metrics: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    out: Path | None = None

    def place(self, name: str) -> Path:
        """Where a sink writes its file or folder: in the run folder under a name, or where `out` says."""
        return self.out or self.folder / name

    def flat_config(self) -> dict[str, Any]:
        """The config as plain values by dotted name: `optimizer.learning_rate.low`."""
        return flattened(self.config)


def read_info(folder: RunFolder, out: Path | None = None) -> RunInfo:
    """The facts of a run as its history has them.

    Raises:
        StoreError: It is no run folder, or its history cannot be read.
    """
    run = read_run(folder)
    metrics, hyperparameters = measured_and_searched(folder.history)
    ahead = run["config"].get("fitness", {}).get("lookahead", {}).get("steps", 0)
    return RunInfo(
        folder=folder.path,
        name=folder.path.resolve().name,
        key=f"{run['id']}-{run['created']}",
        config=run["config"],
        **{key: run[key] for key in ("metric", "direction", "size", "generations")},
        steps=run["segment_steps"] + ahead,
        metrics=tuple(metrics),
        hyperparameters=tuple(hyperparameters),
        out=out,
    )


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values by dotted name, those that are set: an empty table has none."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
