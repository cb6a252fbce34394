"""Early stopping: which trials are not worth training to the end. One method a file; all of it runs on the device."""

from __future__ import annotations

from collections.abc import Callable

from vmaptune.stoppers.asha import asha
from vmaptune.stoppers.contract import Report, Stopper
from vmaptune.stoppers.hyperband import hyperband
from vmaptune.stoppers.median import median
from vmaptune.stoppers.none import none
from vmaptune.stoppers.patience import patience
from vmaptune.stoppers.threshold import threshold

__all__ = ["STOPPERS", "Report", "Stopper", "asha", "hyperband", "median", "none", "patience", "threshold"]

STOPPERS: dict[str, Callable[..., Stopper]] = {
    "none": none,
    "median": median,
    "asha": asha,
    "hyperband": hyperband,
    "patience": patience,
    "threshold": threshold,
}
"""The names that `search.stop` may take."""
