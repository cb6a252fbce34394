"""The run folder: rows that equal what happened, readers beside a writer, the lock, and states that come back bit for bit."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.conftest import SMALL
from vmaptune.analysis.runs import list_runs
from vmaptune.errors import StoreError
from vmaptune.loop import tune
from vmaptune.store.checkpoints import Checkpoints
from vmaptune.store.folder import RunFolder, find_run, find_runs, new_folder, write_text
from vmaptune.store.history import SCHEMA_VERSION, History, connect
from vmaptune.store.reading import HistoryArray, read_events, read_generation, read_history, read_lineage, read_run
from vmaptune.store.record import Record

FIXED = {"generation": "INTEGER", "slot": "INTEGER", "trial": "INTEGER", "step": "INTEGER"}
FIXED |= {"status": "INTEGER", "parent": "INTEGER", "fitness": "REAL"}
AXES = ("task.dropout", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.warmup")
METRICS = ("train.accuracy", "train.loss", "validation.accuracy", "validation.loss")
COLUMNS = ("train.loss", "validation.loss", "optimizer.b1")  # of the histories that are made up here


def dump(path, *, but=()):
    """Every row of every table, in the order of its key."""
    with closing(sqlite3.connect(path)) as db:
        tables = {}
        for table in ("run", "trial", "record", "event"):
            cursor = db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
            names = [column[0] for column in cursor.description]
            tables[table] = [{n: v for n, v in zip(names, row, strict=True) if n not in but} for row in cursor]
        return tables


def create(path, columns=COLUMNS):
    facts = {"metric": "loss", "direction": "min", "size": 5, "segment_steps": 2, "generations": 9}
    config = {"population": {"segment_steps": 2, "generations": 9}}  # a trial's; the run's own may be more, in rounds
    History.create(path, {"id": "x", "seed": 0, "config": config, "environment": {}, **facts}, columns)
    return path


def made_up(generations, n=5, seed=0):
    """Records of a run in which members survive, are copied, diverge and are born anew; and each slot's true ancestry."""
    rng = np.random.default_rng(seed)
    trial, step, fresh = np.arange(n, dtype=np.int32), np.zeros(n, np.int32), n
    ancestry: list[list[tuple[int, int, int, int]]] = [[] for _ in range(n)]
    records, ancestries = [], []
    for g in range(generations):
        step = step + 2
        fitness = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)).astype(np.float32)
        parent = np.where(rng.random(n) < 0.5, np.arange(n), rng.integers(-1, n, n)).astype(np.int32)
        parent = np.arange(n, dtype=np.int32) if g == generations - 1 else parent
        moved = parent != np.arange(n)
        following = trial.copy()
        following[moved] = fresh + np.arange(moved.sum())
        values = {name: rng.random(n).astype(np.float32) for name in COLUMNS}
        values["train.loss"][np.isnan(fitness)] = np.nan
        metrics, axes = {k: values[k] for k in COLUMNS[:2]}, {k: values[k] for k in COLUMNS[2:]}
        status = np.isnan(fitness).astype(np.int32)
        seconds = {"train": 0.5, "select": 0.25, "store": 0.0}
        records.append(Record(g, trial, step, status, fitness, metrics, axes, parent, following, seconds))
        ancestry = [ancestry[s] + [(g, int(trial[s]), s, int(step[s]))] for s in range(n)]
        ancestries.append(ancestry)
        ancestry = [list(ancestry[p]) if p >= 0 else [] for p in parent]
        step = np.where(parent < 0, 0, step[parent]).astype(np.int32)
        trial, fresh = following, fresh + int(moved.sum())
    return records, ancestries


def write_all(path, records):
    with closing(History(create(path))) as history:
        for record in records:
            history.write(record)
    return path


def told():
    """A sink that keeps what it is told, and the list it keeps it in."""
    records = []
    return SimpleNamespace(write=records.append, close=lambda: None), records


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and the records its sinks were told."""
    sink, records = told()
    return tune(SMALL, out=tmp_path_factory.mktemp("run") / "first", sinks=[sink]), records


# ------------------------------------------------------------------------------------------------------------- history


def test_history_rows_are_the_result_and_what_sinks_were_told(run):
    result, records = run
    with closing(sqlite3.connect(RunFolder(result.run).history)) as db:
        cursor = db.execute("SELECT * FROM record ORDER BY generation, slot")
        names, rows = [column[0] for column in cursor.description], cursor.fetchall()
    assert result.history.dtype.names == tuple(names)
    assert result.history.tolist() == rows
    assert len(rows) == sum(len(record.trial) for record in records) == 8 * 4
    for record in records:
        part = result.history[result.history["generation"] == record.generation]
        fixed = {name: getattr(record, name) for name in ("trial", "step", "status", "parent", "fitness")}
        for name, column in {**fixed, **record.metrics, **record.hyperparameters}.items():
            np.testing.assert_array_equal(part[name].astype(column.dtype), column)
        np.testing.assert_array_equal(part["slot"], np.arange(8))


def test_history_has_a_column_for_every_metric_and_axis(run):
    result, _ = run
    with closing(sqlite3.connect(RunFolder(result.run).history)) as db:
        types = {row[1]: row[2] for row in db.execute("PRAGMA table_info(record)")}
        best = db.execute('SELECT "optimizer.learning_rate" FROM record ORDER BY "validation.accuracy" DESC').fetchone()[0]
    assert types == FIXED | dict.fromkeys((*METRICS, *AXES), "REAL")
    assert list(types)[: len(FIXED)] == list(FIXED)
    assert 1e-4 <= best <= 1e-1


def test_every_trial_has_a_row_with_its_birth_and_end(run):
    result, records = run
    trials = {row["trial"]: row for row in dump(RunFolder(result.run).history)["trial"]}
    assert sorted(trials) == sorted({int(t) for record in records for t in record.trial})
    for record, following in pairwise(records):
        np.testing.assert_array_equal(record.next_trial, following.trial)
        for slot in np.flatnonzero(record.trial != record.next_trial):
            old, new = trials[int(record.trial[slot])], trials[int(record.next_trial[slot])]
            assert (old["ended"], new["born"], new["slot"]) == (record.generation, record.generation + 1, slot)
            assert new["parent"] == record.trial[record.parent[slot]]
    assert {trials[int(t)]["reason"] for t in records[-1].trial} == {"finished"}
    assert all(row["ended"] is not None for row in trials.values())
    assert len(trials) > 8  # else nobody was replaced, and this test has seen nothing


def test_failed_members_are_null_and_read_back_as_nan(tmp_path):
    records, _ = made_up(6, seed=3)
    path = write_all(tmp_path / "history.db", records)
    failed = [(r.generation, s) for r in records for s in np.flatnonzero(r.failed)]
    assert failed
    rows = {(row["generation"], row["slot"]): row for row in dump(path)["record"]}
    assert [key for key, row in rows.items() if row["fitness"] is None] == failed
    assert [key for key, row in rows.items() if row["train.loss"] is None] == failed
    history = read_history(path)
    assert [(r["generation"], r["slot"]) for r in history if np.isnan(r["fitness"])] == failed
    diverged = [(e["generation"], e["detail"]["slot"]) for e in read_events(path) if e["kind"] == "diverged"]
    assert diverged == failed


def test_a_generation_is_read_best_first_and_failed_last(tmp_path):
    records, _ = made_up(6, seed=3)
    path = write_all(tmp_path / "history.db", records)
    for record in records:
        fitness = [row["fitness"] for row in read_generation(path, record.generation)]
        sound = sorted(record.fitness[~record.failed].tolist(), reverse=True)
        assert fitness == sound + [None] * int(record.failed.sum())


def test_a_generation_is_written_whole_or_not_at_all(tmp_path):
    records, _ = made_up(3)
    path = write_all(tmp_path / "history.db", records[:2])
    before = dump(path)
    broken = Record(**{**vars(records[2]), "next_trial": np.zeros(5, np.int32)})  # trial 0 cannot be born again
    with closing(History(path)) as history, pytest.raises(sqlite3.IntegrityError):
        history.write(broken)
    assert dump(path) == before
    with closing(History(path)) as history:
        history.write(records[2])
    assert len(read_history(path)) == 15


@effort(max_examples=10)
@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_truncate_restores_the_state_before(tmp_path_factory, seed, n):
    records, _ = made_up(5, n, seed)
    path = create(tmp_path_factory.mktemp("truncate") / "history.db")
    states = {-1: dump(path, but=("time",))}
    with closing(History(path)) as history:
        for record in records:
            history.write(record)
            states[record.generation] = dump(path, but=("time",))
        for generation in (4, 3, 1, -1):
            history.truncate(generation)
            assert dump(path, but=("time",)) == states[generation]
            assert history.last_generation() == generation
        for record in records:
            history.write(record)
            assert dump(path, but=("time",)) == states[record.generation]


@pytest.mark.parametrize("generation", [4, 2, -1])
def test_truncate_brings_the_trials_of_a_finished_run_back_to_life(tmp_path, generation):
    records, _ = made_up(5, seed=1)
    before = write_all(tmp_path / "before.db", records[: generation + 1])
    path = write_all(tmp_path / "history.db", records)
    with closing(History(path)) as history:
        history.end("finished")
        assert all(row["reason"] for row in dump(path)["trial"])
        history.truncate(generation)
    assert dump(path, but=("time",)) | {"run": []} == dump(before, but=("time",)) | {"run": []}


@effort(max_examples=10)
@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_lineage_is_who_trained_the_weights(tmp_path_factory, seed, n):
    records, ancestries = made_up(6, n, seed)
    path = write_all(tmp_path_factory.mktemp("lineage") / "history.db", records)
    rows = {(row["generation"], row["trial"]): row for row in dump(path)["record"]}
    for record, ancestry in zip(records, ancestries, strict=True):
        for slot, trial in enumerate(record.trial.tolist()):
            lineage = read_lineage(path, trial, record.generation)
            assert [(a.generation, a.trial, a.slot, a.step) for a in lineage] == ancestry[slot]
            assert all(a.values == {k: rows[a.generation, a.trial][k] for k in COLUMNS} for a in lineage)


def test_lineage_of_a_run_has_one_segment_a_generation(run):
    result, records = run
    for record in records:
        for trial, step in zip(record.trial.tolist(), record.step.tolist(), strict=True):
            steps = [a.step for a in read_lineage(RunFolder(result.run).history, trial, record.generation)]
            assert steps == list(range(5, step + 1, 5))


# ------------------------------------------------------------------------------------------------- reading and writing


def test_a_reader_sees_the_last_whole_generation_while_another_is_written(tmp_path):
    records, _ = made_up(2)
    path = write_all(tmp_path / "history.db", records[:1])
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO record (generation, slot) VALUES (1, 0)")
        assert set(read_history(path)["generation"]) == {0}
        assert read_generation(path, 1) == []
        writer.execute("ROLLBACK")
    assert set(read_history(path)["generation"]) == {0}


def test_a_slow_reader_does_not_hold_the_writer_up(tmp_path):
    records, _ = made_up(3)
    path = write_all(tmp_path / "history.db", records[:1])
    with closing(connect(path)) as reader, closing(History(path)) as history:
        cursor = reader.execute("SELECT generation FROM record ORDER BY generation")
        seen = [cursor.fetchone()[0]]
        history.write(records[1])
        history.truncate(0)
        history.write(records[1])
        seen += [row[0] for row in cursor]
        assert seen == [0] * 5
        assert [row[0] for row in reader.execute("SELECT DISTINCT generation FROM record")] == [0, 1]


def test_a_reader_cannot_write(tmp_path):
    path = write_all(tmp_path / "history.db", made_up(1)[0])
    with closing(connect(path)) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM record")


def reads(folder):
    """Every way to open a history."""
    path = folder.history
    return {
        "run": lambda: read_run(folder),
        "records": lambda: read_history(path),
        "generation": lambda: read_generation(path, 0),
        "events": lambda: read_events(path),
        "lineage": lambda: read_lineage(path, 0, 0),
        "writer": lambda: History(path),
    }


def a_newer_schema(path):
    create(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def a_foreign_database(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE notes (text)")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # many programs number their schemas from 1


def a_database_cut_short(path):
    write_all(path, made_up(5)[0])
    path.write_bytes(path.read_bytes()[:6000])


@pytest.mark.parametrize("way", ["run", "records", "generation", "events", "lineage", "writer"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such history"),
        (lambda path: path.write_text("generation,slot\n0,0\n"), "cannot be read as a history"),
        (lambda path: path.touch(), "not a vmaptune history"),
        (a_newer_schema, "written by a newer vmaptune"),
        (a_foreign_database, "not a vmaptune history|cannot be read as a history"),
        (a_database_cut_short, "cannot be read as a history"),
    ],
    ids=["missing", "text", "empty", "newer", "foreign", "cut short"],
)
def test_what_is_no_history_of_ours_is_refused_with_a_sentence(tmp_path, way, make, says):
    folder = RunFolder(tmp_path)
    folder.config.touch()
    make(folder.history)
    before = folder.history.read_bytes() if folder.history.exists() else None
    with pytest.raises(StoreError, match=says) as caught:
        reads(folder)[way]()
    assert str(folder.history) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (folder.history.read_bytes() if folder.history.exists() else None) == before


@pytest.mark.parametrize("make", [a_newer_schema, a_foreign_database, a_database_cut_short, lambda path: path.touch()])
def test_an_unreadable_run_does_not_hide_the_others(tmp_path, run, make):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.toml").touch()
    make(tmp_path / "bad" / "history.db")
    (tmp_path / "good").symlink_to(run[0].run)
    found = {run["run"].rpartition("/")[2]: run["status"] for run in list_runs(tmp_path)}
    assert found == {"bad": "unreadable", "good": "finished"}
    assert find_run(tmp_path, "x") is None


def test_a_config_is_not_begun_over_a_history_that_cannot_be_read(tmp_path):
    a_newer_schema(tmp_path / "history.db")
    before = (tmp_path / "history.db").read_bytes()
    (tmp_path / "config.toml").write_text("seed = 0\n")
    with pytest.raises(StoreError, match="newer"):
        tune(SMALL, out=tmp_path, resume=True)
    assert (tmp_path / "history.db").read_bytes() == before


def test_history_as_a_data_frame(run):
    history = run[0].history
    frame = history.to_pandas()
    assert list(frame.columns) == list(history.dtype.names)
    assert len(frame) == len(history) == 32
    for name in frame.columns:
        np.testing.assert_array_equal(frame[name].to_numpy(), np.asarray(history[name]))
        assert frame[name].dtype == (np.int64 if FIXED.get(name) == "INTEGER" else np.float64)
    last = history[history["generation"] == 3]
    assert isinstance(last, HistoryArray)
    assert last.to_pandas().groupby("generation")["validation.accuracy"].max()[3] == last["validation.accuracy"].max()


# ---------------------------------------------------------------------------------------------------- folder and files


def test_new_folders_never_share_a_name(tmp_path):
    made = [new_folder(tmp_path / "runs", "digits").path for _ in range(5)]
    assert len(set(made)) == 5
    assert sorted((tmp_path / "runs").iterdir()) == sorted(made)
    assert all(re.fullmatch(r"digits-\d{8}-\d{6}(-\d)?", path.name) for path in made)


def test_runs_are_found_oldest_first_and_nothing_else_is(tmp_path):
    for age, name in ((3, "c"), (1, "b"), (2, "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").touch()
        os.utime(tmp_path / name / "config.toml", (1e9 - age, 1e9 - age))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert [run.path.name for run in find_runs(tmp_path)] == ["c", "a", "b"]
    assert [run.path.name for run in find_runs(tmp_path / "a")] == ["a"]
    assert find_runs(tmp_path / "nowhere") == []


def test_write_text_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second" * 10_000 + "\ud800")  # a lone surrogate cannot be encoded
    assert path.read_text() == "first\n"
    write_text(path, "third: ü\n")
    assert path.read_text(encoding="utf-8") == "third: ü\n"
    assert list(path.parent.iterdir()) == [path]


def test_write_text_replaces_the_file_rather_than_its_content(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "first")
    with path.open() as reader:
        write_text(path, "second")
        assert reader.read() == "first"  # who has the old file open reads the old file to its end
    assert path.read_text() == "second"


# ---------------------------------------------------------------------------------------------------------------- lock

HOLDER = """
import sys, time
from vmaptune.store.folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(600)
"""
RUNNER = """
import sys
from types import SimpleNamespace
from tests.conftest import SMALL
from vmaptune.loop import tune
tell = SimpleNamespace(write=lambda record: print(record.generation, flush=True), close=lambda: None)
endless = SMALL | {"population": SMALL["population"] | {"generations": 10**6}}
tune(endless, out=sys.argv[1], sinks=[tell])
"""


@contextmanager
def started(code, folder):
    """A process that has written its first line; killed, if it lives, when the block ends."""
    command = [sys.executable, "-c", code, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_tune_is_refused_while_the_first_runs_and_not_after(tmp_path, run):
    refusals = []

    def try_again(record):
        with pytest.raises(StoreError) as caught:
            tune(SMALL, out=tmp_path / "run", resume=True)
        refusals.append(str(caught.value))

    tune(SMALL, out=tmp_path / "run", sinks=[SimpleNamespace(write=try_again, close=lambda: None)], should_stop=lambda: True)
    (refusal,) = refusals
    assert refusal.startswith(f"{tmp_path / 'run'}: in use by process {os.getpid()} on {socket.gethostname()};")
    assert read_run(RunFolder(tmp_path / "run"))["status"] == "interrupted"
    result = tune(SMALL, out=tmp_path / "run", resume=True)
    assert result.status == "finished"
    assert result.history.tobytes() == run[0].history.tobytes()


def test_a_lock_is_let_go_when_its_block_raises(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).locked():
        1 / 0  # noqa: B018
    with RunFolder(tmp_path).locked():
        assert (tmp_path / "run.lock").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with started(HOLDER, tmp_path), pytest.raises(StoreError, match="in use by another process"), RunFolder(tmp_path).locked():
        pass
    with RunFolder(tmp_path).locked():
        assert (tmp_path / "run.lock").exists()


def test_a_holder_that_has_not_signed_the_history_yet_is_not_misnamed(tmp_path):
    """Between taking the lock and writing its pid, a resuming process compiles; the row names whoever came before."""
    folder = RunFolder(tmp_path)
    with closing(History(create(folder.history))) as history:
        history.sign(2**22 + 1, "elsewhere")
        history.end("interrupted")
    with started(HOLDER, tmp_path), pytest.raises(StoreError) as caught, folder.locked():
        pass
    assert "in use by" in str(caught.value)
    assert "elsewhere" not in str(caught.value)


def test_a_killed_run_is_told_as_stopped_and_can_be_resumed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    endless = SMALL | {"population": SMALL["population"] | {"generations": 10**6}}
    with started(RUNNER, folder.path) as process:
        living = read_run(folder)
        with pytest.raises(StoreError, match=f"in use by process {process.pid} on {re.escape(socket.gethostname())};"):
            tune(endless, out=folder.path, resume=True)
    assert (living["status"], living["pid"], living["host"]) == ("running", process.pid, socket.gethostname())
    assert dump(folder.history)["run"][0]["status"] == "running"
    stopped = read_run(folder)
    assert stopped["status"] == "stopped"
    assert stopped["generation"] >= living["generation"]
    assert list_runs(tmp_path)[0]["status"] == "stopped"
    assert find_run(tmp_path, stopped["id"]).path == folder.path
    result = tune(endless, out=folder.path, resume=True, should_stop=lambda: True)
    assert result.status == read_run(folder)["status"] == "interrupted"
    assert list(np.unique(result.history["generation"])) == list(range(int(result.history["generation"].max()) + 1))
    # At most two generations are made again: one whose rows had no checkpoint yet, one whose checkpoint was being written.
    assert len(result.history) in [8 * (stopped["generation"] + more) for more in (0, 1, 2)]


# --------------------------------------------------------------------------------------------------------- checkpoints


def a_state(seed=0):
    """A pytree with every kind of leaf that a run may carry."""
    rng = np.random.default_rng(seed)

    def array(dtype, *shape):
        return jnp.asarray(rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0])

    whole = {str(np.dtype(d)): array(d, 3, 2) for d in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32)}
    real = {str(np.dtype(d)): array(d, 2, 3) for d in (np.float16, ml_dtypes.bfloat16, np.float32)}  # NaN payloads too
    return {
        "whole": whole,
        "real": real,
        "special": jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-45], jnp.float32),
        "flags": (jnp.array([True, False]), [jnp.array(seed % 2 == 0)]),
        "scalar": jnp.int32(seed),
        "empty": (jnp.zeros((0,), jnp.float32), jnp.zeros((4, 0, 2), jnp.int32), jnp.zeros((0, 3), jnp.bfloat16)),
        "nothing": (),
    }


def bits(tree):
    return jax.tree.map(lambda leaf: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()), tree)


def zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


@pytest.fixture
def checkpoints(tmp_path):
    with closing(Checkpoints(tmp_path / "checkpoints")) as opened:
        yield opened


def test_a_checkpoint_comes_back_bit_for_bit(checkpoints, tmp_path):
    state = a_state()
    checkpoints.save(0, checkpoints.snapshot(state))
    checkpoints.close()
    with closing(Checkpoints(tmp_path / "checkpoints")) as opened:
        newest, restored = opened.restore_newest(0, like=lambda _: zeros(state))
    assert newest == 0
    assert bits(restored) == bits(state)
    assert bits(state) != bits(zeros(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)


def test_a_checkpoint_of_a_run_state_comes_back_on_its_devices(checkpoints):
    mesh = jax.make_mesh((2,), ("population",), axis_types=(jax.sharding.AxisType.Auto,))
    slots = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("population"))
    state = jax.device_put({"step": np.arange(8, dtype=np.int32), "none": np.zeros((8, 0), np.float32)}, slots)
    checkpoints.save(0, checkpoints.snapshot(state))
    _, restored = checkpoints.restore_newest(0, like=lambda _: jax.device_put(zeros(state), slots))
    assert bits(restored) == bits(state)
    assert all(leaf.sharding == slots for leaf in jax.tree.leaves(restored))


def test_a_checkpoint_holds_what_the_state_was_when_its_snapshot_was_taken(checkpoints):
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = jnp.arange(100_000, dtype=jnp.float32)
    expected = np.array(state)
    snapshot = checkpoints.snapshot({"x": state})
    add(state)
    assert state.is_deleted()  # its buffer may be used again before the file is written
    checkpoints.save(0, snapshot)
    np.testing.assert_array_equal(
        checkpoints.restore_newest(0, like=lambda _: {"x": jnp.zeros(100_000, jnp.float32)})[1]["x"], expected
    )


def test_the_newest_two_checkpoints_are_kept(checkpoints):
    states = {g: a_state(g) for g in range(4)}
    like = zeros(states[0])
    assert checkpoints.restore_newest(10**6, like=lambda _: like) == (-1, None)
    for generation, state in states.items():
        checkpoints.save(generation, checkpoints.snapshot(state))
    for at_most, newest in ((10**6, 3), (3, 3), (2, 2), (1, -1), (-1, -1)):
        found, restored = checkpoints.restore_newest(at_most, like=lambda _: like)
        assert found == newest
        assert restored is None if newest < 0 else bits(restored) == bits(states[newest])


def test_what_is_dropped_is_gone_and_can_be_saved_again(checkpoints, tmp_path):
    for generation in (4, 7):
        checkpoints.save(generation, checkpoints.snapshot(a_state(generation)))
    checkpoints.close()
    with closing(Checkpoints(tmp_path / "checkpoints")) as opened:
        like = zeros(a_state())
        opened.drop_after(7)
        assert opened.restore_newest(100, like=lambda _: like)[0] == 7
        opened.drop_after(5)
        assert opened.restore_newest(100, like=lambda _: like)[0] == 4
        opened.save(7, opened.snapshot(a_state(1)))
        newest, restored = opened.restore_newest(100, like=lambda _: like)
        assert (newest, bits(restored)) == (7, bits(a_state(1)))
        opened.drop_after(-1)
        assert opened.restore_newest(100, like=lambda _: like) == (-1, None)


def test_keys_come_back_as_keys(checkpoints):
    state = {"threefry": jax.random.key(3), "many": jax.random.split(jax.random.key(4), 2)}
    checkpoints.save(0, checkpoints.snapshot(state))
    like = jax.tree.map(lambda leaf: jnp.broadcast_to(jax.random.key(0), leaf.shape), state)
    _, restored = checkpoints.restore_newest(0, like=lambda _: like)
    for name, key in state.items():
        assert restored[name].dtype == key.dtype
        np.testing.assert_array_equal(jax.random.key_data(restored[name]), jax.random.key_data(key))
