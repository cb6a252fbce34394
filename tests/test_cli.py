"""The command line as its users meet it: what is printed where, exit codes, and what a signal leaves behind."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest
import tomlkit
from click.testing import CliRunner

from tests.conftest import SMALL
from vmaptune.analysis.runs import list_runs
from vmaptune.cli.main import main
from vmaptune.loop import tune
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.schedules import SCHEDULES
from vmaptune.selectors import SELECTORS
from vmaptune.settings import settings
from vmaptune.sinks import SINKS
from vmaptune.stoppers import STOPPERS
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_events, read_history, read_run
from vmaptune.tasks import TASKS
from vmaptune.toml import load_config

COMMANDS = main.list_commands(None)
TABLES = {
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "tasks": TASKS,
    "selectors": SELECTORS,
    "stoppers": STOPPERS,
    "sinks": SINKS,
}
GENERATION = re.compile(
    r"generation +(\d+)/(\d+)  accuracy best \d\.\d{4}  median \d\.\d{4}  failed \d+  [\d,]+ member-steps/s(  \d+ s left)?"
)
MEMBERS, STEPS, GENERATIONS = (SMALL["population"][k] for k in ("size", "segment_steps", "generations"))


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


@contextmanager
def started(*arguments, cwd):
    """A real process, as a shell would start it; killed, if it lives, when the block ends."""
    command = [sys.executable, "-m", "vmaptune", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_process(*arguments, cwd):
    command = [sys.executable, "-m", "vmaptune", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def write_config(path, tree=SMALL):
    path.write_text(tomlkit.dumps(tree), encoding="utf-8")
    return path


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(text):
    """A printed table of two columns, as a dict."""
    found = (re.fullmatch(r"(\S+(?: \S+)*?) {2,}(.*?) *", line) for line in text.splitlines())
    return {row[1]: row[2] for row in found if row}


def without(facts, *keys):
    return {key: value for key, value in facts.items() if key not in keys}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a small config in it."""
    monkeypatch.chdir(tmp_path)
    return write_config(tmp_path / "small.toml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that `vmaptune run` has finished, and what it printed."""
    place = tmp_path_factory.mktemp("finished")
    config = write_config(place / "small.toml")
    return place / "first", call("run", config, "--out", place / "first")


@pytest.fixture(scope="module")
def finished_json(tmp_path_factory):
    """A run of the same config that printed JSON and no progress."""
    place = tmp_path_factory.mktemp("finished_json")
    config = write_config(place / "small.toml")
    return place / "first", call("run", config, "--out", place / "first", "--quiet", "--json")


# ---------------------------------------------------------------------------------------------------------------- help


def modules_after(*commands):
    """Which heavy packages a process has imported after some commands."""
    code = (
        "import sys\nfrom vmaptune.cli.main import main\n"
        f"for arguments in {[list(map(str, c)) for c in commands]!r}:\n"
        "    try:\n        main(arguments)\n    except SystemExit as end:\n        assert not end.code, (arguments, end.code)\n"
        "print(sorted({'jax', 'numpy', 'optax', 'flax', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy():
    assert modules_after(["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)) == set()


def test_a_command_that_computes_imports_jax():
    assert {"jax", "numpy"} <= modules_after(["list", "optimizers"])  # so the test above would see it


def test_reading_runs_does_not_wait_for_jax(finished):
    folder, _ = finished
    assert modules_after(["runs", folder.parent], ["show", folder]) == {"numpy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_on_a_line_of_its_own(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"^ +vmaptune {command}\b[^\n]*$", result.stdout, re.MULTILINE)
    assert "\\b" not in result.stdout
    assert max(line.count(f"vmaptune {command}") for line in result.stdout.splitlines()) == 1


def test_help_lists_every_command_and_two_ways_to_begin():
    result = call("--help")
    assert re.findall(r"^  ([\w-]+)  +\w", result.stdout.partition("Commands:")[2], re.MULTILINE) == COMMANDS
    assert re.search(r"^ +vmaptune run  +train 64 networks", result.stdout, re.MULTILINE)
    assert "\\b" not in result.stdout


@pytest.mark.parametrize("arguments", [("-h",), ("run", "-h")])
def test_short_help_is_help(arguments):
    assert call(*arguments).stdout == call(*arguments[:-1], "--help").stdout


@pytest.mark.parametrize(("given", "meant"), [("rum", "run"), ("ressume", "resume"), ("lst", "list")])
def test_an_unknown_command_suggests_one(given, meant):
    result = call(given)
    assert result.exit_code == 2
    assert f"No such command '{given}'; did you mean '{meant}'?" in result.stderr


# ------------------------------------------------------------------------------------------------- init, check, list


def test_init_writes_a_config_that_is_the_default(here):
    result = call("init", "mine.toml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "vmaptune run mine.toml" in result.stderr
    assert load_config("mine.toml")[0].tree == load_config()[0].tree
    assert call("check", "mine.toml").exit_code == 0


def test_init_explains_every_setting(here):
    lines = call("init", "-").stdout.splitlines()
    settings_at = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert len(settings_at) > 20
    assert [lines[i] for i in settings_at if not re.fullmatch(r"# .*\S.*", lines[i - 1])] == []


def test_init_on_stdout_is_the_file_it_would_write(here):
    call("init", "mine.toml")
    result = call("init", "-")
    assert result.exit_code == 0
    assert (result.stdout, result.stderr) == (Path("mine.toml").read_text(), "")
    assert not Path("-").exists()


def test_init_takes_settings(here):
    assert call("init", "sgd.toml", "--set", "optimizer.name=sgd", "--set", "seed=7").exit_code == 0
    written = tomllib.loads(Path("sgd.toml").read_text())
    assert (written["optimizer"]["name"], written["optimizer"]["momentum"], written["seed"]) == ("sgd", 0.9, 7)


def test_init_replaces_a_file_only_by_force(here):
    before = here.read_text()
    refused = call("init", here)
    assert (refused.exit_code, refused.stdout, here.read_text()) == (2, "", before)
    assert re.fullmatch(r"Error: .*small\.toml: .*--force.*\n", refused.stderr)
    assert call("init", here, "--force").exit_code == 0
    assert load_config(here)[0].tree == load_config()[0].tree


def test_check_prints_the_same_config_complete(here):
    result = call("check", here)
    assert (result.exit_code, result.stderr) == (0, "")
    Path("again.toml").write_text(result.stdout)
    resolved, _ = load_config(here)
    assert tomllib.loads(result.stdout) == resolved.tree
    assert load_config("again.toml")[0] == resolved
    most = f"at most {MEMBERS * STEPS * GENERATIONS:,} member-steps: {MEMBERS} trials of {STEPS * GENERATIONS} steps"
    assert f"# {most}, {MEMBERS} at a time\n" in result.stdout


def test_check_trains_nothing_and_leaves_nothing(here):
    before = files(here.parent)
    call("check", here)
    call("check", here, "--json")
    assert files(here.parent) == before


def test_check_json_holds_the_config_and_its_size(here):
    result = call("check", here, "--json", "--set", "optimizer.b1=0.5")
    facts = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    sizes = {
        "axes",
        "parameters_per_member",
        "population_bytes",
        "data_bytes",
        "examples",
        "member_steps",
        "trials",
        "horizon",
        "plan",
    }
    assert set(facts) == {"id", "config"} | sizes
    assert facts["config"]["optimizer"]["b1"] == 0.5
    assert facts["config"]["optimizer"]["clip_norm"] == "inf"
    assert set(facts["axes"]) == {"task.dropout", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.warmup"}
    assert facts["parameters_per_member"] == 64 * 8 + 8 + 8 * 10 + 10
    assert (facts["horizon"], facts["member_steps"]) == (STEPS * GENERATIONS, MEMBERS * STEPS * GENERATIONS)
    assert facts["population_bytes"] >= 3 * 4 * MEMBERS * facts["parameters_per_member"]  # weights and two moments of Adam
    assert sum(facts["examples"].values()) == 1797
    assert facts["id"] == load_config(here, ["optimizer.b1=0.5"])[0].run_id


def test_check_plan_times_the_candidates_once_and_prints_the_fastest_first(here, tmp_path, monkeypatch):
    monkeypatch.setenv("VMAPTUNE_CACHE", str(tmp_path / "cache"))
    size = 2 * jax.device_count()
    first = call("check", here, "--plan", "--set", f"population.size={size}")
    assert (first.exit_code, first.stderr) == (0, "")
    assert re.match(rf"{jax.device_count()} x cpu, [\d.]+ GiB of memory each; timed just now\n", first.stdout)
    times = [float(t) for t in re.findall(r"members?, \w+ +([\d.e+]+) ", first.stdout)]
    assert len(times) > 1
    assert times == sorted(times)
    assert [line for line in first.stdout.splitlines() if line.rstrip().endswith("chosen")] == [first.stdout.splitlines()[4]]
    again = call("check", here, "--plan", "--set", f"population.size={size}")
    assert again.stdout == first.stdout.replace("timed just now", "timed on this machine before")
    odd = call("check", here, "--plan", "--set", "population.size=3", "--set", "plan.devices=2", "--set", "plan.chunk=1")
    assert "by rule of thumb: there is nothing to choose from; 1 slots stay empty" in odd.stdout


def test_a_run_fills_the_cache_folder(here, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    environment["VMAPTUNE_CACHE"] = str(tmp_path / "cache")
    command = [sys.executable, "-m", "vmaptune", "run", str(here), "--out", str(tmp_path / "run"), "--quiet"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {path.parent.relative_to(tmp_path) for path in tmp_path.rglob("jit_*")} == {Path("cache/jax")}


@pytest.mark.parametrize("table", TABLES)
def test_list_names_every_row_and_setting(table):
    result = call("list", table)
    assert (result.exit_code, result.stderr) == (0, "")
    blocks = re.split(r"\n\n  (?=\S)", result.stdout)
    assert blocks[0].strip() == table
    assert [block.partition(":")[0] for block in blocks[1:]] == list(TABLES[table])
    for block, function in zip(blocks[1:], TABLES[table].values(), strict=True):
        for name, setting in settings(function).items():
            assert f"\n      {name}: {setting.type_name}, " in block


@pytest.mark.parametrize("table", TABLES)
def test_list_json_holds_what_the_code_declares(table):
    result = call("list", table, "--json")
    found = json.loads(result.stdout)
    assert list(found) == [table]
    assert [row["name"] for row in found[table]] == list(TABLES[table])
    for row, function in zip(found[table], TABLES[table].values(), strict=True):
        assert set(row) == {"name", "meaning", "source", "settings"}
        assert row["meaning"]
        declared = settings(function)
        if table == "tasks" and not any(setting.required for setting in declared.values()):
            declared |= settings(function().loss)  # of others, it depends on the data
        assert [s["name"] for s in row["settings"]] == list(declared)
        for s in row["settings"]:
            assert set(s) == {"name", "type", "default", "axis", "meaning"}
            assert s["type"] == declared[s["name"]].type_name
            assert s["axis"] == (table not in ("selectors", "stoppers", "sinks") and declared[s["name"]].traced)
            assert s["meaning"]


def test_list_without_a_table_is_all_of_them():
    assert list(json.loads(call("list", "--json").stdout)) == list(TABLES)
    assert [line for line in call("list").stdout.splitlines() if re.fullmatch(r"\w+", line)] == list(TABLES)


def test_an_axis_stands_where_list_says_it_may(here):
    wrong, refused = [], set()

    def accepts(row, *names):
        axes = [f"optimizer.{name}={{ choices = {numbers[name]} }}" for name in names]
        sets = [part for text in (f"optimizer.name={row}", *axes) for part in ("--set", text)]
        return call("check", *sets).exit_code == 0

    for entry in json.loads(call("list", "optimizers", "--json").stdout)["optimizers"]:
        floors = {s["name"]: re.search(r">= ([1-9]\d*)", s["type"]) for s in entry["settings"]}
        numbers = {name: [float(low[1]), 2 * float(low[1])] if low else [0.25, 0.5] for name, low in floors.items()}
        if not accepts(entry["name"], *(s["name"] for s in entry["settings"] if s["axis"])):
            wrong.append(entry["name"])
        for s in entry["settings"]:
            if not s["axis"] and (s["name"], s["type"]) not in refused:  # the shared ones once
                refused.add((s["name"], s["type"]))
                wrong += [(entry["name"], s["name"])] * accepts(entry["name"], s["name"])
    assert wrong == []
    assert refused


# ----------------------------------------------------------------------------------------------------------------- run


def test_run_prints_the_result_on_stdout(finished):
    folder, result = finished
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].strip() == f"finished: {folder}"
    best = list_runs(folder)[0]
    found = rows(result.stdout)
    assert float(found["validation accuracy"]) == pytest.approx(best["validation"], rel=1e-3)
    assert float(found["test accuracy"]) == pytest.approx(best["test"], rel=1e-3)
    assert found["trained"].startswith(f"{MEMBERS * STEPS * GENERATIONS} member-steps")
    assert found["run folder"] == str(folder)
    assert {"task.dropout", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.warmup"} <= set(found)


def test_run_shows_progress_on_stderr_as_plain_lines(finished):
    _, result = finished
    matches = [GENERATION.fullmatch(line) for line in result.stderr.splitlines()]
    assert [(int(m[1]), int(m[2])) for m in matches if m] == [(g + 1, GENERATIONS) for g in range(GENERATIONS)]
    assert all(matches)


def test_run_json_is_one_object(finished_json):
    folder, result = finished_json
    assert (result.exit_code, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert set(facts) == {
        *("run", "status", "best", "test", "population", "generations", "member_steps", "seconds", "compilations")
    }
    assert (facts["run"], facts["status"]) == (str(folder), "finished")
    assert {"trial", "hyperparameters", "validation"} <= set(facts["best"])
    assert set(facts["best"]["validation"]) == set(facts["test"]) == {"accuracy", "loss"}
    assert (facts["population"], facts["generations"]) == (MEMBERS, GENERATIONS)
    assert facts["member_steps"] == MEMBERS * STEPS * GENERATIONS
    parts = {"import", "data", "compile", "plan", "train", "propose", "store", "first_step", "total"}
    assert set(facts["seconds"]) == parts
    assert all(0 <= facts["seconds"][part] <= facts["seconds"]["total"] for part in parts)


def test_run_compiles_every_program_once(finished_json):
    compilations = json.loads(finished_json[1].stdout)["compilations"]
    assert without(compilations, "other") == {"generations": 1, "test": 1, "schedule": 1}


def test_the_best_of_the_json_is_the_best_of_the_finished_trials(finished_json):
    folder, result = finished_json
    best = json.loads(result.stdout)["best"]
    history = read_history(RunFolder(folder).history)
    row = history[(history["generation"] == best["generation"]) & (history["trial"] == best["trial"])][0]
    assert row["fitness"] == max(history["fitness"][history["step"] == max(history["step"])])
    for name, value in best["hyperparameters"].items():
        assert value == pytest.approx(row[name], rel=1e-6)
    assert best["validation"]["accuracy"] == pytest.approx(row["validation.accuracy"], rel=1e-6)


def test_the_same_config_gives_the_same_result(finished, finished_json):
    first, second = (read_history(RunFolder(folder).history) for folder, _ in (finished, finished_json))
    assert first.tobytes() == second.tobytes()


def test_a_quiet_process_says_nothing_but_its_result(here):
    process = run_process("run", here, "--out", "q", "--quiet", "--json", cwd=here.parent)
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads(process.stdout)["status"] == "finished"


def test_run_without_out_makes_a_folder_below_runs(here):
    result = call("run", here, "--set", "population.generations=1", "--quiet", "--json", "--seed", "5")
    facts = json.loads(result.stdout)
    assert [path.name for path in Path("runs").iterdir()] == [Path(facts["run"]).name]
    assert Path(facts["run"]).name.startswith("digits-")
    assert read_run(RunFolder(facts["run"]))["seed"] == 5
    listed = json.loads(call("runs", "--json").stdout)
    assert [run["run"] for run in listed] == [facts["run"]]


def test_run_refuses_a_folder_that_holds_a_run(finished):
    folder, _ = finished
    before = files(folder)
    result = call("run", folder.parent / "small.toml", "--out", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(rf"Error: {re.escape(str(folder))}: .*vmaptune resume .*\n", result.stderr)
    assert files(folder) == before


def test_run_does_not_resume_another_config(finished):
    folder, _ = finished
    before = files(folder)
    result = call("run", folder.parent / "small.toml", "--out", folder, "--resume", "--set", "optimizer.b1=0.5")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"Error: .*optimizer\.b1: 0\.9 -> 0\.5\n", result.stderr)
    assert files(folder) == before


# ------------------------------------------------------------------------------------------------ runs, show, resume


def test_runs_lists_runs_oldest_first(finished, tmp_path):
    folder, _ = finished
    tiny = SMALL | {"population": {"size": 2, "segment_steps": 1, "generations": 3}}
    tune(tiny, out=tmp_path / "b", should_stop=lambda: True)
    (tmp_path / "a").symlink_to(folder)
    (tmp_path / "no run").mkdir()
    listed = json.loads(call("runs", tmp_path, "--json").stdout)
    assert [Path(run["run"]).name for run in listed] == ["a", "b"]
    first, second = listed
    assert (first["status"], first["generation"], first["generations"], first["population"]) == ("finished", 4, 4, 8)
    assert (second["status"], second["generation"], second["generations"], second["population"]) == ("interrupted", 1, 3, 2)
    assert (first["task"], first["metric"], second["test"]) == ("digits", "accuracy", None)
    text = call("runs", tmp_path)
    assert text.exit_code == 0
    assert [line.split()[1:4] for line in text.stdout.splitlines()[2:]] == [
        ["finished", "digits", "4/4"],
        ["interrupted", "digits", "1/3"],
    ]


@pytest.mark.parametrize(
    "arguments", [("runs", "nowhere"), ("show", "nowhere"), ("resume", "nowhere"), ("show", "."), ("resume", ".")]
)
def test_a_folder_without_a_run_is_an_error(here, arguments):
    before = files(here.parent)
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"Error: \S+: .+\n", result.stderr)
    assert files(here.parent) == before
    assert not Path("nowhere").exists()


def test_show_json_tells_the_best_member_and_its_lineage(finished):
    folder, _ = finished
    result = call("show", folder, "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (facts["status"], facts["generation"], facts["generations"], facts["population"]) == ("finished", 3, 4, 8)
    best, lineage = facts["best"], facts["lineage"]
    assert lineage[-1]["trial"] == best["trial"]
    assert lineage[-1]["hyperparameters"] == best["hyperparameters"]
    assert [a["generation"] for a in lineage] == list(range(best["generation"] + 1))
    assert [a["step"] for a in lineage] == [STEPS * (g + 1) for g in range(best["generation"] + 1)]
    accuracy = [m["validation"]["accuracy"] for m in facts["members"]]
    assert accuracy == sorted(accuracy, reverse=True)
    assert len(accuracy) == MEMBERS
    assert set(facts["test"]) == {"accuracy", "loss"}


@pytest.mark.parametrize("members", [0, 3, 100])
def test_show_prints_best_lineage_and_members(finished, members):
    folder, _ = finished
    facts = json.loads(call("show", folder, "--json").stdout)
    result = call("show", folder, "--members", members)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{folder}: finished, generation 4 of 4, 8 members\n")
    parts = [part.splitlines() for part in re.split(r"\n\n(?=\S)", result.stdout.strip())]
    assert rows("\n".join(parts[1]))["trial"] == str(facts["best"]["trial"])
    assert len(parts[2]) == 2 + len(facts["lineage"])
    assert len(parts) == 3 + bool(members)
    if members:
        trials = [int(line.split()[0]) for line in parts[3][2:]]
        assert trials == [m["trial"] for m in facts["members"]][:members]


def test_resume_of_a_finished_run_prints_its_result_again(finished):
    folder, result = finished
    before = read_history(RunFolder(folder).history).tobytes(), files(folder / "best")
    again = call("resume", folder)
    assert (again.exit_code, again.stderr) == (0, "")
    assert without(rows(again.stdout), "seconds") == without(rows(result.stdout), "seconds")
    assert (read_history(RunFolder(folder).history).tobytes(), files(folder / "best")) == before


def test_resume_of_a_finished_run_prints_its_json_again(finished_json):
    folder, result = finished_json
    again = call("resume", folder, "--json", "--quiet")
    measured = ("seconds", "compilations")
    assert without(json.loads(again.stdout), *measured) == without(json.loads(result.stdout), *measured)
    assert read_run(RunFolder(folder))["status"] == "finished"


def test_run_resume_goes_on_with_the_newest_unfinished_run_of_the_config(here, finished):
    stopped = tune(here, should_stop=lambda: True).run
    result = call("run", here, "--resume", "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["run"], facts["status"]) == (0, str(stopped), "finished")
    assert [int(GENERATION.fullmatch(line)[1]) for line in result.stderr.splitlines()] == [2, 3, 4]
    assert read_history(RunFolder(stopped).history).tobytes() == read_history(RunFolder(finished[0]).history).tobytes()
    begun = json.loads(call("run", here, "--resume", "--set", "population.generations=1", "--json", "-q").stdout)
    assert begun["run"] != str(stopped)  # of this config there is none, so one is begun


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.toml"], "missing.toml: no such file"),
        (["broken.toml"], "broken.toml: not TOML"),
        (["latin.toml"], "latin.toml: cannot be read"),
        (["small.toml", "--set", "populaton.size=4"], "did you mean 'population'?"),
        (["small.toml", "--set", "optimizer.lr=0.1"], "did you mean 'learning_rate'?"),
        (["small.toml", "--set", "optimizer.name=adamww"], "did you mean 'adamw'?"),
        (["small.toml", "--set", "optimizer.name=3"], "optimizer.name: expected a string; given: 3"),
        (["small.toml", "--set", "optimizer.name=[1]"], "optimizer.name"),
        (["rows.toml"], "optimizer.name"),
        (["small.toml", "--set", "search.method={}"], "search.method"),
        (
            ["small.toml", "--set", "search.method=gird"],
            "search.method: there is no search method 'gird'; did you mean 'grid'?",
        ),
        (["small.toml", "--set", "task.name=digit"], "did you mean 'digits'?"),
        (["small.toml", "--set", "task.name=nowhere.py:f"], "cannot load"),
        (["small.toml", "--set", "task.name=3"], "task.name: expected a string"),
        (["small.toml", "--set", "task.name=own.py:f"], "must return a vmaptune.Task"),
        (["small.toml", "--set", "optimizer=3"], "optimizer: expected a table"),
        (["small.toml", "--set", "optimizer.b1=1.0"], "optimizer.b1: expected float >= 0 and < 1; given: 1.0"),
        (["small.toml", "--set", "optimizer.eps=nan"], "optimizer.eps: expected float > 0"),
        (["small.toml", "--set", "optimizer.nesterov={ choices = [1, 2] }"], "optimizer.nesterov"),
        (["small.toml", "--set", "optimizer.b1={ low = 0.9, high = 0.1 }"], "low must be below high"),
        (["small.toml", "--set", "optimizer.b1={ low = 0.9 }"], "optimizer.b1"),
        (["small.toml", "--set", "search.quantile={ low = 0.1, high = 0.2 }"], "cannot be searched"),
        (["small.toml", "--set", "schedule.b9={ name = 'constant' }"], "schedule.b9"),
        (["small.toml", "--set", "population.size=0"], "population.size"),
        (["small.toml", "--set", "population.size=8.5"], "population.size"),
        (["small.toml", "--set", "batch.size=5000"], "between 1 and the 1077 training examples"),
        (["small.toml", "--set", "seed=-1"], "seed"),
        (["small.toml", "--set", "seed"], "expected key=value"),
        (["small.toml", "--set", "optimizer.b1=[[["], "not a TOML value"),
        (["small.toml", "--set", "plan.devices=7"], "plan.devices: only 2 available; given: 7"),
        (
            ["small.toml", "--set", "plan.devices=2", "--set", "population.size=1"],
            "plan.devices: more than population.size = 1; given: 2",
        ),
        (
            ["small.toml", "--set", "plan.name=strict", "--set", "plan.chunk=2"],
            "plan.chunk: the strict plan trains members one",
        ),
        (["small.toml", "--set", "plan.name=strikt"], "plan.name"),
        (["small.toml", "--set", "plan.lowering=winograd"], "plan.lowering"),
        (["small.toml", "--out", "small.toml/below"], "small.toml"),
    ],
)
def test_a_config_error_is_one_sentence_and_leaves_nothing(here, arguments, says):
    Path("broken.toml").write_text("seed = = 1")
    Path("latin.toml").write_bytes('task = "\xe9"'.encode("latin-1"))
    Path("rows.toml").write_text('[optimizer]\nname = ["adamw"]\n')
    Path("own.py").write_text("def f():\n    return 3\n")
    result = call("run", *arguments)
    assert result.exit_code == 2, result.exception
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .+\n", result.stderr)
    assert says in result.stderr
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {
        *("small.toml", "broken.toml", "latin.toml", "rows.toml", "own.py")
    }


def test_an_error_in_a_real_process_has_no_traceback(here):
    process = run_process("run", here, "--set", "optimizer.b1=2", cwd=here.parent)
    assert (process.returncode, process.stdout) == (2, "")
    assert re.fullmatch(r"Error: .*optimizer\.b1.*\n", process.stderr)
    assert not Path("runs").exists()


def test_init_below_a_file_is_one_sentence(here):
    result = call("init", here / "below.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"Error: .*small\.toml.*\n", result.stderr)


def test_all_members_diverged_is_one_sentence_and_keeps_the_history(here):
    wild = ["--set", "optimizer.name=sgd", "--set", "optimizer.learning_rate=1e30", "--set", "schedule.name=constant"]
    result = call("run", here, *wild, "--out", "wild", "--quiet", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"Error: wild: generation \d: all 8 members failed: .*wild/history\.db\n", result.stderr)
    history = read_history(RunFolder("wild").history)
    assert (len(history), read_run(RunFolder("wild"))["status"]) == (MEMBERS, "failed")
    assert set(history["status"]) <= {1, 2}
    assert sum(event["kind"] == "diverged" for event in read_events(RunFolder("wild").history)) == MEMBERS
    assert json.loads(call("show", "wild", "--json").stdout)["best"] is None
    assert call("show", "wild").exit_code == 0
    assert json.loads(call("runs", ".", "--json").stdout)[0]["status"] == "failed"


# ------------------------------------------------------------------------------------------------------------- signals


def generation_line(process):
    """Waits for a line of progress, and returns its generation."""
    for line in process.stderr:
        if found := GENERATION.match(line):
            return int(found[1])
    raise AssertionError(f"the process ended with {process.wait()} before a generation was over")


def stop(process, number):
    """Sends a signal; returns the exit code and the rest of stderr."""
    process.send_signal(number)
    stderr = process.communicate(timeout=300)[1]
    return process.returncode, stderr


def test_a_signal_stops_after_a_generation_and_the_run_can_be_resumed(here):
    endless = write_config(here.parent / "endless.toml", SMALL | {"population": SMALL["population"] | {"generations": 10**6}})
    with started("run", endless, "--out", "stopped", cwd=here.parent) as process:
        generation_line(process)
        code, stderr = stop(process, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in stderr
    folder = RunFolder("stopped")
    assert read_run(folder)["status"] == "interrupted"
    done = read_run(folder)["generation"]
    before = read_history(folder.history)
    assert len(before) == MEMBERS * (done + 1)

    printed = re.search(r"^Stopped after a whole generation\. Go on with: vmaptune (.*)$", stderr, re.MULTILINE)[1]
    with started(*shlex.split(printed), cwd=here.parent) as process:
        assert generation_line(process) == done + 2
        assert read_run(folder)["status"] == "running"
        code, stderr = stop(process, signal.SIGTERM)
    assert code == 143
    assert f"Go on with: vmaptune {printed}\n" in stderr
    after = read_history(folder.history)
    assert after[: len(before)].tobytes() == before.tobytes()
    assert sorted(set(after["generation"])) == list(range(read_run(folder)["generation"] + 1))
    assert len(after) == MEMBERS * (read_run(folder)["generation"] + 1)
