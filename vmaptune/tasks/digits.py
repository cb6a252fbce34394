"""Handwritten digits: the tasks of the examples and benchmarks."""

from __future__ import annotations

from typing import Literal

from vmaptune import models
from vmaptune.data import embedded
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError
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
) -> Task:
    """Handwritten digits (scikit-learn, embedded): 1,797 images of 8x8, ten classes, classified by a small network.

    Args:
        model: The network.
        hidden: Width of each hidden layer.
        layers: So many hidden layers of `units` each, in place of `hidden`; 0: as that says.
        units: Width of each of those.
        activation: Between layers.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    widths = [units] * layers or hidden
    networks = {"mlp": lambda rngs: models.MLP(64, widths, 10, activation=activation, rngs=rngs)}
    return classification(models.from_nnx(networks[model]), embedded.digits(), where="task digits")


def digits_cnn(*, channels: tuple[Count, ...] = (16, 32)) -> Task:
    """The handwritten digits as images, classified by a small convolutional network.

    Args:
        channels: Of each convolution; at most three, because each halves the 8x8 pixels.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    if not 1 <= len(channels) <= 3:
        raise ConfigError(f"task.channels: expected one to three widths, for images of 8x8; given: {list(channels)}")
    flat = embedded.digits()
    images = Splits(*((inputs.reshape(-1, 8, 8, 1), labels) for inputs, labels in flat))
    network = models.from_nnx(lambda rngs: models.CNN((8, 8, 1), channels, 10, rngs=rngs))
    return classification(network, images, where="task digits_cnn")
