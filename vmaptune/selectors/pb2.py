"""Population based bandits: children explore where a Gaussian process expects the largest improvement."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.errors import ConfigError
from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.explore import reflect
from vmaptune.selectors.readiness import Readiness, Standing, last_change, offspring, readiness, sharing
from vmaptune.selectors.truncation import Quantile, truncate
from vmaptune.settings import Count, NonNegative
from vmaptune.space import Space

_CANDIDATES = 128  # points at which the acquisition is compared for a child: half drawn anywhere, half near its parent
_NEAR = 0.1  # standard deviation of the latter, as a fraction of the axis
_FITS = 20  # steps of Adam on the marginal likelihood
_MODELLED = 32  # children of a generation that the model chooses for; each costs a solve
_LARGE = 1e15  # beyond it, squares of fitness would leave float32


class Observations(NamedTuple):
    """What members gained, the newest first; rows that are not known yet are masked.

    Attributes:
        generation: f32[B], when.
        before: f32[B], fitness before.
        genotype: f32[B, D], what it trained with.
        gain: f32[B], change of fitness in that generation.
        known: bool[B].
    """

    generation: jax.Array
    before: jax.Array
    genotype: jax.Array
    gain: jax.Array
    known: jax.Array


class _State(NamedTuple):
    changed: jax.Array  # i32[N]
    step: jax.Array  # i32[N], at the begin of the generation
    before: jax.Array  # f32[N], fitness at the begin of the generation: a child's is its parent's; infinite: unknown
    generation: jax.Array  # i32[]
    seen: Observations


@sharing(readiness)
def pb2(ready: Readiness, *, quantile: Quantile = 0.25, kappa: NonNegative = 1.0, observations: Count = 128) -> Selector:
    """Population based bandits: the worst copy the best, and get the settings that promise the largest gain in fitness.

    A Gaussian process models how much a member gains in a generation, from its settings, its fitness before and the time:
    what was seen long ago counts less. Each child gets the settings with the highest upper confidence bound, and those
    before it in the same generation are taken as observed where the model expects them, so children keep apart (GP-BUCB).
    With nothing seen yet (the first generation) that spreads them over the space. The model chooses for 32 children of a
    generation; if there are more, the others get settings near their parents'. A gain is measured from the fitness that the
    member's own weights had a generation before, a child's from its parent's.

    Length scale, noise and forgetting are fitted at each generation by 20 steps of Adam on the marginal likelihood, within
    bounds: one length scale for all axes, as in the paper, because a generation adds few observations.

    Args:
        ready: When a member may be replaced.
        quantile: Share of the population replaced, and share that may be copied.
        kappa: Weight of the standard deviation in the bound: 0 is greedy, more explores more.
        observations: How many of the newest observations the model sees.

    References:
        Parker-Holder et al., Provably Efficient Online Hyperparameter Optimization with Population-Based Bandits,
        https://arxiv.org/abs/2002.02518
        Desautels et al., Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit Optimization,
        JMLR 15, 2014
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key
        for name, axis in space.axes.items():
            if axis.choices:
                raise ConfigError(f"search.method: pb2 models continuous axes only; {name} is an axis of choices")
        empty = jnp.zeros(observations, jnp.float32)
        seen = Observations(empty, empty, jnp.zeros((observations, space.dimension), jnp.float32), empty, empty > 0)
        nobody = jnp.zeros(n, jnp.int32)
        return _State(nobody, nobody, jnp.full(n, jnp.inf, jnp.float32), jnp.int32(0), seen)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        seen_key, parent_key, explore_key, birth_key = jax.random.split(key, 4)
        n = fitness.shape[0]
        now = ready.standing(state.changed, view, fitness)
        seen = _observe(seen_key, state, view, now)
        parent = truncate(parent_key, now, quantile)
        size = min(n, _MODELLED)
        child = _propose(explore_key, seen, view, now, parent, state.generation + 1, kappa=kappa, size=size)
        order = offspring(birth_key, view, now, parent, child)
        born = order.parent < 0
        return _State(
            changed=last_change(state.changed, view, order.parent),
            step=jnp.where(born, 0, view.step[order.parent]),
            before=jnp.where(born, jnp.inf, now.score[order.parent]),
            generation=state.generation + 1,
            seen=seen,
        ), order

    return Selector(init, update)


def _observe(key: jax.Array, state: _State, view: View, now: Standing) -> Observations:
    """The newest observations, those of this generation among them; a draw decides among those of the same age."""
    old, n = state.seen, len(now.score)
    # A member that failed, or has not trained (it had finished), or was born in this generation, says nothing.
    known = ~now.failed & (view.step > state.step) & jnp.isfinite(state.before)
    before = jnp.where(known, _bounded(state.before), 0.0)
    gain = jnp.where(known, _bounded(now.score) - before, 0.0)
    time = jnp.full(n, state.generation, jnp.float32)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), old, Observations(time, before, view.genotype, gain, known))
    age = jnp.where(both.known, both.generation + jax.random.uniform(key, both.known.shape), -jnp.inf)
    newest = jnp.argsort(-age)[: len(old.known)]
    return jax.tree.map(lambda leaf: leaf[newest], both)


def _propose(
    key: jax.Array,
    seen: Observations,
    view: View,
    now: Standing,
    parent: jax.Array,
    generation: jax.Array,
    *,
    kappa: float,
    size: int,
) -> jax.Array:
    """f32[N, D]: the points of highest upper confidence bound for up to `size` replaced slots; near the parents for others."""
    uniform_key, near_key, rest_key = jax.random.split(key, 3)
    n, d = view.genotype.shape
    slots = jnp.arange(n, dtype=jnp.int32)
    replaced = parent != slots
    chosen = jnp.argsort(~replaced, stable=True)[:size]  # replaced slots first

    low, high = _range(seen.before, seen.known)
    before = (seen.before - low) / (high - low)
    mean, deviation = _moments(seen.gain, seen.known)
    y = jnp.where(seen.known, jnp.clip((seen.gain - mean) / deviation, -2.0, 2.0), 0.0)
    x = jnp.concatenate([seen.generation[:, None], before[:, None], seen.genotype], axis=1)
    fitted = _fit(x, y, seen.known)

    # Room behind the observations for the children of this generation, which are taken as observed one after another.
    x = jnp.concatenate([x, jnp.zeros((size, 2 + d), jnp.float32)])
    y = jnp.concatenate([y, jnp.zeros(size, jnp.float32)])
    known = jnp.concatenate([seen.known, jnp.zeros(size, bool)])
    context = jnp.stack([jnp.full(n, generation, jnp.float32), (_bounded(now.score) - low) / (high - low)], axis=1)
    anywhere = jax.random.uniform(uniform_key, (size, _CANDIDATES // 2, d), jnp.float32)
    near = _NEAR * jax.random.normal(near_key, (size, _CANDIDATES // 2, d), jnp.float32)
    near = reflect(view.genotype[parent[chosen]][:, None] + near)
    points = jnp.concatenate([anywhere, near], axis=1)

    def next_child(carry: Any, i: jax.Array) -> tuple[Any, jax.Array]:
        where = jnp.broadcast_to(context[parent[chosen[i]]], (_CANDIDATES, 2))
        candidates = jnp.concatenate([where, points[i]], axis=1)
        row = len(seen.known) + i

        def found(carry: Any) -> tuple[Any, jax.Array]:
            x, y, known = carry
            expected, variance = _process(fitted, x, known).predict(y, candidates, return_var=True)
            best = jnp.argmax(expected + kappa * jnp.sqrt(jnp.maximum(variance, 0.0)))
            return (x.at[row].set(candidates[best]), y.at[row].set(expected[best]), known.at[row].set(True)), points[i, best]

        return jax.lax.cond(replaced[chosen[i]], found, lambda carry: (carry, points[i, 0]), carry)

    _, found = jax.lax.scan(next_child, (x, y, known), jnp.arange(size))
    others = reflect(view.genotype[parent] + _NEAR * jax.random.normal(rest_key, (n, d), jnp.float32))
    return others.at[chosen].set(found)


class _Fitted(NamedTuple):
    """Where each hyperparameter of the process lies between its bounds, on the whole real line: f32[] each."""

    length: jax.Array
    forgetting: jax.Array
    noise: jax.Array


_BOUNDS = _Fitted(length=(0.05, 2.0), forgetting=(1e-3, 0.5), noise=(1e-2, 1.0))  # type: ignore[arg-type]


def _process(fitted: _Fitted, x: jax.Array, known: jax.Array) -> Any:
    """The Gaussian process: squared exponential in settings and fitness before, times (1 - forgetting)^(|t - t'| / 2).

    Args:
        fitted: Its hyperparameters. The variance is 1, because gains are standardised.
        x: f32[M, 2 + D]: generation, fitness before, genotype.
        known: bool[M]; other rows have so much noise that they say nothing.
    """
    from tinygp import GaussianProcess
    from tinygp.kernels import Exp, ExpSquared
    from tinygp.transforms import Linear, Subspace

    length, forgetting, noise = (low + (high - low) * jax.nn.sigmoid(p) for p, (low, high) in zip(fitted, _BOUNDS, strict=True))
    memory = Subspace(0, Exp(scale=-2.0 / jnp.log1p(-forgetting)))
    scale = jnp.full(x.shape[1], 1.0 / length).at[0].set(0.0)
    kernel = memory * Linear(scale, ExpSquared())
    return GaussianProcess(kernel, x, diag=jnp.where(known, noise, 1e6))


def _fit(x: jax.Array, y: jax.Array, known: jax.Array) -> _Fitted:
    """The hyperparameters after some steps of Adam on the marginal likelihood, from length 0.5, forgetting 0.1, noise 0.1."""
    import optax

    usual = _Fitted(0.5, 0.1, 0.1)  # type: ignore[arg-type]
    start = _Fitted(*(jnp.log((v - low) / (high - v)) for v, (low, high) in zip(usual, _BOUNDS, strict=True)))
    adam = optax.adam(0.1)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        fitted, moments = carry
        slope = jax.grad(lambda f: -_process(f, x, known).log_probability(y))(fitted)
        updates, moments = adam.update(slope, moments)
        return (optax.apply_updates(fitted, updates), moments), None

    (fitted, _), _ = jax.lax.scan(step, (start, adam.init(start)), None, length=_FITS)
    return fitted


def _bounded(score: jax.Array) -> jax.Array:
    return jnp.clip(score, -_LARGE, _LARGE)


def _range(x: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The least and the greatest known number; 0 and 1 if they do not differ."""
    low, high = jnp.min(jnp.where(known, x, jnp.inf)), jnp.max(jnp.where(known, x, -jnp.inf))
    return jnp.where(high > low, low, 0.0), jnp.where(high > low, high, 1.0)


def _moments(x: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the known numbers; 0 and 1 if there are none, or they do not differ."""
    count = jnp.maximum(jnp.sum(known), 1)
    mean = jnp.sum(jnp.where(known, x, 0.0)) / count
    deviation = jnp.sqrt(jnp.sum(jnp.where(known, (x - mean) ** 2, 0.0)) / count)
    return mean, jnp.where(deviation > 0, deviation, 1.0)
