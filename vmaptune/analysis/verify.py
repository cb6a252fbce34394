"""`verify`: a member of a run is trained once more, alone, and compared with what the run has on record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.analysis.retraining import Literal, Past, make_retraining, read_past, recorded_values, scales
from vmaptune.cache import use_compilation_cache
from vmaptune.optimizers import evaluation_params
from vmaptune.plan import Plan, prepare_backend
from vmaptune.population import Member, make_newborn, root_key
from vmaptune.programs import Program
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task
from vmaptune.winner import weights_of

TOLERANCE = 0.01  # relative: rounding grows while a network trains, and an example of some hundreds may change sides


class Deviation(NamedTuple):
    """A number on record and the same number of the member that was trained alone.

    Attributes:
        generation: When it was measured.
        trial: Who trained in that generation.
        name: `train.loss`, `validation.accuracy`, ..., or the path of a tensor.
        recorded: Of the run; NaN where it was not finite.
        retrained: Of the member alone.
        absolute: Their distance, for a tensor that of the numbers furthest apart; 0 for two NaN, infinite for one.
    """

    generation: int
    trial: int
    name: str
    recorded: float
    retrained: float
    absolute: float

    @property
    def relative(self) -> float:
        """The distance as a share of the larger of the two."""
        larger = max((abs(x) for x in (self.recorded, self.retrained) if math.isfinite(x)), default=1.0)
        return self.absolute / larger if self.absolute else 0.0

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return self._asdict() | {"relative": self.relative}


@dataclass(frozen=True)
class Verification:
    """How far a member that is trained alone is from the member of the run.

    Attributes:
        run: The run folder.
        trial: Number of the member's trial.
        trials: Of its lineage, the founder first.
        generations: Generations that were trained once more.
        steps: Training steps of them.
        strict: True if the run had the strict plan, under which members do not depend on each other to the bit.
        elsewhere: What is not as it was when the run was made ("jax: 0.10.2 -> 0.12.0"), so that bits may differ.
        compared: How many numbers were compared.
        largest: The largest absolute deviation of a metric.
        largest_relative: The largest relative one.
        first: The first that is beyond `TOLERANCE`, if any: where something went wrong.
        weights: The largest absolute deviation from the winner's weights; None if it is not the winner.
    """

    run: Path
    trial: int
    trials: tuple[int, ...]
    generations: int
    steps: int
    strict: bool
    elsewhere: tuple[str, ...]
    compared: int
    largest: Deviation
    largest_relative: Deviation
    first: Deviation | None
    weights: Deviation | None

    @property
    def verdict(self) -> str:
        """One sentence."""
        deviates = self.largest.absolute > 0 or (self.weights is not None and self.weights.absolute > 0)
        if not deviates:
            return "The same to the bit."
        if self.first is not None:
            where = f"generation {self.first.generation + 1}, {self.first.name}"
            return f"Not the same: beyond {TOLERANCE:.0%} for the first time in {where}."
        if self.strict and not self.elsewhere:
            return f"The same to {TOLERANCE:.0%}, but not to the bit, which the strict plan promises."
        weights = f", weights by {self.weights.absolute:.1e}" if self.weights is not None else ""
        return f"The same but for rounding: metrics differ by {self.largest_relative.relative:.1e} relatively at most{weights}."

    def as_json(self) -> dict[str, Any]:
        """As strict JSON values."""
        facts = {
            "run": str(self.run),
            "trial": self.trial,
            "trials": list(self.trials),
            "generations": self.generations,
            "steps": self.steps,
            "strict": self.strict,
            "elsewhere": list(self.elsewhere),
            "compared": self.compared,
            "largest": self.largest.as_json(),
            "largest_relative": self.largest_relative.as_json(),
            "first_beyond_tolerance": self.first and self.first.as_json(),
            "weights": self.weights and self.weights.as_json(),
            "tolerance": TOLERANCE,
            "verdict": self.verdict,
        }
        return finite_json(facts)


def verify(run: str | Path, *, member: int | None = None, task: Task | None = None) -> Verification:
    """Trains one member of a run once more, alone, and says how far it is from what the run has on record.

    The member goes through what its lineage went through: the same weights at birth, batches, draws and settings, and
    the same handing on of weights, from parent to copy. Whatever other members did to it shows, and so does any number
    of the history that is not what was measured. Under the strict plan nothing deviates on the same machine; under
    another, by rounding.

    Args:
        run: The run folder.
        member: Number of the trial; default: the winner.
        task: The run's task, if it was passed from Python.

    Raises:
        StoreError: Not a run folder, no winner yet, or no such trial.
        ConfigError: The task was passed from Python, and is not given.
    """
    prepare_backend()
    use_compilation_cache()
    past = read_past(run, task=task, member=member, caller="verify")
    found, weights = _compared(past)
    lineage = past.lineage
    return Verification(
        run=past.folder.path,
        trial=lineage[-1].trial,
        trials=tuple(dict.fromkeys(a.trial for a in lineage)),
        generations=len(lineage),
        steps=lineage[-1].step,
        strict=past.config.plan.name == "strict",
        elsewhere=_elsewhere(past.run["environment"]),
        compared=len(found),
        largest=max(found, key=lambda d: d.absolute),
        largest_relative=max(found, key=lambda d: d.relative),
        first=next((d for d in found if d.relative > TOLERANCE), None),
        weights=weights,
    )


def _compared(past: Past) -> tuple[list[Deviation], Deviation | None]:
    """Retrains the lineage; every metric of every generation, and the winner's weights."""
    config, lineage, planned = past.config, past.lineage, past.run["environment"]["plan"]
    recipe = config.recipe(past.task)
    recipe = recipe._replace(space=Literal.of(recipe.space))
    # As many devices as the run had, though one would do: an XLA device of a CPU has its share of the threads, and the order
    # in which they sum depends on their number.
    devices = planned["devices"] if planned["devices"] <= jax.device_count() else 1
    plan = Plan(devices, chunk=1, lowering=planned["lowering"], unroll=planned["unroll"])
    shared, batches = config.population.seeds, config.batches(past.task)
    newborn = make_newborn(past.task, recipe.opened, seed=root_key(config.seed), replicates=shared, plan=plan)
    generation = make_retraining(config, recipe, batches, plan, replicates=shared)
    feed = config.feed(recipe, batches, seed=config.seed, plan=plan)
    genotypes, scale = jnp.asarray(recorded_values(recipe.space, lineage)), scales(lineage)
    trials = jnp.array([[a.trial] for a in lineage], jnp.int32)
    population: Member = Program("birth", newborn)(trials[0], genotypes[:1])
    found: list[Deviation] = []
    weights = None
    for age, ancestor in enumerate(lineage):
        state = jnp.asarray(population.plateau).at[0, 0].set(scale[age])
        population = population._replace(trial=trials[age], genotype=genotypes[age : age + 1], plateau=state)
        population, judged, metrics = generation(feed(ancestor.generation), ancestor.generation, population)
        for name, value in jax.device_get(metrics).items():
            recorded, retrained = ancestor.values.get(name), float(value[0])
            found.append(
                _deviation(ancestor.generation, ancestor.trial, name, math.nan if recorded is None else recorded, retrained)
            )
        file = past.folder.best / "weights.safetensors"
        if (ancestor.trial, ancestor.generation) == past.winner and past.run["status"] == "finished" and file.is_file():
            weights = _of_weights(file, jax.device_get(judged), ancestor.generation)
    return found, weights


def _deviation(generation: int, trial: int, name: str, recorded: float, retrained: float) -> Deviation:
    if recorded == retrained or not (math.isfinite(recorded) or math.isfinite(retrained)):
        distance = 0.0  # the history has NaN for whatever is not finite
    else:
        distance = abs(recorded - retrained) if math.isfinite(recorded) and math.isfinite(retrained) else math.inf
    return Deviation(generation, trial, name, recorded, retrained, distance)


def _of_weights(file: Path, population: Member, generation: int) -> Deviation:
    """The number of the winner's weights and model state that is furthest off."""
    from safetensors.numpy import load_file

    alone = jax.tree.map(lambda leaf: leaf[0], population)
    params = evaluation_params(alone.opt_state, alone.params)
    mine: Mapping[str, Any] = weights_of(params, alone.model_state)
    kept = load_file(file)
    trial = int(alone.trial)
    found = [Deviation(generation, trial, name, math.nan, math.nan, math.inf) for name in sorted({*kept} ^ {*mine})]
    for name in sorted({*kept} & {*mine}):
        one, other = np.ravel(kept[name]).astype(np.float64), np.ravel(mine[name]).astype(np.float64)
        if one.shape != other.shape:
            found.append(Deviation(generation, trial, name, math.nan, math.nan, math.inf))
        elif len(one):
            with np.errstate(invalid="ignore"):  # infinity less infinity
                distance = np.abs(one - other)
            same = (one == other) | (np.isnan(one) & np.isnan(other))
            distance = np.where(same, 0.0, np.nan_to_num(distance, nan=np.inf, posinf=np.inf))
            i = int(np.argmax(distance))
            found.append(Deviation(generation, trial, name, float(one[i]), float(other[i]), float(distance[i])))
    return max(found, key=lambda d: d.absolute)


def _elsewhere(environment: Mapping[str, Any]) -> tuple[str, ...]:
    device, count = jax.devices()[0].device_kind, jax.device_count()
    here = {"jax": jax.__version__, "platform": jax.default_backend(), "device": device, "devices": count}
    return tuple(f"{k}: {environment[k]} -> {v}" for k, v in here.items() if environment.get(k) not in (None, v))
