"""The reference that the engine is held against: one member, trained by a plain Python loop over plain optax.

Written from the definitions alone; shares no code with the engine but the task's loss, the tables and the key streams.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmaptune.population import Stream, stream_key


def mixed(number, words):
    """lowbias32 of a Weyl step from each word, in Python's whole numbers."""
    for word in words:
        number = (number * 0x9E3779B9 + word) & 0xFFFFFFFF
        number = ((number ^ number >> 16) * 0x7FEB352D) & 0xFFFFFFFF
        number = ((number ^ number >> 15) * 0x846CA68B) & 0xFFFFFFFF
        number ^= number >> 16
    return number


def shuffled(key, n):
    """The permutation of 0..n-1 that a key stands for: the swap-or-not shuffle (Hoang et al. 2012), card by card."""
    return np.array(swapped(tuple(int(word) for word in np.ravel(jax.random.key_data(key))), n))


@functools.cache
def swapped(words, n):
    """What `shuffled` returns, as a tuple."""
    order = list(range(n))
    for i in range(32):
        middle, salt = mixed(2 * i, words) % n, mixed(2 * i + 1, words)
        for card, x in enumerate(order):
            partner = (middle - x) % n
            if mixed(max(x, partner), [salt]) >> 31:
                order[card] = partner
    return tuple(order)


def batches(seed, start, steps, batch_size, examples, trial=None):
    """Rows of indices for steps start..start+steps, epoch by epoch."""
    key = stream_key(seed, Stream.BATCH) if trial is None else stream_key(seed, Stream.BATCH, trial)
    per_epoch = examples // batch_size
    orders = {}
    for s in range(start, start + steps):
        epoch = s // per_epoch
        order = orders[epoch] = orders[epoch] if epoch in orders else shuffled(jax.random.fold_in(key, epoch), examples)
        yield order[(s % per_epoch) * batch_size :][:batch_size]


@functools.cache
def update_of(loss, optimizer, schedule):
    """One training step, compiled once for all members that are trained alone with it."""

    @jax.jit
    def update(params, state, opt_state, batch, key, t, given):
        own = given["optimizer"] | {"learning_rate": given["optimizer"]["learning_rate"] * schedule(t, **given["schedule"])}
        (value, (state, _)), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, state, batch, key, train=True, **given["task"]
        )
        updates, opt_state = optimizer(**own).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, value

    return update


def train_alone(task, values, optimizer, schedule, *, trial, steps, horizon, batch_size, seed=0, independent=False, start=0):
    """Trains trial `trial` with fresh weights for `steps` steps at constant settings.

    Args:
        values: Settings by dotted name.
        start: Step of the population at which the trial was born.

    Returns:
        params, model_state, and the list of losses.
    """

    def settings(room):
        return {name.partition(".")[2]: jnp.float32(v) for name, v in values.items() if name.startswith(f"{room}.")}

    update = update_of(task.loss, optimizer, schedule)
    given = {room: settings(room) for room in ("optimizer", "schedule", "task")}
    params, state = task.init(stream_key(seed, Stream.INIT, trial), task.sample)
    opt_state = optimizer().init(params)
    losses = []
    examples = task.splits.size("train")
    rows = batches(seed, 0 if independent else start, steps, batch_size, examples, trial if independent else None)
    for s, row in enumerate(rows):
        batch = jax.tree.map(lambda leaf, row=row: leaf[row], task.splits.train)
        key = stream_key(seed, Stream.STEP, trial, s)
        params, state, opt_state, loss = update(params, state, opt_state, batch, key, jnp.float32(s) / horizon, given)
        losses.append(float(loss))
    return params, state, losses
