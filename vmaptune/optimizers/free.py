"""Optimizers that do without a schedule (schedule-free) or without a learning rate (Prodigy)."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ProdigyState, ScheduleFreeState

from vmaptune.optimizers.ranges import Epsilon, FirstMoment, Gentle, Interpolation, Power, Relative, SecondMoment
from vmaptune.optimizers.rules import NO_PULL, pulled, shared
from vmaptune.settings import NonNegative, Positive, Usual


@shared("l2", choice=False)  # decoupled would be the same: nothing stands between gradient and step
def schedule_free_sgd(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Annotated[NonNegative, Usual(1e-2, 1e1, "log")] = 1.0,
    b1: Interpolation = 0.9,
    weight_lr_power: Power = 2.0,
) -> optax.GradientTransformation:
    """SGD whose gradients are taken between the last weights and their average, which is what is evaluated.

    It needs no falling learning rate, but a warm-up helps. Batch statistics belong to the trained weights, not the averaged.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Where gradients are taken: 0 at the last weights, 1 at their average.
        weight_lr_power: Weights count in the average by the largest learning rate so far to this power.

    References:
        Defazio et al., The Road Less Scheduled, https://arxiv.org/abs/2405.15682
    """
    step = optax.chain(pull, optax.scale_by_learning_rate(learning_rate))
    return _schedule_free(step, learning_rate, b1, weight_lr_power)


@shared("decoupled")
def schedule_free_adamw(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 2.5e-3,
    b1: Interpolation = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
    weight_lr_power: Power = 2.0,
) -> optax.GradientTransformation:
    """AdamW whose momentum is replaced by schedule-free averaging; the average is what is evaluated.

    It needs no falling learning rate, but a warm-up helps. Batch statistics belong to the trained weights, not the averaged.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Where gradients are taken: 0 at the last weights, 1 at their average.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.
        weight_lr_power: Weights count in the average by the largest learning rate so far to this power.

    References:
        Defazio et al., The Road Less Scheduled, https://arxiv.org/abs/2405.15682
    """
    step = optax.chain(
        optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True),
        pull,
        optax.scale_by_learning_rate(learning_rate),
    )
    return _schedule_free(step, learning_rate, b1, weight_lr_power)


@shared("decoupled")
def prodigy(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Relative = 1.0,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
    estim_lr0: Annotated[Positive, Usual(1e-8, 1e-4, "log")] = 1e-6,
    estim_lr_coef: Annotated[Positive, Usual(0.1, 10.0, "log")] = 1.0,
    safeguard_warmup: bool = False,
) -> optax.GradientTransformation:
    """Adam that estimates its learning rate from how far the weights have moved from the initial ones.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Multiplier of the estimated learning rate, before the schedule's; 1 in the paper.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients; its root is the decay of the estimate's sums.
        eps: Added to the root, against division by zero, in units of the estimated learning rate.
        estim_lr0: First estimate, meant to be too small.
        estim_lr_coef: Multiplier of the estimate.
        safeguard_warmup: Keep a warm-up's small learning rates out of the estimate's denominator.

    References:
        Mishchenko & Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, https://arxiv.org/abs/2306.06101
    """
    inner = optax.contrib.prodigy(
        learning_rate,
        (b1, b2),
        eps=eps,
        estim_lr0=estim_lr0,
        estim_lr_coef=estim_lr_coef,
        safeguard_warmup=safeguard_warmup,
    )

    def init(params: Any) -> ProdigyState:
        state = inner.init(params)
        # A copy, since weights and state are donated; and sums of small numbers, which bfloat16 would not feel.
        return state._replace(
            params0=jax.tree.map(jnp.copy, params),
            estim_lr=_float32(state.estim_lr),
            numerator_weighted=_float32(state.numerator_weighted),
        )

    def update(gradient: Any, state: ProdigyState, params: Any = None) -> tuple[Any, ProdigyState]:
        # A member is born before its settings are known.
        state = state._replace(estim_lr=jnp.where(state.count == 0, estim_lr0, state.estim_lr))
        updates, after = inner.update(gradient, state, params)
        # A warm-up from zero gives the estimate nothing to divide by: optax's would be 0/0 for good.
        nothing = optax.tree.sum(jax.tree.map(jnp.abs, after.grad_sum)) == 0
        updates = jax.tree.map(lambda u: jnp.where(nothing, 0, u), updates)
        after = after._replace(estim_lr=jnp.where(nothing, state.estim_lr, after.estim_lr))
        if pull is not NO_PULL:
            corrected = jnp.sqrt(1 - b2**after.count) / (1 - b1**after.count)
            pulls = pulled(pull, state.estim_lr * learning_rate * corrected)
            updates, _ = pulls.update(updates, optax.EmptyState(), params)
        return updates, after

    return optax.GradientTransformation(init, update)


def _schedule_free(step: optax.GradientTransformation, learning_rate: Any, b1: Any, power: Any) -> Any:
    """`optax.contrib.schedule_free` for a b1 that is known only in training, and may change there.

    The weights in training, y, lie between the average x and the last weights z: y = b1 x + (1 - b1) z. optax keeps the b1
    of the state's birth and reads x with the new one, so a change would throw x off; here y moves to where the new b1 puts it.
    """
    inner = optax.contrib.schedule_free(step, learning_rate, b1=b1, weight_lr_power=power)

    def init(params: Any) -> ScheduleFreeState:
        state = inner.init(params)
        # In float32, because a bfloat16 sum of weights would soon stop growing.
        return state._replace(b1=_float32(state.b1), weight_sum=_float32(state.weight_sum), max_lr=_float32(state.max_lr))

    def update(gradient: Any, state: ScheduleFreeState, params: Any = None) -> tuple[Any, ScheduleFreeState]:
        now = jnp.asarray(b1, state.b1.dtype)
        drift = now / state.b1 - 1  # exactly 0 while b1 stays the same
        shift = jax.tree.map(lambda y, z: drift * (y - z), params, state.z)
        moved = jax.tree.map(jnp.add, params, shift)
        updates, after = inner.update(gradient, state, moved)
        return jax.tree.map(jnp.add, updates, shift), after._replace(b1=now)

    return optax.GradientTransformation(init, update)


def _float32(scalar: jax.Array) -> jax.Array:
    return scalar.astype(jnp.promote_types(scalar.dtype, jnp.float32))
