"""Which members make a good ensemble, and which weights a good mean: greedy choices, by scores on validation alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vmaptune.analysis.judging import Score


class Picked(NamedTuple):
    """A choice of members.

    Attributes:
        picks: Which, in the order in which they were picked; one may be picked several times.
        scores: On validation after each pick.
    """

    picks: list[int]
    scores: list[Score]

    @property
    def best(self) -> int:
        """After how many picks validation is best; the fewest of those that are as good."""
        return max(range(len(self.scores)), key=lambda i: (self.scores[i], -i)) + 1


def pick_greedily(answers: np.ndarray, scores_of: Callable[[np.ndarray], Sequence[Score]], size: int) -> Picked:
    """Greedy ensemble selection with replacement.

    It starts from the best few: as many of the best members as are best together. Then it picks again and again the member
    that helps most, also one that is in already. The first pick is the best member, so the best of the picks is no worse.

    Args:
        answers: f32[m, n, ...] of members, the best first.
        scores_of: Scores of several mean answers, [k, n, ...].
        size: Picks.

    References:
        Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004
    """
    first = min(size, len(answers))
    counts = np.arange(1, first + 1).reshape(-1, *[1] * (answers.ndim - 1))
    together = np.cumsum(answers[:first], axis=0, dtype=np.float64)
    scores = list(scores_of((together / counts).astype(np.float32)))
    start = Picked(list(range(first)), scores).best
    picks, scores, total = list(range(start)), scores[:start], together[start - 1]
    while len(picks) < size:
        found = scores_of(((total + answers) / (len(picks) + 1)).astype(np.float32))
        best = max(range(len(found)), key=lambda i: (found[i], -i))
        picks.append(best)
        scores.append(found[best])
        total = total + answers[best]
    return Picked(picks, scores)


def mix_greedily(members: Sequence[Any], score_of: Callable[[Any], Score], size: int) -> tuple[Picked, Any]:
    """A greedy soup: the mean of the weights of those members that make it no worse, the best first.

    Args:
        members: Weights, the best first.
        score_of: Score of weights.
        size: Members, at most.

    Returns:
        Which, and the mean of their weights.

    References:
        Wortsman et al., Model soups, https://arxiv.org/abs/2203.05482
    """
    picks, scores, mean = [0], [score_of(members[0])], members[0]
    for i, member in enumerate(members):
        if i and len(picks) < size:
            share = 1 / (len(picks) + 1)
            mixed = jax.tree.map(lambda old, new, share=share: (old + share * (new - old)).astype(old.dtype), mean, member)
            if (score := score_of(mixed)) >= scores[-1]:
                picks, scores, mean = [*picks, i], [*scores, score], mixed
    return Picked(picks, scores), mean
