"""What a study of schedules trains: shapes of every family, crossed with learning rates, weight decays and seeds.

A shape is a point on the axes of the schedule: the family, its knobs and the warm-up. A candidate is a shape with a learning
rate and a weight decay. A design is candidates, each repeated once a seed, in the order of their trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vmaptune.recipe import LEARNING_RATE
from vmaptune.schedules import SCHEDULES, bare
from vmaptune.schedules.mixture import FAMILY, warmup_settings
from vmaptune.settings import Setting, Usual, settings
from vmaptune.space import Axis, Space

Candidate = dict[str, float]  # by the name of each axis; without the knobs of other families

WEIGHT_DECAY = "optimizer.weight_decay"
FAMILY_AXIS = f"schedule.{FAMILY}"
WARMUP_AXIS = "schedule.warmup"
_UNWARMED = 4  # every fourth shape has no warm-up, which no draw from an interval would hit
_NODES = 5  # of the table family: enough for any smooth shape


def shape_axes(families: Iterable[str]) -> dict[str, object]:
    """The `[schedule]` table in which every knob of these families is an axis over its usual range."""
    table: dict[str, object] = {"name": list(families), "warmup": _axis(warmup_settings()["warmup"].usual)}
    for name in families:
        known = [s for s in settings(bare(SCHEDULES[name])).values() if s.traced]
        table[name] = {s.name: [_axis(s.number.usual)] * _NODES if s.vector else _axis(s.usual) for s in known}
    return table


def _axis(usual: Usual | None) -> Axis:
    if usual is None:
        raise ValueError("a knob without a usual range")
    return Axis(usual.low, usual.high, usual.scale)


def own_axes(space: Space, family: str) -> list[str]:
    """The axes of a family's shape: its knobs, and the warm-up."""
    return [name for name in space.axes if name == WARMUP_AXIS or name.startswith(f"schedule.{family}.")]


def explore(
    space: Space, families: Sequence[str], *, shapes: int, rates: Sequence[float], decays: Sequence[float], seed: int
) -> dict[str, list[list[Candidate]]]:
    """Draws shapes of each family and crosses them with learning rates and weight decays.

    The first shape is the family as it is by default, without a warm-up; the others are uniform over its axes.

    Returns:
        By family, for each shape, its candidates.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[list[Candidate]]] = {}
    for index, family in enumerate(families):
        axes = own_axes(space, family)
        genes = rng.uniform(size=(shapes, len(axes)))
        genes[::_UNWARMED, axes.index(WARMUP_AXIS)] = 0.0
        drawn = [decoded(space, axes, row) for row in genes]
        drawn[0] = _defaults(space, family, axes)
        found[family] = [
            [
                {FAMILY_AXIS: float(index)} | shape | {LEARNING_RATE: rate} | ({WEIGHT_DECAY: decay} if decays else {})
                for rate in rates
                for decay in decays or [0.0]
            ]
            for shape in drawn
        ]
    return found


def around(
    space: Space, family: str, candidate: Candidate, *, sigma: float, count: int, rng: np.random.Generator
) -> list[Candidate]:
    """A candidate, and others near it: every gene of its shape, its learning rate and its weight decay moved a little.

    All at once and not one by one, because they make up for each other: a lower end of the schedule, say, for a higher rate.

    Args:
        space: Axes.
        family: The candidate's family.
        candidate: The centre.
        sigma: Standard deviation of the moves, as a fraction of each axis; those that leave it end at its end, because ends
            are often best: no warm-up, a fall to zero.
        count: How many others.
        rng: What they are drawn from.
    """
    names = [*own_axes(space, family), *(name for name in (LEARNING_RATE, WEIGHT_DECAY) if name in candidate)]
    genes = Space({name: space.axes[name] for name in names}).encode(candidate)
    moved = np.clip(genes + sigma * rng.normal(size=(count, len(names))), 0.0, 1.0)
    return [candidate, *(candidate | decoded(space, names, row) for row in moved)]


def table(candidates: Iterable[Candidate], space: Space, *, seeds: int) -> dict[str, list[float]]:
    """The design as columns for `tune(start=...)`: NaN where an axis does not matter to a candidate."""
    rows = [candidate for candidate in candidates for _ in range(seeds)]
    return {name: [row.get(name, np.nan) for row in rows] for name in space.axes}


def grid(axis: Axis, count: int) -> list[float]:
    """Points of an axis, evenly spread on its scale with both ends; one: its middle."""
    genes = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    return [decoded(Space({"x": axis}), ["x"], np.array([gene]))["x"] for gene in genes]


def decoded(space: Space, names: Sequence[str], genes: np.ndarray) -> dict[str, float]:
    """Values at genes in [0, 1], in float64: what `Space.decode` says to rounding, without a compiled program."""
    values = {}
    for name, gene in zip(names, genes, strict=True):
        low, high = space.axes[name].interval
        x = low + float(gene) * (high - low)
        value = float(np.exp(x)) if space.axes[name].scale == "log" else x
        values[name] = min(max(value, space.axes[name].low), space.axes[name].high)
    return values


def _defaults(space: Space, family: str, axes: Sequence[str]) -> dict[str, float]:
    """A family as it is by default, as far as its axes go."""
    known = settings(bare(SCHEDULES[family]))
    values: dict[str, float] = {}
    for name in axes:
        knob = name.removeprefix(f"schedule.{family}.")
        if name == WARMUP_AXIS:
            default = 0.0
        elif knob in known:
            default = known[knob].default
        else:  # a number of a vector: along the straight line between its default's ends
            vector, _, i = knob.rpartition(".")
            default = _along(known[vector], int(i) / (_NODES - 1))
        values[name] = min(max(default, space.axes[name].low), space.axes[name].high)
    return values


def _along(setting: Setting, x: float) -> float:
    numbers = setting.default
    return float(np.interp(x, np.linspace(0, 1, len(numbers)), numbers))


def by_family(candidates: Mapping[str, Sequence[Candidate]]) -> list[Candidate]:
    """All candidates, family after family."""
    return [candidate for own in candidates.values() for candidate in own]
