"""What is trained: a model, data and a loss, bound into a `Task`.

A task is data and pure functions, whatever framework the model came from. The settings of a task are read from two
signatures: those of the function that builds it (`int`, `bool`, `str`: static) and those of its loss (`float`: traced,
one value a member).

To ship a task, write a builder and add a row to `TASKS`. A task of your own needs no row: name it
`package.module:function` or `path/to/file.py:function` in the config, or pass the `Task` to `vmaptune.tune`.
"""

from vmaptune.tasks.adapting import supervised
from vmaptune.tasks.contract import Judged, Loss, Measured, Metrics, Task, check_task, is_convolutional, is_recurrent, measured
from vmaptune.tasks.digits import digits
from vmaptune.tasks.finding import OF_FILES, TASKS, TaskBuilder, find_task
from vmaptune.tasks.functions import branin, hartmann6, minimised, rosenbrock
from vmaptune.tasks.images import arrays, digits_cnn, images
from vmaptune.tasks.linear_regression import expected_loss, linear_regression
from vmaptune.tasks.series import series
from vmaptune.tasks.supervised import classification, regression
from vmaptune.tasks.tables import breast_cancer, diabetes, table
from vmaptune.tasks.text import language_model, text

__all__ = [
    "OF_FILES",
    "TASKS",
    "Judged",
    "Loss",
    "Measured",
    "Metrics",
    "Task",
    "TaskBuilder",
    "arrays",
    "branin",
    "breast_cancer",
    "check_task",
    "classification",
    "diabetes",
    "digits",
    "digits_cnn",
    "expected_loss",
    "find_task",
    "hartmann6",
    "images",
    "is_convolutional",
    "is_recurrent",
    "language_model",
    "linear_regression",
    "measured",
    "minimised",
    "regression",
    "rosenbrock",
    "series",
    "supervised",
    "table",
    "text",
]
