"""Normalisation between layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from flax import nnx

Norm = Literal["none", "batch", "layer"]


def make_norm(norm: Norm, width: int, *, axes: int | Sequence[int] = -1, rngs: nnx.Rngs) -> nnx.Module:
    """Batch norm, whose statistics are a member's own, or layer norm over the given axes.

    References:
        Ioffe & Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167
        Ba et al., Layer Normalization, https://arxiv.org/abs/1607.06450
    """
    if norm == "layer":
        return nnx.LayerNorm(width, reduction_axes=axes, rngs=rngs)
    # Statistics of the last ten steps or so: of a hundred, as usual, they would lag behind in short trainings.
    return nnx.BatchNorm(width, momentum=0.9, promote_dtype=_as_they_are, rngs=rngs)


def _as_they_are(arrays: Any, **_: Any) -> Any:
    """So that float32 statistics make nothing after them float32."""
    return arrays
