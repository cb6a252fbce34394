"""The site in docs/: its code runs, its commands parse, its reference is complete, and its build refuses what it should."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_docs import python_blocks
from tests.test_help import calls, parse
from vmaptune.cli.main import main
from vmaptune.schedules import SCHEDULES, bare
from vmaptune.settings import settings
from vmaptune.toml import load_config

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
TEXTS = {page.relative_to(ROOT / "docs").as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS = main.list_commands(click.Context(main))


def blocks(text: str, *languages: str) -> list[str]:
    """Bodies of the fenced blocks of these languages."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def script(name: str):
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def command_lines(text: str) -> list[list[str]]:
    """Words after `vmaptune` of every line of a shell block, and of every whole command in backticks."""
    lines = [line for body in blocks(text, "sh", "bash", "") for line in body.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(vmaptune [a-z-]+ [^`]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return [words for line in lines for words in calls(line)]


# Code in the pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the pages' code has run, in the order of the navigation: the quick start makes runs/first there."""
    folder = tmp_path_factory.mktemp("site")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name in ("index.md", "scripting.md", "winners.md", "history.md", *sorted(TEXTS)):
            if (marker := folder / f"{name.replace('/', '-')}.ran").exists():
                continue
            namespace = {"__name__": "__main__"}
            for source in python_blocks(TEXTS[name]):
                exec(compile(source, f"docs/{name}", "exec"), namespace)
            marker.touch()
    finally:
        os.chdir(before)
    return folder


def test_python_in_the_pages_runs(workplace):
    assert len(list(workplace.glob("*.ran"))) == len(TEXTS)
    assert (workplace / "runs" / "first" / "history.db").is_file()


def test_sql_in_the_pages_gives_rows(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    queries = [body for text in TEXTS.values() for body in blocks(text, "sql")]
    assert len(queries) >= 5
    for query in queries:
        with closing(sqlite3.connect("runs/first/history.db")) as db:
            *before, last = [statement for statement in query.split(";") if statement.strip()]
            for statement in before:
                db.execute(statement)
            assert db.execute(last).fetchall(), query


def test_the_schema_page_names_every_table_and_column(workplace):
    text = TEXTS["history.md"]
    with closing(sqlite3.connect(workplace / "runs/first/history.db")) as db:
        tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            row = re.search(rf"^\| `{table}` \|.*$", text, re.MULTILINE)[0]
            columns = [column[1] for column in db.execute(f"pragma table_info({table})")]
            assert [c for c in columns if "." not in c and f"`{c}`" not in row] == []
            assert set(re.findall(r"`(\w+)`", row)) - {table} <= set(columns)


def test_toml_in_the_pages_is_a_config(tmp_path):
    found = [body for text in TEXTS.values() for body in blocks(text, "toml")]
    assert len(found) >= 3
    for i, body in enumerate(found):
        path = tmp_path / f"{i}.toml"
        path.write_text(body)
        load_config(path)


# Commands ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TEXTS, "README.md", "CONTRIBUTING.md"])
def test_commands_in_the_pages_exist_and_take_these_options(name):
    for words in command_lines(TEXTS.get(name) or (ROOT / name).read_text(encoding="utf-8")):
        parse(words)


def test_a_wrong_command_line_would_be_seen():
    text = "```sh\nvmaptune run --sed 1  # comment\nsrun vmaptune runn\n```\nand `vmaptune show --jsn`.\n"
    assert command_lines(text) == [["run", "--sed", "1"], ["runn"], ["show", "--jsn"]]
    for words in command_lines(text):
        with pytest.raises(click.UsageError):
            parse(words)


# What the build makes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names():
    return script("docs_names")


@pytest.fixture(scope="module")
def gallery():
    return script("docs_gallery")


def test_every_public_name_has_a_docstring(names):
    assert names.undocumented() == []


def test_a_name_without_a_docstring_is_seen(names, tmp_path, monkeypatch):
    source = '''"""A room."""
import typing
__all__ = ["Bare", "Pair", "bare", "documented", "number", "other"]
class Bare:
    """Says so."""
    def method(self): ...
    def told(self):
        """Says so."""
class Pair(typing.NamedTuple):
    a: int
def bare(): ...
def documented():
    """Says so."""
number = 1
other = 2
"""Says so."""
'''
    (tmp_path / "undocumented_room.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    room = "undocumented_room"
    assert names.undocumented([room]) == [f"{room}.{name}" for name in ("Pair", "bare", "number")]
    monkeypatch.setattr(names, "_OWN", (room,))
    assert f"{room}.Bare.method" in names.undocumented([room])


def test_the_reference_holds_every_public_name_once_and_no_other(names):
    import vmaptune

    shown = [name for room in names.rooms().values() for name in re.findall(r"^::: (\S+)", names.page(room), re.MULTILINE)]
    assert len(shown) == len(set(shown))
    assert set(shown) == {*names.rooms().values(), *names.public()}
    objects = {id(script_value(name)) for name in names.public()}
    for room in names.rooms().values():
        module = importlib.import_module(room)
        for name in module.__all__:
            value = getattr(module, name)
            assert (
                id(value) in objects or name == "__version__" or value in map(importlib.import_module, names.rooms().values())
            )
    assert set(vmaptune.__all__) - {"__version__", *vmaptune._ROOMS} == {
        name.removeprefix("vmaptune.") for name in names.public() if name.count(".") == 1
    }


def script_value(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_every_setting_of_every_family_is_drawn_by_the_family(gallery):
    for family in SCHEDULES.values():
        drawn = gallery.panels(family) if family is SCHEDULES["wsd"] else None
        for setting in settings(bare(family)).values():
            assert len(set(map(str, gallery.values(setting)))) >= 2
        if drawn:
            assert [name for name, _ in drawn] == list(settings(bare(family)))
    (_, curves), *_ = gallery.panels(SCHEDULES["exponential"])
    for text, y in curves:
        np.testing.assert_allclose(y, float(text) ** gallery.PROGRESS.astype(float), rtol=1e-5)


def test_a_picture_has_the_pages_colours_and_fetches_nothing(gallery):
    drawn = gallery.panels(SCHEDULES["exponential"])
    svg = gallery.picture("a title", drawn)
    assert re.findall(r">([\d.]+)</text>", svg)[-gallery.VALUES :] == [text for text, _ in drawn[0][1]]
    assert "currentColor" in svg
    assert gallery.INK not in svg
    assert "<style" not in svg
    assert "\n\n" not in svg
    assert not re.search(r"(?:href|src)=[\"'](?!#)", svg)
    assert svg == gallery.picture("a title", drawn)


@pytest.fixture(scope="module")
def hooks():
    return script("docs_hooks")


def test_marks_are_filled_and_unknown_ones_refused(hooks):
    text = "Before.\n\n<!-- fill: readme Limits -->\n\nAfter.\n"
    filled = hooks.fill(text)
    assert filled.startswith("Before.\n\n- ")
    assert filled.endswith("\n\nAfter.\n")
    for wrong in ("<!-- fill: limits -->", "<!-- fill: readme Limit -->"):
        with pytest.raises(hooks.PluginError):
            hooks.fill(wrong)


def test_every_section_of_the_readme_that_a_page_shows_is_there(hooks):
    marks = [mark for text in TEXTS.values() for mark in re.findall(r"^<!-- fill: readme .*-->$", text, re.MULTILINE)]
    assert len(marks) >= 5
    for mark in marks:
        shown = hooks.fill(mark)
        assert len(shown) > 100
        assert not re.search(r"\]\((?![a-z]+:|#|measured/)", shown), mark


def test_help_of_every_command_is_on_the_page_of_commands(hooks):
    text = hooks.commands()
    assert re.findall(r"^## vmaptune (\S+)$", text, re.MULTILINE) == COMMANDS
    assert all(f"Usage: vmaptune {name}" in text for name in COMMANDS)


def test_links_between_reports_stay_on_the_site(hooks):
    text, files = hooks.experiment("lookahead")
    assert "](lookahead/config.toml)" in text
    assert files["measured/lookahead/config.toml"] == ROOT / "experiments/lookahead/config.toml"
    assert "](lookahead.md)" in hooks.experiment("refill")[0]
    made = hooks.pages()
    for name, page in made.items():
        if name.startswith("measured/") and isinstance(page, str):
            for target in re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", page):
                assert f"measured/{target}" in made


@pytest.mark.parametrize(
    ("html", "fetches"),
    [
        ('<script src="https://a.org/x.js"></script>', True),
        ('<script async src="//a.org/x.js"></script>', True),
        ('<link rel="stylesheet" href="https://a.org/x.css">', True),
        ('<img alt="x" src=http://a.org/x.png>', True),
        ("@import 'https://a.org/x.css'", True),
        ("body { background: url(https://a.org/x.png) }", True),
        ('<a href="https://a.org">a</a>', False),
        ('<script src="assets/x.js"></script>', False),
        ('<link rel="canonical" href="https://a.org/">', False),
        ('<svg xmlns="http://www.w3.org/2000/svg">', False),
    ],
)
def test_what_a_page_would_fetch_is_seen(hooks, html, fetches):
    assert bool(hooks.FETCHES.search(html)) is fetches


def test_a_site_that_lacks_a_name_or_fetches_something_is_refused(hooks, names, tmp_path):
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocstrings import Inventory

    config = MkDocsConfig()
    config.site_dir = str(tmp_path)

    def build(shown, html):
        inventory = Inventory(project="vmaptune", version="0")
        for name in shown:
            inventory.register(name=name, domain="py", role="function", uri="x.html")
        (tmp_path / "objects.inv").write_bytes(inventory.format_sphinx())
        (tmp_path / "page.html").write_text(html)
        hooks.on_post_build(config)

    build(names.public(), "<p>a page</p>")
    with pytest.raises(hooks.PluginError, match=r"on no page of the reference: vmaptune\.tune$"):
        build([name for name in names.public() if name != "vmaptune.tune"], "<p>a page</p>")
    with pytest.raises(hooks.PluginError, match=r"page\.html: fetches"):
        build(names.public(), '<script src="https://a.org/x.js"></script>')


def test_a_build_that_would_overlook_warnings_is_refused(hooks):
    from mkdocs.config.defaults import MkDocsConfig

    config, logger = MkDocsConfig(), logging.getLogger("mkdocs")
    config.strict, config.nav, before = True, [], logger.level
    try:
        logger.setLevel(logging.ERROR)
        with pytest.raises(hooks.PluginError, match=r"^--quiet"):
            hooks.on_config(config)
        logger.setLevel(logging.WARNING)
        hooks.on_config(config)
    finally:
        logger.setLevel(before)
    assert [name for entry in config.nav for name in entry] == ["Reference", "Measured"]


@given(st.text(alphabet="abc []()!.#/:", max_size=40))
def test_text_without_relative_links_is_left_alone(text):
    hooks = script("docs_hooks")
    assert hooks.relinked(text, lambda target: target) == text
