"""Paired comparisons of arms that were run on the same seeds: ranks, a signed-rank test, and its correction for many pairs.

Scores are as everywhere in studies: lower is better, and infinite where a run failed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vmaptune.studies.scores import Interval, difference_interval

_ENOUGH = 6  # pairs: with fewer, even if all agree, p = 2 / 2^n stays above 0.05


class Paired(NamedTuple):
    """Two arms, seed by seed.

    Attributes:
        one: Name of an arm.
        other: Name of another.
        wins: Seeds on which the first is better.
        losses: Seeds on which it is worse.
        ties: Seeds on which they are the same.
        difference: How much higher the first one's median score is (so: worse), with its bootstrap interval; NaN if either
            failed on half of its seeds.
        p: Of the two-sided signed-rank test that they are alike.
        p_holm: The same, corrected for the number of pairs.
        note: What is to be kept in mind about p; "" if nothing.
    """

    one: str
    other: str
    wins: int
    losses: int
    ties: int
    difference: Interval
    p: float
    p_holm: float
    note: str


def compare_pairs(scores: Mapping[str, np.ndarray]) -> list[Paired]:
    """Compares every arm with every other.

    Args:
        scores: f64[S] by arm, in the order of the seeds that they share.

    References:
        Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1(6), 1945
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2), 1979
    """
    pairs = []
    for one, other in itertools.combinations(scores, 2):
        change = differences(scores[one], scores[other])
        p, note = signed_rank(change)
        counts = (int((change < 0).sum()), int((change > 0).sum()), int((change == 0).sum()))
        pairs.append(Paired(one, other, *counts, _apart(scores[one], scores[other]), p, math.nan, note))
    corrected = holm([pair.p for pair in pairs])
    return [pair._replace(p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By how much one is higher than the other, f64[S]; 0 where both failed, and infinite where one of them did."""
    with np.errstate(invalid="ignore"):
        return np.where(one == other, 0.0, one - other)


def signed_rank(change: np.ndarray) -> tuple[float, str]:
    """The two-sided p of Wilcoxon's signed-rank test, and what is to be kept in mind about it.

    Ties say nothing of which is better and are left out, as Wilcoxon did. An infinite difference counts as larger than all
    others. p is exact where SciPy's is: to 50 pairs, or to 13 where differences are equally large.

    Args:
        change: f64[S], differences by seed.
    """
    from scipy.stats import wilcoxon

    told = change[change != 0]
    if not len(told):
        return 1.0, "all pairs are ties"
    largest = np.abs(told[np.isfinite(told)]).max(initial=0.0)
    p = float(wilcoxon(np.where(np.isfinite(told), told, np.sign(told) * (2 * largest + 1))).pvalue)
    notes = []
    if ties := len(change) - len(told):
        notes.append(f"{ties} of {len(change)} pairs are ties and left out")
    if len(told) < _ENOUGH:
        notes.append(f"{len(told)} pair{'s' * (len(told) > 1)} cannot give p < 0.05: take {_ENOUGH} seeds or more")
    return p, "; ".join(notes)


def holm(p: Sequence[float]) -> list[float]:
    """Corrects the p of several tests, so that any false alarm among them is as unlikely as one alone."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected.tolist()


def average_ranks(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean over seeds of each arm's rank among all: 1 is the best, ties share the mean of their ranks."""
    from scipy.stats import rankdata

    ranks = rankdata(np.stack(list(scores.values())), axis=0).mean(axis=1)
    return dict(zip(scores, ranks.tolist(), strict=True))


def _apart(one: np.ndarray, other: np.ndarray) -> Interval:
    if not np.isfinite([np.median(one), np.median(other)]).all():
        return Interval(math.nan, math.nan, math.nan)
    return difference_interval(one, other)
