"""How large a run will be, from shapes alone: nothing is trained, and no memory of that size is taken."""

from __future__ import annotations

import math
from typing import Any

import jax

from vmaptune.config import RunConfig
from vmaptune.plan import make_plan
from vmaptune.population import init_population
from vmaptune.tasks import Task


def footprint(config: RunConfig, task: Task) -> dict[str, Any]:
    """Counts axes, parameters, bytes and member-steps.

    Args:
        config: The config.
        task: Its task.

    Returns:
        Axes by name; parameters of one member; bytes of the population (weights, model and optimizer state) and of the
        data; steps in all; examples by split; the plan.

    Raises:
        ConfigError: The plan does not fit the population or the machine.
    """
    n = config.population.size
    recipe = config.recipe(task)
    shapes = jax.eval_shape(lambda: init_population(task, recipe.space, recipe.optimizer, size=n))
    plan = make_plan(n, devices=config.plan.devices, chunk=config.plan.chunk)
    return {
        "axes": {name: axis.as_toml() for name, axis in recipe.space.axes.items()},
        "parameters_per_member": _elements(shapes.params) // n,
        "population_bytes": _bytes(shapes),
        "data_bytes": _bytes(task.splits),
        "examples": {part: task.splits.size(part) for part in task.splits._fields},  # type: ignore[arg-type]
        "member_steps": n * config.population.horizon,
        "horizon": config.population.horizon,
        "plan": plan._asdict() | {"platform": jax.default_backend(), "device": jax.devices()[0].device_kind},
    }


def _elements(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
