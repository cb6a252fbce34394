"""Selection without exploration: the control that tells what exploring adds to population-based training."""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from vmaptune.selectors.contract import Selector
from vmaptune.selectors.evolving import evolving
from vmaptune.selectors.explore import Scales
from vmaptune.selectors.readiness import Readiness, Standing, readiness, sharing
from vmaptune.selectors.truncation import Quantile, truncate


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

    def copied(key: jax.Array, axes: Scales, genotype: jax.Array, parent: jax.Array, now: Standing) -> jax.Array:
        del key, axes
        child = genotype[parent]
        return jnp.where(now.failed[:, None], child, genotype) if settings_from == "self" else child

    return evolving(ready, partial(truncate, quantile=quantile), copied)
