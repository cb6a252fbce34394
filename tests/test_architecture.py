"""The order of rooms: who may import whom, what the core never touches, and what every file owes its reader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmaptune

HOME = Path(vmaptune.__file__).parent
MODULES = {
    ".".join(("vmaptune", *path.relative_to(HOME).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(HOME.rglob("*.py"))
}
# Top to bottom: a room imports only rooms above it, and itself.
ORDER = [
    "errors",
    "strict_json",
    "lookup",
    "settings",
    "space",
    "schedules",
    "anneal",
    "optimizers",
    "hashing",
    "data",
    "models",
    "lowering",
    "tasks",
    "finetuning",
    "precision",
    "plateau",
    "recipe",
    "distributed",
    "plan",
    "population",
    "champion",
    "programs",
    "train",
    "feed",
    "proposers",
    "stoppers",
    "selectors",
    "choices",
    "sections",
    "config",
    "toml",
    "suggest",
    "cache",
    "planner",
    "store",
    "sinks",
    "spread",
    "winner",
    "result",
    "generation",
    "search",
    "pace",
    "opening",
    "loop",
    "cohorts",
    "studies",
    "bench",
    "analysis",
    "report",
    "dashboard",
    "cli",
]
CLOSED_TO = {  # closer than the order
    "store": set(ORDER) - {"errors", "store"},
    "analysis": {"loop", "opening", "generation", "studies", "bench"},
    "report": set(ORDER) - {"errors", "strict_json", "store", "analysis", "report"},
    "dashboard": set(ORDER) - {"errors", "strict_json", "store", "analysis", "report", "dashboard"},
}
DOORS = ("vmaptune", "vmaptune.__main__")  # no rooms: the lazy list of public names, and `python -m vmaptune`

CORE = set(ORDER[1 : ORDER.index("config")]) - {"data"}
NOT_IN_CORE = {"click", "json", "sqlite3", "rich", "pathlib", "time"}
BUT = {("vmaptune.lookup", "pathlib"), ("vmaptune.programs", "time")}

JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
LATE = {"vmaptune.cli.progress", "vmaptune.cli.study"}  # imported by commands once they run, so numpy is there already
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def room(module: str) -> str:
    return module.split(".")[1]


def absolute(node: ast.ImportFrom, module: str) -> str:
    """The module that a `from` names, relative ones made absolute."""
    if not node.level:
        return node.module or ""
    package = module if module in MODULES and MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def imported(nodes: Iterator[ast.AST], module: str) -> list[str]:
    """Full names of what import statements import; `from a import b` is `a.b` if that is a module of the package."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module)
            names += [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES or base == "vmaptune" else base for a in node.names]
    return names


def at_top(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run when a module is imported: not those of functions, nor those for type checkers alone."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_top(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from at_top(getattr(node, field, None) or [])
        for handler in getattr(node, "handlers", []):
            yield from at_top(handler.body)


def wrong_order(module: str, tree: ast.Module) -> list[str]:
    """Imports of a module, anywhere in it, that the order of rooms does not allow."""
    if module in DOORS:
        return []
    if room(module) not in ORDER:
        return [f"{module}: a new room; give it a place in ORDER"]
    above = ORDER[: ORDER.index(room(module)) + 1]
    wrong = []
    for name in imported(ast.walk(tree), module):
        if name in ("vmaptune.__version__", "__future__") or name.split(".")[0] != "vmaptune":
            continue
        if name == "vmaptune" or room(name) not in ORDER:
            wrong.append(f"{module}: imports {name}, not a room; import from the file that defines it")
        elif room(name) not in above:
            wrong.append(f"{module}: imports {name}, which stands below it")
        elif room(name) in CLOSED_TO.get(room(module), ()):
            wrong.append(f"{module}: imports {name}, which is closed to {room(module)}")
    return wrong


def loads(module: str, tree: ast.Module | None = None, seen: set[str] | None = None) -> set[str]:
    """Top-level names of all that importing a module imports, parent packages and their imports included."""
    seen = {module} if seen is None else seen
    found = set()
    parents = [module.rsplit(".", i)[0] for i in range(1, module.count(".") + 1)]
    for name in [*parents, *imported(at_top((tree or parse(module)).body), module)]:
        known = name if name in MODULES else name.rpartition(".")[0]
        if known in MODULES:
            if known not in seen:
                seen.add(known)
                found |= {known} | loads(known, seen=seen)
        else:
            found.add(name.split(".")[0])
    return found


def heavy(module: str, tree: ast.Module | None = None) -> set[str]:
    """What a module of the command line may not import at its top."""
    return loads(module, tree) & (JAX | (set() if module in LATE else {"numpy"} | LATE))


def outside_core(module: str, tree: ast.Module) -> list[str]:
    """Imports at the top of a module of the core that belong to its rim."""
    names = {name.split(".")[0] for name in imported(at_top(tree.body), module)} & NOT_IN_CORE
    return [f"{module}: imports {name}" for name in sorted(names) if (module, name) not in BUT]


def forbidden(module: str, tree: ast.Module) -> list[str]:
    """Statements that have no place in the package."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            wrong.append("assert")
        elif isinstance(node, ast.Name) and node.id in ("eval", "exec"):
            wrong.append(node.id)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            wrong.append("allow_pickle")
    wrong += [n for n in imported(ast.walk(tree), module) if n.split(".")[0] in FORBIDDEN_MODULES]
    return [f"{module}: {what}" for what in wrong]


def undocumented(module: str, tree: ast.Module) -> list[str]:
    """The module itself and its public functions, classes and methods, where they have no docstring."""

    def within(node: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                if not ast.get_docstring(child):
                    yield f"{name}.{child.name}: no docstring"
                if isinstance(child, ast.ClassDef):
                    yield from within(child, f"{name}.{child.name}")

    return ([] if ast.get_docstring(tree) else [f"{module}: no docstring"]) + list(within(tree, module))


core = [m for m in MODULES if m not in DOORS and room(m) in CORE]
cli = [m for m in MODULES if m not in DOORS and room(m) == "cli"]
readers = [m for m in MODULES if m not in DOORS and room(m) in ("sinks", "report", "dashboard")]


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_what_stands_above(module):
    assert wrong_order(module, parse(module)) == []


def test_every_room_in_the_order_exists():
    assert [name for name in ORDER if f"vmaptune.{name}" not in MODULES] == []


@pytest.mark.parametrize("module", core)
def test_core_knows_no_files_clocks_or_screens(module):
    assert outside_core(module, parse(module)) == []


@pytest.mark.parametrize("module", cli)
def test_command_line_imports_no_jax_at_its_top(module):
    assert heavy(module) == set()


@pytest.mark.parametrize("module", readers)
def test_who_reads_a_run_needs_no_jax(module):
    assert loads(module) & JAX == set()


def test_public_names_import_nothing_heavy():
    assert loads("vmaptune") <= {"__future__", "importlib", "typing"}


@pytest.mark.parametrize("module", MODULES)
def test_module_fits_on_400_lines(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES)
def test_no_assert_eval_exec_or_pickle(module):
    assert forbidden(module, parse(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module):
    assert undocumented(module, parse(module)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vmaptune.space", "from vmaptune.train import make_segment"),
        ("vmaptune.space", "import vmaptune.train"),
        ("vmaptune.space", "from vmaptune import train"),
        ("vmaptune.space", "from . import train"),
        ("vmaptune.space", "from .train import make_segment"),
        ("vmaptune.space", "def f():\n    from vmaptune.train import make_segment"),
        ("vmaptune.space", "if TYPE_CHECKING:\n    from vmaptune.train import make_segment"),
        ("vmaptune.selectors.random", "from ..config import RunConfig"),
        ("vmaptune.loop", "from vmaptune import Task"),
        ("vmaptune.loop", "import vmaptune"),
        ("vmaptune.store.history", "from vmaptune.space import Axis"),
        ("vmaptune.analysis.runs", "from vmaptune.loop import tune"),
        ("vmaptune.analysis.runs", "def f():\n    from vmaptune.generation import advance"),
        ("vmaptune.attic", "import math"),
    ],
)
def test_a_wrong_import_is_found(module, source):
    assert len(wrong_order(module, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vmaptune.train", "from vmaptune.space import Axis\nfrom vmaptune import models\nfrom .plan import Plan\nimport jax"),
        ("vmaptune.store.history", "from vmaptune.errors import StoreError\nfrom .record import Record\nimport sqlite3"),
        ("vmaptune.selectors", "from vmaptune.selectors.random import random\nfrom . import truncation"),
        ("vmaptune.cli.main", "from vmaptune import __version__"),
        ("vmaptune.__main__", "from vmaptune.cli.main import main"),
    ],
)
def test_a_right_import_is_let_through(module, source):
    assert wrong_order(module, ast.parse(source)) == []


def test_a_new_room_is_told_where_to_go():
    assert wrong_order("vmaptune.attic", ast.parse("")) == ["vmaptune.attic: a new room; give it a place in ORDER"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import jax", {"jax"}),
        ("import numpy as np", {"numpy"}),
        ("try:\n    import jax.numpy\nexcept ImportError:\n    import optax", {"jax", "optax"}),
        ("class A:\n    import flax", {"flax"}),
        ("from vmaptune.errors import ConfigError\nimport click", set()),
        ("def f():\n    import jax", set()),
        ("if TYPE_CHECKING:\n    import jax", set()),
        ("from vmaptune.cli import progress", {"vmaptune.cli.progress", "numpy"}),
    ],
)
def test_a_heavy_import_is_found(source, found):
    assert heavy("vmaptune.cli.show", ast.parse(source)) == found


@pytest.mark.parametrize("name", ["plan", "config", "loop", "store.checkpoints", "analysis.catalogue"])
def test_a_heavy_import_is_found_through_another_module(name):
    assert "jax" in heavy("vmaptune.cli.show", ast.parse(f"from vmaptune.{name} import anything"))


@pytest.mark.parametrize("name", ["click", "json", "sqlite3", "rich.console", "pathlib", "time"])
def test_an_import_from_the_rim_is_found(name):
    assert len(outside_core("vmaptune.space", ast.parse(f"import {name}"))) == 1


@pytest.mark.parametrize(
    "source",
    ["assert True", "eval('1')", "exec('1')", "import pickle", "from pickle import loads", "numpy.load(f, allow_pickle=True)"],
)
def test_a_forbidden_statement_is_found(source):
    assert len(forbidden("vmaptune.space", ast.parse(source))) == 1


def test_a_missing_docstring_is_found():
    source = '"""A module."""\ndef f(): pass\nclass C:\n    """A class."""\n    def m(self): pass\n    def _p(self): pass\n'
    assert undocumented("m", ast.parse(source)) == ["m.f: no docstring", "m.C.m: no docstring"]
    assert undocumented("m", ast.parse("")) == ["m: no docstring"]
