"""Cohorts: choices on static settings, taken apart into configs that each compile one program.

A traced setting may differ from member to member, so its axis lies inside the population. A static one (the row of a table,
a shape, a branch) is part of the program: `choices` there open cohorts, one for every combination, and a setting that only
some of the rows know (momentum, b1) goes to their cohorts alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from vmaptune.choices import Tree, bind
from vmaptune.config import FROM_PYTHON, resolve
from vmaptune.errors import ConfigError
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.schedules import SCHEDULES, bare
from vmaptune.schedules.mixture import warmup_settings
from vmaptune.sections import Batch
from vmaptune.settings import Setting, settings, show
from vmaptune.space import Axis
from vmaptune.tasks import Task, find_task

MOST = 64  # each compiles a program of its own
_LONGEST = 120  # of a name: a folder is called by it

Known = Mapping[str, Setting]
Path = tuple[str, ...]


class Cohort(NamedTuple):
    """Members of one static shape.

    Attributes:
        name: What tells it from the others, fit for a folder: `optimizer=sgd,task.hidden=64-64`; "" if it is the only one.
        assignment: Its choice for each static setting that has several, by dotted name.
        tree: Its config, without choices on static settings.
    """

    name: str
    assignment: Tree
    tree: Tree


@dataclass(frozen=True, kw_only=True)
class CohortBudget:
    """How cohorts share what is trained.

    Attributes:
        budget: halving: all train for a short while, and again and again only the best of them go on; equal: all train to
            the end.
        reduction: Halving keeps one in so many cohorts, which then have trained so many times longer when it keeps again.
    """

    budget: Literal["halving", "equal"] = "halving"
    reduction: Annotated[int, msgspec.Meta(ge=2)] = 2

    def rungs(self, cohorts: int, generations: int) -> dict[int, int]:
        """How many cohorts go on after which generation.

        Args:
            cohorts: How many begin.
            generations: Of a whole run.

        Returns:
            Number of cohorts by generations done, ascending: `{5: 4, 10: 2, 20: 1}` for eight cohorts and 40 generations.

        References:
            Jamieson & Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization,
            https://arxiv.org/abs/1502.07943
        """
        kept = [cohorts]
        while self.budget == "halving" and kept[-1] > 1:
            kept.append(max(1, kept[-1] // self.reduction))
        cuts = len(kept) - 1
        ladder = {math.ceil(generations / self.reduction ** (cuts - k)): kept[k + 1] for k in range(cuts)}
        return {done: left for done, left in ladder.items() if done < generations}

    def total(self, cohorts: int, generations: int) -> int:
        """Generations that all cohorts train together, if none fails."""
        spent, alive, before = 0, cohorts, 0
        for done, left in [*self.rungs(cohorts, generations).items(), (generations, 0)]:
            spent, alive, before = spent + alive * (done - before), left, done
        return spent


def budget_of(tree: Mapping[str, Any]) -> CohortBudget:
    """Reads the section `[cohorts]`.

    Raises:
        ConfigError: It has a key or a value that cannot be.
    """
    table = tree.get("cohorts", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"cohorts: expected a table, [cohorts]; given: {show(table)}")
    return CohortBudget(**bind(settings(CohortBudget), table, "cohorts"))


def cohorts_of(tree: Mapping[str, Any], *, task: Task | None = None) -> list[Cohort]:
    """Every combination of the choices that stand on static settings, as configs; the one config if there are none.

    Choices open cohorts on the name of the task, the optimizer and a schedule (a plain list of families is a mixture inside
    one program, and may be one of the choices), and on static settings of these and of `[batch]`. A key that the rows of some
    cohorts know is left out of the others. Nothing else is checked here: that is for `resolve`.

    Args:
        tree: TOML values; `Axis` objects may stand for their tables. `[cohorts]` is dropped.
        task: The task, if it is no row of the config.

    Raises:
        ConfigError: Choices that are no list of two or more different values, or more than 64 cohorts.
    """
    branches = [_Branch({}, {k: v for k, v in plain_tree(tree).items() if k != "cohorts"}, frozenset())]
    if _any_choices(branches[0].tree):
        branches = _tasks(branches, task)
        branches = _rows(branches, ("optimizer",), lambda name: _known(OPTIMIZERS, name))
        branches = _open(branches, ("batch",), [settings(Batch)] * len(branches))
        branches = _schedules(branches)
    names = [",".join(f"{_short(k)}={_text(v)}" for k, v in branch.assignment.items()) for branch in branches]
    unfit = len(set(names)) < len(names) or max(map(len, names)) > _LONGEST
    return [
        Cohort(f"{i + 1:02}-{name[:_LONGEST]}" if unfit else name, branch.assignment, branch.tree)
        for i, (name, branch) in enumerate(zip(names, branches, strict=True))
    ]


def plain_tree(tree: Mapping[str, Any]) -> Tree:
    """A config tree without `Axis` objects and tuples: what stands in TOML."""
    return {section: _plain(table) for section, table in tree.items()}


# -------------------------------------------------------------------------------------------------------- by section


class _Branch(NamedTuple):
    """A combination of some of the choices; `targets` are the hyperparameters that a schedule could shape."""

    assignment: Tree
    tree: Tree
    targets: frozenset[str]


def _tasks(branches: list[_Branch], task: Task | None) -> list[_Branch]:
    def builder(branch: _Branch) -> Known:
        name = _table(branch, ("task",)).get("name", "digits")
        known = task is None and isinstance(name, str) and name != FROM_PYTHON
        return _settings_of(find_task(name)) if known else {}

    if task is None:
        branches = _open_names(branches, ("task",))
        branches = _open(branches, ("task",), [builder(branch) for branch in branches])
    builders = [builder(branch) for branch in branches]
    rest = {k for b, known in zip(branches, builders, strict=True) for k in _table(b, ("task",)) if k not in known} - {"name"}
    searched = [_table(branch, ("task",)).get(key) for branch in branches for key in rest]
    if not rest or (len(branches) == 1 and not any(map(_may_be_static, searched))):
        return branches
    losses = [settings((task or _built(b, k)).loss) for b, k in zip(branches, builders, strict=True)]
    branches = [b._replace(targets=_traced(loss)) for b, loss in zip(branches, losses, strict=True)]
    branches = _without_foreign(branches, ("task",), [{**b, **loss} for b, loss in zip(builders, losses, strict=True)])
    return _open(branches, ("task",), losses)


def _built(branch: _Branch, known: Known) -> Task:
    """A branch's task, for the settings of its loss."""
    table = _table(branch, ("task",))
    tree = {"task": {k: v for k, v in table.items() if k == "name" or k in known}, "batch": {"size": 1}}
    try:
        return resolve(tree)[1]
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("config: ")) from error.__cause__


def _schedules(branches: list[_Branch]) -> list[_Branch]:
    optimizers = [_known(OPTIMIZERS, _table(branch, ("optimizer",)).get("name", "adamw")) for branch in branches]
    branches = [b._replace(targets=b.targets | _traced(known)) for b, known in zip(branches, optimizers, strict=True)]
    branches = _rows(branches, ("schedule",), _family_settings)
    everywhere = frozenset().union(*(branch.targets for branch in branches))
    found = []
    for branch in branches:
        table = _table(branch, ("schedule",))
        families = table["name"] if isinstance(table.get("name"), list) else []
        foreign = {*everywhere} - branch.targets - {*map(str, families)}
        own = {k: v for k, v in table.items() if k not in foreign or not _is_table(v)}
        group = [_set(branch, ("schedule",), own)] if table else [branch]
        for key in [k for k, v in own.items() if _is_table(v)]:
            if key in families:
                group = _open(group, ("schedule", key), [_known_bare(key)] * len(group))
            else:
                group = _rows(group, ("schedule", key), _family_settings)
        found += group
    return _few(found)


def _rows(branches: list[_Branch], path: Path, known_of: Callable[[Any], Known]) -> list[_Branch]:
    """Opens choices on the name of a row, and on the static settings of the rows."""
    branches = _open_names(branches, path)
    known = [known_of(_table(branch, path).get("name")) for branch in branches]
    return _open(_without_foreign(branches, path, known), path, known)


def _without_foreign(branches: list[_Branch], path: Path, known: Sequence[Known]) -> list[_Branch]:
    """Drops from each branch what its own row does not know and another's does."""
    everywhere = {key for row in known for key in row}

    def own(branch: _Branch, row: Known) -> _Branch:
        table = _table(branch, path)
        kept = {k: v for k, v in table.items() if k in ("name", *row) or k not in everywhere or _shapes(branch, path, k)}
        return _set(branch, path, kept) if len(kept) < len(table) else branch

    return [own(branch, row) for branch, row in zip(branches, known, strict=True)]


def _shapes(branch: _Branch, path: Path, key: str) -> bool:
    """True for the schedule of a hyperparameter, which is no setting of a row."""
    return path[0] == "schedule" and key in branch.targets and _is_table(_table(branch, path)[key])


# ----------------------------------------------------------------------------------------------------------- opening


def _open_names(branches: list[_Branch], path: Path) -> list[_Branch]:
    return _few([b for branch in branches for b in _opened(branch, (*path, "name"))])


def _open(branches: list[_Branch], path: Path, known: Sequence[Known]) -> list[_Branch]:
    """Opens choices on the static settings of a section; those on numbers that may differ per member are left to it."""
    found = []
    for branch, row in zip(branches, known, strict=True):
        group = [branch]
        for key in _table(branch, path):
            if key in row and (row[key].vector or not row[key].traced):
                group = _few([b for one in group for b in _opened(one, (*path, key))])
        found += group
    return _few(found)


def _opened(branch: _Branch, path: Path) -> list[_Branch]:
    """A branch for each choice, if choices stand there; else the branch."""
    where = ".".join(path)
    value: Any = _table(branch, path[:-1]).get(path[-1])
    if not _is_choices(value):
        return [branch]
    if not isinstance(choices := value["choices"], list):
        raise ConfigError(f"{where}.choices: expected a list; given: {show(choices)}")
    if bad := [key for key in value if key != "choices"]:
        raise ConfigError(f"{where}: an axis of choices has no {bad[0]}; given: {show(value)}")
    if len(choices) < 2 or any(choice in choices[:i] for i, choice in enumerate(choices)):
        raise ConfigError(f"{where}: choices must be two or more different values; given: {show(choices)}")
    return [_set(branch, path, choice)._replace(assignment=branch.assignment | {where: choice}) for choice in choices]


def _few(branches: list[_Branch]) -> list[_Branch]:
    if len(branches) > MOST:
        places = dict.fromkeys(key for branch in branches for key in branch.assignment)
        given = f"{len(branches)} or more, by the choices on {', '.join(places)}"
        raise ConfigError(f"cohorts: at most {MOST}, because each compiles a program of its own; given: {given}")
    return branches


# ------------------------------------------------------------------------------------------------------------ reading


def _known(rows: Mapping[str, Callable[..., Any]], name: Any, default: str = "adamw") -> Known:
    """The settings of a row; of what is none, nothing: resolving says so."""
    name = default if name is None else name
    return settings(rows[name]) if isinstance(name, str) and name in rows else {}


def _family_settings(name: Any) -> Known:
    """Of a schedule, or of a list of them: there each family's table is a key too, and no static setting."""
    if not isinstance(name, list):
        return _known(SCHEDULES, name, "constant")
    shared = warmup_settings() | warmup_settings(traced=False)
    return shared | {str(family): Setting(str(family), float, 0.0, True, "") for family in name}


def _known_bare(family: str) -> Known:
    return settings(bare(SCHEDULES[family])) if family in SCHEDULES else {}


def _settings_of(builder: Any) -> Known:
    """Of a task's builder; of what is none, nothing: resolving says so."""
    try:
        return settings(builder)
    except (TypeError, ValueError):
        return {}


def _traced(known: Known) -> frozenset[str]:
    return frozenset(setting.name for setting in known.values() if setting.traced)


def _table(branch: _Branch, path: Path) -> Mapping[str, Any]:
    """The table at a path; an empty one where there is none."""
    node: Any = branch.tree
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _set(branch: _Branch, path: Path, value: Any) -> _Branch:
    """The branch with another value at a path."""

    def laid(node: Tree, path: Path) -> Tree:
        return node | {path[0]: laid(node[path[0]], path[1:]) if path[1:] else value}

    return branch._replace(tree=laid(branch.tree, path))


def _plain(value: Any) -> Any:
    if isinstance(value, Axis):
        return value.as_toml()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_choices(value: Any) -> bool:
    return isinstance(value, Mapping) and "choices" in value


def _may_be_static(value: Any) -> bool:
    """True for choices but those on fractional numbers: what takes these is traced."""
    if not _is_choices(value) or not isinstance(value["choices"], list):
        return _is_choices(value)
    return not any(isinstance(number, float) and not number.is_integer() for number in value["choices"])


def _is_axis(value: Any) -> bool:
    return isinstance(value, Mapping) and bool({"low", "high", "choices"} & {*value})


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and not _is_axis(value)


def _any_choices(value: Any) -> bool:
    return isinstance(value, Mapping) and ("choices" in value or any(map(_any_choices, value.values())))


def _short(place: str) -> str:
    return place.removesuffix(".name")


def _text(value: Any) -> str:
    """A choice as part of a folder's name."""
    if isinstance(value, list):
        return "-".join(map(_text, value))
    text = str(value).lower() if isinstance(value, bool) else str(value).rpartition(":")[2]
    return "".join(c if c.isalnum() or c in "._" else "-" for c in text)
