"""The timed choice of a plan: a few that fit memory are run on the real shapes for a moment, and the fastest is kept.

Which plan is fastest depends on caches, cores and kernels that nobody can predict, but not on the run: so the choice is
measured once per device, JAX version and shape of the work, and kept on disk. Runs too short to be worth a measurement go by
rule of thumb.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.cache import cache_folder
from vmaptune.config import RunConfig
from vmaptune.distributed import alone
from vmaptune.feed import Feed
from vmaptune.plan import Plan, bytes_of, is_out_of_memory, make_plan, memory_limit
from vmaptune.population import make_newborn, root_key
from vmaptune.tasks import Task, is_convolutional, is_recurrent
from vmaptune.train import segment_of

_WORTH_SECONDS = 60.0  # of expected training: timing costs some ten
_GUESSED_FLOPS = {"cpu": 2e10, "gpu": 2e12, "tpu": 2e12}  # a device's speed on small networks, to an order of magnitude
_CHUNK_BYTES = 2 * 2**20  # of weights, gradients and optimizer state that a core's cache holds
_MEMORY_SHARE = 0.8
_STEPS, _ROUNDS, _ROUND_SECONDS = 10, 3, 0.15


class Candidate(NamedTuple):
    """A plan and what it was found to cost.

    Attributes:
        plan: The plan.
        bytes: Memory it takes on one device, by the memory model; None if not asked.
        microseconds: Per member-step, the best of a few rounds; None if not timed.
    """

    plan: Plan
    bytes: int | None = None
    microseconds: float | None = None


class Planned(NamedTuple):
    """A chosen plan and why.

    Attributes:
        plan: The plan.
        source: "rule of thumb", "timed" or "timed before".
        candidates: What it was chosen from.
        limit: Bytes of memory that one device may take.
    """

    plan: Plan
    source: str
    candidates: tuple[Candidate, ...]
    limit: int


def choose_plan(config: RunConfig, task: Task, *, timed: bool | None = None) -> Planned:
    """Chooses a plan for a config.

    Args:
        config: What is to be run; its `[plan]` is kept to.
        task: Its task.
        timed: True: time the candidates unless they were timed before. False: never. None: if the run is long enough.

    Raises:
        ConfigError: `[plan]` does not fit the population or the machine.
    """
    work = Work(config, task)
    thumb, candidates = work.thumb, [Candidate(plan) for plan in work.candidates]
    limit = memory_limit()
    if len(candidates) == 1 or not alone():  # processes would measure differently, and must agree
        return Planned(thumb, "rule of thumb", (Candidate(thumb),), limit)
    if found := _recall(work):
        return Planned(found[0].plan, "timed before", found, limit)
    if timed is False or (timed is None and work.seconds() < _WORTH_SECONDS):
        return Planned(thumb, "rule of thumb", (Candidate(thumb),), limit)
    fitting = _fitting(work, candidates, limit)
    found = tuple(sorted(work.timed(fitting), key=lambda c: c.microseconds or math.inf)) or (Candidate(thumb),)
    _remember(work, found)
    return Planned(found[0].plan, "timed", found, limit)


def is_long(config: RunConfig, task: Task) -> bool:
    """True if a run is expected to take so long that a compilation more is worth what it saves."""
    rounds = config.total_generations / config.population.generations
    return Work(config, task).seconds() * rounds >= _WORTH_SECONDS


class Work:
    """What is to be planned: the training of a config's population, at its real shapes.

    Attributes:
        member: One member, as shapes.
        batch: What a step of it sees, as shapes.
        thumb: The plan that is usually good.
        candidates: The plans worth timing, `thumb` first; all keep to what is pinned.
    """

    def __init__(self, config: RunConfig, task: Task) -> None:
        self.config, self.task, self.n = config, task, config.population.size
        self.recipe = config.recipe(task)
        self.newborn = make_newborn(task, self.recipe.opened)
        one = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((1, self.recipe.space.dimension), jnp.float32)
        population = jax.eval_shape(self.newborn, *one)
        self.member = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), population)
        self.batch = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((config.batch.size, *leaf.shape[1:]), leaf.dtype), task.splits.train
        )
        self.cpu, self.convolutional = jax.default_backend() == "cpu", is_convolutional(task)
        self._inputs: dict[int, Any] = {}
        self.thumb = self._rule_of_thumb()
        self.candidates = self._candidates()

    def gradient(self, params: Any, state: Any, batch: Any) -> Any:
        """The gradient of one member on one batch: most of what a member-step computes."""
        return jax.grad(self.task.loss, has_aux=True)(params, state, batch, jax.random.key(0), train=True)[0]

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        """What `gradient` takes, as shapes."""
        return self.member.params, self.member.model_state, self.batch

    @property
    def key(self) -> str:
        """Names the work on this machine by content: device, versions, and the gradient's program with all its shapes."""
        program = re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(self.gradient)(*self.arguments)))
        device = (jax.devices()[0].device_kind, jax.device_count(), os.cpu_count(), jax.__version__)
        rest = (self.n, self.candidates, self.config.optimizer.name, self.config.batch.order, str(self.member))
        return hashlib.sha256(repr((device, rest, program)).encode()).hexdigest()[:16]

    def seconds(self) -> float:
        """Expected training time, to an order of magnitude."""
        cost = jax.jit(self.gradient).lower(*self.arguments).cost_analysis()
        flops = float((cost or {}).get("flops", 0.0))
        return flops * self.n * self.config.population.horizon / _GUESSED_FLOPS.get(jax.default_backend(), 2e12)

    def _rule_of_thumb(self) -> Plan:
        given = self.config.plan
        lowering = None if given.lowering == "auto" else given.lowering
        if lowering is None and not (self.cpu and self.convolutional):
            lowering = "grouped"
        plan = make_plan(
            self.n,
            devices=given.devices,
            chunk=given.chunk,
            lowering=lowering,
            unroll=given.unroll,
            strict=given.name == "strict",
        )
        if given.chunk or given.name == "strict" or not self.cpu:
            return plan
        return plan._replace(chunk=min(math.ceil(self.n / plan.devices), self._cached()))

    def _cached(self) -> int:
        """Members whose training state stays in a core's cache.

        The activations of a convolution, or those of a recurrent layer at all steps, leave no room for two.
        """
        if self.convolutional or is_recurrent(self.task):
            return 1
        held = bytes_of(self.member) + bytes_of(self.member.params)
        return 2 ** min(5, int(math.log2(max(1, _CHUNK_BYTES / held))))

    def _candidates(self) -> list[Plan]:
        thumb, given = self.thumb, self.config.plan
        block = math.ceil(self.n / thumb.devices)
        if given.name == "strict":
            return [thumb]  # what is timed may come out differently for another N
        widths = [given.chunk or thumb.chunk]
        if not given.chunk:
            widths += ([1, 4] if self.convolutional else [1, 4, 16]) if self.cpu else [block, math.ceil(block / 8)]
        lowerings = [thumb.lowering]
        if given.lowering == "auto" and self.convolutional:
            lowerings += ["canonical", "im2col"] if self.cpu else ["grouped", "im2col"]
        unrolls = [thumb.unroll] if given.unroll or self.cpu else [1, 4]
        devices = [thumb.devices]
        if not given.devices and self.n % thumb.devices and self.n < 2 * thumb.devices:
            devices.append(1)  # half of what is computed would be thrown away
        plans = [
            Plan(d, min(chunk, math.ceil(self.n / d)), lowering, unroll)
            for d in devices
            for lowering in lowerings
            for unroll in unrolls
            for chunk in widths
        ]
        return list(dict.fromkeys(plans))

    def segment(self, plan: Plan, n: int) -> tuple[Any, Any]:
        """A short segment as a jitted function of (inputs, population, repetitions), and its inputs."""
        steps = min(_STEPS, self.config.population.segment_steps)
        batches = self.config.batches(self.task)
        segment = segment_of(self.recipe, steps=steps, batches=batches, plan=plan)

        def several(inputs: Any, population: Any, count: jax.Array) -> Any:
            return jax.lax.fori_loop(0, count, lambda i, members: segment(inputs, i, members)[0], population)

        jitted = jax.jit(several, donate_argnums=(1,), out_shardings=plan.slots(n))
        if plan.devices not in self._inputs:  # the data, once for all plans of as many devices
            self._inputs[plan.devices] = Feed(self.recipe, batches, seed=0, plan=plan, segment_steps=steps)(0)
        return jitted, self._inputs[plan.devices]

    def timed(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Runs each candidate a few times in turn, so that a slow moment hits all alike; keeps the best time of each."""
        n = min(self.n, 64) if self.cpu else self.n
        steps = min(_STEPS, self.config.population.segment_steps)
        runs = []
        for candidate in candidates:
            plan = candidate.plan
            jitted, inputs = self.segment(plan, n)
            numbers = jnp.arange(n, dtype=jnp.int32), self.recipe.space.sample(root_key(0), n)
            population = jax.device_put(jax.jit(self.newborn)(*numbers), plan.slots(n))
            try:
                population = jax.block_until_ready(jitted(inputs, population, jnp.int32(1)))
                begun = time.perf_counter()
                population = jax.block_until_ready(jitted(inputs, population, jnp.int32(1)))
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                continue  # the memory model was wrong: one candidate less
            count = max(1, round(_ROUND_SECONDS / (time.perf_counter() - begun)))
            runs.append([candidate, jitted, inputs, population, count, math.inf])
        for _ in range(_ROUNDS):
            for run in runs:
                _, jitted, inputs, population, count, best = run
                begun = time.perf_counter()
                run[3] = jax.block_until_ready(jitted(inputs, population, jnp.int32(count)))
                run[5] = min(best, (time.perf_counter() - begun) / (count * steps * n))
        return [run[0]._replace(microseconds=1e6 * run[5]) for run in runs]

    def memory(self, lowering: Any, unroll: int) -> tuple[float, float]:
        """Bytes of a segment on one device as a line in the members side by side: what it takes anyway, and for each.

        Compiled, not run, at two widths: arguments, results and temporaries, what is donated counted once.
        """
        widths = (2, 6)
        taken = []
        for n in widths:
            plan = Plan(1, n, lowering, unroll)
            jitted, inputs = self.segment(plan, n)
            numbers = jax.ShapeDtypeStruct((n,), jnp.int32), jax.ShapeDtypeStruct((n, self.recipe.space.dimension), jnp.float32)
            compiled = jitted.lower(inputs, jax.eval_shape(self.newborn, *numbers), jnp.int32(1)).compile()
            m = compiled.memory_analysis()
            taken.append(m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes)
        each = (taken[1] - taken[0]) / (widths[1] - widths[0])
        return max(0.0, taken[0] - each * widths[0]), max(each, float(bytes_of(self.member)))


def _fitting(work: Work, candidates: Iterable[Candidate], limit: int) -> list[Candidate]:
    """The candidates whose memory a device has, by the memory model; one too wide gives way to the widest that fits."""
    models: dict[tuple[Any, int], tuple[float, float]] = {}
    state = bytes_of(work.member)
    fitting: dict[Plan, Candidate] = {}
    for plan in (candidate.plan for candidate in candidates):
        if (plan.lowering, plan.unroll) not in models:
            models[plan.lowering, plan.unroll] = work.memory(plan.lowering, plan.unroll)
        fixed, each = models[plan.lowering, plan.unroll]
        waiting = 2 * state * math.ceil(work.n / plan.devices)  # the block, and its copy cut into chunks
        widest = int((_MEMORY_SHARE * limit - fixed - waiting) / each)
        plan = plan._replace(chunk=max(1, min(plan.chunk, widest)))
        fitting.setdefault(plan, Candidate(plan, int(fixed + waiting + each * plan.chunk)))
    return list(fitting.values())


def _recall(work: Work) -> tuple[Candidate, ...]:
    """What was measured before on this machine for this work, the fastest first; empty if nothing was."""
    if (folder := cache_folder()) is None:
        return ()
    try:
        rows = json.loads((folder / "plans" / f"{work.key}.json").read_text(encoding="utf-8"))
        return tuple(Candidate(Plan(**row["plan"]), row["bytes"], row["microseconds"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or of another version
        return ()


def _remember(work: Work, found: Iterable[Candidate]) -> None:
    """Keeps a measurement; a cache that cannot be written is no reason to stop."""
    if (folder := cache_folder()) is None:
        return
    rows = [{"plan": c.plan._asdict(), "bytes": c.bytes, "microseconds": c.microseconds} for c in found]
    with suppress(OSError):
        (folder / "plans").mkdir(exist_ok=True)
        partial = folder / "plans" / f"{work.key}.{os.getpid()}.partial"
        partial.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        partial.replace(folder / "plans" / f"{work.key}.json")
