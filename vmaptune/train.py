"""The compiled training programs: a segment (K steps of all members) and an evaluation.

A segment is one `jit` of a `shard_map` over devices, of a loop over chunks, of a `vmap` over members, of a `scan` over
steps. Inside a step everything about a member is a traced scalar: the optax transformation is rebuilt around what its genotype
and its schedules say, and the batch is gathered by an index; both are made for all steps at once, outside the scan. Nothing
that can change between generations, members or trials is a compile-time constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmaptune.anneal import Shape, anneal
from vmaptune.data.batching import Balance, Batches, Order, make_batches
from vmaptune.data.splits import Part
from vmaptune.distributed import put
from vmaptune.lowering import Lowering, bytes_computed, im2col
from vmaptune.optimizers import Optimizer, evaluation_params
from vmaptune.plan import Plan, make_plan, spread
from vmaptune.plateau import SCALE
from vmaptune.population import Member, Status, Stream, root_key, source, stream_key
from vmaptune.programs import Program
from vmaptune.recipe import LEARNING_RATE, Recipe, Values, make_recipe, under
from vmaptune.schedules import Schedule
from vmaptune.settings import settings
from vmaptune.space import Space
from vmaptune.tasks import Metrics, Task, is_convolutional, measured

_EVALUATED, _EVALUATED_BYTES = 4096, 64 * 2**20  # examples measured at a time, at most, and what they may take of memory
Shaped = Callable[[Values, jax.Array], dict[str, jax.Array]]


class Inputs(NamedTuple):
    """What the training programs take besides members: arguments, so that nothing of it is compiled in.

    Attributes:
        root: Key of the run.
        arrays: Numbers of the search space, from `Space.arrays`.
        train: The training split; where it is streamed, the examples of a segment in the order of its batches.
        rows: `Batches.rows`, or () for None.
        validation: The validation split.
    """

    root: jax.Array
    arrays: Any
    train: Any
    rows: Any
    validation: Any


def make_inputs(recipe: Recipe, batches: Batches, *, seed: jax.Array | int, plan: Plan) -> Inputs:
    """Puts key, space and data on every device of a plan, once; what is streamed is left out."""
    splits = recipe.task.splits
    train = () if batches.streamed else splits.train
    rows = () if batches.rows is None or batches.streamed else batches.rows
    return put(Inputs(root_key(seed), recipe.space.arrays, train, rows, splits.validation), plan.everywhere)


def segment_of(
    recipe: Recipe, *, steps: int, batches: Batches, plan: Plan, replicates: int = 0
) -> Callable[[Inputs, jax.Array, Member], tuple[Member, Metrics]]:
    """The training of a whole population for K steps, as a function to be compiled: see `make_segment`."""
    steps_from = _steps_of(recipe, recipe.shaped, steps=steps, batches=batches, plan=plan, replicates=replicates)

    def segment(inputs: Inputs, generation: jax.Array, population: Member) -> tuple[Member, Metrics]:
        return steps_from(inputs, generation * steps, population)

    return segment


def lookahead_of(
    recipe: Recipe, *, steps: int, shape: Shape, after: int, batches: Batches, plan: Plan, replicates: int = 0
) -> Callable[[Inputs, jax.Array, Member], Member]:
    """A look at where training would end: members trained for K steps in which their learning rates fall to zero.

    Every other hyperparameter stays as it is at the moment. The batches are those that the next segment begins with.

    Args:
        recipe: How members are trained.
        steps: K.
        shape: How the learning rates fall.
        after: Steps of the segment that it follows.
        batches: How the training split is cut.
        plan: Layout.
        replicates: See `population.source`.

    References:
        Against the greed of population-based training; compare Dalibard & Jaderberg, Faster Improvement Rate Population
        Based Training, https://arxiv.org/abs/2109.13800
    """

    def falling(values: Values, step: jax.Array) -> dict[str, jax.Array]:
        now = recipe.shaped(values, step[0])
        rate = now.get(LEARNING_RATE, settings(recipe.optimizer)[LEARNING_RATE.partition(".")[2]].default)
        return now | {LEARNING_RATE: rate * anneal((steps - jnp.arange(steps)) / steps, shape)}

    steps_from = _steps_of(recipe, falling, steps=steps, batches=batches, plan=plan, replicates=replicates, streamed=after)

    def look(inputs: Inputs, generation: jax.Array, population: Member) -> Member:
        return steps_from(inputs, (generation + 1) * after, population)[0]

    return look


def _steps_of(
    recipe: Recipe, shaped: Shaped, *, steps: int, batches: Batches, plan: Plan, replicates: int, streamed: int = 0
) -> Callable[[Inputs, jax.Array, Member], tuple[Member, Metrics]]:
    """K training steps of a whole population from a given step of the shared order on; the `streamed`th of what is streamed."""
    task = recipe.task._replace(loss=_lowered(recipe.task.loss, plan))

    def train(shared: tuple[Inputs, jax.Array], member: Member) -> tuple[Member, Metrics]:
        inputs, rows = shared
        values = recipe.space.decode(member.genotype, inputs.arrays) | {SCALE: member.plateau[0]}
        if batches.order == "independent":
            order = stream_key(inputs.root, Stream.BATCH, source(member.trial, replicates))
            rows = batches.indices(order, member.step, steps, inputs.rows)
        key = stream_key(inputs.root, Stream.STEP, source(member.trial, replicates))
        settings_at = shaped(values, member.step + jnp.arange(steps, dtype=jnp.int32))
        return _train_member(recipe._replace(task=task), inputs, settings_at, rows, member, key, plan.unroll)

    def run(inputs: Inputs, start: jax.Array, population: Member) -> tuple[Member, Metrics]:
        if batches.streamed:
            rows = (streamed * batches.size + jnp.arange(steps * batches.size, dtype=jnp.int32)).reshape(steps, -1)
        else:
            rows = shared_rows(batches, inputs.root, start, steps, inputs.rows)
        return spread(train, plan, (inputs, rows), population)

    return run


def shared_rows(batches: Batches, root: jax.Array, start: jax.Array | int, steps: int, rows: Any) -> jax.Array:
    """The examples i32[K, B] of the batches that all members see, from a step of the run's order on."""
    return batches.indices(stream_key(root, Stream.BATCH), start, steps, rows)


def evaluation_names(recipe: Recipe) -> list[str]:
    """Names of what evaluation measures on the validation split."""
    names = measured(recipe.task).validation
    return names + [f"raw.{name}" for name in names] * evaluates_raw(recipe)


def evaluates_raw(recipe: Recipe) -> bool:
    """True if members are evaluated by a moving average of their weights: those as trained are then measured as well."""
    return "average" in recipe.passed("optimizer")


def evaluation_batch(task: Task) -> int:
    """Examples to measure at a time: bounds memory, and says in which order means are summed.

    A function of the task alone, so that no plan changes a result: as many as a member computes 64 MiB for.
    """

    def computed(n: int) -> int:
        sample = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype), task.splits.train)
        key = jax.eval_shape(lambda: jax.random.key(0))
        value = lambda params, state, batch, key: task.loss(params, state, batch, key, train=False)  # noqa: E731
        return bytes_computed(value, *jax.eval_shape(task.init, key, sample), sample, key)

    each = max(1, computed(2) - computed(1))
    return min(_EVALUATED, max(16, 2 ** int(math.log2(max(1, _EVALUATED_BYTES / each)))))


def evaluation_of(
    task: Task, *, examples: int, batch_size: int, plan: Plan, raw: bool = False
) -> Callable[[Any, Member], Metrics]:
    """The evaluation of a whole population on a split of so many examples, as a function to be compiled.

    Args:
        task: Model, data and loss.
        examples: Of the split.
        batch_size: Examples at a time.
        plan: Layout.
        raw: Measure the weights as they are trained as well, under `raw.<metric>`.
    """
    loss = _lowered(task.loss, plan)
    predict = _lowered(task.predict, plan) if task.predict else None

    def measured_with(data: Any, member: Member, params: Any) -> Metrics:
        def part(batch: Any, size: int) -> tuple[Metrics, Any]:
            key = jax.random.key(0)  # evaluation draws nothing
            value, (_, metrics) = loss(params, member.model_state, batch, key, train=False)
            outputs = predict(params, member.model_state, batch) if predict else ()  # as in the loss: XLA computes it once
            return jax.tree.map(lambda mean: mean * size, {"loss": value, **metrics}), outputs

        found = _in_parts(part, data, examples, batch_size)
        sums = [jax.tree.map(lambda each: each.sum(axis=0), means) for means, _ in found]
        means = jax.tree.map(lambda *parts: sum(parts) / examples, *sums)
        if task.score is None:
            return means
        rows = [jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:]), outputs) for _, outputs in found]
        return means | task.score(jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows), data)

    def measure(data: Any, member: Member) -> Metrics:
        found = measured_with(data, member, evaluation_params(member.opt_state, member.params))
        if raw:
            found |= {f"raw.{name}": value for name, value in measured_with(data, member, member.params).items()}
        return found

    return partial(spread, measure, plan)


def _in_parts(fn: Callable[[Any, int], Any], data: Any, examples: int, size: int) -> list[Any]:
    """`fn(slice, its size)` of slices that cover the data: the whole ones stacked, then the rest, if any, in a stack of one."""
    whole, rest = divmod(examples, size)

    def part(start: jax.Array | int, size: int) -> Any:
        return fn(jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), data), size)

    found = [jax.lax.map(lambda i: part(i * size, size), jnp.arange(whole))] if whole else []
    return [*found, jax.tree.map(lambda leaf: leaf[None], part(whole * size, rest))] if rest else found


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
    balance: Balance = "none",
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
        balance: Whether rare classes are shown more often, see `vmaptune.data.batching.make_batches`.
        seed: Seed of the run.
        plan: Layout; default: by rule of thumb, see `make_plan`.

    Returns:
        `segment(population, generation) -> (population, metrics)`: the population after K more steps, and the mean of the
        training loss and of each metric over those steps, f32[N] by name. The given population is donated.

    Raises:
        ConfigError: A setting that nothing reads, or a batch larger than the training split.
    """
    schedules = dict(schedule) if isinstance(schedule, Mapping) else {LEARNING_RATE: schedule}
    recipe = make_recipe(task, optimizer, schedules, space, horizon=horizon)
    batches = make_batches(task.splits, size=batch_size, order=order, balance=balance, seed=seed)
    programs: dict[Plan, tuple[Program, Inputs]] = {}
    lowering: Lowering | None = None if is_convolutional(task) else "grouped"

    def laid_out(layout: Plan) -> tuple[Program, Inputs]:
        if layout not in programs:
            segment = segment_of(recipe, steps=steps, batches=batches, plan=layout)
            programs[layout] = Program("segment", segment, donate=(2,)), make_inputs(recipe, batches, seed=seed, plan=layout)
        return programs[layout]

    def run(population: Member, generation: int) -> tuple[Member, Metrics]:
        n = len(population.trial)
        program, inputs = laid_out(layout := plan or make_plan(n, lowering=lowering))
        return program(inputs, jnp.int32(generation), jax.device_put(population, layout.slots(n)))

    return run


def make_evaluate(
    task: Task, *, split: Part = "validation", batch_size: int = 0, plan: Plan | None = None
) -> Callable[[Member], Metrics]:
    """Compiles the evaluation of a whole population on one split.

    Args:
        task: Model, data and loss.
        split: Which part of the data.
        batch_size: Examples at a time; bounds memory, changes nothing. 0: see `evaluation_batch`.
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
            at_once = batch_size or evaluation_batch(task)
            measure = evaluation_of(task, examples=task.splits.size(split), batch_size=at_once, plan=layout)
            data = jax.device_put(getattr(task.splits, split), layout.everywhere)
            programs[layout] = Program("evaluate" if split == "validation" else split, measure), data
        program, data = programs[layout]
        return program(data, jax.device_put(population, layout.slots(n)))

    return evaluate


def _lowered(loss: Any, plan: Plan) -> Any:
    """The loss with its convolutions computed as the plan says, where that is decided before differentiation."""
    return im2col(loss) if plan.lowering == "im2col" else loss


def _train_member(
    recipe: Recipe,
    inputs: Inputs,
    shaped: Mapping[str, jax.Array],
    batches: jax.Array,
    member: Member,
    key: jax.Array,
    unroll: int,
) -> tuple[Member, Metrics]:
    """Trains one member on the batches i32[K, B] with settings f32[] or f32[K] and draws from its key; scans over them."""
    loss_and_grad = jax.value_and_grad(recipe.task.loss, has_aux=True)
    loss_settings, optimizer_settings = recipe.passed("task"), recipe.passed("optimizer")
    moving = {name: value for name, value in shaped.items() if value.ndim}  # for all steps at once: cheap, and vectorised

    def step(member: Member, at: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Member, Metrics]:
        rows, moved = at
        now = {**shaped, **moved}
        batch = jax.tree.map(lambda leaf: leaf[rows], inputs.train)
        draw = jax.random.fold_in(key, member.step)
        (loss, (model_state, metrics)), gradient = loss_and_grad(
            member.params, member.model_state, batch, draw, train=True, **under(now, "task", loss_settings)
        )
        transformation = recipe.optimizer(**under(now, "optimizer", optimizer_settings))
        updates, opt_state = transformation.update(gradient, member.opt_state, member.params)
        updates = recipe.stepped(updates, now)
        failed = (member.status == Status.OK) & ~jnp.isfinite(loss)
        member = member._replace(
            params=optax.apply_updates(member.params, updates),
            model_state=_as_before(model_state, member.model_state),
            opt_state=_as_before(opt_state, member.opt_state),
            step=member.step + 1,
            status=jnp.where(failed, Status.NONFINITE_LOSS, member.status),
        )
        return member, {"loss": loss, **metrics}

    member, metrics = jax.lax.scan(step, member, (batches, moving), unroll=unroll)
    broken = (member.status == Status.OK) & ~_all_finite((member.params, member.model_state))
    member = member._replace(status=jnp.where(broken, Status.NONFINITE_PARAMS, member.status))
    return member, jax.tree.map(lambda each: jnp.mean(each, axis=0), metrics)


def _as_before(new: Any, old: Any) -> Any:
    """Keeps every leaf's dtype: traced float32 settings would otherwise promote bfloat16 state."""
    return jax.tree.map(lambda n, o: n.astype(o.dtype), new, old)


def _all_finite(tree: Any) -> jax.Array:
    numbers = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in numbers]).all()
