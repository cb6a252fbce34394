"""Augmentation of images on the device: each is flipped, shifted and partly hidden at random, while training only.

Flips and shifts are matrices of zeros and ones, one for the rows and one for the columns of each image. Their products cost
less than the same by index: XLA's CPU code gathers pixel by pixel, at three times the cost where members train one by one.

All draws come from one key, folded in from the loss's with a number that nothing else has, and what one of the three draws
does not depend on whether the others are on.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.errors import ConfigError
from vmaptune.models.dropout import mask_bits
from vmaptune.settings import Fraction, NonNegative, Usual
from vmaptune.tasks.losses import is_off

_AUGMENTATION = 2**32 - 3  # of a member's step; see regularisation.py for its neighbours


def augmented(
    images: jax.Array,
    key: jax.Array,
    *,
    flip: Annotated[Fraction, Usual(0.0, 0.5)] = 0.0,
    crop: Annotated[NonNegative, Usual(0.0, 4.0)] = 0.0,
    cutout: Annotated[Fraction, Usual(0.0, 0.5)] = 0.0,
) -> jax.Array:
    """Images flipped, shifted and partly hidden, each by draws of its own.

    Args:
        images: f32[batch, height, width, channels].
        key: The loss's.
        flip: Probability of mirroring an image left to right.
        crop: Pixels by which an image is shifted at most, up or down and left or right, rounded; zeros come in from the
            edges. The same as a random crop of the image padded by so many pixels.
        cutout: Side of a square that is set to zero, as a share of the image's height. Its centre is anywhere in the
            image, so it may lie partly outside.

    Returns:
        f32[batch, height, width, channels].

    Raises:
        ConfigError: There are no images.

    References:
        Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012 (flip, crop)
        DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
            https://arxiv.org/abs/1708.04552
    """
    if is_off(flip) and is_off(crop) and is_off(cutout):
        return images
    if images.ndim != 4:
        raise ConfigError(
            f"task: flip, crop and cutout need images of shape (height, width, channels); given: {images.shape[1:]}"
        )
    count, height, width, _ = images.shape
    mirrored, down, right, row, column = _uniform(jax.random.fold_in(key, _AUGMENTATION), (5, count, 1))
    if not is_off(crop):
        images = _moved("bij,bjwc->biwc", _sources(height, down, crop), images)
    if not (is_off(flip) and is_off(crop)):
        sources = _sources(width, right, crop)
        images = _moved("bij,bhjc->bhic", jnp.where(mirrored < flip, width - 1 - sources, sources), images)
    if is_off(cutout):
        return images
    side = cutout * height
    hidden = _near(height, row, side)[:, :, None, None] & _near(width, column, side)[:, None, :, None]
    return jnp.where(hidden, jnp.zeros_like(images), images)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform numbers f32[shape] in (0, 1), from the cheap bits behind dropout: the middles of 2^23 equal parts."""
    return ((mask_bits(key, shape) >> np.uint32(9)).astype(jnp.float32) * 2.0 + 1.0) * np.float32(2.0**-24)


def _sources(size: int, uniform: jax.Array, crop: jax.Array | float) -> jax.Array:
    """Where each line of pixels comes from, f32[batch, size], in whole pixels, for uniform numbers f32[batch, 1].

    Shifts of -crop..crop are equally likely; between whole crops, the largest comes in more and more often.
    """
    return _lines(size) - jnp.round((2.0 * uniform - 1.0) * (crop + 0.5))


def _moved(product: str, sources: jax.Array, images: jax.Array) -> jax.Array:
    """Images with lines of pixels from elsewhere, and zeros where that is outside. Exact: each sum has one term at most."""
    matrix = sources[..., None] == _lines(sources.shape[1])[None]
    return jnp.einsum(product, matrix.astype(images.dtype), images, precision=jax.lax.Precision.HIGHEST)


def _near(size: int, uniform: jax.Array, side: jax.Array | float) -> jax.Array:
    """Which lines of pixels a square hides, bool[batch, size], whose centre is at a uniform place f32[batch, 1]."""
    return jnp.abs(_lines(size) + 0.5 - uniform * size) < 0.5 * side


def _lines(size: int) -> jax.Array:
    """The numbers of the lines of pixels along an axis, f32[1, size]."""
    return jnp.arange(size, dtype=jnp.float32)[None]
