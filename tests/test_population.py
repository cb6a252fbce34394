import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.optimizers import adamw
from vmaptune.population import Offspring, Stream, inherit, init_population, make_newborn, stream_key, take_member
from vmaptune.space import Axis, Space

SPACE = Space({"optimizer.learning_rate": Axis(1e-4, 1e-1, "log"), "optimizer.b1": Axis(0.5, 0.99)})
N = 6


def a_population(task):
    return init_population(task, SPACE, adamw, size=N, seed=1)


def order(parent, seed=0):
    return Offspring(jnp.array(parent, jnp.int32), jax.random.uniform(jax.random.key(seed), (len(parent), 2)))


def test_members_are_born_independent_of_the_population_size(blob_task):
    small, large = (init_population(blob_task, SPACE, adamw, size=n, seed=1) for n in (3, 7))
    np.testing.assert_array_equal(small.genotype, large.genotype[:3])
    jax.tree.map(lambda s, g: np.testing.assert_allclose(s, g[:3], rtol=1e-6), small, large)  # XLA's own rounding depends on N


def test_members_are_born_different(blob_task):
    kernels = np.asarray(a_population(blob_task).params["head"]["kernel"]).reshape(N, -1)
    assert len(np.unique(kernels, axis=0)) == N


def test_survivors_are_unchanged_bit_for_bit(blob_task):
    population = a_population(blob_task)
    offspring = order([0, 1, 0, 3, -1, 5])
    offspring = offspring._replace(
        genotype=jnp.where(jnp.array([[1], [1], [0], [1], [0], [1]]), population.genotype, offspring.genotype)
    )
    after = inherit(population, offspring, make_newborn(blob_task, adamw, seed=1))
    for slot in (0, 1, 3, 5):
        jax.tree.map(np.testing.assert_array_equal, take_member(after, slot), take_member(population, slot))


def test_a_copy_takes_all_that_was_trained_and_nothing_else(blob_task):
    population = a_population(blob_task)._replace(step=jnp.arange(N, dtype=jnp.int32))
    offspring = order([0, 1, 0, 3, 4, 5])
    child = take_member(inherit(population, offspring, make_newborn(blob_task, adamw, seed=1)), 2)
    parent = take_member(population, 0)
    for part in ("params", "model_state", "opt_state", "step", "status"):
        jax.tree.map(np.testing.assert_array_equal, getattr(child, part), getattr(parent, part))
    np.testing.assert_array_equal(child.genotype, offspring.genotype[2])
    assert child.trial == N


def test_a_birth_depends_on_seed_and_trial_alone(blob_task):
    newborn = make_newborn(blob_task, adamw, seed=1)
    after = inherit(a_population(blob_task), order([0, 1, 2, 3, 4, -1]), newborn)
    alone = newborn(jnp.array([N], jnp.int32), after.genotype[5:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[5:], b, rtol=1e-6), after, alone)
    assert after.step[5] == 0


@given(st.lists(st.lists(st.integers(-1, N - 1), min_size=N, max_size=N), min_size=1, max_size=5))
def test_a_trial_number_is_never_used_twice(parents):
    def nobody(trial, genotype):
        return population._replace(trial=trial, genotype=genotype)

    population = a_population_of_numbers()
    seen = set(np.asarray(population.trial).tolist())
    for parent in parents:
        before = population
        population = inherit(before, order(parent), nobody)
        new = np.asarray(population.trial)[np.array(parent) != np.arange(N)].tolist()
        assert len(set(new)) == len(new)
        assert not seen & set(new)
        seen |= set(new)
        kept = np.array(parent) == np.arange(N)
        np.testing.assert_array_equal(np.asarray(population.trial)[kept], np.asarray(before.trial)[kept])


def a_population_of_numbers():
    from vmaptune.population import Member

    zeros, slots = jnp.zeros(N, jnp.int32), jnp.arange(N, dtype=jnp.int32)
    return Member(jnp.zeros((N, 2)), {"w": jnp.zeros((N, 1))}, {}, {}, zeros, slots, zeros, jnp.zeros((N, 4)))


def test_streams_trials_and_steps_all_give_different_keys():
    keys = [stream_key(0, stream, trial, step) for stream in Stream for trial in range(4) for step in range(4)]
    keys += [stream_key(1, Stream.INIT, 0, 0)]
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(data) == len(keys)
