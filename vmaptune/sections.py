"""The sections of a config that are no row of a table: small dataclasses, read by their annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from vmaptune.anneal import Shape
from vmaptune.selectors import Aggregate
from vmaptune.settings import Count, Natural, NonNegative
from vmaptune.train import Order


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step sees.

    Attributes:
        size: Examples a step.
        order: shared: all members see the same batches, so they differ by their settings alone; independent: each trial
            shuffles for itself.
    """

    size: Count = 128
    order: Order = "shared"


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
    """

    fraction: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    classes: tuple[int, ...] = ()


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
