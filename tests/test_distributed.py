"""Several processes as one run: the same run as one process makes on as many devices, stopped and refused by all of them.

Real processes, two CPU devices each, that find each other by hand at a free port of this machine.
"""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tomlkit

import vmaptune as vt
from tests.conftest import SMALL
from vmaptune import distributed
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_events, read_history, read_run

SECONDS = 180  # far more than any of these takes: whoever needs them hangs
LAUNCHERS = ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES")
BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
TREE = SMALL | {"population": {"size": 8, "segment_steps": 5, "generations": 6}, "plan": {"generations_per_dispatch": 2}}
# Many short dispatches of what compiles soon; one by one, so a member's bits do not depend on how many devices there are.
MANY = {
    "task": {"hidden": [8], "dropout": 0.0},
    "batch": {"size": 32},
    "optimizer": {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1.0, "scale": "log"}},
    "schedule": {"name": "constant"},
    "population": {"size": 8, "segment_steps": 1, "generations": 40},
    "plan": {"generations_per_dispatch": 2, "name": "strict"},
}


class Ended(NamedTuple):
    """What processes left: exit codes, stdout and stderr of each, in the order of their numbers."""

    codes: list[int]
    out: list[str]
    err: list[str]


class Crew:
    """Processes of one run, each a `vmaptune` as a shell would start it, writing to files next to the run."""

    def __init__(self, arguments, cwd, processes, devices, extra):
        with socket.create_server(("localhost", 0)) as free:
            address = f"localhost:{free.getsockname()[1]}"
        alone = {name: value for name, value in os.environ.items() if name not in (*LAUNCHERS, *BY_HAND)}
        alone["JAX_NUM_CPU_DEVICES"] = str(devices)
        command = [sys.executable, "-m", "vmaptune", *map(str, arguments)]
        self.texts = [[cwd / f"{process}.{name}.txt" for name in ("stdout", "stderr")] for process in range(processes)]
        self.processes = []
        for number, (out, err) in enumerate(self.texts):
            joined = dict(zip(BY_HAND, (address, str(processes), str(number)), strict=True)) if processes > 1 else {}
            with out.open("w") as stdout, err.open("w") as stderr:
                own = [*command, *(extra if number == 1 else ())]
                process = subprocess.Popen(own, cwd=cwd, env=alone | joined, stdout=stdout, stderr=stderr)
            self.processes.append(process)
        self.deadline = time.monotonic() + SECONDS

    def until(self, reached, awaited):
        """Waits for something; fails, with all that was said on stderr, when nobody waits any longer."""
        while not reached():
            if time.monotonic() > self.deadline:
                said = "\n".join(f"--- process {i}, stderr:\n{err.read_text()}" for i, (_, err) in enumerate(self.texts))
                pytest.fail(f"waited {SECONDS} s for {awaited}\n{said}")
            time.sleep(0.02)

    def end(self):
        """Waits for all of them."""
        self.until(lambda: all(process.poll() is not None for process in self.processes), "all processes to end")
        out, err = ([text.read_text() for text in column] for column in zip(*self.texts, strict=True))
        # Gloo, by which CPUs of several processes talk, greets its peers in threads that mix their words.
        err = ["".join(line for line in text.splitlines(True) if "Gloo" not in line and "peer" not in line) for text in err]
        return Ended([process.returncode for process in self.processes], out, err)


@contextlib.contextmanager
def started(*arguments, cwd, processes=2, devices=2, extra=()):
    """Processes that are dead when the block ends, whatever happened in it."""
    cwd.mkdir(exist_ok=True)
    crew = Crew(arguments, cwd, processes, devices, extra)
    try:
        yield crew
    finally:
        for process in crew.processes:
            process.kill()
            process.wait()


def written(path, tree):
    path.write_text(tomlkit.dumps(tree), encoding="utf-8")
    return path


def result_of(text):
    facts = json.loads(text)
    return {key: value for key, value in facts.items() if key not in ("seconds", "compilations")}


def tables(folder):
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as db:
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in ("record", "trial")}


def checkpoints(folder):
    """The arrays of each checkpoint by dotted path, read without this package and on the devices of this process."""
    reader = ocp.StandardCheckpointer()
    found = {}
    for path in sorted((folder / "checkpoints").iterdir()):
        shapes = reader.metadata(path / "default").item_metadata.tree
        wanted = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), dict(shapes))
        found[path.name] = reader.restore(path / "default", wanted)
    return found


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [8])  # 7 do not come out even on 4 devices
def test_two_processes_end_as_one_with_as_many_devices(tmp_path, size):
    config = written(tmp_path / "config.toml", TREE | {"population": TREE["population"] | {"size": size}})
    run = ("run", config, "--out", "run", "--json")
    one, two = tmp_path / "one", tmp_path / "two"
    with started(*run, cwd=one, processes=1, devices=4) as alone, started(*run, cwd=two) as both:
        single, several = alone.end(), both.end()
    assert (single.codes, several.codes) == ([0], [0, 0]), several.err

    assert several.out[1] == ""
    assert result_of(several.out[0]) == result_of(single.out[0])
    assert "generation 6/6" in several.err[0]
    assert "generation" not in several.err[1]

    assert tables(two / "run") == tables(one / "run")
    assert len(tables(two / "run")["record"]) == 6 * size
    assert files(two / "run" / "best") == files(one / "run" / "best") != {}
    ours, theirs = checkpoints(two / "run"), checkpoints(one / "run")
    assert list(ours) == ["3", "5"]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    ended, expected = (read_run(RunFolder(folder / "run")) for folder in (two, one))
    for run in (ended, expected):
        assert run["result"].pop("seconds")["train"] > 0
        assert run["result"].pop("compilations")["generations"] == 1
    for key in ("id", "status", "result", "config", "environment"):  # not even the plan is another
        assert ended[key] == expected[key]


def goes_on_to(folder, whole):
    """The run ended as the one that nothing happened to, to rounding: with the same members, of the same parents."""
    history, expected = read_history(folder / "history.db"), whole.history
    assert history.dtype == expected.dtype
    for name in history.dtype.names:
        close = np.testing.assert_allclose if history.dtype[name].kind == "f" else np.testing.assert_array_equal
        close(history[name], expected[name], **({"rtol": 1e-4, "atol": 1e-6} if history.dtype[name].kind == "f" else {}))
    assert tables(folder)["trial"] == tables(whole.run)["trial"]
    assert read_run(RunFolder(folder))["status"] == "finished"


def resumed_after(folder):
    """The generation after which the last of a run's processes went on."""
    resumed = [event for event in read_events(folder / "history.db") if event["kind"] == "resumed"]
    return resumed[-1]["detail"]["after_generation"]


def test_a_signal_to_one_process_stops_both_and_any_layout_goes_on(tmp_path):
    whole = vt.tune(MANY, out=tmp_path / "whole")
    folder = tmp_path / "several" / "run"

    def on_record():
        with contextlib.suppress(vt.StoreError):  # not begun yet
            return len(read_history(folder / "history.db")) > 0
        return False

    config = written(tmp_path / "config.toml", MANY)
    with started("run", config, "--out", "run", cwd=tmp_path / "several") as crew:
        crew.until(on_record, "the first generation")
        crew.processes[1].send_signal(signal.SIGTERM)
        ended = crew.end()
    assert ended.codes == [128 + signal.SIGTERM] * 2, ended.err  # a launcher that looks at one of them sees it
    assert "SIGTERM: finishing this generation" in ended.err[1]
    assert "SIGTERM" not in ended.err[0]
    assert ["Stopped after a whole generation" in err for err in ended.err] == [True, False]  # said once
    assert read_run(RunFolder(folder))["status"] == "interrupted"
    last = int(read_history(folder / "history.db")["generation"].max())
    assert last < 39
    assert last % 2 == 1  # a whole dispatch of two
    assert max(checkpoints(folder), key=int) == str(last)

    with started("resume", folder, cwd=tmp_path / "resumed", processes=1) as crew:
        ended = crew.end()
    assert ended.codes == [0], ended.err
    assert "Warning: begun elsewhere (devices: " in ended.err[0]
    assert resumed_after(folder) == last
    goes_on_to(folder, whole)

    asked = iter(range(20))
    folder = vt.tune(MANY, out=tmp_path / "one", should_stop=lambda: next(asked) == 17).run
    with started("resume", folder, cwd=tmp_path / "joined") as crew:
        ended = crew.end()
    assert ended.codes == [0, 0], ended.err
    assert "Warning: begun elsewhere (devices: " in ended.err[0]
    assert "Warning" not in ended.err[1]
    assert ended.out[1] == ""
    assert resumed_after(folder) == 35
    goes_on_to(folder, whole)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("population.size=-1", "population.size: expected int >= 1; given: -1"),
        ("plan.devices=2", "plan.devices: several processes use all of their 4 devices; given: 2"),
        ("seed=1", "run: was begun with another config and cannot go on with this one: seed: 0 -> 1"),
    ],
)
def test_what_cannot_be_run_is_refused_by_all_in_one_sentence(tmp_path, given, sentence):
    config = written(tmp_path / "config.toml", TREE)
    run = ("run", config, "--out", "run", "--resume")
    folder = tmp_path / "two" / "run"
    if given.startswith("seed"):
        vt.tune(TREE, out=folder, should_stop=lambda: True)
    before = folder.exists() and (tables(folder), files(folder / "checkpoints"))
    with started(*run, "--set", given, cwd=tmp_path / "two") as crew:
        ended = crew.end()
    assert ended.codes == [2, 2], ended.err
    for out, err in zip(ended.out, ended.err, strict=True):
        assert out == ""
        assert err.startswith("Error: ")
        assert err.endswith(f"{sentence}\n")
        assert err.count("\n") == 1
    assert (folder.exists() and (tables(folder), files(folder / "checkpoints"))) == before


def test_a_refusal_leaves_stdout_to_results(tmp_path):
    (tmp_path / "two" / "run").mkdir(parents=True)
    config = written(tmp_path / "two" / "run" / "config.toml", TREE)  # holds a run already
    with started("run", config, "--out", "run", "--json", cwd=tmp_path / "two") as crew:
        ended = crew.end()
    assert ended.codes == [2, 2], ended.err
    assert ended.out == ["", ""]


@pytest.mark.parametrize("other", [["--set", "population.size=-1"], ["--set", "population.size=6"]], ids=["wrong", "another"])
def test_what_is_wrong_in_one_process_is_told_by_all(tmp_path, other):
    config = written(tmp_path / "config.toml", TREE)
    with started("run", config, "--out", "run", cwd=tmp_path / "two", extra=other) as crew:
        ended = crew.end()
    assert ended.codes == [2, 2], ended.err
    first, second = (err.strip().splitlines()[-1] for err in ended.err)
    assert first == second
    assert "population.size" in first if other[-1].endswith("-1") else "different configs" in first
    assert not list((tmp_path / "two").glob("run/history.db"))


@pytest.mark.parametrize(
    ("name", "several", "single"),
    [
        ("JAX_NUM_PROCESSES", "2", "1"),
        ("SLURM_STEP_NUM_TASKS", "16", "1"),
        ("OMPI_COMM_WORLD_SIZE", "2", "1"),
        ("TPU_WORKER_HOSTNAMES", "10.0.0.1,10.0.0.2", "localhost"),
    ],
)
def test_launchers_say_that_there_are_several(monkeypatch, name, several, single):
    for other in LAUNCHERS:
        monkeypatch.delenv(other, raising=False)
    assert not distributed._several()
    for value, expected in ((several, True), (single, False), ("", False)):
        monkeypatch.setenv(name, value)
        assert distributed._several() is expected


def test_alone_everything_is_agreed_on():
    assert distributed.alone()
    assert distributed.is_main()
    assert [distributed.agreed(number) for number in (-1, 0, 7)] == [-1, 0, 7]
    assert distributed.texts("a/Δ/run") == ["a/Δ/run"]
    assert distributed.together(lambda: 3) == 3
    assert [distributed.anyone(flag) for flag in (False, True)] == [False, True]


def test_alone_what_is_put_is_where_it_should_be():
    tree = {"key": jax.random.key(3), "x": np.arange(4.0, dtype=np.float32)}
    everywhere = vt.Plan(2, 1).everywhere
    put = distributed.put(tree, everywhere)
    assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(put))
    np.testing.assert_array_equal(jax.random.key_data(put["key"]), jax.random.key_data(tree["key"]))
    np.testing.assert_array_equal(put["x"], tree["x"])


def test_nobody_to_join_is_said_in_a_sentence():
    code = """
from vmaptune.distributed import start
from vmaptune.errors import ConfigError
start(False)
start()
try:
    start(True)
except ConfigError as error:
    print(error)
"""
    env = {name: value for name, value in os.environ.items() if name not in (*LAUNCHERS, *BY_HAND)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("--distributed: cannot join the other processes: ")
    assert done.stdout.endswith(f"set {', '.join(BY_HAND[:2])} and {BY_HAND[2]}\n")
