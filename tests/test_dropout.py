"""The cheap bits behind dropout: as random as a mask needs, by tests whose thresholds come from theory.

Keys are fixed, so nothing here fails by chance; every threshold is 5 sigma of a fair coin (or of chi-square), so a hash
that is not fair by a hundredth of what would matter to a mask is seen.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from vmaptune import models
from vmaptune.models import Dropout
from vmaptune.models.dropout import mask_bits
from vmaptune.population import Stream, stream_key

N = 2**18
SIGMAS = 5.0
bits_of = jax.jit(mask_bits, static_argnums=1)


def keys(count=4):
    """Keys as a member's steps have them."""
    return [jax.random.fold_in(stream_key(0, Stream.STEP, trial), step) for trial in range(count // 2) for step in range(2)]


def drawn(key, shape=(N,)):
    return np.asarray(bits_of(key, shape))


def unpacked(bits):
    """Each of the 32 bits, of each number: bool[..., 32]."""
    return (bits[..., None] >> np.arange(32, dtype=np.uint32)) & 1 == 1


def fair(share, n, p=0.5):
    """Within 5 sigma of a share of p in n draws."""
    return np.all(np.abs(share - p) <= SIGMAS * np.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("key", keys())
def test_each_of_the_32_bits_is_a_fair_coin(key):
    assert fair(unpacked(drawn(key)).mean(axis=0), N)


@pytest.mark.parametrize("key", keys())
def test_any_two_bits_of_a_number_are_independent(key):
    ones = unpacked(drawn(key)).astype(np.float32) * 2 - 1
    correlation = ones.T @ ones / N
    assert np.all(np.abs(correlation[~np.eye(32, dtype=bool)]) <= SIGMAS / np.sqrt(N))


@pytest.mark.parametrize("byte", range(4))
@pytest.mark.parametrize("key", keys(2))
def test_chi_square_of_a_byte(key, byte):
    """256 bins: 255 degrees of freedom, a standard deviation of the square root of 510."""
    counts = np.bincount((drawn(key) >> np.uint32(8 * byte)) & 255, minlength=256)
    chi = np.sum((counts - N / 256) ** 2 / (N / 256))
    assert abs(chi - 255) <= SIGMAS * np.sqrt(2 * 255)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("key", keys(2))
def test_a_threshold_drops_at_its_rate(key, rate):
    assert fair(np.mean(drawn(key) < np.uint32(rate * 2.0**32)), N, rate)


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 8, 10, 32, 64, 128, 256, 4096])
def test_neighbours_do_not_go_together(lag):
    """Along a row, and from a row to the next, of any usual width."""
    for key in keys(2):
        bits = drawn(key)
        assert fair((unpacked(bits[lag:]) == unpacked(bits[:-lag])).mean(axis=0), N - lag)
        centred = bits / 2.0**32 - 0.5
        assert abs(np.mean(centred[lag:] * centred[:-lag]) * 12) <= SIGMAS / np.sqrt(N - lag)


def agreement(one, other):
    return (unpacked(drawn(one)) == unpacked(drawn(other))).mean(axis=0)


def test_consecutive_steps_draw_unrelated_masks():
    member = stream_key(0, Stream.STEP, 3)
    steps = [jax.random.fold_in(member, step) for step in range(6)]
    for one, other in pairwise(steps):
        assert fair(agreement(one, other), N)


def test_two_trials_draw_unrelated_masks():
    for trial in range(5):
        one, other = (jax.random.fold_in(stream_key(0, Stream.STEP, t), 7) for t in (trial, trial + 1))
        assert fair(agreement(one, other), N)


@pytest.mark.parametrize("bit", [0, 1, 5, 15, 16, 30, 31])
@pytest.mark.parametrize("word", [0, 1])
def test_keys_that_differ_in_one_bit_draw_unrelated_masks(word, bit):
    """Avalanche of the key: every bit of every number turns with probability one half."""
    data = np.array([0x12345678, 0x9ABCDEF0], np.uint32)
    other = data.copy()
    other[word] ^= np.uint32(1 << bit)
    assert fair(agreement(jax.random.wrap_key_data(data), jax.random.wrap_key_data(other)), N)


def test_avalanche_of_the_position():
    """Turning one bit of a position's number turns each of the 32 with probability one half."""
    for key in keys(2):
        bits = drawn(key)
        for bit in range(18):
            other = bits[np.arange(N) ^ (1 << bit)]
            assert fair((unpacked(bits) != unpacked(other)).mean(axis=0), N // 2)  # each pair is met twice


def test_a_key_of_zeros_is_no_worse():
    bits = drawn(jax.random.wrap_key_data(np.zeros(2, np.uint32)))
    assert fair(unpacked(bits).mean(axis=0), N)
    assert fair((unpacked(bits[1:]) == unpacked(bits[:-1])).mean(axis=0), N)


def test_no_number_is_drawn_twice():
    """The hash of a position is a permutation, whatever the key."""
    for key in keys(2):
        assert len(np.unique(drawn(key))) == N


@effort(max_examples=20)
@given(st.lists(st.integers(1, 5), min_size=0, max_size=4), st.integers(0, 2**32 - 1))
def test_a_shape_is_a_reshape(shape, seed):
    key = jax.random.key(seed)
    bits = mask_bits(key, tuple(shape))
    assert (bits.shape, bits.dtype) == (tuple(shape), jnp.uint32)
    np.testing.assert_array_equal(bits.ravel(), drawn(key)[: bits.size])


def test_a_key_gives_its_bits_alone_and_among_others():
    many = jnp.stack(keys())
    batched = jax.jit(jax.vmap(lambda key: mask_bits(key, (3, 5))))(many)
    for row, key in zip(batched, many, strict=True):
        np.testing.assert_array_equal(row, mask_bits(key, (3, 5)))


def test_the_bits_are_what_they_were():
    """A resumed run must draw what it would have drawn: these numbers are part of the format."""

    def mixed(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    words = [0x12345678, 0x9ABCDEF0]
    expected = []
    for position in range(10):
        x = position
        for word in words:
            x = mixed((x * 0x9E3779B9 + word) % 2**32)
        expected.append(x)
    assert mask_bits(jax.random.wrap_key_data(np.array(words, np.uint32)), (10,)).tolist() == expected


# ----------------------------------------------------------------------------------------------------- nothing drawn


def primitives(fn, *args):
    """Names of everything that a function computes, calls included."""
    found = set()

    def look(jaxpr):
        for equation in jaxpr.eqns:
            found.add(equation.primitive.name)
            for inner in jaxprs_in_params(equation.params):
                look(inner)

    look(jax.make_jaxpr(fn)(*args).jaxpr)
    return found


def rngs():
    return nnx.Rngs(0)


def test_a_rate_of_python_s_zero_draws_nothing_and_takes_no_key():
    layer, x = Dropout(rngs=rngs()), jnp.ones((4, 3))
    assert layer(x, 0.0) is x
    before = int(layer.rngs.count[...])
    layer(x, 0.0)
    assert int(layer.rngs.count[...]) == before
    layer(x, 0.1)
    assert int(layer.rngs.count[...]) == before + 1


def test_a_network_without_dropout_computes_no_random_number():
    model = models.from_nnx(lambda rngs: models.MLP(4, [8], 3, rngs=rngs))
    params, state = model.init(jax.random.key(0))
    x = jnp.ones((2, 4))

    def apply(rate):
        return lambda key: model.apply(params, state, x, key, train=True, **rate)[0]

    key = jax.random.key(1)
    assert "shift_right_logical" not in primitives(apply({}), key)
    assert "shift_right_logical" not in primitives(apply({"dropout": 0.0}), key)
    assert "shift_right_logical" in primitives(apply({"dropout": 0.1}), key)
    assert "shift_right_logical" in primitives(apply({"dropout": jnp.float32(0.0)}), key)  # traced: it may differ


def test_a_traced_rate_of_zero_drops_nobody():
    layer, x = Dropout(rngs=rngs()), jnp.arange(1.0, 10_001.0)
    np.testing.assert_array_equal(layer(x, jnp.float32(0.0)), x)


@pytest.mark.parametrize("rate", [np.float32(1) - np.float32(2**-24), 1e-9])
def test_rates_at_the_ends(rate):
    dropped = Dropout(rngs=rngs())(jnp.ones(10_000), jnp.float32(rate))
    assert np.mean(dropped == 0) == pytest.approx(rate, abs=1e-3)
    assert np.isfinite(dropped).all()


def test_the_scale_keeps_the_type():
    for dtype in (jnp.float32, jnp.bfloat16):
        assert Dropout(rngs=rngs())(jnp.ones(8, dtype), jnp.float32(0.5)).dtype == dtype
