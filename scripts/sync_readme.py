"""Generates the blocks of README.md that come from the program itself.

A block stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->`, each on a line of its own. Its names:

    help, help-run    output of `vmaptune --help` and `vmaptune run --help`
    tables            every name that a config may use
    config            the embedded default config

python scripts/sync_readme.py            rewrites README.md
python scripts/sync_readme.py --check    exits 1 and names the stale blocks; writes nothing
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import click

from vmaptune.cli.main import main as vmaptune

README = Path(__file__).parent.parent / "README.md"
MARKER = re.compile(r"^<!-- (begin|end): (.*?) -->\n?", re.MULTILINE)
SOURCE = re.compile(r"^(.*?),? *(https?://\S+)(.*)$")


def fence(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


def help_block(*path: str) -> str:
    command: click.Command = vmaptune
    context = click.Context(command, info_name="vmaptune", terminal_width=100, **command.context_settings)
    for name in path:
        command = vmaptune.get_command(context, name)
        context = click.Context(command, info_name=name, parent=context, **command.context_settings)
    return fence("text", command.get_help(context))


def link(source: str) -> str:
    """A source as Markdown: its title linked, if it holds an address."""
    found = SOURCE.match(source)
    return f"[{found[1]}]({found[2]}){found[3]}" if found else source


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def row(table: str, entry: dict[str, Any]) -> str:
    axes = ", ".join(f"`{s['name']}`" for s in entry["settings"] if s["axis"])
    cells = (table, f"`{entry['name']}`", entry["meaning"], axes, "; ".join(map(link, entry["source"])))
    return f"| {' | '.join(map(cell, cells))} |\n"


def tables_block() -> str:
    from vmaptune.analysis.catalogue import TABLES, catalogue

    head = "| table | name | meaning | settings that may be an axis | source |\n|---|---|---|---|---|\n"
    return head + "".join(row(table, entry) for table in TABLES for entry in catalogue(table))


def config_block() -> str:
    return fence("toml", resources.files("vmaptune").joinpath("default.toml").read_text(encoding="utf-8"))


BLOCKS: dict[str, Callable[[], str]] = {
    "help": help_block,
    "help-run": lambda: help_block("run"),
    "tables": tables_block,
    "config": config_block,
}


def find(text: str) -> list[tuple[str, int, int]]:
    """Name, begin and end of the body of every block.

    Raises:
        ValueError: A marker stands alone, or names no block.
    """
    found, opened = [], None
    for marker in MARKER.finditer(text):
        kind, name = marker.groups()
        if name not in BLOCKS:
            raise ValueError(f"no block is named {name!r}; known: {', '.join(BLOCKS)}")
        if kind == "begin" and opened is None:
            opened = (name, marker.end())
        elif kind == "end" and opened is not None and opened[0] == name:
            found.append((*opened, marker.start()))
            opened = None
        elif opened is not None:
            raise ValueError(f"block {opened[0]!r} does not end before {marker[0].strip()}")
        else:
            raise ValueError(f"block {name!r} ends without a beginning")
    if opened is not None:
        raise ValueError(f"block {opened[0]!r} has no end")
    return found


def stale(text: str) -> list[str]:
    """Names of the blocks that are not what the program says."""
    return [name for name, begin, end in find(text) if text[begin:end] != BLOCKS[name]()]


def synced(text: str) -> str:
    """The text with every block generated anew."""
    for name, begin, end in reversed(find(text)):
        text = text[:begin] + BLOCKS[name]() + text[end:]
    return text


def main(arguments: list[str] | None = None, readme: Path = README) -> int:
    parser = argparse.ArgumentParser(description="Generates the blocks of README.md that come from the program itself.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the stale blocks")
    check = parser.parse_args(arguments).check
    text = readme.read_text(encoding="utf-8")
    try:
        names = stale(text)
    except ValueError as error:
        print(f"{readme.name}: {error}", file=sys.stderr)
        return 2
    if check and names:
        print(f"{readme.name}: stale: {', '.join(names)}; run python scripts/sync_readme.py", file=sys.stderr)
        return 1
    if names:
        readme.write_text(synced(text), encoding="utf-8")
        print(f"{readme.name}: wrote {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
