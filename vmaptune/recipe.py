"""How a member is trained: which settings reach which function, and which schedule shapes which of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.anneal import anneal
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.finetuning import Patterns, one_group_each, scaled
from vmaptune.optimizers import Optimizer, opened
from vmaptune.plateau import SCALE, plateau
from vmaptune.schedules import Schedule
from vmaptune.schedules.mixture import FAMILY, Mixture, knobs_of, multiplier
from vmaptune.settings import NonNegative, Setting, Usual, settings
from vmaptune.space import Space
from vmaptune.tasks import Task

Values = Mapping[str, jax.Array]

LEARNING_RATE = "optimizer.learning_rate"
# Optimizers whose steps are not their learning rate times what does not depend on it.
_NOT_IN_PROPORTION = ("schedule_free_sgd", "schedule_free_adamw", "prodigy")


def group(*, match: Patterns, learning_rate: Annotated[NonNegative, Usual(0.01, 10.0, "log")] = 1.0) -> None:
    """Parameters that train at a learning rate of their own. A parameter can be in one group.

    Args:
        match: Their names, by glob patterns of dotted paths: "head.*".
        learning_rate: What the learning rate, as its schedule has it, is multiplied by for them.

    References:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, https://arxiv.org/abs/1801.06146
    """


class Recipe(NamedTuple):
    """How a member is trained. Made by `make_recipe`, which checks it.

    Attributes:
        task: Model, data and loss.
        optimizer: Keyword settings to an optax transformation.
        schedules: Family (or mixture of families) by the dotted name of the hyperparameter it shapes.
        space: Names, axes and constants. `optimizer.x` and `task.x` are settings of the optimizer and the loss,
            `schedule.x` knobs of the learning rate's schedule, `schedule.y.x` knobs of hyperparameter y's, `plateau.x` settings
            of the decay on plateaus, `groups.y.learning_rate` the multiplier of group y.
        horizon: Steps of a full trial: progress is step / horizon.
        final_anneal: Steps before the horizon over which the learning rate falls to zero, whatever its schedule; 0: none.
        groups: Groups of parameters: patterns of their names by the group's.
    """

    task: Task
    optimizer: Optimizer
    schedules: Mapping[str, Schedule | Mixture]
    space: Space
    horizon: int
    final_anneal: int = 0
    groups: Mapping[str, Patterns] = MappingProxyType({})

    def shaped(self, values: Values, step: jax.Array) -> dict[str, jax.Array]:
        """The hyperparameters in force at a step, or at several: values with each schedule's multiplier applied.

        Args:
            values: f32[] by dotted name, from `Space.decode`, and the member's scale on plateaus.
            step: i32[...].

        Returns:
            By dotted name, for the settings of optimizer, loss and groups: f32[...] where a schedule shapes it, else f32[].
        """
        t = step.astype(jnp.float32) / self.horizon
        shaped = {name: value for name, value in values.items() if name.startswith(("optimizer.", "task.", "groups."))}
        for target, family in self.schedules.items():
            base = shaped.get(target, settings_read(self.task, self.optimizer)[target].default)
            shaped[target] = base * multiplier(family, t, under(values, schedule_prefix(target), knobs_of(family)))
        if self.on_plateau:
            shaped[LEARNING_RATE] *= values[SCALE]
        if self.final_anneal:
            shaped[LEARNING_RATE] *= anneal((self.horizon - step) / self.final_anneal)
        return shaped

    def stepped(self, updates: Any, values: Values) -> Any:
        """The optimizer's updates, each group's times its multiplier of the learning rate.

        Args:
            updates: As the optimizer made them: in proportion to the learning rate.
            values: f32[] by dotted name.
        """
        return scaled(updates, [(self.groups[n.partition(".")[0]], values[f"groups.{n}"]) for n in self.passed("groups")])

    @property
    def on_plateau(self) -> bool:
        """True if the learning rate falls on plateaus."""
        return "factor" in self.passed("plateau")

    def active(self, values: Values) -> dict[str, jax.Array | bool]:
        """bool[...] by the name of each axis: False where it is a knob of another family than the member's.

        Args:
            values: f32[...] by dotted name.
        """
        found: dict[str, jax.Array | bool] = dict.fromkeys(self.space.axes, True)
        for target, family in self.schedules.items():
            if isinstance(family, Mixture):
                prefix = f"{schedule_prefix(target)}."
                for name in found:
                    if name.startswith(prefix):
                        found[name] &= family.active(name.removeprefix(prefix), values[prefix + FAMILY])
        return found

    def passed(self, room: str) -> list[str]:
        """Traced settings of the optimizer, the loss, the decay on plateaus or the groups that must be passed to it.

        One that rests at its default for good is not: the function then sees the plain number, and can leave out what that
        number turns off (dropout 0, no clipping) instead of computing it in every step.
        """
        return [
            name.partition(".")[2]
            for name, setting in settings_read(self.task, self.optimizer, self.groups).items()
            if name.startswith(f"{room}.") and (name in self.schedules or _is_passed(name, setting, self.space))
        ]

    @property
    def opened(self) -> Optimizer:
        """The optimizer whose `init` makes the state that training has.

        What a setting turns on may need state (an accumulator, an average), so a member must be born with the same settings
        given that it is trained with; their values do not matter.
        """
        return opened(self.optimizer, self.passed("optimizer"))


def make_recipe(
    task: Task,
    optimizer: Optimizer,
    schedules: Mapping[str, Schedule | Mixture],
    space: Space,
    *,
    horizon: int,
    final_anneal: int = 0,
    groups: Mapping[str, Patterns] = MappingProxyType({}),
) -> Recipe:
    """Binds the parts of training together.

    Args:
        task: Model, data and loss.
        optimizer: A row of `OPTIMIZERS`, or your own function from keyword settings to an optax transformation.
        schedules: Families by the dotted name of what they shape.
        space: The settings of a member, by dotted name.
        horizon: Steps of a full trial.
        final_anneal: Steps before it over which the learning rate falls to zero; 0: none.
        groups: Groups of parameters with a learning rate of their own: patterns of their names by the group's.

    Raises:
        ConfigError: A name in the space, or a schedule's target, that nothing would read.
    """
    known = settings_read(task, optimizer, groups)
    if not any(name.startswith("optimizer.") for name in known):
        raise ConfigError(
            "optimizer: has no keyword-only float settings; write a function around it that has, such as learning_rate"
        )
    for target in schedules:
        if target not in known:
            raise ConfigError(f"schedule: there is no hyperparameter {target!r} to shape{did_you_mean(target, known)}")
    knobs = {f"{schedule_prefix(target)}.{knob}" for target, family in schedules.items() for knob in knobs_of(family)}
    vectors = knobs | {name for name, setting in known.items() if setting.vector}
    for name in space.names:
        if name not in known and name not in knobs and name.rpartition(".")[0] not in vectors:
            raise ConfigError(
                f"space: no optimizer, schedule or loss has a setting {name!r}{did_you_mean(name, {*known, *knobs})}"
            )
    recipe = Recipe(task, optimizer, schedules, space, horizon, final_anneal, groups)
    if LEARNING_RATE not in known and (recipe.on_plateau or final_anneal):
        where = "plateau" if recipe.on_plateau else "fitness.final_anneal"
        raise ConfigError(f"{where}: the optimizer has no learning_rate that could fall")
    return recipe


def check_groups(recipe: Recipe, optimizer: str) -> None:
    """Checks a recipe's groups of parameters.

    Args:
        recipe: How members are trained.
        optimizer: Name of its optimizer.

    Raises:
        ConfigError: A pattern that fits no parameter, a parameter in two groups, or an optimizer whose steps cannot be
            multiplied afterwards.
    """
    one_group_each(recipe.task, recipe.groups)
    if optimizer in _NOT_IN_PROPORTION:
        raise ConfigError(
            f"groups: {optimizer} does not step in proportion to its learning rate; choose another optimizer.name"
        )
    if "average" in recipe.passed("optimizer"):
        raise ConfigError("groups: optimizer.average averages the weights before groups are told apart; set it to 0")


def opened_for(optimizer: Optimizer, space: Space) -> Optimizer:
    """The optimizer as members of a space are born with it; see `Recipe.opened`."""
    known = {f"optimizer.{s.name}": s for s in settings(optimizer).values() if s.traced}
    return opened(optimizer, [name.partition(".")[2] for name, setting in known.items() if _is_passed(name, setting, space)])


def _is_passed(name: str, setting: Setting, space: Space) -> bool:
    if setting.vector:
        numbers = [key for key in space.names if key.rpartition(".")[0] == name]
        given = tuple(space.constants.get(key) for key in numbers)
        return setting.required or (bool(numbers) and given != tuple(setting.default))
    constant = space.constants.get(name, setting.default)
    return setting.required or name in space.axes or constant != setting.default


def settings_read(task: Task, optimizer: Optimizer, groups: Iterable[str] = ()) -> dict[str, Setting]:
    """The traced settings that optimizer, loss, the decay on plateaus and groups of parameters read, by dotted name."""
    functions: dict[str, Callable[..., Any]] = {"optimizer": optimizer, "task": task.loss, "plateau": plateau}
    functions |= {f"groups.{name}": group for name in groups}
    return {f"{room}.{s.name}": s for room, fn in functions.items() for s in settings(fn).values() if s.traced}


def schedule_prefix(target: str) -> str:
    """Where the knobs of a hyperparameter's schedule stand: `schedule` for the learning rate, else `schedule.<name>`."""
    return "schedule" if target == LEARNING_RATE else f"schedule.{target.partition('.')[2]}"


def under(values: Values, prefix: str, names: Iterable[str]) -> dict[str, jax.Array]:
    """The values below a prefix, by what stands after it; the numbers of a vector, `values.0` and so on, as one array."""
    found = {}
    for name in names:
        full = f"{prefix}.{name}"
        if full in values:
            found[name] = values[full]
        elif f"{full}.0" in values:
            length = sum(key.startswith(f"{full}.") for key in values)
            found[name] = jnp.stack([values[f"{full}.{i}"] for i in range(length)], axis=-1)
    return found
