"""Handwritten digits: the task of the examples and benchmarks."""

from __future__ import annotations

from typing import Any, Literal

from vmaptune import models
from vmaptune.data import embedded
from vmaptune.models.norm import Norm
from vmaptune.settings import Count, Natural
from vmaptune.tasks.contract import Task
from vmaptune.tasks.supervised import classification


def digits(
    *,
    model: Literal["mlp"] = "mlp",
    hidden: tuple[Count, ...] = (64, 64),
    layers: Natural = 0,
    units: Count = 64,
    activation: models.Activation = "relu",
    norm: Norm = "none",
    residual: bool = False,
) -> Task:
    """Handwritten digits (scikit-learn, embedded): 1,797 images of 8x8, ten classes, classified by a small network.

    Args:
        model: The network.
        hidden: Width of each hidden layer.
        layers: So many hidden layers of `units` each, in place of `hidden`; 0: as that says.
        units: Width of each of those.
        activation: Between layers.
        norm: Before each activation: over the batch, over the layer, or none.
        residual: Whether a hidden layer is added to its input, where both are as wide.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    widths = [units] * layers or hidden
    options: dict[str, Any] = {"activation": activation, "norm": norm, "residual": residual}
    networks = {"mlp": lambda rngs: models.MLP(64, widths, 10, rngs=rngs, **options)}
    return classification(models.from_nnx(networks[model]), embedded.digits(), where="task digits")
