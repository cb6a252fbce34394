"""Tasks by name: those that are shipped, and those of a user's own modules and files."""

from __future__ import annotations

from collections.abc import Callable

from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.lookup import find_object
from vmaptune.tasks.contract import Task
from vmaptune.tasks.digits import digits
from vmaptune.tasks.functions import branin, hartmann6, rosenbrock
from vmaptune.tasks.images import arrays, digits_cnn, images
from vmaptune.tasks.linear_regression import linear_regression
from vmaptune.tasks.series import series
from vmaptune.tasks.tables import breast_cancer, diabetes, table
from vmaptune.tasks.text import text

TaskBuilder = Callable[..., Task]
"""`builder(*, settings) -> Task`: the `int`, `bool` and `str` settings of a task are its parameters."""

TASKS: dict[str, TaskBuilder] = {
    "digits": digits,
    "digits_cnn": digits_cnn,
    "breast_cancer": breast_cancer,
    "diabetes": diabetes,
    "table": table,
    "images": images,
    "arrays": arrays,
    "text": text,
    "series": series,
    "linear_regression": linear_regression,
    "branin": branin,
    "hartmann6": hartmann6,
    "rosenbrock": rosenbrock,
}
"""The names that `task.name` may take."""

OF_FILES = frozenset({"table", "images", "arrays", "text", "series"})
"""Those of data of your own; the data of the others are embedded or generated, and known to be what they should be."""


def find_task(name: str) -> TaskBuilder:
    """Finds the builder of a task by its name in a config.

    Args:
        name: A row of `TASKS`, `package.module:function` (the current folder is searched too), or
            `path/to/file.py:function`.

    Raises:
        ConfigError: There is no such row, module, file or function.
    """
    if name in TASKS:
        return TASKS[name]
    if ":" not in name:
        raise ConfigError(
            f"task.name: no task {name!r}{did_you_mean(name, TASKS)} (or give package.module:function, or file.py:function)"
        )
    return find_object(name, "task.name")
