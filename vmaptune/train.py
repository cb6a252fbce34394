"""The compiled training programs: a segment (K steps of all members) and an evaluation.

A segment is one `jit` of a `shard_map` over devices, of a loop over chunks, of a `vmap` over members, of a `scan` over
steps. Inside a step everything about a member is a traced scalar, decoded from its genotype: the schedule is evaluated at
its progress, the optax transformation is rebuilt around the result, and the batch is gathered by an index made outside
the scan. Nothing that can change between generations, members or trials is a compile-time constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmaptune.data.batching import batch_indices
from vmaptune.data.splits import Part
from vmaptune.distributed import put
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.lowering import Lowering, im2col
from vmaptune.optimizers import Optimizer
from vmaptune.plan import Plan, make_plan, spread
from vmaptune.population import Member, Status, Stream, root_key, stream_key
from vmaptune.programs import Program
from vmaptune.schedules import Schedule
from vmaptune.settings import settings
from vmaptune.space import Space
from vmaptune.tasks import Metrics, Task, is_convolutional

Values = Mapping[str, jax.Array]
Order = Literal["shared", "independent"]

LEARNING_RATE = "optimizer.learning_rate"


class Recipe(NamedTuple):
    """How a member is trained: which settings reach which function, and which schedule shapes which of them.

    Attributes:
        task: Model, data and loss.
        optimizer: Keyword settings to an optax transformation.
        schedules: Family by the dotted name of the hyperparameter it shapes.
        space: Names, axes and constants. `optimizer.x` and `task.x` are settings of the optimizer and the loss,
            `schedule.x` knobs of the learning rate's schedule, `schedule.y.x` knobs of hyperparameter y's.
        horizon: Steps of a full trial: progress is step / horizon.
    """

    task: Task
    optimizer: Optimizer
    schedules: Mapping[str, Schedule]
    space: Space
    horizon: int

    def shaped(self, values: Values, step: jax.Array) -> dict[str, jax.Array]:
        """The hyperparameters in force at a step: values with each schedule's multiplier applied.

        Args:
            values: f32[] by dotted name, from `Space.decode`.
            step: i32[].

        Returns:
            f32[] by dotted name, for the settings of the optimizer and the loss.
        """
        t = step.astype(jnp.float32) / self.horizon
        shaped = {name: value for name, value in values.items() if not name.startswith("schedule.")}
        for target, family in self.schedules.items():
            base = shaped.get(target, settings_of(self, target))
            shaped[target] = base * family(t, **_under(values, schedule_prefix(target), settings(family)))
        return shaped


def settings_of(recipe: Recipe, target: str) -> float:
    """The default of a traced setting of the optimizer or the loss, by dotted name."""
    return _traced_settings(recipe)[target].default


def schedule_prefix(target: str) -> str:
    """Where the knobs of a hyperparameter's schedule stand: `schedule` for the learning rate, else `schedule.<name>`."""
    return "schedule" if target == LEARNING_RATE else f"schedule.{target.partition('.')[2]}"


def _under(values: Values, prefix: str, names: Iterable[str]) -> dict[str, jax.Array]:
    return {name: values[f"{prefix}.{name}"] for name in names if f"{prefix}.{name}" in values}


def _passed(recipe: Recipe, room: str) -> list[str]:
    """Traced settings of the optimizer or the loss that must be passed to it.

    One that rests at its default for good is not: the function then sees the plain number, and can leave out what that
    number turns off (dropout 0, no clipping) instead of computing it in every step.
    """
    constants = recipe.space.constants
    return [
        name.partition(".")[2]
        for name, setting in _traced_settings(recipe).items()
        if name.startswith(f"{room}.")
        and (setting.required or name in recipe.schedules or constants.get(name) != setting.default)
    ]


def _traced_settings(recipe: Recipe) -> dict[str, Any]:
    functions = {"optimizer": recipe.optimizer, "task": recipe.task.loss}
    return {f"{room}.{s.name}": s for room, fn in functions.items() for s in settings(fn).values() if s.traced}


def check_recipe(recipe: Recipe) -> Recipe:
    """Raises `ConfigError` for a name in the space, or a schedule's target, that nothing would read."""
    known = _traced_settings(recipe)
    if not any(name.startswith("optimizer.") for name in known):
        raise ConfigError(
            "optimizer: has no keyword-only float settings; write a function around it that has, such as learning_rate"
        )
    for target in recipe.schedules:
        if target not in known:
            raise ConfigError(f"schedule: there is no hyperparameter {target!r} to shape{did_you_mean(target, known)}")
    knobs = {
        f"{schedule_prefix(target)}.{s.name}"
        for target, family in recipe.schedules.items()
        for s in settings(family).values()
        if s.traced
    }
    for name in recipe.space.names:
        if name not in known and name not in knobs:
            raise ConfigError(
                f"space: no optimizer, schedule or loss has a setting {name!r}{did_you_mean(name, {*known, *knobs})}"
            )
    return recipe


class Inputs(NamedTuple):
    """What the training programs take besides members: arguments, so that nothing of it is compiled in.

    Attributes:
        root: Key of the run.
        arrays: Numbers of the search space, from `Space.arrays`.
        train: The training split.
        validation: The validation split.
    """

    root: jax.Array
    arrays: Any
    train: Any
    validation: Any


def make_inputs(recipe: Recipe, *, seed: jax.Array | int, plan: Plan) -> Inputs:
    """Puts key, space and data on every device of a plan, once."""
    splits = recipe.task.splits
    return put(Inputs(root_key(seed), recipe.space.arrays, splits.train, splits.validation), plan.everywhere)


def segment_of(
    recipe: Recipe, *, steps: int, batch_size: int, order: Order, plan: Plan
) -> Callable[[Inputs, jax.Array, Member], tuple[Member, Metrics]]:
    """The training of a whole population for K steps, as a function to be compiled: see `make_segment`."""
    examples = _examples(recipe.task, batch_size)
    indices = partial(batch_indices, steps=steps, batch_size=batch_size, examples=examples)
    task = recipe.task._replace(loss=_lowered(recipe.task.loss, plan))

    def train(shared: tuple[Inputs, jax.Array], member: Member) -> tuple[Member, Metrics]:
        inputs, batches = shared
        values = recipe.space.decode(member.genotype, inputs.arrays)
        if order == "independent":
            batches = indices(stream_key(inputs.root, Stream.BATCH, member.trial), member.step)
        return _train_member(recipe._replace(task=task), inputs, values, batches, member, plan.unroll)

    def segment(inputs: Inputs, generation: jax.Array, population: Member) -> tuple[Member, Metrics]:
        batches = indices(stream_key(inputs.root, Stream.BATCH), generation * steps)
        return spread(train, plan, (inputs, batches), population)

    return segment


def _examples(task: Task, batch_size: int) -> int:
    """Number of training examples; raises `ConfigError` if they do not fill a batch."""
    examples = task.splits.size("train")
    if not 1 <= batch_size <= examples:
        raise ConfigError(f"batch.size: must be between 1 and the {examples} training examples; given: {batch_size}")
    return examples


def evaluation_of(task: Task, *, examples: int, batch_size: int, plan: Plan) -> Callable[[Any, Member], Metrics]:
    """The evaluation of a whole population on a split of so many examples, as a function to be compiled."""
    whole = examples // batch_size
    lowered = _lowered(task.loss, plan)

    def measure(data: Any, member: Member) -> Metrics:
        def part(start: jax.Array | int, size: int) -> Metrics:
            batch = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), data)
            key = jax.random.key(0)  # evaluation draws nothing
            loss, (_, metrics) = lowered(member.params, member.model_state, batch, key, train=False)
            return jax.tree.map(lambda mean: mean * size, {"loss": loss, **metrics})

        total = part(whole * batch_size, examples % batch_size) if examples % batch_size else None
        if whole:
            parts = jax.lax.map(lambda i: part(i * batch_size, batch_size), jnp.arange(whole))
            summed = jax.tree.map(lambda each: each.sum(axis=0), parts)
            total = summed if total is None else jax.tree.map(jnp.add, total, summed)
        return jax.tree.map(lambda sum_: sum_ / examples, total)

    return partial(spread, measure, plan)


def make_segment(
    task: Task,
    space: Space,
    optimizer: Optimizer,
    schedule: Schedule | Mapping[str, Schedule],
    *,
    steps: int,
    horizon: int,
    batch_size: int = 128,
    order: Order = "shared",
    seed: int = 0,
    plan: Plan | None = None,
) -> Callable[[Member, int], tuple[Member, Metrics]]:
    """Compiles K training steps of a whole population into one program.

    Args:
        task: Model, data and loss.
        space: The settings of a member, by dotted name.
        optimizer: A row of `OPTIMIZERS`, or your own function from keyword settings to an optax transformation.
        schedule: The learning rate's family, or families by the dotted name of what they shape.
        steps: K.
        horizon: Steps of a full trial; drives every schedule.
        batch_size: B, examples a step.
        order: "shared": all members see the same batches (common random numbers: differences between members are
            differences between their settings). "independent": each trial shuffles for itself.
        seed: Seed of the run.
        plan: Layout; default: by rule of thumb, see `make_plan`.

    Returns:
        `segment(population, generation) -> (population, metrics)`: the population after K more steps, and the mean of the
        training loss and of each metric over those steps, f32[N] by name. The given population is donated.

    Raises:
        ConfigError: A setting that nothing reads, or a batch larger than the training split.
    """
    schedules = dict(schedule) if isinstance(schedule, Mapping) else {LEARNING_RATE: schedule}
    recipe = check_recipe(Recipe(task, optimizer, schedules, space, horizon))
    programs: dict[Plan, tuple[Program, Inputs]] = {}
    lowering: Lowering | None = None if is_convolutional(task) else "grouped"

    def laid_out(layout: Plan) -> tuple[Program, Inputs]:
        if layout not in programs:
            segment = segment_of(recipe, steps=steps, batch_size=batch_size, order=order, plan=layout)
            programs[layout] = Program("segment", segment, donate=(2,)), make_inputs(recipe, seed=seed, plan=layout)
        return programs[layout]

    def run(population: Member, generation: int) -> tuple[Member, Metrics]:
        n = len(population.trial)
        program, inputs = laid_out(layout := plan or make_plan(n, lowering=lowering))
        return program(inputs, jnp.int32(generation), jax.device_put(population, layout.slots(n)))

    _examples(task, batch_size)
    return run


def make_evaluate(
    task: Task, *, split: Part = "validation", batch_size: int = 4096, plan: Plan | None = None
) -> Callable[[Member], Metrics]:
    """Compiles the evaluation of a whole population on one split.

    Args:
        task: Model, data and loss.
        split: Which part of the data.
        batch_size: Examples at a time; bounds memory, changes nothing.
        plan: Layout; default: by rule of thumb, see `make_plan`.

    Returns:
        `evaluate(population) -> metrics`: the loss and each metric, f32[N] by name, means over the split's examples.
    """
    programs: dict[Plan, tuple[Program, Any]] = {}
    lowering: Lowering | None = None if is_convolutional(task) else "grouped"

    def evaluate(population: Member) -> Metrics:
        n = len(population.trial)
        layout = plan or make_plan(n, lowering=lowering)
        if layout not in programs:
            measure = evaluation_of(task, examples=task.splits.size(split), batch_size=batch_size, plan=layout)
            data = jax.device_put(getattr(task.splits, split), layout.everywhere)
            programs[layout] = Program("evaluate" if split == "validation" else split, measure), data
        program, data = programs[layout]
        return program(data, jax.device_put(population, layout.slots(n)))

    return evaluate


def _lowered(loss: Any, plan: Plan) -> Any:
    """The loss with its convolutions computed as the plan says, where that is decided before differentiation."""
    return im2col(loss) if plan.lowering == "im2col" else loss


def _train_member(
    recipe: Recipe, inputs: Inputs, values: Values, batches: jax.Array, member: Member, unroll: int
) -> tuple[Member, Metrics]:
    """Trains one member on the batches i32[K, B]; scans over them."""
    loss_and_grad = jax.value_and_grad(recipe.task.loss, has_aux=True)
    loss_settings, optimizer_settings = _passed(recipe, "task"), _passed(recipe, "optimizer")
    member_key = stream_key(inputs.root, Stream.STEP, member.trial)

    def step(member: Member, rows: jax.Array) -> tuple[Member, Metrics]:
        now = recipe.shaped(values, member.step)
        batch = jax.tree.map(lambda leaf: leaf[rows], inputs.train)
        key = jax.random.fold_in(member_key, member.step)
        (loss, (model_state, metrics)), gradient = loss_and_grad(
            member.params, member.model_state, batch, key, train=True, **_under(now, "task", loss_settings)
        )
        transformation = recipe.optimizer(**_under(now, "optimizer", optimizer_settings))
        updates, opt_state = transformation.update(gradient, member.opt_state, member.params)
        failed = (member.status == Status.OK) & ~jnp.isfinite(loss)
        member = member._replace(
            params=optax.apply_updates(member.params, updates),
            model_state=_as_before(model_state, member.model_state),
            opt_state=_as_before(opt_state, member.opt_state),
            step=member.step + 1,
            status=jnp.where(failed, Status.NONFINITE_LOSS, member.status),
        )
        return member, {"loss": loss, **metrics}

    member, metrics = jax.lax.scan(step, member, batches, unroll=unroll)
    broken = (member.status == Status.OK) & ~_all_finite((member.params, member.model_state))
    member = member._replace(status=jnp.where(broken, Status.NONFINITE_PARAMS, member.status))
    return member, jax.tree.map(lambda each: jnp.mean(each, axis=0), metrics)


def _as_before(new: Any, old: Any) -> Any:
    """Keeps every leaf's dtype: traced float32 settings would otherwise promote bfloat16 state."""
    return jax.tree.map(lambda n, o: n.astype(o.dtype), new, old)


def _all_finite(tree: Any) -> jax.Array:
    numbers = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in numbers]).all()
