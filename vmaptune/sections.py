"""The sections of a config that are no row of a table: small dataclasses, read by their annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from keyword import iskeyword
from typing import Annotated, Any, Literal

import msgspec

from vmaptune.anneal import Shape
from vmaptune.choices import bind, table_of
from vmaptune.data.batching import Balance, Order
from vmaptune.errors import ConfigError
from vmaptune.feed import Placement
from vmaptune.finetuning import Patterns
from vmaptune.precision import Compute, Matmul
from vmaptune.selectors import Aggregate
from vmaptune.settings import Count, Natural, NonNegative, Setting, settings, show


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step sees.

    Attributes:
        size: Examples a step.
        order: shared: all members see the same batches, so they differ by their settings alone; independent: each trial
            shuffles for itself.
        balance: none: examples as they are. oversample: those of rarer classes come several times an epoch, so that each class
            comes as often. batch: that, and every batch holds as many of each class. (task.class_balance weighs them instead.)
    """

    size: Count = 128
    order: Order = "shared"
    balance: Balance = "none"


@dataclass(frozen=True, kw_only=True)
class PopulationSize:
    """How many members train for how long.

    Attributes:
        size: Members, N.
        segment_steps: Training steps between two selections, K.
        generations: Of a trial: the horizon of every schedule is segment_steps x generations.
        seeds: Sources of randomness (initial weights, dropout, independent batches) that trials share in turn: trial t
            draws as trial t modulo seeds does, so that settings which are each tried so often are compared on the same
            seeds. 0: every trial draws for itself.
    """

    size: Count = 64
    segment_steps: Count = 50
    generations: Count = 20
    seeds: Natural = 0

    @property
    def horizon(self) -> int:
        """Steps of a full trial."""
        return self.segment_steps * self.generations


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How often the run can be picked up again.

    Attributes:
        every: Generations between two checkpoints, at least: they are made where a dispatch ends. The end always has one.
    """

    every: Count = 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the population is laid on the hardware. Changes speed and memory, and results by no more than rounding.

    Attributes:
        name: auto: the fastest of a few plans that were timed once on this machine, or a rule of thumb for runs too short
            to time any. strict: a member's results do not depend on how many others there are. What is given below is
            kept to by both.
        devices: Devices that share the population; 0: all, but no more than population.size.
        chunk: Members that a device trains side by side; 0: chosen.
        lowering: How convolutions are computed: grouped (as vmap leaves them), canonical (dimensions in the order of the
            fast CPU code), im2col (as matrix products), or auto.
        unroll: Training steps in one iteration of the compiled loop; 0: chosen.
        generations_per_dispatch: Generations that run without the host in between; 0: about a second's worth. The run can
            be stopped, and is checkpointed, where a dispatch ends.
    """

    name: Literal["auto", "strict"] = "auto"
    devices: Natural = 0
    chunk: Natural = 0
    lowering: Literal["auto", "grouped", "canonical", "im2col"] = "auto"
    unroll: Natural = 0
    generations_per_dispatch: Natural = 0


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the task's data are cut down to, for a coarse search.

    Attributes:
        fraction: Share of the training examples, drawn once for all members, of each class alike.
        classes: Labels that are kept, in every part of the data; none given: all.
        placement: Where training data lie. device: on every device, whole. host: in memory or memory-mapped files of the host,
            streamed to the devices a generation at a time; the results are the same. auto: host, where they would take more
            than 40 % of a device's memory.
    """

    fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    classes: tuple[int, ...] = ()
    placement: Placement = "auto"


@dataclass(frozen=True, kw_only=True)
class Init:
    """What members begin with, and what of it is trained. Parameters are named by dotted path; patterns are globs: "head.*".

    Attributes:
        from_: Weights that all members begin with: a safetensors file, or run:FOLDER, the winner of a run; empty: none.
        part: Pattern, or list of patterns, of the parameters and batch statistics that are taken from there. All others are
            drawn afresh by each trial.
        freeze: Pattern, or list of patterns, of the parameters that are not trained.
        sha256: Of the file with the weights. Filled in, so that a run cannot go on with others.
    """

    from_: str = ""
    part: Patterns = "*"
    freeze: Patterns = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision that the model is computed in. Weights, optimizer state and batch statistics are float32.

    Attributes:
        compute: Type that weights are cast to before each step, and the model is computed in.
        matmul: Precision of matrix products and convolutions of float32 numbers, as JAX names them. On GPUs default may
            round their inputs (to TF32); on CPUs all are the same.
        remat: Keep less of the forward pass for the gradient, and compute the rest again: less memory, more time. On CPUs
            XLA undoes it.
    """

    compute: Compute = "float32"
    matmul: Matmul = "default"
    remat: bool = False


@dataclass(frozen=True, kw_only=True)
class Lookahead:
    """Members are judged by what they would be if training ended now: by a copy whose learning rate is annealed to zero.

    Attributes:
        steps: Training steps of the copy, which is dropped afterwards; 0: members are judged as they are.
        shape: How its learning rate falls.
    """

    steps: Natural = 0
    shape: Shape = "linear"


@dataclass(frozen=True, kw_only=True)
class Fitness:
    """What members are judged by.

    Attributes:
        final_anneal: Steps at the end of a trial over which its learning rate falls to zero, whatever its schedule; 0: none.
    """

    final_anneal: Natural = 0


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How often each genotype is trained.

    Attributes:
        replicates: Members with the same settings and different seeds, in neighbouring slots; population.size counts each.
        aggregate: What settings are judged by: the median or the mean of their replicates.
    """

    replicates: Count = 1
    aggregate: Aggregate = "median"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a run ends, if that is before all its generations and trials. Schedules do not know of it: they end at the horizon.

    Attributes:
        steps: Training steps of all members together, those of look-ahead included; 0: no limit.
        seconds: Seconds of training, compilation not counted; asked between dispatches, so that a run ends about a second
            late, and elsewhere on another machine; 0: no limit.
    """

    steps: Natural = 0
    seconds: NonNegative = 0.0


# --------------------------------------------------------------------------------------------------------------- reading


def keyed(cls: type[Any]) -> dict[str, Setting]:
    """The settings of a section by their keys in TOML: `from_`, since Python keeps `from` for itself, is `from` there."""
    return {name.removesuffix("_"): setting for name, setting in settings(cls).items()}


def bound(
    cls: type[Any], table: Mapping[str, Any], section: str, *, searchable: bool = False, besides: Iterable[str] = ()
) -> Any:
    """Reads a section; see `choices.bind`."""
    values = bind(keyed(cls), table, section, searchable=searchable, besides=besides)
    return cls(**{f"{key}_" if iskeyword(key) else key: value for key, value in values.items()})


def fixed(cls: type[Any], tree: Mapping[str, Any], section: str) -> Any:
    """Reads a section of static settings from the tree that it stands in."""
    return bound(cls, table_of(tree, section), section, searchable=True)


def as_table(section: Any) -> dict[str, Any]:
    """A section as TOML values, by their keys there."""
    values = {key.removesuffix("_"): value for key, value in asdict(section).items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def sink_tables(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each sink by its name: `vmaptune.sinks`, which stands below configs, knows what they may be."""
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"sinks.{name}: expected a table, [sinks.{name}]; given: {show(table)}")
    return {name: dict(table) for name, table in tables.items()}


def essence_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of a whole config must stay while a run goes on; see `RunConfig.essence`."""
    essence = {section: table for section, table in tree.items() if section not in ("plan", "checkpoint", "sinks")}
    places = {"data": "placement", "init": "from"}  # what the data and the weights are is known by their content
    return essence | {at: {k: v for k, v in tree.get(at, {}).items() if k != place} for at, place in places.items()}
