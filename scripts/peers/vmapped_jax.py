"""The obvious vmap: a generation of all members is one compiled function, truncation selection in it. A yardstick, not a tuner.

No history, no checkpoints, no guard against divergence, one device.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from network import init, train
from work import BOUNDS, FACTORS, QUANTILE, asked, report, start_settings, trained

work = asked()
begun = time.perf_counter()
cut = int(work.members * QUANTILE)
low, high = jnp.array(BOUNDS)[:, :, None].swapaxes(0, 1)


@jax.jit
def births(key: jax.Array) -> Any:
    return jax.vmap(init)(jax.random.split(key, work.members))


@jax.jit
def advance(key: jax.Array, generation: int, members: Any, settings: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """Trains everybody, then lets the worst copy the best and shakes their settings f32[2, members]."""
    train_key, parent_key, factor_key = jax.random.split(jax.random.fold_in(key, generation), 3)
    keys = jax.random.split(train_key, work.members)
    members, accuracy = jax.vmap(partial(train, steps=work.steps))(members, keys, *settings)
    order = jnp.argsort(accuracy)
    worst, best = order[:cut], order[work.members - cut :]
    source = jnp.arange(work.members).at[worst].set(jax.random.choice(parent_key, best, (cut,)))
    factor = jnp.where(jax.random.bernoulli(factor_key, 0.5, settings.shape), *FACTORS)
    shaken = jnp.clip(settings[:, source] * factor, low, high)
    settings = settings.at[:, worst].set(shaken[:, worst])
    return jax.tree.map(lambda leaf: leaf[source], members), settings, accuracy


key = jax.random.key(work.seed)
members, settings = births(key), jnp.asarray(start_settings(work))
for generation in range(1, work.generations + 1):
    members, settings, accuracy = advance(key, generation, members, settings)
    trained(work.count, work.members * work.steps, float(accuracy.max()), generation)
report(work, time.perf_counter() - begun)
