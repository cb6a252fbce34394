"""What every stopper takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import msgspec

from vmaptune.errors import ConfigError

Reduction = Annotated[int, msgspec.Meta(ge=2)]


class Report(NamedTuple):
    """What a generation says of the trials in training, a row a slot.

    Attributes:
        trial: i32[N], number of the trial; -1: the slot is empty, or its member failed, and reports nothing.
        age: i32[N], generations it was trained, this one included: from 1 to the horizon.
        fitness: f32[N], higher is better; finite wherever trial >= 0.
    """

    trial: jax.Array
    age: jax.Array
    fitness: jax.Array


class Stopper(NamedTuple):
    """When a trial ends before its horizon.

    Attributes:
        init: `(trials, generations) -> state`, a pytree of arrays: room for trials 0..trials-1, of so many generations each
            at most.
        update: `(state, report) -> (state, stop bool[N])`. It is traceable. Reports of one generation come together, so none
            of them is judged before all are known; a slot that reports nothing is not stopped.
    """

    init: Callable[[int, int], Any]
    update: Callable[[Any, Report], tuple[Any, jax.Array]]


def check_acts(setting: str, given: int, first: int, generations: int) -> None:
    """Refuses a setting with which no trial could ever be stopped.

    Args:
        setting: Its name.
        given: Its value.
        first: Age at which a trial can be stopped first.
        generations: Age at which a trial ends anyway.

    Raises:
        ConfigError: The first is not before the second.
    """
    if first >= generations:
        raise ConfigError(
            f"search.stop.{setting}: the first trial could be stopped after {first} generations, but trials end after "
            f"{generations}; given: {given}"
        )
