"""Questions that many trainings answer: which family of schedules, which learning rates, which search method.

A study turns a question into trials, trains them as ordinary runs, and reads the answer from their histories.
"""

from vmaptune.studies.comparison import Comparison, compare
from vmaptune.studies.lr_range import LearningRateRange, lr_range_test
from vmaptune.studies.schedules import FamilyResult, ScheduleStudy, evaluate_schedules

__all__ = ["Comparison", "FamilyResult", "LearningRateRange", "ScheduleStudy", "compare", "evaluate_schedules", "lr_range_test"]
