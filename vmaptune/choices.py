"""A chosen row of a table: its name, and a value or an axis for each of its settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.recipe import LEARNING_RATE, group
from vmaptune.schedules import SCHEDULES, bare
from vmaptune.schedules.mixture import FAMILY, Mixture, warmup_settings
from vmaptune.settings import Setting, StaticFloat, convert, settings, show
from vmaptune.space import Axis, axis_from_table
from vmaptune.stoppers import STOPPERS

Tree = dict[str, Any]

_OF_AN_AXIS = {"low", "high", "choices"}  # a table with one of these keys is an axis


@dataclass(frozen=True)
class Choice:
    """A row of a table, with a value for each of its settings.

    Attributes:
        name: Name of the row.
        values: Every setting, in the order of the row's signature. A float or an `Axis`, or a tuple of them, is traced, all
            else static.
    """

    name: str
    values: dict[str, Any]

    @property
    def traced(self) -> dict[str, float | Axis]:
        """Settings that may differ per member: a number, or an axis to search. A vector's numbers are `k.0`, `k.1`, ..."""
        scalars = {k: v for k, v in self.values.items() if _is_traced(v)}
        vectors = {k: v for k, v in self.values.items() if _is_vector(v)}
        return scalars | {f"{k}.{i}": number for k, v in vectors.items() for i, number in enumerate(v)}

    @property
    def static(self) -> Tree:
        """Settings that all members share."""
        return {k: v for k, v in self.values.items() if not _is_traced(v) and not _is_vector(v)}

    @property
    def tree(self) -> Tree:
        """Name and settings as TOML values."""
        return {"name": self.name} | {k: _toml_value(v) for k, v in self.values.items()}

    @property
    def table(self) -> Tree:
        """Its settings as TOML values."""
        return {k: v for k, v in self.tree.items() if k != "name"}

    def pinned(self, values: Mapping[str, float]) -> Choice:
        """With each axis replaced by its value."""

        def pin(name: str, value: Any) -> Any:
            if _is_vector(value):
                return tuple(pin(f"{name}.{i}", number) for i, number in enumerate(value))
            return float(values[name]) if isinstance(value, Axis) else value

        return Choice(self.name, {k: pin(k, v) for k, v in self.values.items()})


@dataclass(frozen=True)
class MixedChoice(Choice):
    """Several schedule families, of which each member follows one.

    Its values are the axis over them (`family`), the settings of the warm-up they share, and each family's own under its
    name: `cosine.exponent`.
    """

    names: tuple[str, ...]

    @property
    def tree(self) -> Tree:
        """Names and settings as TOML values, each family's own in a table of its own."""
        tree: Tree = {"name": list(self.names)}
        for key, value in self.values.items():
            family, dot, knob = key.partition(".")
            if dot:
                tree.setdefault(family, {})[knob] = _toml_value(value)
            elif key != FAMILY:
                tree[key] = _toml_value(value)
        return tree | {name: tree.get(name, {}) for name in self.names}

    def pinned(self, values: Mapping[str, float]) -> Choice:
        """The one family that the values name, with its axes replaced by their values."""
        name = self.names[round(values[FAMILY])]
        own = {k.partition(".")[2]: v for k, v in self.values.items() if k.startswith(f"{name}.")}
        shared = {k: v for k, v in self.values.items() if "." not in k and k != FAMILY}
        below = {k.removeprefix(f"{name}."): v for k, v in values.items()}
        return Choice(name, own | shared).pinned(below)

    def mixture(self) -> Mixture:
        """The function that they are together."""
        static: dict[str, Tree] = {name: {} for name in ("", *self.names)}
        for key, value in self.static.items():
            family, _, knob = key.rpartition(".")
            static[family][knob] = value
        return Mixture({name: partial(SCHEDULES[name], **static[name]) for name in self.names}, static[""])


def bind(
    known: Mapping[str, Setting],
    given: Mapping[str, Any],
    section: str,
    *,
    owner: str = "",
    searchable: bool = True,
    besides: Iterable[str] = (),
) -> dict[str, Any]:
    """Checks given values and completes them by defaults, in the order of the signature.

    Args:
        known: The settings of the section.
        given: Their values.
        section: Its name.
        owner: What has these settings, in an error.
        searchable: Whether an axis may stand for a number.
        besides: What else the section knows, for an error to name.
    """
    for key in given:
        if key not in known:
            meant = did_you_mean(key, [*known, *besides])
            raise ConfigError(f"{section}: {owner or 'this section'} has no setting {key!r}{meant}")
    values: dict[str, Any] = {}
    for name, setting in known.items():
        where = f"{section}.{name}"
        if name not in given and setting.required:
            raise ConfigError(f"{where}: must be given ({setting.type_name}); it has no default")
        value = given.get(name, setting.default)
        value = value.as_toml() if isinstance(value, Axis) else value
        if isinstance(value, Mapping):
            if not searchable:
                raise ConfigError(f"{where}: a setting of the search itself cannot be searched; given: {dict(value)}")
            if setting.vector:
                raise ConfigError(f"{where}: expected a list, in which each number may be an axis; given: {show(dict(value))}")
            values[name] = axis_from_table(value, setting, where)
        elif setting.vector and searchable and isinstance(value, list | tuple):
            values[name] = _vector(setting, value, where)
        else:
            values[name] = convert(setting, value, where)
    return values


def _vector(setting: Setting, numbers: Iterable[Any], where: str) -> tuple[float | Axis, ...]:
    """Numbers of a vector setting, of which each may be an axis."""
    plain = [number.as_toml() if isinstance(number, Axis) else number for number in numbers]
    axes = {
        i: axis_from_table(number, setting.number, f"{where}[{i}]")
        for i, number in enumerate(plain)
        if isinstance(number, Mapping)
    }
    checked = convert(setting, [axes[i].low if i in axes else number for i, number in enumerate(plain)], where)
    return tuple(axes.get(i, number) for i, number in enumerate(checked))


def _is_traced(value: Any) -> bool:
    return isinstance(value, float | Axis) and not isinstance(value, StaticFloat)


def _is_vector(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_is_traced, value))


def _toml_value(value: Any) -> Any:
    if isinstance(value, Axis):
        return value.as_toml()
    if isinstance(value, StaticFloat):
        return float(value)
    return [_toml_value(item) for item in value] if isinstance(value, tuple) else value


def choose(
    table: Mapping[str, Any],
    section: str,
    rows: Mapping[str, Callable[..., Any]],
    *,
    default: str,
    key: str = "name",
    besides: Iterable[str] = (),
) -> Choice:
    """Reads a section that names a row of a table; `besides` is what else it knows, for an error to name.

    Raises:
        ConfigError: There is no such row, or a setting that it does not have or that does not fit.
    """
    name = table.get(key, default)
    if not isinstance(name, str):
        raise ConfigError(f"{section}.{key}: expected a string; given: {show(name)}")
    if name not in rows:
        kind = {"search": "search method", "search.stop": "stopper"}.get(section, section.partition(".")[0])
        raise ConfigError(f"{section}.{key}: there is no {kind} {name!r}{did_you_mean(name, rows)}")
    given = {k: v for k, v in table.items() if k != key}
    searchable = not section.startswith("search")
    return Choice(name, bind(settings(rows[name]), given, section, owner=name, searchable=searchable, besides=besides))


def choose_schedule(table: Mapping[str, Any], section: str) -> Choice:
    """One family, or several of which each member follows one."""
    names = table.get("name", "constant")
    if not isinstance(names, list | tuple):
        return choose(table, section, SCHEDULES, default="constant")
    for name in names:
        if not isinstance(name, str) or name not in SCHEDULES:
            raise ConfigError(f"{section}.name: there is no schedule {show(name)}{did_you_mean(str(name), SCHEDULES)}")
    if len(set(names)) < max(2, len(names)):
        raise ConfigError(f"{section}.name: expected one family, or a list of two or more different ones; given: {show(names)}")
    for key in table:
        if key in SCHEDULES and key not in names:
            raise ConfigError(f"{section}.{key}: not one of the families in {section}.name; given: {show(list(names))}")
    shared = warmup_settings() | warmup_settings(traced=False)
    given = {k: v for k, v in table.items() if k != "name" and k not in names}
    tables = [k for k, v in given.items() if isinstance(v, Mapping) and not _OF_AN_AXIS & {*v}]
    if wrong := [k for k in tables if k not in shared]:
        raise ConfigError(f"{section}.{wrong[0]}: there is no such family in {section}.name{did_you_mean(wrong[0], names)}")
    values = {FAMILY: Axis(choices=tuple(map(float, range(len(names)))))}
    values |= bind(shared, given, section, owner="a list of families, but for their own tables,")
    for name in names:
        own = table.get(name, {})
        if not isinstance(own, Mapping):
            raise ConfigError(f"{section}.{name}: expected a table, [{section}.{name}]; given: {show(own)}")
        bound = bind(settings(bare(SCHEDULES[name])), own, f"{section}.{name}", owner=name)
        values |= {f"{name}.{knob}": value for knob, value in bound.items()}
    return MixedChoice("mixture", values, tuple(names))


def choose_schedules(table: Mapping[str, Any], optimizer: Choice, task: Choice) -> dict[str, Choice]:
    """The schedule of the learning rate, and of every other setting that has one, by the dotted name of what it shapes."""
    targets = {k: f"optimizer.{k}" for k in optimizer.traced}
    targets |= {k: f"task.{k}" for k in task.traced if k not in targets}
    targets |= {"batch": targets["accumulate"]} if "accumulate" in targets else {}  # of a batch, or several
    names = table.get("name")
    families = names if isinstance(names, list | tuple) else ()
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping) and k not in families and ("name" in v or k in targets)}
    own = {k: v for k, v in table.items() if k not in nested}
    schedules = {LEARNING_RATE: choose_schedule(own, "schedule")}
    for key, sub in nested.items():
        if key not in targets:
            raise ConfigError(f"schedule.{key}: there is no hyperparameter {key!r} to shape{did_you_mean(key, targets)}")
        if targets[key] == LEARNING_RATE and own:
            raise ConfigError(
                "schedule.learning_rate: the learning rate's schedule stands in [schedule] already; keep one of the two"
            )
        if targets[key] in schedules and targets[key] != LEARNING_RATE:
            raise ConfigError(f"schedule.{key}: {targets[key]} has a schedule already, under another name; keep one of the two")
        schedules[targets[key]] = choose_schedule(sub, f"schedule.{key}")
    return {target: schedules[target] for target in (LEARNING_RATE, *targets.values()) if target in schedules}


def choose_groups(table: Mapping[str, Any]) -> dict[str, Choice]:
    """The groups of parameters by name, in one order whatever the file's."""
    groups = {}
    for name, own in sorted(table.items()):
        where = f"groups.{name}"
        if not isinstance(own, Mapping):
            raise ConfigError(f"{where}: expected a table, [{where}]; given: {show(own)}")
        if not name.isidentifier() or name in _OF_AN_AXIS:
            words = ", ".join(sorted(_OF_AN_AXIS))
            raise ConfigError(f"groups: expected a word for the name of a group, and none of {words}; given: {show(name)}")
        groups[name] = Choice(name, bind(settings(group), own, where, owner="a group"))
    return groups


def choose_stopper(given: Any) -> Choice:
    """A stopper's name, or its table."""
    table = {"name": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping):
        raise ConfigError(f"search.stop: expected a name or a table, [search.stop]; given: {show(given)}")
    return choose(table, "search.stop", STOPPERS, default="none")


def builder_settings(builder: Any, name: str) -> dict[str, Setting]:
    """The settings of a task's builder; raises `ConfigError` if it is none."""
    try:
        known = settings(builder)
        inspect.signature(builder).bind(**dict.fromkeys(known))
    except (TypeError, ValueError):
        expected = "a function whose parameters are keyword-only, or have defaults"
        raise ConfigError(f"task.name: {name} does not build a task: expected {expected}; found: {show(builder)}") from None
    if traced := [s.name for s in known.values() if s.traced]:
        raise ConfigError(
            f"task.name: {name} takes the float {traced[0]!r}: floats are traced, so declare it on the task's loss"
        )
    return known


def table_of(tree: Mapping[str, Any], section: str, within: str = "") -> Mapping[str, Any]:
    """A section of a tree; raises `ConfigError` if it is no table."""
    table = tree.get(section, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{within}{section}: expected a table, [{within}{section}]; given: {table!r}")
    return table


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two config trees: `optimizer.b1: 0.9 -> 0.95`, one line a setting."""
    flat_old, flat_new = _flatten(old), _flatten(new)
    return [
        f"{key}: {flat_old.get(key, 'absent')} -> {flat_new.get(key, 'absent')}"
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    flat: Tree = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
