"""Rules that every optimizer shares: clipping, penalties, weight decay, accumulation, averaging. Declared once.

A row says what is its own and `shared` adds the rest, in this order:

    gradient -> mean of several -> clipped -> + l1 and L2 -> the row's algorithm -> weights -> their average

A setting that rests at its plain Python default is left out of the program, and what is traced never is. The rules before
the algorithm have no state, so members that clip and members that do not have one structure; accumulation and averaging
have state where they are given (see `opened`).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmaptune.optimizers.accumulation import accumulated
from vmaptune.optimizers.averaging import averaged
from vmaptune.settings import NonNegative, Positive, Usual, settings, with_settings

Optimizer = Callable[..., optax.GradientTransformation]
"""`optimizer(*, settings) -> optax.GradientTransformation`: a row of `OPTIMIZERS`, or one of your own."""
Decay = Literal["decoupled", "l2"]
Mask = Literal["all", "matrices"]

NO_PULL = optax.identity()


def clipping(
    *,
    clip_norm: Annotated[Positive, Usual(0.1, 10.0, "log")] = math.inf,
    clip_value: Annotated[Positive, Usual(0.01, 10.0, "log")] = math.inf,
    clip_adaptive: Annotated[Positive, Usual(0.001, 1.0, "log")] = math.inf,
) -> list[optax.GradientTransformation]:
    """What limits the gradient before the optimizer sees it, applied in this order.

    Args:
        clip_norm: Largest global norm of the gradient; longer ones are scaled down to it. inf: never.
        clip_value: Largest size of each number of the gradient; larger ones are cut to it. inf: never.
        clip_adaptive: Largest norm of a unit's gradient, as a multiple of the norm of the unit's weights (a unit is a column
            of a matrix or an output channel of a kernel). inf: never.

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, https://arxiv.org/abs/1211.5063
        Brock et al., High-Performance Large-Scale Image Recognition Without Normalization, https://arxiv.org/abs/2102.06171
    """
    rules = [
        (clip_norm, optax.clip_by_global_norm),
        (clip_value, optax.clip),
        (clip_adaptive, optax.adaptive_grad_clip),
    ]
    return [rule(limit) for limit, rule in rules if not _rests(limit, math.inf)]


def penalty(*, l1: Annotated[NonNegative, Usual(1e-8, 1e-2, "log")] = 0.0) -> list[optax.GradientTransformation]:
    """A penalty on the size of the weights.

    Args:
        l1: Pull of every weight to zero that does not depend on its size: l1 * sign(w) is added to the gradient, after
            clipping.

    References:
        Tibshirani, Regression Shrinkage and Selection via the Lasso, https://doi.org/10.1111/j.2517-6161.1996.tb02080.x
    """
    if _rests(l1, 0.0):
        return []
    return [optax.stateless_with_tree_map(lambda g, w: g + l1 * jnp.sign(w))]


def weight_pull(
    *, weight_decay: Annotated[NonNegative, Usual(1e-6, 1e-1, "log")] = 0.0, decay_mask: Mask = "all"
) -> optax.GradientTransformation:
    """Adds weight_decay * w, to the gradient or to the step: see `placement`.

    Args:
        weight_decay: Pull of the weights to zero, in proportion to their size.
        decay_mask: What weight_decay pulls: all weights, or those with two axes or more ("matrices"), and so neither biases
            nor the scales of normalisation layers.
    """
    if _rests(weight_decay, 0.0):
        return NO_PULL
    mask = None if decay_mask == "all" else lambda tree: jax.tree.map(lambda leaf: leaf.ndim >= 2, tree)
    decay = optax.add_decayed_weights(weight_decay, mask)
    # Stateless, so that members with and without a mask or a decay have one structure.
    return optax.stateless(lambda updates, params: decay.update(updates, decay.init(params), params)[0])


def placement(default: Decay) -> Callable[..., Decay]:
    """The choice of where weight decay acts, with a row's own default."""

    def place(*, decay: Decay = default) -> Decay:
        """Where weight decay acts.

        Args:
            decay: Where weight_decay acts. decoupled: on the step, which becomes longer by learning_rate * weight_decay * w.
                l2: on the gradient, so that it passes through the algorithm.

        References:
            Loshchilov & Hutter, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101
        """
        return decay

    return place


def shared(default: Decay, *, choice: bool = True) -> Callable[[Callable[..., Any]], Optimizer]:
    """Makes an optimizer of a row: `row(pull, *, own settings)` gains the settings that all rows share.

    `pull` is what weight decay adds to a step that the learning rate then scales; the row places it where its algorithm
    wants it. It is `NO_PULL` when there is none, or when it was added to the gradient.

    Args:
        default: Where weight decay acts by default, as is usual for the algorithm.
        choice: Whether the user may choose; no where both are the same.
    """

    def decorate(row: Callable[..., Any]) -> Optimizer:
        place = placement(default)
        places = (place,) if choice else ()
        own = [p for p in inspect.signature(row, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]

        @functools.wraps(row)
        def optimizer(**given: Any) -> optax.GradientTransformation:
            def of(rule: Callable[..., Any]) -> dict[str, Any]:
                return {name: given.pop(name) for name in settings(rule) if name in given}

            pull, decay = weight_pull(**of(weight_pull)), place(**of(place)) if choice else default
            before = [*clipping(**of(clipping)), *penalty(**of(penalty))]
            if decay == "l2" and pull is not NO_PULL:
                before.append(pull)
            wait, keep = of(accumulated), of(averaged)
            algorithm = row(pull if decay == "decoupled" else NO_PULL, **given)
            return accumulated(averaged(optax.chain(_together(before), algorithm), **keep), **wait)

        optimizer.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        return with_settings(optimizer, clipping, penalty, weight_pull, *places, accumulated, averaged)

    return decorate


def pulled(pull: optax.GradientTransformation, factor: Any) -> optax.GradientTransformation:
    """Subtracts factor times the pull, for rows whose own step is complete (the learning rate's sign included)."""
    if pull is NO_PULL:
        return NO_PULL

    def update(updates: Any, params: Any) -> Any:
        pulls, _ = pull.update(jax.tree.map(jnp.zeros_like, params), optax.EmptyState(), params)
        return jax.tree.map(lambda u, p: u - factor * p, updates, pulls)

    return optax.stateless(update)


def opened(optimizer: Optimizer, names: Iterable[str]) -> Optimizer:
    """The optimizer whose `init` has the structure that training with these settings traced will have.

    A setting that is traced stays in the program whatever its value, and some then have state. Members are born before
    anybody knows their values, so their state is made with values that are legal and stay: not Python floats.

    Args:
        optimizer: A row of `OPTIMIZERS`, or any function from keyword settings to an optax transformation.
        names: Settings that are passed traced in training.

    Returns:
        The same function with those settings given; later keywords override them.
    """
    known = settings(optimizer)
    return functools.partial(optimizer, **{name: _legal(known[name]) for name in names})


def _legal(setting: Any) -> Any:
    if not setting.required:
        return np.float32(setting.default)
    return np.float32(setting.usual.low if setting.usual else 1.0)


def _rests(value: Any, default: float) -> bool:
    return isinstance(value, float) and value == default


def _together(rules: list[optax.GradientTransformation]) -> optax.GradientTransformation:
    """Stateless rules as one, computed in float32: optax cannot scale a bfloat16 gradient by a traced float32 norm."""
    if not rules:
        return optax.identity()

    def update(gradient: Any, params: Any) -> Any:
        wide, weights = (jax.tree.map(_at_least_float32, tree) for tree in (gradient, params))
        for rule in rules:
            wide, _ = rule.update(wide, rule.init(weights), weights)
        return jax.tree.map(lambda w, g: w.astype(g.dtype), wide, gradient)

    return optax.stateless(update)


def _at_least_float32(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
