"""A run can die at any moment. Each place where it may is made on purpose here; random moments are left to real kills."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vmaptune as vt
from tests.conftest import SMALL
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_run

ROOT = Path(__file__).parent.parent
# A setting at which members diverge now and then, so that rows of every kind are made again.
TREE = SMALL | {
    "optimizer": {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1e30, "scale": "log"}},
    "population": {"size": 8, "segment_steps": 5, "generations": 5},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    return vt.tune(TREE, out=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def cut(tmp_path):
    """The same run, stopped after its third generation: rows 0 to 2 and their checkpoints."""
    stops = iter([False, False, True])
    return vt.tune(TREE, out=tmp_path / "run", should_stop=lambda: next(stops)).run


def tables(folder):
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as db:
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in ("record", "trial")}


def resumes_to(folder, whole):
    result = vt.tune(TREE, out=folder, resume=True)
    assert tables(folder) == tables(whole.run)
    jax.tree.map(np.testing.assert_array_equal, result.population, whole.population)
    assert result.as_json()["best"] == whole.as_json()["best"]
    for path in (whole.run / "best").iterdir():
        if path.name != "hyperparameters.toml":  # its heading names the folder
            assert (folder / "best" / path.name).read_bytes() == path.read_bytes()


def test_stopped_between_generations(cut, whole):
    resumes_to(cut, whole)


def test_killed_between_a_generations_rows_and_its_checkpoint(cut, whole):
    shutil.rmtree(cut / "checkpoints" / "2")
    resumes_to(cut, whole)


def test_killed_before_the_first_checkpoint_was_whole(tmp_path, whole):
    folder = vt.tune(TREE, out=tmp_path / "run", should_stop=lambda: True).run
    shutil.rmtree(folder / "checkpoints" / "0")
    resumes_to(folder, whole)


def test_a_history_is_not_thrown_away_because_its_checkpoints_are_gone(cut):
    before = tables(cut)
    shutil.rmtree(cut / "checkpoints")
    with pytest.raises(vt.StoreError, match="the checkpoints of 3 generations are gone"):
        vt.tune(TREE, out=cut, resume=True)
    assert tables(cut) == before


@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(cut, whole, damage):
    for path in sorted((cut / "checkpoints" / "2" / "default").rglob("*"), reverse=True):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10] if damage == "cut" else b"")
    resumes_to(cut, whole)


def test_only_damaged_checkpoints_are_said_in_a_sentence(cut):
    before = tables(cut)
    for path in (cut / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(vt.StoreError, match=r"none of the checkpoints \[2, 1\] can be read"):
        vt.tune(TREE, out=cut, resume=True)
    assert tables(cut) == before


def test_a_config_without_a_history_is_written_anew(cut, whole):
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (cut / name).unlink(missing_ok=True)
    shutil.rmtree(cut / "checkpoints")
    (cut / "config.toml").write_text("seed = 99\n")
    resumes_to(cut, whole)
    assert "seed = 0" in (cut / "config.toml").read_text()


def test_a_path_with_signs_of_an_address_is_a_path(tmp_path):
    result = vt.tune(TREE, out=tmp_path / "run #1 50%?")
    assert len(result.history) == 40


def test_an_exception_leaves_the_run_stopped_not_running(tmp_path, whole):
    class Broken:
        closed = False

        def write(self, record):
            if record.generation == 2:
                raise RuntimeError("mine")

        def close(self):
            self.closed = True

    sink = Broken()
    with pytest.raises(RuntimeError, match="mine"):
        vt.tune(TREE, out=tmp_path / "run", sinks=[sink])
    assert sink.closed
    assert read_run(RunFolder(tmp_path / "run"))["status"] == "stopped"
    resumes_to(tmp_path / "run", whole)


def test_killed_while_a_checkpoint_was_written(cut, whole):
    newest = cut / "checkpoints" / "2"
    newest.rename(cut / "checkpoints" / "2.orbax-checkpoint-tmp")
    (cut / "checkpoints" / "2.orbax-checkpoint-tmp" / "commit_success.txt").unlink()
    resumes_to(cut, whole)


def test_rows_lost_with_the_power_though_their_checkpoint_was_kept(cut, whole):
    with contextlib.closing(sqlite3.connect(cut / "history.db")) as db, db:
        db.execute("DELETE FROM record WHERE generation = 2")
        db.execute("DELETE FROM trial WHERE born = 3")
        db.execute("UPDATE trial SET ended = NULL, reason = NULL WHERE ended = 2")
    resumes_to(cut, whole)


def test_killed_before_the_history_had_its_first_row(cut, whole):
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (cut / name).unlink(missing_ok=True)
    sqlite3.connect(cut / "history.db").close()
    shutil.rmtree(cut / "checkpoints")
    resumes_to(cut, whole)


def test_killed_while_the_winner_was_written(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole.run, folder)
    (folder / "best" / "schedule.csv").unlink()
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as db, db:
        db.execute("UPDATE run SET status = 'running', result = NULL")
        db.execute("UPDATE trial SET ended = NULL, reason = NULL WHERE reason = 'finished'")
    (folder / "best" / "weights.safetensors").write_bytes(b"half")
    resumes_to(folder, whole)


def test_a_real_run_killed_at_random_moments_ends_as_if_it_never_was():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "kill_test.py", "--kills", "5", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kills" in done.stdout.splitlines()[-1]
    assert done.stdout.splitlines()[-1].endswith("every run equals the reference bit for bit")
