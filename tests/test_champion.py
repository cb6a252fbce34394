import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.champion import crown, nobody
from vmaptune.population import Member

N = 4
member = st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.2, 0.4, np.nan]))


def population(generation):
    zeros, trial = jnp.zeros(N, jnp.int32), jnp.arange(N, dtype=jnp.int32) + N * generation
    return Member(jnp.zeros((N, 1)), {"w": trial.astype(jnp.float32)}, {}, {}, zeros, trial, zeros, jnp.zeros((N, 4)))


@given(st.lists(st.lists(member, min_size=N, max_size=N), min_size=1, max_size=4))
def test_the_champion_is_the_first_of_the_best_that_were_ever_sound(generations):
    champion = nobody(population(0))
    seen = []
    for g, members in enumerate(generations):
        failed, done, fitness, loss = (np.array(column) for column in zip(*members, strict=True))
        champion = crown(
            champion,
            population(g),
            done=jnp.array(done),
            failed=jnp.array(failed),
            fitness=jnp.array(fitness, jnp.float32),
            loss=jnp.array(loss, jnp.float32),
            generation=jnp.int32(g),
        )
        losses = np.where(np.isnan(loss), np.inf, loss)
        seen += [((not done[s], -fitness[s], losses[s], g, s), N * g + s) for s in range(N) if not failed[s]]
    if not seen:
        assert champion.generation == -1
        return
    key, trial = min(seen)
    assert champion.member.trial == trial
    assert champion.member.params["w"] == trial
    assert champion.generation == key[3]
    assert bool(champion.done) == (not key[0])
