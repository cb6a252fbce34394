"""Random-looking numbers from an integer hash, where threefry's hundred operations a number would be most of the work.

What decides results on its own (initial weights, genotypes, selection) draws from `jax.random`. Masks and the order of
examples ask less, and ask it in every step: each number is mixed with the words of a key, which stays threefry's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_WEYL = np.uint32(0x9E3779B9)  # the golden ratio's odd neighbour: neighbouring numbers start far apart
_ROUNDS = 32


def mixed(number: jax.Array, *words: jax.Array) -> jax.Array:
    """Mixes numbers u32[...] with the words of a key, u32 each, into bits u32[...].

    References:
        Wellons, Prospecting for Hash Functions (lowbias32), https://nullprogram.com/blog/2018/07/31/
    """
    for word in words:
        number = _hashed(number * _WEYL + word)
    return number


def permuted(position: jax.Array, words: tuple[jax.Array, ...], n: int) -> jax.Array:
    """Where a random permutation of 0..n-1 sends some positions, without making the rest of it.

    The swap-or-not shuffle: in each of its rounds a position is paired with another, and the pair is swapped or not by a bit
    that both compute alike, so that every round is a permutation. No sort, which XLA's CPU code is slow at.

    Args:
        position: u32[...] below n.
        words: u32 each, broadcast against position: what the permutation depends on.
        n: At most 2**31.

    Returns:
        u32[...] below n.

    References:
        Hoang, Morris & Rogaway, An Enciphering Scheme Based on a Card Shuffle, https://arxiv.org/abs/1208.1176
    """
    count = np.uint32(n)

    def swap(i: jax.Array, x: jax.Array) -> jax.Array:
        salt = (2 * i).astype(jnp.uint32)
        middle = mixed(salt, *words) % count
        partner = middle - x + jnp.where(middle < x, count, np.uint32(0))
        coin = mixed(jnp.maximum(x, partner), mixed(salt + np.uint32(1), *words)) >> np.uint32(31)
        return jnp.where(coin == 1, partner, x)

    return jax.lax.fori_loop(0, _ROUNDS, swap, position)


def _hashed(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
