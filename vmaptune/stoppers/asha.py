"""ASHA: at a few ages only the best fraction of trials goes on, and none waits for the others."""

from __future__ import annotations

import jax

from vmaptune.settings import Count
from vmaptune.stoppers.contract import Reduction, Report, Stopper, check_acts
from vmaptune.stoppers.rungs import Rungs, empty_rungs, judge, rung_ages


def asha(*, reduction: Reduction = 3, grace: Count = 1) -> Stopper:
    """Asynchronous successive halving: at every rung only the best fraction of trials goes on, and none waits for the others.

    The rungs are at ages `grace x reduction^r`, r = 0, 1, ..., below the horizon. A trial is compared with all that have
    stood on its rung so far, whatever became of them: of m, itself and those of the same generation included, the best
    `max(1, floor(m / reduction))` go on, and whoever ties with the last of them. This is the stopping variant of Ray and
    Syne Tune, with Optuna's count: a trial that is stopped is not resumed, even if it would be among the best later.

    Args:
        reduction: Trials on a rung over those that go on; 3 or 4 is usual.
        grace: Generations of a trial before its first rung.

    References:
        Li et al., A System for Massively Parallel Hyperparameter Tuning, https://arxiv.org/abs/1810.05934
    """

    def init(trials: int, generations: int) -> Rungs:
        check_acts("grace", grace, grace, generations)
        return empty_rungs(rung_ages(grace, reduction, generations - 1), trials)

    def update(state: Rungs, report: Report) -> tuple[Rungs, jax.Array]:
        return judge(state, report, reduction)

    return Stopper(init, update)
