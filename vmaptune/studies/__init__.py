"""Questions that a population answers at once: which family of schedules, which learning rates.

A study turns a question into trials, trains them as ordinary runs, and reads the answer from their histories.
"""

from vmaptune.studies.lr_range import LearningRateRange, lr_range_test
from vmaptune.studies.schedules import FamilyResult, ScheduleStudy, evaluate_schedules

__all__ = ["FamilyResult", "LearningRateRange", "ScheduleStudy", "evaluate_schedules", "lr_range_test"]
