"""How sure a winner is: the spread of its replicates, and how many other settings cannot be told from it."""

from __future__ import annotations

import numpy as np

from vmaptune.store.reading import HistoryArray

_LEVEL = 0.05


def spread(history: HistoryArray, *, trial: int, generation: int, size: int, horizon: int) -> dict[str, float] | None:
    """The replicates of the winner's settings, beside those of all settings that were trained to the end.

    Args:
        history: All records.
        trial: One of the winner's replicates.
        generation: When it was judged.
        size: Replicates of each settings, in neighbouring slots.
        horizon: Steps of a full trial.

    Returns:
        None without replicates. Else `n`, and the `mean`, `std`, `min` and `max` of the winner's fitness; `settings`, how many
        other ones were trained to the end, and `tied`, in how many of them Welch's t-test sees no difference at the 5 % level,
        which says little unless n is larger than three.
    """
    if size == 1:
        return None
    rows = history[(history["step"] >= horizon) | (history["generation"] == generation)]
    group = rows["generation"] * (int(history["slot"].max()) + 1) + rows["slot"] // size  # one number a group and generation
    mine = group[(rows["generation"] == generation) & (rows["trial"] == trial)][0]
    fitness = rows["fitness"]
    whole = np.isfinite(fitness) & (rows["step"] >= horizon)
    others = [fitness[whole & (group == g)] for g in np.unique(group[whole]) if g != mine]
    own = fitness[(group == mine) & np.isfinite(fitness)]
    return {
        "n": len(own),
        "mean": float(own.mean()),
        "std": float(own.std(ddof=1)) if len(own) > 1 else float("nan"),
        "min": float(own.min()),
        "max": float(own.max()),
        "settings": len(others),
        "tied": sum(_alike(own, other) for other in others),
    }


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """True if there is no significant difference between two samples."""
    from scipy.stats import ttest_ind_from_stats

    if len(one) < 2 or len(other) < 2:
        return True
    facts = [(each.mean(), each.std(ddof=1), len(each)) for each in (one, other)]
    if facts[0][1] == facts[1][1] == 0:
        return bool(one[0] == other[0])
    return bool(ttest_ind_from_stats(*facts[0], *facts[1], equal_var=False).pvalue >= _LEVEL)
