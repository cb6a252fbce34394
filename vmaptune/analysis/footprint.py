"""How large a run will be, from shapes alone: nothing is trained, and no memory of that size is taken."""

from __future__ import annotations

import math
from typing import Any

import jax

from vmaptune.config import RunConfig
from vmaptune.plan import bytes_of
from vmaptune.planner import choose_plan
from vmaptune.population import init_population
from vmaptune.tasks import Task


def footprint(config: RunConfig, task: Task, *, timed: bool = False) -> dict[str, Any]:
    """Counts axes, parameters, bytes and member-steps.

    Args:
        config: The config.
        task: Its task.
        timed: Time the plans that come into question, unless that was done before on this machine.

    Returns:
        Axes by name; parameters of one member; bytes of the population (weights, model and optimizer state) and of the
        data; steps in all; examples by split; the plan, where it comes from and what it was chosen from.

    Raises:
        ConfigError: The plan does not fit the population or the machine.
    """
    n = config.population.size
    recipe = config.recipe(task)
    shapes = jax.eval_shape(lambda: init_population(task, recipe.space, recipe.opened, size=n))
    choice = choose_plan(config, task, timed=timed)
    plan = choice.plan
    selector, ahead = config.selector(), config.lookahead.steps
    trials = max(selector.trials, 0 if selector.trials else config.groups) * config.repeats.replicates
    each = config.population.generations * (config.population.segment_steps + ahead)
    steps = trials * each if selector.trials else n * (config.population.segment_steps + ahead) * config.total_generations
    return {
        "axes": {name: axis.as_toml() for name, axis in recipe.space.axes.items()},
        "parameters_per_member": _elements(shapes.params) // n,
        "population_bytes": bytes_of(shapes),
        "data_bytes": bytes_of(task.splits),
        "examples": {part: task.splits.size(part) for part in task.splits._fields},  # type: ignore[arg-type]
        "trials": trials,
        "member_steps": min(steps, config.budget.steps or steps),
        "horizon": config.population.horizon,
        "plan": plan._asdict()
        | {
            "platform": jax.default_backend(),
            "device": jax.devices()[0].device_kind,
            "source": choice.source,
            "slots": plan.padded(n),
            "bytes_limit": choice.limit,
            "candidates": [
                candidate.plan._asdict() | candidate._asdict() | {"plan": str(candidate.plan)}
                for candidate in choice.candidates
            ],
        },
    }


def _elements(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
