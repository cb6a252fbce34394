"""Selection without exploration: the control that tells what exploring adds to population-based training."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.readiness import Readiness, last_change, offspring, readiness, sharing
from vmaptune.selectors.truncation import Quantile, truncate
from vmaptune.space import Space


@sharing(readiness)
def selection_only(
    ready: Readiness, *, quantile: Quantile = 0.25, settings_from: Literal["parent", "self"] = "parent"
) -> Selector:
    """Selection only: the worst copy the best, and nobody's settings are perturbed. A control, to be set beside `truncation`.

    Nothing is ever tried that was not drawn at the start; what is left is choosing among those settings and their luck, at
    each generation anew. If every member failed, all are born anew.

    Args:
        ready: When a member may be replaced.
        quantile: Share of the population replaced, and share that may be copied.
        settings_from: Whose settings a copy trains with: those of the parent whose weights it takes, or those its slot had
            before (unless that member failed).

    References:
        Jaderberg et al., Population Based Training of Neural Networks, https://arxiv.org/abs/1711.09846 ("exploit only")
        Doulazmi et al., Multiple-Frequencies Population-Based Training, https://arxiv.org/abs/2506.03225
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key, space
        return jnp.zeros(n, jnp.int32)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        parent_key, birth_key = jax.random.split(key)
        now = ready.standing(state, view, fitness)
        parent = truncate(parent_key, now, quantile)
        child = view.genotype[parent]
        if settings_from == "self":
            child = jnp.where(now.failed[:, None], child, view.genotype)
        order = offspring(birth_key, view, now, parent, child)
        return last_change(state, view, order.parent), order

    return Selector(init, update)
