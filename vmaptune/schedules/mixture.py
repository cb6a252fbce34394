"""Several families in one population: the family itself is an axis, and each member follows its own.

A mixture computes what its member's family says. Under `vmap` XLA evaluates all of its families and keeps one value, which
costs little: it is done for all steps of a segment at once, and beside the training of a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.schedules.warmup import bare, warmed
from vmaptune.settings import Setting, settings

FAMILY = "family"


class Mixture:
    """Families of which each member follows one, behind a warm-up that all share.

    Its knobs are `family` (the index of one of them), those of the warm-up, and each family's own under its name:
    `cosine.exponent`. Unlike the rows of `SCHEDULES` it takes them as a mapping, because a dotted name is no keyword.

    Args:
        families: Rows of `SCHEDULES` or your own, by name; their static settings bound.
        static: Settings of the warm-up that are not traced, such as `warmup_shape`.
    """

    def __init__(self, families: Mapping[str, Any], static: Mapping[str, Any] | None = None) -> None:
        """Takes each family without the warm-up it may carry."""
        self.names = tuple(families)
        self._families = [bare(family) for family in families.values()]
        self._static = dict(static or {})

    @property
    def knobs(self) -> list[str]:
        """Names of all traced settings."""
        return [FAMILY, *warmup_settings(), *(f"{name}.{knob}" for name in self.names for knob in self._own(name))]

    def _own(self, name: str) -> list[str]:
        family = self._families[self.names.index(name)]
        return [s.name for s in settings(family).values() if s.traced]

    def active(self, knob: str, family: jax.Array) -> jax.Array | bool:
        """bool: whether a knob shapes anything for members of a family, given by its index i32[...] or f32[...]."""
        name = knob.partition(".")[0]
        return jnp.round(family) == self.names.index(name) if name in self.names else True

    def __call__(self, t: jax.Array, knobs: Mapping[str, jax.Array]) -> jax.Array:
        """The multiplier of one member.

        Args:
            t: f32[...], progress.
            knobs: f32[] by name; what is missing rests at its default.
        """
        branches = [partial(family, **_of(knobs, name)) for name, family in zip(self.names, self._families, strict=True)]
        index = jnp.clip(jnp.round(knobs[FAMILY]).astype(jnp.int32), 0, len(branches) - 1)
        given = self._static | {knob: knobs[knob] for knob in warmup_settings() if knob in knobs}
        return warmed(lambda x: jax.lax.switch(index, branches, x), t, **given)


def warmup_settings(*, traced: bool = True) -> dict[str, Setting]:
    """The settings of the warm-up that every family takes."""
    return {s.name: s for s in settings(warmed).values() if s.traced == traced}


def multiplier(family: Any, t: jax.Array, knobs: Mapping[str, jax.Array]) -> jax.Array:
    """What a family or a mixture says at progress t; knobs by name."""
    return family(t, knobs) if isinstance(family, Mixture) else family(t, **knobs)


def knobs_of(family: Any) -> Iterable[str]:
    """Names of the traced settings of a family or a mixture."""
    return family.knobs if isinstance(family, Mixture) else [s.name for s in settings(family).values() if s.traced]


def _of(knobs: Mapping[str, jax.Array], family: str) -> dict[str, jax.Array]:
    return {name.partition(".")[2]: value for name, value in knobs.items() if name.startswith(f"{family}.")}
