"""Optimizers that see a weight matrix as a matrix."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from vmaptune.optimizers.ranges import Epsilon, FirstMoment, Momentum, SecondMoment
from vmaptune.optimizers.rules import shared
from vmaptune.settings import Count, NonNegative, Positive, Usual


@shared("decoupled")
def muon(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Annotated[NonNegative, Usual(1e-4, 1e-1, "log")] = 2e-2,
    beta: Momentum = 0.95,
    eps: Epsilon = 1e-8,
    adam_ratio: Annotated[Positive, Usual(1e-2, 1.0, "log")] = 1.0,
    adam_b1: FirstMoment = 0.9,
    adam_b2: SecondMoment = 0.999,
    ns_steps: Count = 5,
    nesterov: bool = True,
    consistent_rms: bool = False,
) -> optax.GradientTransformation:
    """Orthogonalised momentum for matrices and for kernels of 2-D convolutions (h * w * in by out); Adam for the rest.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        beta: Decay of the mean of gradients that is orthogonalised.
        eps: Added to a matrix's norm, and to Adam's root, against division by zero.
        adam_ratio: Step size of what is left to Adam, as a multiple of the learning rate.
        adam_b1: Adam's decay of the mean of gradients.
        adam_b2: Adam's decay of the mean of squared gradients.
        ns_steps: Newton-Schulz iterations.
        nesterov: Nesterov momentum, in both parts.
        consistent_rms: Scale a matrix's step to the usual size of Adam's, 0.2 a weight, so that one learning rate suits both;
            else by sqrt(max(1, out / in)).

    References:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, https://kellerjordan.github.io/posts/muon/
        Liu et al., Muon is Scalable for LLM Training, https://arxiv.org/abs/2502.16982
    """
    direction = optax.contrib.muon(
        -1.0,  # the direction itself; its learning rate comes after the pull
        ns_steps=ns_steps,
        beta=beta,
        eps=eps,
        nesterov=nesterov,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_learning_rate=-adam_ratio,
        muon_weight_dimension_numbers=_as_matrices,
        consistent_rms=0.2 if consistent_rms else None,
    )
    return optax.chain(direction, pull, optax.scale_by_learning_rate(learning_rate))


def _as_matrices(params: Any) -> Any:
    """Which axes of each leaf are a matrix's rows and columns; None: it is left to Adam."""
    axes = {2: MuonDimensionNumbers(0, 1), 4: MuonDimensionNumbers((0, 1, 2), 3)}
    return jax.tree.map(lambda leaf: axes.get(leaf.ndim), params)
