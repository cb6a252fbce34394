"""A config for data of your own, inferred from a file or a folder: the task, a space, and a run as long as the data ask for.

What is suggested is a place to begin: a small network, AdamW, and the few settings that matter everywhere as axes. The run is
sized so that it trains for about 30 epochs (of small data, for the 400 steps that they need) and computes what a small machine
does in a minute; of large networks, it is eight members for a thousand steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vmaptune.choices import Tree
from vmaptune.data.columns import counted
from vmaptune.data.splits import Splits
from vmaptune.data.tables import SUFFIXES, column_names, rarest_class, read_table
from vmaptune.errors import ConfigError, VmaptuneWarning
from vmaptune.settings import Setting, convert, settings
from vmaptune.tasks import Task, find_task
from vmaptune.tasks.tables import usual_metric
from vmaptune.toml import override

_EPOCHS = 30
_GENERATIONS = 20
_OPERATIONS = 2e12  # of a whole run, floating-point: what a small machine does in a minute
_LEAST, _MOST = 8, 64  # members
_FILES = frozenset({"path", "validation_path", "test_path"})


class _Found(NamedTuple):
    """What data ask for.

    Attributes:
        task: The section of the task.
        said: Sentences about it.
        examples: For training.
        operations: Of training on one example once, floating-point.
    """

    task: Tree
    said: list[str]
    examples: int
    operations: float


def suggested(path: str, target: str = "", assignments: Iterable[str] = ()) -> tuple[Tree, list[str]]:
    """A config for data of your own.

    Args:
        path: A table (.csv, .tsv, .parquet), a folder of images (a folder a class, or IDX files), a text (.txt), or arrays
            (.npz, or a folder of .npy files).
        target: Column of a table to predict.
        assignments: Of `--set`, applied to the config; what is inferred goes by them.

    Returns:
        The config, TOML values, its files by absolute paths, and sentences: what was inferred, and why.

    Raises:
        ConfigError: There is no such file, it is none of these, or it cannot be used.
    """
    name, what = _kind_of(path)
    if target and name != "table":
        raise ConfigError(f"--target: only a table has columns, and {path} is {what}; given: {target!r}")
    assignments = tuple(assignments)
    section = override({}, assignments).get("task", {})
    given = section if isinstance(section, Mapping) else {}
    for key, option in (("path", "--data"), ("target", "--target")):
        if key in given and (key == "path" or target):
            raise ConfigError(f"--set task.{key}: is {option} already; given: {given[key]!r}")
    task = {"name": name, "path": path} | ({"target": target} if target else {})
    decided = _decided(settings(find_task(name)), task | dict(given))
    found = _table(task, decided, given) if name == "table" else _other(task, decided)
    tree: Tree = {
        "task": found.task,
        **_size(found.examples, found.operations),
        "optimizer": {
            "name": "adamw",
            "learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"},
            "weight_decay": {"low": 1e-5, "high": 1.0, "scale": "log"},
            "clip_norm": 1.0,
        },
        "schedule": {"name": "cosine", "warmup": {"low": 0.0, "high": 0.3}},
    }
    tree = override(tree, assignments)
    if isinstance(tree["task"], Mapping):
        files = {key: _absolute(value) for key, value in tree["task"].items() if key in _FILES and isinstance(value, str)}
        tree["task"] = {**tree["task"], **files}
    return tree, [f"{path} is {what}: task {name}", *found.said, *_sized(tree, found.examples)]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""


def _kind_of(path: str) -> tuple[str, str]:
    """The task that takes such data, and what they are."""
    place = Path(path).expanduser()
    if not place.exists():
        raise ConfigError(f"--data: there is no file or folder {path!r}")
    if place.is_dir():
        return ("arrays", "arrays") if any(place.glob("*.npy")) else ("images", "images")
    kinds = {**dict.fromkeys(SUFFIXES, ("table", "a table")), ".npz": ("arrays", "arrays"), ".txt": ("text", "a text")}
    for suffix, kind in kinds.items():
        if place.name.lower().endswith(suffix):
            return kind
    raise ConfigError(f"--data: expected a folder, or a file that ends in {', '.join(kinds)}; given: {path!r}")


def _decided(known: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Static settings that have one value; choices and axes are for the search, and mistakes for the config to name."""
    return {
        key: convert(known[key], value, f"task.{key}")
        for key, value in given.items()
        if key in known and not known[key].traced and not isinstance(value, Mapping)
    }


def _table(task: Tree, decided: dict[str, Any], given: Mapping[str, Any]) -> _Found:
    if "target" not in decided:
        names = ", ".join(column_names(decided["path"]))
        raise ConfigError(f"--target: name the column of {task['path']} to predict; its columns: {names}")
    asked = {k: v for k, v in decided.items() if k in settings(read_table)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VmaptuneWarning)  # the run reads the table again, and says it then
        table = read_table(decided["path"], decided["target"], **asked, seed=decided.get("split_seed", 0))
    rows, classes = table.splits.size("train"), len(table.classes)
    widths = list(decided["hidden"]) if "hidden" in decided else _widths(rows)
    widths = [decided.get("units", 64)] * decided.get("layers", 0) or widths
    searched = any(isinstance(given.get(key), Mapping) for key in ("hidden", "layers", "units"))
    layers = "hidden layers to be chosen" if searched else f"hidden layers of {widths}"
    axes: Tree = {"dropout": {"low": 0.0, "high": 0.5}}
    said = [*table.inferred, _parts(table.splits), f"{counted(len(table.features), 'input')}, {layers}"]
    metric = decided.get("metric", "auto")
    if metric == "auto" and classes:
        metric = usual_metric(table.splits, classes)
        rarest, least = rarest_class(table.splits.train[1])
        share = f"{counted(least, 'row')} of {rows:,}"
        said.append(
            f"members are selected by {metric}: the rarest of {classes} classes, {table.classes[rarest]!r}, has {share}"
        )
        if metric != "accuracy":
            axes["class_balance"] = {"low": 0.0, "high": 1.0}
            said.append("how much more rare classes weigh is searched: class_balance")
    elif metric == "auto":
        said.append("members are selected by r2, the share of the variance that is explained")
    if not classes:
        said.append(f"rmse and mae are in standard deviations of {decided['target']!r}: 1 is {table.scale:.2g}")
    weights = sum(m * n for m, n in pairwise([len(table.features), *widths, classes or 1]))
    return _Found(task | {"hidden": widths} | axes, said, rows, 6.0 * weights)


def _widths(rows: int) -> list[int]:
    """Hidden layers that so many rows warrant."""
    return [32] if rows < 1_000 else [64, 64] if rows < 20_000 else [128, 128]


def _other(task: Tree, decided: dict[str, Any]) -> _Found:
    built = find_task(task["name"])(**decided)
    axes = {"dropout": {"low": 0.0, "high": 0.5}} if "dropout" in settings(built.loss) else {}
    said = [*_what_is_learnt(built, decided), _parts(built.splits), f"members are selected by {built.metric}"]
    return _Found(task | axes, said, built.splits.size("train"), _operations(built))


def _what_is_learnt(task: Task, decided: dict[str, Any]) -> list[str]:
    """Sentences about what data hold that are no table, and the network for them."""
    inputs, targets = task.splits.train
    network = decided.get("model", "gru" if np.issubdtype(inputs.dtype, np.integer) else "auto")
    network = ("cnn" if inputs.ndim == 4 else "mlp") if network == "auto" else network
    if np.issubdtype(inputs.dtype, np.integer):
        windows = f"windows of {inputs.shape[1]} tokens, {counted(len(np.unique(inputs)), 'different one')}"
        return [f"the next token is predicted, by a {network}: {windows}"]
    if np.issubdtype(targets.dtype, np.integer):
        sizes = np.bincount(targets)
        what = f"classification into {len(sizes)} classes; the rarest has {counted(int(np.min(sizes)), 'example')}"
    else:
        what = "regression: the targets are real numbers; rmse and mae are in their standard deviations"
    return [what, f"inputs of shape {inputs.shape[1:]}, for {'a' if network == 'cnn' else 'an'} {network.upper()}"]


def _operations(task: Task) -> float:
    """About how many an example costs, from the weights and how often each is used: once a pixel, once a token, or once."""
    params, _ = jax.eval_shape(task.init, jax.random.key(0), task.sample)
    example = jax.tree.leaves(task.sample)[0][0]
    tokens = example.size if np.issubdtype(example.dtype, np.integer) else 1
    pixels = example.shape[0] * example.shape[1] if example.ndim == 3 else 1
    return 6.0 * sum(leaf.size * (pixels if leaf.ndim == 4 else tokens) for leaf in jax.tree.leaves(params))


def _parts(splits: Splits) -> str:
    train, validation, test = (splits.size(part) for part in ("train", "validation", "test"))
    return f"{counted(train, 'example')} to train on, {validation:,} to select by, {test:,} to test the winner"


def _size(examples: int, operations: float) -> Tree:
    """Sections about the size of a run that such data ask for and a small machine can do."""
    batch = min(2 ** min(max(round(math.log2(examples / 10)), 4), 7), examples)
    steps = min(max(_EPOCHS * examples // batch, 400), 4_000, max(1_000, int(_OPERATIONS / (operations * batch * _LEAST))))
    segment = steps // _GENERATIONS
    members = _OPERATIONS / (operations * batch * segment * _GENERATIONS)
    size = 2 ** math.floor(math.log2(min(max(members, _LEAST), _MOST)))
    population = {"size": size, "segment_steps": segment, "generations": _GENERATIONS}
    return {"batch": {"size": batch}, "population": population}


def _sized(tree: Tree, examples: int) -> list[str]:
    """A sentence about the size of the run; none where that is a choice, or a mistake that the config will name."""
    population, batch = tree["population"], tree["batch"]
    if not isinstance(population, Mapping) or not isinstance(batch, Mapping):
        return []
    sizes = (*(population.get(key) for key in ("size", "generations", "segment_steps")), batch.get("size"))
    whole = [size for size in sizes if isinstance(size, int)]
    if len(whole) < len(sizes):
        return []
    members, generations, steps, taken = whole
    epochs = generations * steps * taken / examples
    trained = f"{counted(members, 'member')} train for {counted(generations, 'generation')} of {counted(steps, 'step')}"
    return [f"{trained}, {counted(taken, 'example')} a step: {epochs:{',.0f' if epochs >= 10 else '.2g'}} epochs"]
