"""Which examples a step sees, as indices made outside the training scan.

Data lies on the device; a batch is a row of indices into it. Each epoch is its own permutation of the examples, cut into
whole batches (the remainder, different every epoch, is left out), so no example is seen twice within an epoch. The order
is a pure function of a key and a step: nothing is stored, and any step can be reached without the ones before it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vmaptune.hashing import permuted


def batch_indices(key: jax.Array, start: jax.Array, *, steps: int, batch_size: int, examples: int) -> jax.Array:
    """The examples of `steps` consecutive batches.

    Args:
        key: Key of the order; epoch e is shuffled with `fold_in(key, e)`.
        start: i32[], number of the first step. May be traced.
        steps: K, how many batches.
        batch_size: B, at most `examples`.
        examples: Number of examples in the split.

    Returns:
        i32[K, B].
    """
    per_epoch = examples // batch_size
    step = start + jnp.arange(steps, dtype=jnp.int32)
    keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(step // per_epoch)
    words = tuple(jnp.moveaxis(jax.random.key_data(keys), -1, 0)[..., None])
    position = (step % per_epoch * batch_size)[:, None] + jnp.arange(batch_size, dtype=jnp.int32)[None]
    return permuted(position.astype(jnp.uint32), words, examples).astype(jnp.int32)
