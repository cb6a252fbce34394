"""What `mkdocs build` makes itself: the parts of the site that come from the program, and the checks that it holds all of them.

A line `<!-- fill: NAME -->` or `<!-- fill: NAME ARGUMENT -->` of a page is replaced:

    gallery, warmups      the schedule families, drawn by themselves
    table NAME            every row of a table that a config may use
    shared NAME           the settings that all rows of it have
    figures               the figures of the report, and how to read each
    commands              the help of every command
    readme TITLE          a section of README.md

Pages that are made as a whole: `reference/`, a page a room with every public name of it, and `measured/`, the READMEs of
experiments/. The build fails where a public name has no docstring or is on no page, and where a page would fetch something.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docs_gallery
import docs_names
import sync_readme
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
FILL = re.compile(r"^<!-- fill: (\w+)(?: (.*?))? -->$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
# What a reader's browser would get from elsewhere; a plain link is the reader's own step.
FETCHES = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?(?:https?:)?//|"""
    r"""<link\b(?![^>]*rel=["']?(?:canonical|prev|next))[^>]*\bhref=["']?(?:https?:)?//|"""
    r"""@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//"""
)


def fill(text: str, page: str = "index.md") -> str:
    """A page's text with its marked lines replaced.

    Raises:
        PluginError: A mark names nothing.
    """

    def one(found: re.Match[str]) -> str:
        name, argument = found.groups()
        if name not in FILLS:
            raise PluginError(f"{page}: nothing is called {name!r} that could be filled in; known: {', '.join(FILLS)}")
        return FILLS[name](*[argument] * (argument is not None)).rstrip()

    return FILL.sub(one, text)


def table(name: str) -> str:
    """Every row of a table: what it means, its own settings and where it comes from."""
    from vmaptune.analysis.catalogue import catalogue

    rows = catalogue(name)
    shared = set.intersection(*({s["name"] for s in row["settings"]} for row in rows)) if name == "optimizers" else set()
    lines = ["| name | meaning | settings of its own | source |", "|---|---|---|---|"]
    for row in rows:
        own = ", ".join(f"`{s['name']}`" for s in row["settings"] if s["name"] not in shared)
        cells = (f"`{row['name']}`", row["meaning"], own, docs_gallery.cited(" ".join(row["source"])))
        lines.append(f"| {' | '.join(map(sync_readme.cell, cells))} |")
    return "\n".join(lines)


def shared(name: str) -> str:
    """The settings that every row of a table has."""
    from vmaptune.analysis.catalogue import catalogue

    rows = catalogue(name)
    names = set.intersection(*({s["name"] for s in row["settings"]} for row in rows))
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for s in rows[0]["settings"]:
        if s["name"] in names:
            cells = (f"`{s['name']}`", s["type"], f"`{s['default']}`", s["meaning"])
            lines.append(f"| {' | '.join(map(sync_readme.cell, cells))} |")
    return "\n".join(lines)


def figures() -> str:
    """The figures of the report, and how to read each."""
    from vmaptune.report.figures import FIGURES

    return "\n".join(["| figure | how to read it |", "|---|---|", *(f"| {f.title} | {f.caption} |" for f in FIGURES.values())])


def commands() -> str:
    """The help of every command, as it prints it."""
    from vmaptune.cli.main import main

    names = main.list_commands(sync_readme.click.Context(main))
    parts = [sync_readme.help_block()] + [f"## vmaptune {name}\n\n{sync_readme.help_block(name)}" for name in names]
    return "\n".join(parts)


def readme(title: str) -> str:
    """A section of README.md, without its heading and its marks.

    Raises:
        PluginError: It has no such section.
    """
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    if not found:
        raise PluginError(f"README.md has no section {title!r}, which the site shows")
    text = re.sub(r"^<!-- (?:begin|end): .*? -->\n", "", found[1], flags=re.MULTILINE)
    return relinked(
        text.strip(), lambda target: _measured(target.removeprefix("experiments/")) if "experiments/" in target else None
    )


FILLS: dict[str, Callable[..., str]] = {
    "gallery": docs_gallery.gallery,
    "warmups": docs_gallery.warmups,
    "table": table,
    "shared": shared,
    "figures": figures,
    "commands": commands,
    "readme": readme,
}


def relinked(text: str, target_of: Callable[[str], str | None]) -> str:
    """Text whose relative links go where `target_of` says; those that go nowhere on the site become plain text."""

    def one(found: re.Match[str]) -> str:
        image, label, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        new = target_of(target)
        return f"{image}[{label}]({new})" if new else label

    return LINK.sub(one, text)


def _measured(target: str) -> str | None:
    """`peers/README.md`, as seen from README.md's folder of experiments, as a page seen from the top of the site."""
    found = re.fullmatch(r"(\w+)/(?:README\.md)?", target)
    return f"measured/{found[1]}.md" if found else None


@functools.cache
def experiments() -> dict[str, Path]:
    """Every experiment's README, by the name of its folder."""
    return {path.parent.name: path for path in sorted((ROOT / "experiments").glob("*/README.md"))}


def experiment(name: str) -> tuple[str, dict[str, Path]]:
    """The page of an experiment, and the files beside it that it links to, by their place on the site."""
    folder, files = experiments()[name].parent, {}

    def target_of(target: str) -> str | None:
        path = (folder / target).resolve()
        if path.name == "README.md" and path.parent.name in experiments():
            return f"{path.parent.name}.md"
        if path.is_file() and path.parent == folder:
            files[f"measured/{name}/{path.name}"] = path
            return f"{name}/{path.name}"
        return None

    return relinked(experiments()[name].read_text(encoding="utf-8"), target_of), files


def pages() -> dict[str, str | Path]:
    """All that is made as a whole: place below docs/ to its text, or to the file that is copied."""
    made: dict[str, str | Path] = {f"reference/{name}.md": docs_names.page(room) for name, room in docs_names.rooms().items()}
    titles = {}
    for name in experiments():
        text, files = experiment(name)
        made |= {f"measured/{name}.md": text, **files}
        titles[name] = text.partition("\n")[0].removeprefix("# ")
    listed = "".join(f"- [{title}]({name}.md)\n" for name, title in titles.items())
    made["measured/index.md"] = (
        "# Measured\n\nWhat these pages say of speed and quality was measured: here are the reports, each with its question, "
        f"method, n, spread and test. The raw numbers lie beside them under `experiments/`.\n\n{listed}"
    )
    return made


def on_config(config: Any) -> None:
    """Refuses what is undocumented, and adds the made pages to the navigation."""
    if config.strict and not logging.getLogger("mkdocs").isEnabledFor(logging.WARNING):
        raise PluginError("--quiet: MkDocs counts only the warnings that it prints, so --strict would let all of them pass")
    if missing := docs_names.undocumented():
        raise PluginError(f"public names without a docstring: {', '.join(missing)}")
    reference = [{room: f"reference/{name}.md"} for name, room in docs_names.rooms().items()]
    measured = [{"All": "measured/index.md"}, *({name.replace("_", " "): f"measured/{name}.md"} for name in experiments())]
    config.nav = [*config.nav, {"Reference": reference}, {"Measured": measured}]


def on_files(files: Any, config: Any) -> Any:
    """Adds the made pages."""
    for place, made in pages().items():
        kind = {"abs_src_path": str(made)} if isinstance(made, Path) else {"content": made}
        files.append(File.generated(config, place, **kind))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills in the marked lines."""
    return fill(markdown, page.file.src_uri)


def on_post_build(config: Any) -> None:
    """Refuses a site that lacks a public name, or that fetches something from elsewhere."""
    from mkdocstrings import Inventory

    site = Path(config.site_dir)
    with (site / "objects.inv").open("rb") as file:
        found = set(Inventory.parse_sphinx(file))
    if missing := [name for name in docs_names.public() if name not in found]:
        raise PluginError(f"public names on no page of the reference: {', '.join(missing)}")
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        if fetched := FETCHES.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.relative_to(site)}: fetches something from elsewhere: {fetched[0]}")
