"""README.md is real: its generated blocks are what the program says, and its Python runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from vmaptune.analysis.catalogue import TABLES, catalogue
from vmaptune.toml import default_tree

ROOT = Path(__file__).parent.parent
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = ["help", "help-run", "tables", "config"]
EMPTY = "# Title\n\n" + "\n".join(f"Before {n}.\n\n<!-- begin: {n} -->\n<!-- end: {n} -->\n\nAfter {n}." for n in NAMES) + "\n"


def load_script():
    spec = importlib.util.spec_from_file_location("sync_readme", ROOT / "scripts" / "sync_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sync = load_script()


def python_blocks(text):
    """Source of every Python block, each at its own line so that a traceback names the line of the text."""
    return ["\n" * text.count("\n", 0, found.start(1)) + found[1] for found in PYTHON.finditer(text)]


def run_blocks(text, name):
    """Compiles and runs every Python block as a program of its own; returns their namespaces."""
    namespaces = []
    for source in python_blocks(text):
        namespaces.append({"__name__": "__main__"})
        exec(compile(source, name, "exec"), namespaces[-1])
    return namespaces


@pytest.fixture
def readme(tmp_path):
    """A README with every block, freshly generated."""
    path = tmp_path / "README.md"
    path.write_text(EMPTY)
    assert sync.main([], path) == 0
    return path


def body(text, name):
    return re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)[1]


def fenced(text, name, language):
    return re.fullmatch(rf"```{language}\n(.*)```\n", body(text, name), re.DOTALL)[1]


def test_the_readme_of_the_repository_is_in_step(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sync.main(["--check"]) == 0, capsys.readouterr().err
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text


def test_python_in_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(run_blocks(text, "README.md")) == len(re.findall(r"^ *`{3,} *(?:python|py)\b", text, re.MULTILINE))


def test_every_python_block_is_run_alone_and_from_its_line(tmp_path):
    text = "Text.\n\n```python\nx = 1\n```\n\n```bash\nnot python\n```\n\n```python\nname = __name__\ny = 2\n```\n"
    first, second = run_blocks(text, "text")
    assert first["x"] == 1
    assert (second["y"], second["name"], "x" in second) == (2, "__main__", False)
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks(text + "\n```python\n1 / 0\n```\n", "text")
    assert caught.traceback[-1].lineno + 1 == text.count("\n") + 3
    with pytest.raises(SyntaxError):
        run_blocks("```python\nx =\n```\n", "text")


def test_sync_fills_every_block_and_keeps_the_rest(readme):
    text = readme.read_text()
    assert re.sub(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", r"\1\3", text, flags=re.DOTALL) == EMPTY
    assert all(body(text, name) == sync.BLOCKS[name]() for name in NAMES)
    assert sync.main(["--check"], readme) == 0


def test_sync_twice_changes_nothing(readme, capsys):
    text = readme.read_text()
    capsys.readouterr()
    assert sync.main([], readme) == 0
    assert (readme.read_text(), capsys.readouterr().out) == (text, "")


@pytest.mark.parametrize("name", NAMES)
def test_check_names_a_stale_block_and_writes_nothing(readme, capsys, name):
    stale = readme.read_text().replace(f"<!-- end: {name} -->", f"one line too many\n<!-- end: {name} -->")
    readme.write_text(stale)
    assert sync.stale(stale) == [name]
    assert sync.main(["--check"], readme) == 1
    assert f"stale: {name};" in capsys.readouterr().err
    assert readme.read_text() == stale
    assert sync.main([], readme) == 0
    assert sync.stale(readme.read_text()) == []


def test_check_names_all_stale_blocks(tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text(EMPTY)
    assert sync.main(["--check"], path) == 1
    assert f"stale: {', '.join(NAMES)};" in capsys.readouterr().err
    assert path.read_text() == EMPTY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- begin: halp -->\n<!-- end: halp -->\n", "no block is named 'halp'"),
        ("<!-- begin: help -->\n", "block 'help' has no end"),
        ("<!-- end: help -->\n", "block 'help' ends without a beginning"),
        ("<!-- begin: help -->\n<!-- end: config -->\n", "block 'help' does not end"),
        (
            "<!-- begin: help -->\n<!-- begin: config -->\n<!-- end: config -->\n<!-- end: help -->\n",
            "block 'help' does not end",
        ),
        ("<!-- begin: help -->\n<!-- end: help -->\n<!-- begin: help -->\n", "block 'help' has no end"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_wrong_marker_is_an_error(tmp_path, capsys, text, says, arguments):
    path = tmp_path / "README.md"
    path.write_text(text)
    assert sync.main(arguments, path) == 2
    assert says in capsys.readouterr().err
    assert path.read_text() == text


def test_help_blocks_are_what_the_commands_print(readme):
    text = readme.read_text()
    assert fenced(text, "help", "text").startswith("Usage: vmaptune [OPTIONS] COMMAND [ARGS]...\n")
    assert fenced(text, "help-run", "text").startswith("Usage: vmaptune run [OPTIONS] [CONFIG]\n")
    assert "--out DIRECTORY" in fenced(text, "help-run", "text")
    widths = [len(line) for name in ("help", "help-run") for line in fenced(text, name, "text").splitlines()]
    assert 80 < max(widths) <= 100


def test_the_config_block_is_the_default(readme):
    assert tomllib.loads(fenced(readme.read_text(), "config", "toml")) == default_tree()


def test_the_table_has_a_row_for_every_name(readme):
    head, line, *rows = [row.strip("|").split(" | ") for row in body(readme.read_text(), "tables").splitlines()]
    assert [cell.strip() for cell in head] == ["table", "name", "meaning", "settings that may be an axis", "source"]
    assert len("".join(line).split("|")) == len(head)
    entries = [(table, entry) for table in TABLES for entry in catalogue(table)]
    assert len(rows) == len(entries)
    for cells, (table, entry) in zip(rows, entries, strict=True):
        first, name, meaning, axes, sources = (cell.strip() for cell in cells)
        assert (first, name, meaning) == (table, f"`{entry['name']}`", entry["meaning"].replace("|", r"\|"))
        assert re.findall(r"`(\w+)`", axes) == [s["name"] for s in entry["settings"] if s["axis"]]
        addresses = [address for source in entry["source"] for address in re.findall(r"https?://\S+", source)]
        assert re.findall(r"\]\((\S+)\)", sources) == addresses


@pytest.mark.parametrize(
    ("source", "markdown"),
    [
        ("A & B, Title, https://a.org/1", "[A & B, Title](https://a.org/1)"),
        ("A, Title, https://a.org/1 (warm-up)", "[A, Title](https://a.org/1) (warm-up)"),
        ("A, Title, ICML 2013", "A, Title, ICML 2013"),
    ],
)
def test_a_source_is_a_link_if_it_has_an_address(source, markdown):
    assert sync.link(source) == markdown
