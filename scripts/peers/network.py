"""The network and its training in plain JAX and optax, for every peer that takes a function of the user's.

Learning rate and weight decay are arguments of the compiled function, so nothing is compiled twice: the fastest way to train
one small network on a CPU from Python.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from work import BATCH, CLASSES, FEATURES, HIDDEN, data

x_train, y_train, x_validation, y_validation = (jnp.asarray(part) for part in data())
adam = optax.scale_by_adam()
he = jax.nn.initializers.he_normal()


def init(key: jax.Array) -> Any:
    """A new member: weights and the optimizer's state."""
    first, second = jax.random.split(key)
    params = {
        "w1": he(first, (FEATURES, HIDDEN)),
        "b1": jnp.zeros(HIDDEN),
        "w2": he(second, (HIDDEN, CLASSES)),
        "b2": jnp.zeros(CLASSES),
    }
    return params, adam.init(params)


def logits(params: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def train(member: Any, key: jax.Array, learning_rate: jax.Array, weight_decay: jax.Array, *, steps: int) -> Any:
    """Trains one member for some steps of AdamW; returns it and its accuracy on validation."""

    def step(member: Any, key: jax.Array) -> tuple[Any, None]:
        params, state = member
        rows = jax.random.randint(key, (BATCH,), 0, len(x_train))
        updates, state = adam.update(jax.grad(loss)(params, x_train[rows], y_train[rows]), state, params)
        return (jax.tree.map(lambda p, u: p - learning_rate * (u + weight_decay * p), params, updates), state), None

    member, _ = jax.lax.scan(step, member, jax.random.split(key, steps))
    return member, (logits(member[0], x_validation).argmax(-1) == y_validation).mean()


class Solo:
    """One member at a time, each of the two functions compiled once."""

    def __init__(self, seed: int, steps: int) -> None:
        self._seed = jax.random.key(seed)
        self._key = jax.jit(lambda key, member, generation: jax.random.fold_in(jax.random.fold_in(key, member), generation))
        self._init = jax.jit(init)
        self._train = jax.jit(partial(train, steps=steps))

    def new(self, member: int) -> Any:
        return self._init(self._key(self._seed, member, 0))

    def train(self, state: Any, member: int, generation: int, learning_rate: float, weight_decay: float) -> tuple[Any, float]:
        """Trains for one generation, counted from 1."""
        state, accuracy = self._train(state, self._key(self._seed, member, generation), learning_rate, weight_decay)
        return state, float(accuracy)

    def save(self, path: Path, state: Any, generation: int) -> None:
        """Writes a checkpoint: plain arrays, no pickle."""
        np.savez(path, generation, *(np.asarray(leaf) for leaf in jax.tree.leaves(state)))

    def load(self, path: Path) -> tuple[Any, int]:
        """Reads a checkpoint: the member and the generation that it had trained."""
        tree = jax.tree.structure(jax.eval_shape(init, self._seed))
        with np.load(path) as arrays:
            generation, *leaves = (arrays[f"arr_{i}"] for i in range(len(arrays.files)))
        return jax.tree.unflatten(tree, leaves), int(generation)
