"""What the command line says of itself: help with examples that parse, and completion in the shell."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from vmaptune.cli.main import main

COMMANDS = main.list_commands(click.Context(main))


def calls(line: str) -> list[list[str]]:
    """Words after `vmaptune` of each of the commands in a line of the shell."""
    commands = [shlex.split(part, comments=True) for part in re.split(r" && | \| ", line.strip())]
    commands = [words[1:] if words[:1] == ["srun"] else words for words in commands]
    return [words[1:] for words in commands if words[:1] == ["vmaptune"]]


def parse(words: list[str]) -> None:
    """Raises click's error if a command does not take these words; runs nothing."""
    parent = click.Context(
        main, info_name="vmaptune", **main.context_settings
    )  # a command keeps the help option that it saw first
    name, command, rest = main.resolve_command(parent, list(words))
    with command.make_context(name, rest, parent=parent):
        pass


def examples(command: click.Command) -> list[list[str]]:
    """The example block of a command's help: the lines of its last paragraph that is kept as it is."""
    block = re.findall(r"^ *\x08\n((?: *vmaptune .*\n?)+)", command.help or "", re.MULTILINE)
    return [words for line in "".join(block).splitlines() for words in calls(line.strip().partition("   ")[0])]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_a_summary_a_paragraph_and_examples_that_parse(name):
    command = main.get_command(click.Context(main), name)
    summary, paragraph, *_ = command.help.split("\n\n")
    assert len(command.get_short_help_str(limit=85)) <= 85
    assert not command.get_short_help_str(limit=85).endswith("...")
    assert summary.strip().endswith(".")
    assert not paragraph.lstrip().startswith("\x08")
    found = examples(command)
    assert found
    assert any(words[0] == name for words in found)
    for words in found:
        parse(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    for option in main.get_command(click.Context(main), name).params:
        if isinstance(option, click.Option):
            assert option.help
            assert option.help.rstrip(")").endswith((".", ")")), option.name


def test_the_main_help_has_examples_and_exit_codes():
    found = examples(main)
    assert len(found) >= 3
    for words in found:
        parse(words)
    assert re.search(r"Exit codes: 0 .*; 1 .*; 2 .*; 130 and 143", " ".join(main.help.split()))


# Completion -------------------------------------------------------------------------------------------------------------------


def completed(words: list[str], incomplete: str) -> list[str]:
    complete = BashComplete(main, {}, "vmaptune", "_VMAPTUNE_COMPLETE")
    return [f"{item.type}:{item.value}" for item in complete.get_completions(words, incomplete)]


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete, FishComplete])
def test_completion_scripts_are_made(shell):
    source = shell(main, {}, "vmaptune", "_VMAPTUNE_COMPLETE").func_name
    assert source == "_vmaptune_completion"
    text = shell(main, {}, "vmaptune", "_VMAPTUNE_COMPLETE").source()
    assert "_VMAPTUNE_COMPLETE=" in text
    assert f"{shell.name}_complete" in text


def test_commands_options_and_folders_are_completed():
    assert completed([], "sch") == ["plain:schedules"]
    assert "plain:--lineage" in completed(["show"], "--li")
    assert completed(["show"], "ru") == ["dir:ru"]
    assert completed(["run"], "my") == ["file:my"]
    assert completed(["list"], "opt") == ["plain:optimizers"]


def test_settings_are_completed_from_the_config(tmp_path):
    assert completed(["run", "--set"], "optimizer.le") == ["plain:optimizer.learning_rate"]
    assert completed(["run", "--set"], "population.s") == ["plain:population.size", "plain:population.segment_steps"]
    path = tmp_path / "my.toml"
    path.write_text("[optimizer]\nb1 = { choices = [0.9, 0.95] }\n[search.stop]\nname = 'asha'\n")
    assert completed(["run", str(path), "--set"], "") == ["plain:optimizer.b1", "plain:search.stop.name"]
    path.write_text("not toml")
    assert completed(["run", str(path), "--set"], "") == []
    assert completed(["run", str(tmp_path / "none.toml"), "--set"], "") == []
