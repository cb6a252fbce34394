"""The order of examples: a permutation, of every order as often as any other, and the one that its definition gives."""

import math
from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from tests import solo
from vmaptune.hashing import mixed, permuted

LEAST_P = 1e-4  # of a test that fixed seeds either always pass or never


@partial(jax.jit, static_argnums=(1, 2))
def orders(first, count, n):
    """u32[count, n]: permutations of 0..n-1 under keys of the seeds first, first + 1, ..."""
    words = jax.vmap(lambda seed: jax.random.key_data(jax.random.key(seed)))(first + jnp.arange(count))
    positions = jnp.broadcast_to(jnp.arange(n, dtype=jnp.uint32)[None], (count, n))
    return permuted(positions, (words[:, :1], words[:, 1:]), n)


def one(n, words):
    """The permutation under a key of two words, not compiled anew for every n."""
    return np.asarray(permuted(jnp.arange(n, dtype=jnp.uint32), tuple(map(np.uint32, words)), n))


def p_value(counts):
    """Of Pearson's chi-square test that all cells are equally likely."""
    return chisquare(np.ravel(counts)).pvalue


words = st.integers(0, 2**32 - 1)


@given(n=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 1000, 1797])), key=st.tuples(words, words))
def test_every_position_is_sent_to_another_place(n, key):
    np.testing.assert_array_equal(np.sort(one(n, key)), np.arange(n))


@given(n=st.sampled_from([2**31, 2**31 - 1, 2**30 + 1]), at=st.integers(0, 2**30), key=st.tuples(words, words))
def test_the_largest_sets_are_shuffled_too(n, at, key):
    """No sum overflows: neighbours go to different places, all of them below n."""
    places = np.array([at, at + 1, n - 1, n - 2, 0], np.uint32)
    sent = np.asarray(permuted(places, tuple(map(np.uint32, key)), n))
    assert (sent < n).all()
    assert len(set(sent.tolist())) == len(set(places.tolist()))


@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 7), (3, 64), (4, 101)])
def test_it_is_the_shuffle_by_its_definition(seed, n):
    key = jax.random.fold_in(jax.random.key(seed), n)
    np.testing.assert_array_equal(one(n, jax.random.key_data(key)), solo.shuffled(key, n))


def test_a_number_is_mixed_as_by_its_definition():
    numbers, given_words = [0, 1, 7, 2**31, 2**32 - 1], [0, 0xDEADBEEF, 12345]
    found = mixed(jnp.array(numbers, jnp.uint32), *map(np.uint32, given_words))
    assert found.tolist() == [solo.mixed(number, given_words) for number in numbers]


@pytest.mark.parametrize(("n", "draws"), [(3, 6000), (4, 24000)])
def test_every_order_is_as_likely_as_any_other(n, draws):
    drawn = np.asarray(orders(0, draws, n))
    found = dict.fromkeys(permutations(range(n)), 0)
    for order in map(tuple, drawn.tolist()):
        found[order] += 1
    assert len(found) == math.factorial(n)
    assert p_value(list(found.values())) > LEAST_P


def test_pairs_of_positions_go_everywhere_alike():
    n, draws = 50, 20000
    drawn = np.asarray(orders(10**6, draws, n)).astype(int)
    for i, j in [(0, 1), (0, 49), (7, 31), (24, 25)]:
        places = np.zeros((n, n), int)
        np.add.at(places, (drawn[:, i], drawn[:, j]), 1)
        assert (np.diag(places) == 0).all()
        assert p_value(places[~np.eye(n, dtype=bool)]) > LEAST_P
    assert min(p_value(np.bincount(drawn[:, i], minlength=n)) for i in range(n)) > LEAST_P / n


def test_neighbouring_keys_give_unrelated_orders():
    """How often two epochs in a row send an example to the same batch is what chance says."""
    n, draws = 60, 4000
    drawn = np.asarray(orders(0, draws, n))
    same = (drawn[:-1] == drawn[1:]).sum(axis=1)  # Poisson of mean 1, nearly
    assert abs(same.mean() - 1) < 5 / math.sqrt(draws)
