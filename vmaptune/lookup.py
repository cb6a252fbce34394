"""A function or a class of a user's own, by name: `package.module:name`, or `path/to/file.py:name`."""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from typing import Any

from vmaptune.errors import ConfigError


def find_object(name: str, where: str) -> Any:
    """Imports what a name says.

    Args:
        name: `package.module:name` (the current folder is searched too), or `path/to/file.py:name`.
        where: What the name was given for, to begin an error with: `task.name`.

    Raises:
        ConfigError: There is no such module, file or name in it, or it cannot be imported.
    """
    place, _, attribute = name.rpartition(":")
    try:
        module = _load_file(place) if place.endswith(".py") else None
        if module is None:
            if "" not in sys.path:
                sys.path.insert(0, "")  # as `python -m` does: a task of your own lies in the current folder
            return pkgutil.resolve_name(name)
        return getattr(module, attribute)
    except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{where}: cannot load {name!r}: {error}") from error
    except AttributeError:
        raise ConfigError(f"{where}: {place} has no function {attribute!r}") from None


def _load_file(path: str) -> Any:
    """Runs a Python file as a module, once a process, under a name that no other module has."""
    file = Path(path).resolve()
    name = f"_vmaptune_file_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
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
