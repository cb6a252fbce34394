"""The public names of vmaptune, where the site documents them, and which have no docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import vmaptune

_OWN = ("vmaptune",)  # whose classes are to be documented
_OTHER_ROOMS = ("stoppers", "proposers", "sinks")  # not names of `vmaptune`, but what a method of one's own is written with


def rooms() -> dict[str, str]:
    """Page to module: the package, and every room that shows public names."""
    return {"index": "vmaptune"} | {room: f"vmaptune.{room}" for room in (*vmaptune._ROOMS, *_OTHER_ROOMS)}


def names(room: str) -> list[str]:
    """The public names of a room, without submodules, the version, and what the package itself already names."""
    module = importlib.import_module(room)
    package = [] if module is vmaptune else [getattr(vmaptune, name) for name in vmaptune.__all__]
    found = {name: getattr(module, name) for name in module.__all__}
    return [
        name
        for name, value in found.items()
        if not isinstance(value, ModuleType) and name != "__version__" and not any(value is known for known in package)
    ]


def elsewhere(room: str) -> list[str]:
    """The names of a room that the package names too."""
    return [name for name in importlib.import_module(room).__all__ if room != "vmaptune" and name not in names(room)]


def public() -> list[str]:
    """Every public name, dotted."""
    return [f"{room}.{name}" for room in rooms().values() for name in names(room)]


def page(room: str) -> str:
    """The reference page of a room: its docstring, and every public name."""
    parts = [
        f"# {room}\n",
        f"::: {room}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}\n",
    ]
    if shared := elsewhere(room):
        links = ", ".join(f"[`{name}`](index.md#vmaptune.{name})" for name in shared)
        parts.append(f"In the package itself: {links}.\n")
    ordered = sorted(names(room), key=lambda name: _rank(getattr(importlib.import_module(room), name)))
    parts += [f"::: {room}.{name}\n    options: {{heading_level: 2}}\n" for name in ordered]
    return "\n".join(parts)


def _rank(value: Any) -> int:
    """Functions, classes, constants, and errors last."""
    if inspect.isclass(value):
        return 3 if issubclass(value, BaseException) else 1
    return 0 if inspect.isroutine(value) else 2


def undocumented(modules: list[str] | None = None) -> list[str]:
    """Public names, and public methods and properties of public classes, that have no docstring of their own."""
    found = []
    for room in modules or list(rooms().values()):
        module = importlib.import_module(room)
        found += [room] * (not module.__doc__)
        for name in names(room):
            value = getattr(module, name)
            if not _documented(module, name, value):
                found.append(f"{room}.{name}")
            if inspect.isclass(value):
                found += [f"{room}.{name}.{member}" for member in _bare_members(value)]
    return found


def _documented(module: ModuleType, name: str, value: Any) -> bool:
    if inspect.isclass(value) or inspect.isroutine(value):
        written = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
        return bool(written) and not written.startswith(f"{name}(")  # what dataclasses and named tuples write themselves
    return name in constants(_home(module, name))


def _home(module: ModuleType, name: str) -> ModuleType:
    """Where a constant is assigned: its room, or the module that the room imports it from."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module and any((a.asname or a.name) == name for a in node.names):
            return _home(importlib.import_module(node.module), name)
    return module


def constants(module: ModuleType) -> set[str]:
    """Names assigned at the top of a module with a docstring below."""
    body = ast.parse(inspect.getsource(module)).body
    documented = set()
    for node, after in itertools.pairwise(body):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            documented |= {target.id for target in targets if isinstance(target, ast.Name)}
    return documented


def _bare_members(kind: type) -> Iterator[str]:
    """Methods and properties that a class of our own defines without saying what they do."""
    if kind.__module__.partition(".")[0] not in _OWN:
        return
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        own = inspect.isfunction(function) and function.__module__ == kind.__module__
        if own and not name.startswith("_") and not function.__doc__:
            yield name
