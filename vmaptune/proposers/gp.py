"""Bayesian optimisation with a Gaussian process, around tinygp."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.proposers.contract import Proposer, Told, generator
from vmaptune.proposers.host import on_host
from vmaptune.proposers.memory import even, thinned
from vmaptune.proposers.sobol import sobol
from vmaptune.settings import Count
from vmaptune.space import Space

if TYPE_CHECKING:
    from tinygp import GaussianProcess

_AT_A_TIME = 64  # proposals from one set of candidates
_PENDING = 256  # trials not measured yet that are told apart
_LEADERS = 5  # trials around which candidates are drawn
_FITTED = 64  # trials that length scales and noise are fitted to, which takes much longer than all else
_FIT_STEPS = 60
_PASSES = 3  # over the candidates: each draws anew around the picks of the one before
_NOISE = (-6.0, 2.0)  # mean and deviation of the prior of the log variance of the noise
_JITTER = 1e-6  # the least variance of the noise
_ABSENT = 1e8  # variance of the noise of a row that only fills the shape


def gp(*, startup: Count = 10, candidates: Count = 512, memory: Count = 256) -> Proposer:
    """Gaussian process over the cube, and expected improvement: trials begin where they may beat the best by most.

    The process has a Matern 5/2 kernel with a length scale an axis; length scales and noise are those of the highest
    posterior density. The worse half of the fitness counts by rank alone, so that no outlier hides the differences of the
    better half; failed trials count as the worst. Running trials count by their newest fitness. A batch is picked one by one:
    what is picked, or waits for its first measurement, is believed to turn out as expected, so that the next is sought
    elsewhere. Genes of discrete axes stand for their values: neighbours of an axis of choices are taken to be alike.

    Args:
        startup: Trials from the Sobol' sequence, until so many are measured.
        candidates: Points among which each batch is picked: half uniform, half around the best trials.
        memory: The process is fitted to at most so many trials: the best quarter, and an even sample of the others.

    References:
        Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions, https://arxiv.org/abs/2402.02229
        Ament et al., Unexpected Improvements to Expected Improvement, https://arxiv.org/abs/2310.20708
        Song et al., The Vizier Gaussian Process Bandit Algorithm, https://arxiv.org/abs/2408.11527 (the ranks)
    """
    beginning = sobol()

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        done, sound = len(told.value), np.isfinite(told.value)
        if not space.dimension or not count or np.sum(sound) < startup:
            return beginning.propose(space, told, count, seed)
        rng = generator(seed, done)
        worst_last = np.argsort(np.where(sound, -told.value, np.inf), kind="stable")
        known = thinned(worst_last[(sound | told.ended)[worst_last]], memory)
        points = snap(space, told.genotype)
        values = _warped(told.value[known])
        some = thinned(np.argsort(-values, kind="stable"), _FITTED)
        leaders = points[worst_last[: min(_LEADERS, int(np.sum(sound)))]]
        waiting = points[~sound & ~told.ended]
        picked = np.zeros((0, space.dimension))
        with on_host(), jax.enable_x64(True):
            data = _padded(points[known], values)
            model = _fit(*_padded(points[known][some], values[some]))
            while len(picked) < count:
                pending = np.concatenate([waiting, picked])
                pending = pending[even(len(pending), _PENDING)]
                believed = _padded(pending, np.zeros(len(pending)))[0]
                most = min(_AT_A_TIME, count - len(picked), candidates)
                around, chosen = leaders, points[:0]
                for _ in range(_PASSES):
                    drawn = snap(space, _candidates(rng, around, candidates - len(chosen)))
                    drawn = np.concatenate([chosen, drawn])
                    around = chosen = drawn[np.asarray(_pick(model, *data, believed, drawn, len(pending), most))[:most]]
                picked = np.concatenate([picked, chosen])
        return picked.astype(np.float32)

    return Proposer(propose)


def snap(space: Space, genotype: np.ndarray) -> np.ndarray:
    """f64[T, D]: genes of discrete axes moved to the middle of the value that they decode to."""
    genes = genotype.astype(float)
    for d, axis in enumerate(space.axes.values()):
        if size := len(axis.choices):
            genes[:, d] = (np.clip(np.floor(genes[:, d] * size), 0, size - 1) + 0.5) / size
        elif axis.integer:
            low, high = axis.interval
            x = low + genes[:, d] * (high - low)
            value = np.clip(np.round(np.exp(x) if axis.scale == "log" else x), axis.low, axis.high)
            genes[:, d] = ((np.log(value) if axis.scale == "log" else value) - low) / (high - low)
    return genes


def _warped(value: np.ndarray) -> np.ndarray:
    """Fitness as the process sees it: the median is 0, the better half keeps its distances, the worse half its ranks."""
    from scipy.special import ndtri

    sound = np.isfinite(value)
    kept = value[sound]
    gain = kept - np.median(kept)
    better = gain >= 0
    spread = np.sqrt(np.mean(gain[better] ** 2)) or 1.0
    rank = np.searchsorted(np.sort(kept), kept)  # of ties the lowest: they stay ties
    ranked = ndtri((rank + 0.5) / len(kept))
    warped = np.full(len(value), np.min(ranked, initial=0.0))
    warped[sound] = np.where(better, gain / spread, np.minimum(ranked, 0.0))
    return warped


def _candidates(rng: np.random.Generator, leaders: np.ndarray, count: int) -> np.ndarray:
    """f64[count, D]: half uniform, the others around the leaders, from a tenth of a per cent to a third of the cube away."""
    dimension = leaders.shape[1]
    near = count // 2
    centre = leaders[rng.integers(len(leaders), size=near)]
    scale = 10 ** rng.uniform(-3, -0.5, (near, 1))
    moved = centre + scale * rng.normal(size=(near, dimension))
    alone = rng.random((near, dimension)) < rng.random((near, 1))  # often only some genes move, but never none
    alone[np.arange(near), rng.integers(dimension, size=near)] = True
    return np.concatenate([rng.random((count - near, dimension)), np.clip(np.where(alone, moved, centre), 0, 1)])


class _Model(NamedTuple):
    """Logarithms of the kernel's length scales, [D], and of the noise's variance."""

    scale: Any
    noise: Any


def _padded(points: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trials and which rows are trials: filled up to a power of two, so that few shapes are compiled in a run."""
    size = max(16, 1 << (len(values) - 1).bit_length())
    rows, column = np.zeros((size, points.shape[1])), np.zeros(size)
    rows[: len(values)], column[: len(values)] = points, values
    return rows, column, np.arange(size) < len(values)


def _process(model: _Model, points: jax.Array, real: jax.Array) -> GaussianProcess:
    from tinygp import GaussianProcess, kernels, transforms

    kernel = transforms.Linear(jnp.exp(-model.scale), kernels.Matern52(distance=kernels.distance.L2Distance()))
    return GaussianProcess(kernel, points, diag=jnp.where(real, jnp.exp(model.noise) + _JITTER, _ABSENT))


@jax.jit
def _fit(points: jax.Array, values: jax.Array, real: jax.Array) -> _Model:
    """The model of the highest posterior density, the better of two ascents."""
    import optax

    dimension = points.shape[1]
    usual = math.sqrt(2) + jnp.log(dimension) / 2  # of a log length scale, by Hvarfner et al.; its deviation is sqrt(3)

    def loss(model: _Model) -> jax.Array:
        likelihood = _process(model, points, real).log_probability(values)
        prior = -jnp.sum((model.scale - usual) ** 2) / 6 - ((model.noise - _NOISE[0]) / _NOISE[1]) ** 2 / 2
        return -(likelihood + prior)

    climb = optax.adam(0.1)

    def ascent(start: _Model) -> tuple[jax.Array, _Model]:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            model, state = carry
            updates, state = climb.update(jax.grad(loss)(model), state)
            return (optax.apply_updates(model, updates), state), None

        (model, _), _ = jax.lax.scan(step, (start, climb.init(start)), None, length=_FIT_STEPS)
        return loss(model), model

    starts = _Model(jnp.log(jnp.array([[0.3], [1.5]])) + jnp.zeros((2, dimension)), jnp.full(2, _NOISE[0]))
    losses, models = jax.lax.map(ascent, starts)
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    return jax.tree.map(lambda leaf: leaf[best], models)


@jax.jit
def _pick(
    model: _Model,
    points: jax.Array,
    values: jax.Array,
    real: jax.Array,
    believed: jax.Array,
    drawn: jax.Array,
    pending: int,
    count: int,
) -> jax.Array:
    """i[_AT_A_TIME]: the `count` rows of `drawn` with the highest expected improvement, each given those before it.

    The first `pending` rows of `believed` are given to all. What is given changes no mean and takes a rank from the covariance,
    and its mean is to be beaten too; so the picks are the pivots of an incomplete Cholesky factorisation.
    """
    process = _process(model, points, real)
    best = jnp.max(jnp.where(real, process.predict(values), -jnp.inf))
    posterior = process.condition(values, jnp.concatenate([believed, drawn])).gp
    noise = jnp.exp(model.noise) + _JITTER
    rows = jnp.arange(len(believed) + len(drawn))

    def step(i: jax.Array, carry: Any) -> Any:
        factor, variance, free, best, picked = carry
        score = jnp.where(free, log_improvement(posterior.loc - best, jnp.sqrt(variance)), -jnp.inf)
        row = jnp.where(i < pending, i, jnp.argmax(score))
        column = posterior.covariance[:, row] - factor @ factor[row]
        column = column / jnp.sqrt(variance[row] + noise)
        factor = factor.at[:, i].set(column)
        variance = jnp.maximum(variance - column**2, _JITTER**2)
        picked = picked.at[jnp.maximum(i - pending, 0)].set(row - len(believed))
        return factor, variance, free & (rows != row), jnp.maximum(best, posterior.loc[row]), picked

    factor = jnp.zeros((len(rows), len(believed) + _AT_A_TIME))
    variance = jnp.maximum(posterior.variance, _JITTER**2)
    carry = (factor, variance, rows >= len(believed), best, jnp.zeros(_AT_A_TIME, int))
    return jax.lax.fori_loop(0, pending + count, step, carry)[-1]


def log_improvement(gain: jax.Array, deviation: jax.Array) -> jax.Array:
    """Logarithm of the expected improvement, which itself is 0 to rounding over most of the cube."""
    z = gain / deviation
    near = jnp.maximum(z, -5.0)
    direct = jnp.log(jax.scipy.stats.norm.pdf(near) + near * jax.scipy.stats.norm.cdf(near))
    far = jnp.minimum(z, -5.0)
    tail = jax.scipy.stats.norm.logpdf(far) - 2 * jnp.log(-far) + jnp.log1p(-3 / far**2)
    return jnp.log(deviation) + jnp.where(z > -5, direct, tail)
