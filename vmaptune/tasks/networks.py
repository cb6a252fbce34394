"""The usual networks of tasks, and their settings, which tasks borrow by `with_settings`."""

from __future__ import annotations

from typing import Any

from vmaptune import models
from vmaptune.errors import ConfigError
from vmaptune.models.cnn import Pooling
from vmaptune.models.norm import Norm
from vmaptune.settings import Count, Natural


def mlp(
    features: int,
    outputs: int,
    *,
    hidden: tuple[Count, ...] = (64, 64),
    layers: Natural = 0,
    units: Count = 64,
    activation: models.Activation = "relu",
    norm: Norm = "none",
    residual: bool = False,
) -> models.Model:
    """A multilayer perceptron.

    Args:
        features: Inputs.
        outputs: Numbers that it returns for an example.
        hidden: Width of each hidden layer; none: a linear model.
        layers: So many hidden layers of `units` each, in place of `hidden`; 0: as that says.
        units: Width of each of those.
        activation: Between layers.
        norm: Before each activation: over the batch, over the layer, or none.
        residual: Whether a hidden layer is added to its input, where both are as wide.
    """
    widths = [units] * layers or hidden
    options: dict[str, Any] = {"activation": activation, "norm": norm, "residual": residual}
    return models.from_nnx(lambda rngs: models.MLP(features, widths, outputs, rngs=rngs, **options))


def cnn(
    shape: tuple[int, int, int],
    outputs: int,
    where: str,
    *,
    channels: tuple[Count, ...] = (16, 32),
    kernel: Count = 3,
    stride: Count = 1,
    norm: Norm = "none",
    pooling: Pooling = "max",
    activation: models.Activation = "relu",
    hidden: tuple[Count, ...] = (),
) -> models.Model:
    """A convolutional network.

    Args:
        shape: Height, width and channels of an image.
        outputs: Numbers that it returns for an image.
        where: What to call it in an error.
        channels: Of each convolution, one or more.
        kernel: Side of the convolutions' kernels, pixels.
        stride: Pixels from one of their places to the next; 2 halves height and width.
        norm: Before each activation. batch: over the batch (statistics are the member's own). layer: over each image.
        pooling: Over 2x2 pixels after each convolution, which halves height and width; none leaves it out.
        activation: After convolutions and hidden layers.
        hidden: Width of each dense layer between the convolutions and the last.
    """
    if not channels:
        raise ConfigError(f"{where}: channels: expected at least one width; given: []")
    options: dict[str, Any] = {"kernel": kernel, "stride": stride, "norm": norm, "pooling": pooling, "activation": activation}
    try:
        return models.from_nnx(lambda rngs: models.CNN(shape, channels, outputs, hidden=hidden, rngs=rngs, **options))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
