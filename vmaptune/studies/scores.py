"""Statistics of scores over seeds: lower is better, and a diverged trial's score is infinite."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

_RESAMPLES = 4000


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def median_interval(scores: np.ndarray, *, seed: int = 0) -> Interval:
    """The median and its percentile bootstrap interval.

    Args:
        scores: f64[n], one a seed; infinite where a trial diverged.
        seed: Of the resampling.

    References:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993
    """
    medians = _resampled_medians(scores, seed)
    return Interval(float(np.median(scores)), *_quantiles(medians))


def difference_interval(one: np.ndarray, other: np.ndarray, *, seed: int = 0) -> Interval:
    """How much higher the median of `one` is than that of `other`, with seeds resampled in pairs.

    Args:
        one: f64[n], by seed.
        other: f64[n], by the same seeds: what a seed does to both alike cancels.
        seed: Of the resampling.
    """
    value = float(np.median(one) - np.median(other)) if np.isfinite([np.median(one), np.median(other)]).all() else np.inf
    with np.errstate(invalid="ignore"):
        differences = _resampled_medians(one, seed) - _resampled_medians(other, seed)
    return Interval(value, *_quantiles(np.nan_to_num(differences, nan=0.0, posinf=np.inf, neginf=-np.inf)))


def basin_decades(rates: np.ndarray, scores: np.ndarray, *, tolerance: float = 0.25) -> float:
    """How wide the valley around the best learning rate is: decades in which the score is little worse than the best.

    Between the rates that were tried, the score is taken to be linear in the logarithm of the rate.

    Args:
        rates: f64[K], ascending.
        scores: f64[K] > 0; infinite where training diverged.
        tolerance: What counts as near the best, relative to it.
    """
    best = int(np.argmin(scores))
    limit = scores[best] * (1 + tolerance)
    x = np.log10(rates)

    def reach(indices: range) -> float:
        edge = x[best]
        for i, j in pairwise(indices):
            if scores[j] <= limit:
                edge = x[j]
                continue
            share = (limit - scores[i]) / (scores[j] - scores[i]) if np.isfinite(scores[j]) else 0.0
            return float(x[i] + share * (x[j] - x[i]))
        return float(edge)

    return reach(range(best, len(x))) - reach(range(best, -1, -1))


def _resampled_medians(scores: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.median(scores[rng.integers(0, len(scores), (_RESAMPLES, len(scores)))], axis=1)


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    ordered = np.sort(values)
    return float(ordered[int(0.025 * len(values))]), float(ordered[int(0.975 * len(values)) - 1])
