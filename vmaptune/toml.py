"""Configs as text: reading TOML, applying `--set`, and writing a config with a comment on every setting."""

from __future__ import annotations

import inspect
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from vmaptune import sections
from vmaptune.choices import Tree
from vmaptune.config import FROM_PYTHON, RunConfig, resolve
from vmaptune.data.weights import located
from vmaptune.errors import ConfigError
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.plateau import plateau
from vmaptune.recipe import group
from vmaptune.schedules import SCHEDULES
from vmaptune.schedules.mixture import warmup_settings
from vmaptune.selectors import SELECTORS
from vmaptune.settings import Setting, settings
from vmaptune.stoppers import STOPPERS
from vmaptune.tasks import Task, find_task

# Sections that name a row of a table: the key that names it, and the table.
_ROWS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "optimizer": ("name", OPTIMIZERS),
    "schedule": ("name", SCHEDULES),
    "search": ("method", SELECTORS),
    "search.stop": ("name", STOPPERS),
}
_SEARCHED = ("task", "optimizer", "groups", "schedule", "plateau")  # sections in which an axis may stand for a number
_GROUPS = (
    "Groups of parameters that train at learning rates of their own, each a table such as [groups.head], with "
    'match = "head.*" and learning_rate = 0.1, which multiplies the learning rate.'
)
_SINKS = (
    "Where results go besides the history, each a table such as [sinks.tensorboard]; `vmaptune list` names them. They change "
    "no result, so a run can go on with others."
)
_ALWAYS = {"search": ("replicates", "aggregate", "stop", "budget")}  # what is kept when another row is named


def default_tree() -> Tree:
    """The embedded default: digits, a small network, truncation selection."""
    return tomllib.loads(resources.files("vmaptune").joinpath("default.toml").read_text(encoding="utf-8"))


def read_toml(path: str | Path) -> Tree:
    """Reads a TOML file.

    Raises:
        ConfigError: It is not there, or not TOML; the sentence names the line.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `vmaptune init {path}` writes a commented one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def load_config(
    path: str | Path | None = None, assignments: Iterable[str] = (), *, seed: int | None = None
) -> tuple[RunConfig, Task]:
    """Reads and resolves a config file (or the embedded default), with `--set` assignments applied.

    Raises:
        ConfigError: The first thing found wrong.
    """
    return resolve(load_tree(path, assignments, seed=seed), source=str(path or "default config"))


def load_tree(path: str | Path | None = None, assignments: Iterable[str] = (), *, seed: int | None = None) -> Tree:
    """Reads a config file (or the embedded default), with `--set` assignments applied, and resolves nothing yet.

    Raises:
        ConfigError: It cannot be read.
    """
    tree = default_tree() if path is None else _with_files_located(read_toml(path), Path(path).parent)
    tree = override(tree, assignments)
    return tree if seed is None else tree | {"seed": seed}


def _with_files_located(tree: Tree, folder: Path) -> Tree:
    """A config's task, weights and sinks are named from where it lies, those of `--set` from the current folder."""
    task, init, sinks = (tree.get(section) for section in ("task", "init", "sinks"))
    if isinstance(task, Mapping) and "name" in task:
        tree = tree | {"task": dict(task) | {"name": _located(task["name"], folder)}}
    if isinstance(init, Mapping) and isinstance(init.get("from"), str) and init["from"]:
        tree = tree | {"init": dict(init) | {"from": located(init["from"], folder)}}
    if isinstance(sinks, Mapping):
        tree = tree | {"sinks": {_located(name, folder): table for name, table in sinks.items()}}
    return tree


def _located(name: Any, folder: Path) -> Any:
    """A task's or a sink's file is named from where its config lies."""
    if isinstance(name, Mapping) and isinstance(name.get("choices"), list):
        return dict(name) | {"choices": [_located(choice, folder) for choice in name["choices"]]}
    file, _, function = str(name).rpartition(":")
    return f"{(folder / file).resolve()}:{function}" if isinstance(name, str) and file.endswith(".py") else name


def override(tree: Tree, assignments: Iterable[str]) -> Tree:
    """Applies `--set key=value` assignments to a tree.

    The value is any TOML value; a bare word is a string. Naming another row in a section (`optimizer.name=sgd`) drops
    those settings of the section that came from the file and that the new row does not have.

    Raises:
        ConfigError: Not of the form `key=value`, or not a TOML value.
    """
    given: Tree = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = _path(key)
        if not equals or not all(path):
            raise ConfigError(f"--set: expected key=value, such as optimizer.b1=0.95; given: {assignment!r}")
        node = given
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {key}: {part} was given a value already, so nothing can stand below it")
        node[path[-1]] = _toml_value(text.strip(), key)
    given = _with_files_located(given, Path())
    return {**tree, **{section: _merge(section, tree.get(section), value) for section, value in given.items()}}


def _path(key: str) -> list[str]:
    """A dotted name's parts; a dot within quotes parts nothing: `sinks."best.py:Best".name`."""
    path: list[str] = []
    try:
        node: Any = tomllib.loads(f"{key} = 0") if '"' in key else 0
        while isinstance(node, dict):
            ((part, node),) = node.items()
            path.append(part)
    except (tomllib.TOMLDecodeError, ValueError):  # ValueError: more than one assignment
        path = []
    return path or [part.strip() for part in key.split(".")]


def _toml_value(text: str, key: str) -> Any:
    try:
        (value,) = tomllib.loads(f"value = {text}").values()
        return value
    except (tomllib.TOMLDecodeError, ValueError):  # ValueError: more than one assignment
        if text and all(c.isalnum() or c in "_-./:~*?" for c in text):
            return text
        raise ConfigError(f"--set {key}: not a TOML value; given: {text!r}") from None


def _merge(section: str, old: Any, given: Any) -> Any:
    """Lays given keys over a section; an axis is replaced whole, a nested table key by key."""
    if section == "search.stop" and isinstance(old, str):
        old = {"name": old}
    if not isinstance(old, dict) or not isinstance(given, dict):
        return given
    key, rows = _ROWS.get(section) or _ROWS.get(section.partition(".")[0], ("name", {}))
    if key in given and given[key] != old.get(key) and not _is_axis(given[key]):
        row = rows.get(given[key]) if isinstance(given[key], str) else None
        shared = warmup_settings() | warmup_settings(traced=False) if section.startswith("schedule") else {}
        known = settings(row) if row else shared
        families = given[key] if isinstance(given[key], list) else ()
        old = {k: v for k, v in old.items() if k in known or k in families or k in _ALWAYS.get(section, ()) or _is_schedule(v)}
    merged = dict(old)
    for k, v in given.items():
        merged[k] = v if _is_axis(old.get(k)) else _merge(f"{section}.{k}", old.get(k), v)
    return merged


def _is_axis(value: Any) -> bool:
    return isinstance(value, dict) and bool({"low", "high", "choices"} & {*value})


def _is_schedule(value: Any) -> bool:
    return isinstance(value, dict) and "name" in value


# ------------------------------------------------------------------------------------------------------------ writing


def to_toml(config: RunConfig, task: Task, *, header: str = "") -> str:
    """Writes a complete config: every setting with its value, and above it what it means and what it may be.

    Args:
        config: What to write.
        task: The config's task; its loss declares the task's traced settings.
        header: Text of the comment at the top.

    Returns:
        TOML that `vmaptune run` takes, and that resolves to `config`.
    """
    blocks = [_comment(header)] if header else []
    blocks.append(_comment("Seed of everything random in the run.") + f"seed = {config.seed}\n")
    tree = config.tree
    own_task = config.task.name != FROM_PYTHON
    task_settings = (settings(find_task(config.task.name)) if own_task else {}) | settings(task.loss)
    task_about = _summary(find_task(config.task.name)) if own_task else "A task that was passed to vmaptune.tune()."
    known = {
        "task": (task_about, task_settings),
        "data": (_summary(sections.Data), settings(sections.Data)),
        "init": (_summary(sections.Init), sections.keyed(sections.Init)),
        "batch": (_summary(sections.Batch), settings(sections.Batch)),
        "optimizer": _row(OPTIMIZERS, config.optimizer.name),
        "groups": (_GROUPS, {}),
        **{f"groups.{name}": (_summary(group), settings(group)) for name in config.parameter_groups},
        "plateau": (_summary(plateau), settings(plateau)),
        "precision": (_summary(sections.Precision), settings(sections.Precision)),
        "population": (_summary(sections.PopulationSize), settings(sections.PopulationSize)),
        "fitness": (_summary(sections.Fitness), settings(sections.Fitness)),
        "fitness.lookahead": (_summary(sections.Lookahead), settings(sections.Lookahead)),
        "search": (
            _row(SELECTORS, config.search.name)[0],
            settings(SELECTORS[config.search.name]) | settings(sections.Repeats),
        ),
        "search.stop": _row(STOPPERS, config.stop.name),
        "search.budget": (_summary(sections.Budget), settings(sections.Budget)),
        "checkpoint": (_summary(sections.Checkpoint), settings(sections.Checkpoint)),
        "plan": (_summary(sections.Layout), settings(sections.Layout)),
    }
    for section, table in tree.items():
        if section == "seed":
            continue
        if section == "schedule":
            nested = {k: v for k, v in table.items() if _is_schedule(v)}
            blocks += _schedule_sections("schedule", {k: v for k, v in table.items() if k not in nested})
            for target, sub in nested.items():
                blocks += _schedule_sections(f"schedule.{target}", sub)
        elif section == "sinks":
            blocks += [_section(section, {}, _SINKS, {}), *(_sink(name, settings_) for name, settings_ in table.items())]
        else:
            below = {f"{section}.{k}": v for k, v in table.items() if f"{section}.{k}" in known}
            blocks.append(_section(section, {k: v for k, v in table.items() if f"{section}.{k}" not in below}, *known[section]))
            blocks += [_section(name, sub, *known[name]) for name, sub in below.items()]
    return "\n".join(blocks)


def _schedule_sections(name: str, table: Mapping[str, Any]) -> list[str]:
    """A schedule's section, and one for each of its families if it has several."""
    if isinstance(table["name"], str):
        return [_section(name, table, *_row(SCHEDULES, table["name"]))]
    about = "Families of schedules: which of them a member follows is searched. Each has a table of its own below."
    shared = {k: v for k, v in table.items() if k not in table["name"]}
    sections = [_section(name, shared, about, warmup_settings() | warmup_settings(traced=False))]
    for family in table["name"]:
        row = SCHEDULES[family]
        sections.append(_comment(_summary(row)) + _section(f"{name}.{family}", table[family], "", settings(row)))
    return sections


def _sink(name: str, table: Mapping[str, Any]) -> str:
    """A sink's section; what its settings mean is known to `vmaptune.sinks` alone."""
    import tomlkit

    return f"[sinks.{tomlkit.key(name).as_string()}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _row(table: Mapping[str, Any], name: str) -> tuple[str, dict[str, Setting]]:
    return _summary(table[name]), settings(table[name])


def _section(name: str, table: Mapping[str, Any], about: str, known: Mapping[str, Setting]) -> str:
    lines = [f"[{name}]\n"] if table else [_comment(about), f"[{name}]\n"]
    for key, value in table.items():
        if key in ("name", "method") and key not in known:
            lines.append(_comment(about))
        else:
            setting = known[key]
            kind = f"{setting.type_name}{', or an axis' if setting.traced and name.partition('.')[0] in _SEARCHED else ''}"
            lines.append(_comment(f"{setting.help} ({kind})"))
        lines.append(f"{key} = {_value(value)}\n")
    return "".join(lines)


def _summary(fn: Any) -> str:
    return (inspect.getdoc(fn) or "").partition("\n\n")[0].replace("\n", " ")


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, 110))


def _value(value: Any) -> str:
    import tomlkit

    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return tomlkit.item(value).as_string()
