"""Evolution strategies and genetic algorithms, around evosax."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.proposers.contract import Proposer, Told, costs, generator
from vmaptune.proposers.host import on_host
from vmaptune.settings import Natural, Positive
from vmaptune.space import Space


def evolution(*, algorithm: str = "CMA_ES", size: Natural = 0, sigma: Positive = 1 / 6) -> Proposer:
    """An algorithm of evosax: generations of trials, each made from the fitness of the one before.

    A generation is `size` trials in the order of their numbers. Once all of it has ended, it is told to the algorithm,
    generation after generation; trials are what the algorithm asks for after the newest, reflected into the cube. Genetic
    algorithms begin with a uniform generation, the others at the middle of the cube. Failed trials are told as worse than
    the worst of their generation, and a generation of nothing else is passed over.

    Args:
        algorithm: Its name in `evosax.algorithms`.
        size: Trials in a generation; 0: 4 + 3 ln D, rounded up to an even number. With more slots than that, as many as there
            are slots.
        sigma: What counts as a distance of 1, as a fraction of each axis: the first standard deviation of most algorithms.

    References:
        Lange, evosax: JAX-Based Evolution Strategies, https://arxiv.org/abs/2212.04180
    """
    known = _algorithms()
    if algorithm not in known:
        raise ConfigError(f"search.algorithm: evosax has no {algorithm!r}{did_you_mean(algorithm, known)}")

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        dimension, done = space.dimension, len(told.value)
        genotype = np.zeros((count, dimension), np.float32)
        if not dimension:
            return genotype
        batch = size or 2 * math.ceil((4 + 3 * math.log(dimension)) / 2)
        with on_host():
            search = _Search(algorithm, batch, dimension, seed)
            for first in range(0, done - batch + 1, batch):
                own = slice(first, first + batch)
                if not told.ended[own].all():
                    break
                if np.isfinite(told.value[own]).any():
                    search.tell(first, (told.genotype[own] - 0.5) / sigma, costs(told.value[own]))
            for first in range(done - done % batch, done + count, batch):
                drawn = search.ask(first)
                offspring = generator(seed, first).random((batch, dimension)) if drawn is None else 0.5 + sigma * drawn
                row = first - done
                genotype[max(row, 0) : row + batch] = _inside(offspring)[max(-row, 0) : count - row]
        return genotype

    return Proposer(propose)


class _Search:
    """An algorithm and its state, rebuilt from the trials at every call."""

    def __init__(self, algorithm: str, size: int, dimension: int, seed: int) -> None:
        self.method, self.founders = _made(algorithm, size, dimension)
        self.params = self.method.default_params
        self.seed = seed
        centre = jnp.zeros(dimension)
        self.state = None if self.founders else self.method.init(self._key(0), centre, self.params)

    def _key(self, first: int) -> jax.Array:
        return jax.random.key(int(generator(self.seed, first).integers(2**32)))

    def ask(self, first: int) -> np.ndarray | None:
        """The generation that begins with trial `first`; None: it is for the caller to draw."""
        if self.state is None:
            return None
        return np.asarray(self.method.ask(self._key(first), self.state, self.params)[0], np.float64)

    def tell(self, first: int, population: np.ndarray, cost: np.ndarray) -> None:
        """Learns the costs of a whole generation."""
        told, values = jnp.asarray(population, jnp.float32), jnp.asarray(cost, jnp.float32)
        if self.state is None:
            self.state = self.method.init(self._key(first), told, values, self.params)
            return
        asked = self.method.ask(self._key(first), self.state, self.params)[1]  # some keep what they asked for
        self.state = self.method.tell(self._key(first), told, values, asked, self.params)[0]


def _inside(genotype: np.ndarray) -> np.ndarray:
    """Reflected into the cube; the middle where an algorithm broke down."""
    folded = 1 - np.abs(1 - np.mod(np.where(np.isfinite(genotype), genotype, 0.5), 2))
    return folded.astype(np.float32)


def _algorithms() -> dict[str, Any]:
    """The algorithms that need no more than a size, by name.

    Raises:
        ConfigError: evosax is not installed.
    """
    try:
        from evosax.algorithms import algorithms
    except ImportError:
        raise ConfigError("search.method: evolution needs evosax: pip install 'vmaptune[evosax]'") from None
    optional = {"self", "population_size", "solution"}

    def plain(method: Any) -> bool:
        parameters = inspect.signature(method).parameters.values()
        return all(p.name in optional or p.default is not p.empty for p in parameters)

    return {name: method for name, method in algorithms.items() if plain(method)}


@functools.cache
def _made(algorithm: str, size: int, dimension: int) -> tuple[Any, bool]:
    """The algorithm, and whether it wants a first generation. Made once, because evosax compiles anew for each object."""
    from evosax.algorithms import population_based_algorithms

    try:
        method = _algorithms()[algorithm](population_size=size, solution=jnp.zeros(dimension))
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"search.size: {algorithm} refuses generations of {size}: {error}") from None
    return method, algorithm in population_based_algorithms
