"""How fast vmaptune is on this machine, side by side with the ways to do without it, and with what the machine can do.

The same model, data, batches and hyperparameters are trained five ways, in turn, round after round, so that a slow moment of
the machine hits all alike:

    eager     a Python loop over one jitted step, member after member, that picks each batch by indexing: the usual loop
    loop      the same with the batch picked inside the jitted step: the best that such a loop can be
    scan      one compiled scan over steps, member after member
    vmap      one compiled vmap over members of that scan: what anybody would write first
    vmaptune  the engine, with the plan it chose
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmaptune import models, tasks
from vmaptune.config import RunConfig, resolve
from vmaptune.data import embedded
from vmaptune.data.batching import batch_indices
from vmaptune.data.splits import Splits
from vmaptune.errors import VmaptuneWarning
from vmaptune.loop import tune
from vmaptune.plan import Plan, bytes_of, prepare_backend
from vmaptune.planner import Work, choose_plan
from vmaptune.population import init_population
from vmaptune.tasks.text import text
from vmaptune.toml import override
from vmaptune.train import make_evaluate, make_inputs, segment_of

BenchTask = Literal["mlp", "cnn", "gru"]

_USUAL = {"mlp": (128, 50), "cnn": (32, 5), "gru": (16, 5)}  # examples of a batch, and steps of a segment

_ROUND_SECONDS = 0.2
_ALONE = 16  # members that the loops and the scan train: one after another, so more of them cost the same each
_SIZES = (1, 4, 16, 64, 256, 1024)


class Row(NamedTuple):
    """One way to train, measured.

    Attributes:
        name: Which.
        member_steps_per_s: Median over rounds.
        n: Rounds.
        spread: Slowest and fastest round.
        compile_seconds: Until its first call returned; apart from the rest.
    """

    name: str
    member_steps_per_s: float
    n: int
    spread: tuple[float, float]
    compile_seconds: float


def bench(
    task: BenchTask = "mlp",
    *,
    members: int = 64,
    width: int = 128,
    batch_size: int = 0,
    rounds: int = 5,
    assignments: Iterable[str] = (),
    scaling: bool = True,
    overhead: bool = True,
) -> dict[str, Any]:
    """Measures everything.

    Args:
        task: mlp: digits by 64-width-width-10. cnn: digits at 14x14 by two convolutions of 16 and 32 channels. gru: the next
            character of a text, in windows of 64, by one recurrent layer.
        members: N.
        width: Units of a hidden layer of the MLP, or of the recurrent layer.
        batch_size: B; 0: 128 for the MLP, 32 for the CNN, 16 for the GRU.
        rounds: How often each way is measured.
        assignments: `--set` assignments, such as `plan.lowering=im2col`.
        scaling: Also the cost of a member-step at other population sizes.
        overhead: Also the share of a whole run that is not training.

    Returns:
        JSON values: device, versions, plan, rows, ratios, ceiling, scaling, overhead.
    """
    prepare_backend()
    built = {"mlp": lambda: _mlp(width), "cnn": _cnn, "gru": lambda: _gru(width)}[task]()
    usual, steps = _USUAL[task]
    config = _config(built, members, batch_size or usual, steps, assignments)
    choice = choose_plan(config, built, timed=True)
    contenders = _contenders(config, built, choice.plan)
    compiled = {name: _seconds(way) for name, way in contenders.items()}
    flops, moved = _cost(config, built)
    machine = _machine()
    found = _measure({**contenders, **machine}, rounds)
    rows = [Row(name, median(found[name]), rounds, (min(found[name]), max(found[name])), compiled[name]) for name in contenders]
    speed = {row.name: row.member_steps_per_s for row in rows}
    peak, bandwidth = median(found["matmul"]), median(found["copy"])
    result: dict[str, Any] = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__, "optax": optax.__version__},
        "task": _describe(task, width, config),
        "plan": choice.plan._asdict() | {"source": choice.source},
        "rows": [row._asdict() for row in rows],
        "ratio": {name: speed["vmaptune"] / speed[name] for name in ("eager", "loop", "scan", "vmap")},
        "ceiling": {
            "flops": peak,
            "bytes_per_s": bandwidth,
            "flops_per_member_step": flops,
            "bytes_per_member_step": moved,
            "bound": "compute" if flops / peak > moved / bandwidth else "bandwidth",
            "fraction": speed["vmaptune"] * max(flops / peak, moved / bandwidth),
        },
    }
    if scaling:
        result["scaling"] = _scaling(config, built, choice.plan, rounds)
    if overhead:
        result |= _overhead(config, built, choice.plan, speed["vmaptune"])
    return result


def _mlp(width: int) -> tasks.Task:
    network = models.from_nnx(lambda rngs: models.MLP(64, [width, width], 10, rngs=rngs))
    return tasks.classification(network, embedded.digits(), where="bench")


def _cnn() -> tasks.Task:
    def enlarged(inputs: np.ndarray) -> np.ndarray:
        images = inputs.reshape(-1, 8, 8, 1)
        return np.asarray(jax.image.resize(images, (len(images), 14, 14, 1), "bilinear"))

    splits = Splits(*((enlarged(inputs), labels) for inputs, labels in embedded.digits()))
    network = models.from_nnx(lambda rngs: models.CNN((14, 14, 1), (16, 32), 10, rngs=rngs))
    return tasks.classification(network, splits, where="bench")


def _gru(width: int) -> tasks.Task:
    return text(limit=40_000, length=64, width=width)


def _config(task: tasks.Task, members: int, batch: int, steps: int, assignments: Iterable[str]) -> RunConfig:
    tree = {
        "batch": {"size": batch},
        "optimizer": {
            "name": "adamw",
            "learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"},
            "weight_decay": {"low": 1e-6, "high": 1e-2, "scale": "log"},
        },
        "population": {"size": members, "segment_steps": steps, "generations": 20},
    }
    return resolve(override(tree, assignments), task=task, source="bench")[0]


def _describe(task: str, width: int, config: RunConfig) -> dict[str, Any]:
    network = {
        "mlp": f"MLP 64-{width}-{width}-10",
        "cnn": "CNN 14x14, 16 and 32 channels of 3x3, 10 outputs",
        "gru": f"GRU of {width} units over 64 characters",
    }[task]
    size = config.population
    return {"name": task, "network": network, "batch": config.batch.size, "members": size.size, "steps": size.segment_steps}


# ------------------------------------------------------------------------------------------------------- the five ways


def _contenders(config: RunConfig, task: tasks.Task, plan: Plan) -> dict[str, Callable[[], float]]:
    """The five ways, each a function that trains and returns how many member-steps that was."""
    recipe, size = config.recipe(task), config.population
    n, steps, optimizer = size.size, size.segment_steps, recipe.optimizer
    population = init_population(task, recipe.space, optimizer, size=n)
    values = recipe.space.decode(population.genotype)
    given = {name.partition(".")[2]: values[name] for name in recipe.space.axes}
    data, key = jax.tree.map(jnp.asarray, task.splits.train), jax.random.key(0)
    shape = {"steps": steps, "batch_size": config.batch.size, "examples": task.splits.size("train")}
    shuffled = jax.jit(partial(batch_indices, key, jnp.int32(0), **shape))  # every way needs an order; all get the same one

    def train(carry: tuple[Any, Any], batch: Any, state: Any, settings: Mapping[str, jax.Array]) -> tuple[Any, Any]:
        params, opt_state = carry
        gradient = jax.grad(task.loss, has_aux=True)(params, state, batch, key, train=True)[0]
        updates, opt_state = optimizer(**settings).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def picked(rows: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[rows], data)

    def step(carry: tuple[Any, Any], rows: jax.Array, state: Any, settings: Mapping[str, jax.Array]) -> tuple[Any, Any]:
        return train(carry, picked(rows), state, settings)

    def scan(carry: tuple[Any, Any], rows: jax.Array, state: Any, settings: Mapping[str, jax.Array]) -> tuple[Any, Any]:
        return jax.lax.scan(lambda c, r: (step(c, r, state, settings), None), carry, rows)[0]

    stacked = ((population.params, population.opt_state), population.model_state, given)
    alone = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(min(n, _ALONE))]
    jitted_train, jitted_step, jitted_scan = jax.jit(train), jax.jit(step), jax.jit(scan)
    jitted_vmap = jax.jit(jax.vmap(scan, in_axes=(0, None, 0, 0)))

    def by_eager() -> float:
        batches = list(shuffled())
        for carry, state, settings in alone:
            for batch in batches:
                carry = jitted_train(carry, picked(batch), state, settings)
            jax.block_until_ready(carry)
        return len(alone) * steps

    def by_loop() -> float:
        batches = list(shuffled())
        for carry, state, settings in alone:
            for batch in batches:
                carry = jitted_step(carry, batch, state, settings)
            jax.block_until_ready(carry)
        return len(alone) * steps

    def by_scan() -> float:
        rows = shuffled()
        for carry, state, settings in alone:
            jax.block_until_ready(jitted_scan(carry, rows, state, settings))
        return len(alone) * steps

    def by_vmap() -> float:
        carry, state, settings = stacked
        jax.block_until_ready(jitted_vmap(carry, shuffled(), state, settings))
        return n * steps

    return {"eager": by_eager, "loop": by_loop, "scan": by_scan, "vmap": by_vmap, "vmaptune": _engine(config, task, plan)}


def _engine(config: RunConfig, task: tasks.Task, plan: Plan) -> Callable[[], float]:
    """The engine's own segment under a plan."""
    recipe, size = config.recipe(task), config.population
    n, steps = size.size, size.segment_steps
    batches = config.batches(task)._replace(streamed=False)
    segment = segment_of(recipe, steps=steps, batches=batches, plan=plan)
    jitted = jax.jit(segment, donate_argnums=(2,), out_shardings=(plan.slots(n), plan.everywhere))
    inputs = make_inputs(recipe, batches, seed=config.seed, plan=plan)
    population = init_population(task, recipe.space, recipe.opened, size=n)
    members = [jax.device_put(population, plan.slots(n))]

    def by_vmaptune() -> float:
        members[0], _ = jitted(inputs, jnp.int32(0), members[0])
        jax.block_until_ready(members[0])
        return n * steps

    return by_vmaptune


def _seconds(fn: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    fn()
    return time.perf_counter() - begun


def _measure(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Units a second of each way in each round; a round is long enough to time, and the order turns."""
    repeats = {name: max(1, math.ceil(_ROUND_SECONDS / max(_seconds(way), 1e-6))) for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begun = time.perf_counter()
            units = sum(ways[name]() for _ in range(repeats[name]))
            found[name].append(units / (time.perf_counter() - begun))
    return found


# --------------------------------------------------------------------------------------------------------- the machine


def _machine() -> dict[str, Callable[[], float]]:
    """What the machine can do at best: FLOPs of one large float32 matrix product, and bytes of one large copy."""
    cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**25) if cpu else (8192, 2**29)
    a, x = jnp.ones((side, side)), [jnp.ones(length)]
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1.0, donate_argnums=0)  # no fresh pages to fault in

    def matmul() -> float:
        jax.block_until_ready(product(a))
        return 2.0 * side**3

    def copying() -> float:
        x[0] = jax.block_until_ready(copy(x[0]))
        return 2.0 * x[0].nbytes

    matmul(), copying()
    return {"matmul": matmul, "copy": copying}


def _cost(config: RunConfig, task: tasks.Task) -> tuple[float, float]:
    """FLOPs of the matrix products and convolutions of a member-step, and the bytes it must move at least.

    The bytes are the training state, read and written once, and the batch.
    """
    work = Work(config, task)
    state = bytes_of((work.member.params, work.member.opt_state))
    return _flops(jax.make_jaxpr(work.gradient)(*work.arguments).jaxpr), float(2 * state + bytes_of(work.batch))


def _flops(jaxpr: Any) -> float:
    """Multiplications and additions of the dots and convolutions in a jaxpr; inside a scan, as often as it runs."""
    total = 0.0
    for eqn in jaxpr.eqns:
        out = math.prod(eqn.outvars[0].aval.shape)
        if eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            total += 2.0 * out * math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
        elif eqn.primitive.name == "conv_general_dilated":
            spec = eqn.params["dimension_numbers"].rhs_spec
            kernel = eqn.invars[1].aval.shape
            total += 2.0 * out * math.prod(kernel[d] for d in spec[1:])
        for inner in jax.tree.leaves(tuple(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            total += eqn.params.get("length", 1) * _flops(inner) if hasattr(inner, "eqns") else 0.0
    return total


# ------------------------------------------------------------------------------------------------ sizes and whole runs


def _scaling(config: RunConfig, task: tasks.Task, plan: Plan, rounds: int) -> list[dict[str, Any]]:
    """Microseconds of a member-step at other population sizes, under the plan that was chosen for this one."""
    ways = {}
    for n in _SIZES:
        devices = min(plan.devices, n)
        layout = plan._replace(devices=devices, chunk=min(plan.chunk, math.ceil(n / devices)))
        ways[str(n)] = _engine(_resized(config, task, size=n), task, layout)
    microseconds = {name: [1e6 / speed for speed in speeds] for name, speeds in _measure(ways, rounds).items()}
    return [
        {"members": int(name), "us_per_member_step": median(each), "n": rounds, "spread": [min(each), max(each)]}
        for name, each in microseconds.items()
    ]


def _resized(config: RunConfig, task: tasks.Task, **size: int) -> RunConfig:
    tree = config.tree
    return resolve(tree | {"population": tree["population"] | size}, task=task, source="bench")[0]


def _overhead(config: RunConfig, task: tasks.Task, plan: Plan, speed: float, rounds: int = 3) -> dict[str, float]:
    """The share of a run's wall time that is neither training nor evaluation, compilation and start-up apart; medians.

    Once for generations of about a second, and once for generations of five steps.
    """
    n = config.population.size
    pinned = {key: value for key, value in plan._asdict().items() if key in ("devices", "chunk", "lowering", "unroll")}
    shares = {}
    second = max(5, round(speed / n))
    for name, steps, generations in (("overhead_fraction", second, 5), ("overhead_fraction_5_steps", 5, max(20, second))):
        run = resolve(
            config.tree | {"population": {"size": n, "segment_steps": steps, "generations": generations}} | {"plan": pinned},
            task=task,
            source="bench",
        )[0]
        trains, measures = _engine(run, task, plan), make_evaluate(task, plan=plan)
        recipe = run.recipe(task)
        population = init_population(task, recipe.space, recipe.opened, size=n)
        population = jax.device_put(population, plan.slots(n))

        def pure(
            trains: Any = trains, measures: Any = measures, population: Any = population, count: int = generations
        ) -> None:
            for _ in range(count):
                trains()
                jax.block_until_ready(measures(population))

        def whole(run: RunConfig = run) -> float:
            with tempfile.TemporaryDirectory(prefix="vmaptune-bench-") as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore", VmaptuneWarning)  # of the digits' pixels that are always black
                return tune(run, task=task, out=f"{folder}/run").seconds["train"]

        pure(count=1)
        walls, pures = zip(*((whole(), _seconds(pure)) for _ in range(rounds)), strict=True)
        wall, only = median(walls), median(pures)
        shares[name] = max(0.0, 1 - only / wall)
    return shares
