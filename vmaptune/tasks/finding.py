"""Tasks by name: those that are shipped, and those of a user's own modules and files."""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.tasks.contract import Task
from vmaptune.tasks.digits import digits
from vmaptune.tasks.functions import branin, hartmann6, rosenbrock
from vmaptune.tasks.images import arrays, digits_cnn, images
from vmaptune.tasks.linear_regression import linear_regression
from vmaptune.tasks.series import series
from vmaptune.tasks.tables import breast_cancer, diabetes, table
from vmaptune.tasks.text import text

TaskBuilder = Callable[..., Task]

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
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise ConfigError(
            f"task.name: no task {name!r}{did_you_mean(name, TASKS)} (or give package.module:function, or file.py:function)"
        )
    try:
        module = _load_file(place) if place.endswith(".py") else None
        if module is None:
            if "" not in sys.path:
                sys.path.insert(0, "")  # as `python -m` does: a task of your own lies in the current folder
            return pkgutil.resolve_name(name)
        return getattr(module, attribute)
    except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
        raise ConfigError(f"task.name: cannot load {name!r}: {error}") from error
    except AttributeError:
        raise ConfigError(f"task.name: {place} has no function {attribute!r}") from None


def _load_file(path: str) -> Any:
    """Runs a Python file as a module, once a process, under a name that no other module has."""
    file = Path(path).resolve()
    name = f"_vmaptune_task_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # flax and dataclasses look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
