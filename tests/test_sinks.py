"""Sinks: each is read back by its own client and holds what the history holds, after a hard kill too; none hurts a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import textwrap
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

import vmaptune as vt
from tests.test_store import create, dump, made_up, write_all
from vmaptune import sinks as room
from vmaptune.config import resolve
from vmaptune.errors import ConfigError, VmaptuneWarning
from vmaptune.sinks import SINKS, Guarded, Listeners, choose_sinks, read_info
from vmaptune.sinks.choosing import Chosen
from vmaptune.sinks.summary import scalars, spreads
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History
from vmaptune.store.reading import read_events, read_history
from vmaptune.store.record import Record
from vmaptune.store.replaying import read_records
from vmaptune.toml import load_config, load_tree, to_toml

ROOT = Path(__file__).parent.parent
TREE = {
    "task": {"hidden": [8], "dropout": {"low": 0.0, "high": 0.5}},
    "batch": {"size": 32},
    "optimizer": {"learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"}},
    "population": {"size": 4, "segment_steps": 2, "generations": 4},
    "plan": {"generations_per_dispatch": 1},
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow and what it stands on


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was cut off between a generation's rows and its checkpoint, and resumed with more sinks than it had."""
    place = tmp_path_factory.mktemp("sinks")
    folder, stops = place / "run", iter([False, False, True])
    few = {"csv": {}, "parquet": {}, "tensorboard": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.chdir(place)  # where MLflow keeps its files
        vt.tune(TREE | {"sinks": few}, out=folder, should_stop=lambda: next(stops))
        shutil.rmtree(folder / "checkpoints" / "2")
        more = few | {"mlflow": {"uri": f"sqlite:///{place}/mlflow.db"}, "wandb": {}}
        result = vt.tune(TREE | {"sinks": more}, out=folder, resume=True)
        yield SimpleNamespace(
            folder=folder,
            result=result,
            info=read_info(RunFolder(folder)),
            history=read_history(folder / "history.db"),
            records=list(read_records(folder / "history.db")),
            place=place,
            uri=f"sqlite:///{place}/mlflow.db",
        )
    import wandb

    wandb.teardown()


KILLED = """
import os, signal, sys
from pathlib import Path
from vmaptune.analysis.exporting import export
from vmaptune.sinks import choose_sinks, read_info
from vmaptune.store.folder import RunFolder
from vmaptune.store.replaying import read_records

folder, out = map(Path, sys.argv[1:])
for name in ("csv", "parquet", "tensorboard", "wandb"):
    sink = choose_sinks({name: {}})[0].make(read_info(RunFolder(folder), out / name))
    for record in read_records(folder / "history.db", 0, 2):
        sink.write(record)
export(folder, "json", out=out / "json")
assert "jax" not in sys.modules
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def resumed(run, tmp_path_factory):
    """Where each sink wrote the run: a process was killed after generation 2, and another went on with generation 2."""
    out, folder = tmp_path_factory.mktemp("killed"), RunFolder(run.folder)
    own = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}  # else this process would share its W&B with the other
    asked = [sys.executable, "-c", KILLED, run.folder, out]
    killed = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, env=own)
    assert killed.returncode == -9, killed.stderr
    mlflow = {"uri": run.uri, "experiment": "killed"}
    dropped = choose_sinks({"mlflow": mlflow})[0].make(read_info(folder))  # in its database is what it was told, killed or not
    for record in run.records[:3]:
        dropped.write(record)
    for name, make in choose_sinks({name: mlflow if name == "mlflow" else {} for name in SINKS}):
        guarded = Guarded(name, partial(make, read_info(folder, out / name)), given=False)
        with closing(History(folder.history)) as history, closing(guarded):
            guarded.attach(folder, history)
            for record in run.records[2:]:
                guarded.write(record)
            guarded.finish(run.result.as_json() | {"test": None})  # as where several runs are compared first
            guarded.finish(run.result.as_json())
    return out


def test_a_process_that_was_killed_leaves_no_gap_and_nothing_twice(run, resumed):
    assert (resumed / "csv").read_bytes() == (run.folder / "history.csv").read_bytes()
    assert (resumed / "parquet").read_bytes() == (run.folder / "history.parquet").read_bytes()
    assert_same(tensorboard_points(resumed / "tensorboard"), curves(run))
    assert len(list((resumed / "tensorboard").glob("events.*"))) == 1
    assert wandb_points(resumed / "wandb") == wandb_points(run.folder / "wandb")
    parent, child = mlflow_runs(run.uri, "killed")
    assert child.data.metrics == mlflow_runs(run.uri, "vmaptune")[1].data.metrics
    points = mlflow_points(run.uri, parent)
    assert len(points) == len(set(points)) == len(curves(run))


def curves(run):
    """What trackers are told of the run: `(name, step) -> value`."""
    told = {(k, r.generation): v for r in run.records for k, v in scalars(r, run.info).items()}
    assert {g for _, g in told} == {0, 1, 2, 3}
    return told


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    keys = sorted(found)
    np.testing.assert_array_equal(np.float32([found[k] for k in keys]), np.float32([expected[k] for k in keys]))


# -------------------------------------------------------------------------------------------------------- real clients


def test_the_kill_was_between_two_generations_and_nothing_failed(run):
    events = read_events(run.folder / "history.db")
    (done,) = [e["detail"]["after_generation"] for e in events if e["kind"] == "resumed"]
    assert done == 1  # generation 2 was on record, and was made again
    assert [e for e in events if e["kind"] == "sink_failed"] == []
    assert run.result.status == "finished"


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_pandas_reads_the_table_as_the_history(run, name):
    import pandas

    path = run.folder / f"history.{name}"
    found = pandas.read_csv(path) if name == "csv" else pandas.read_parquet(path)
    assert tuple(found.columns) == run.history.dtype.names
    for column in found:
        np.testing.assert_array_equal(found[column].astype(np.float32), run.history[column].astype(np.float32))


def test_duckdb_reads_the_parquet_file_and_its_types(run):
    import duckdb

    with duckdb.connect() as db:
        query = f"FROM '{run.folder}/history.parquet' SELECT generation, max(fitness) GROUP BY 1 ORDER BY 1"
        found = db.execute(query).fetchall()
        types = {row[0]: row[1] for row in db.execute(f"DESCRIBE FROM '{run.folder}/history.parquet'").fetchall()}
    assert found == [(r.generation, float(r.fitness.max())) for r in run.records]
    integers = ("generation", "slot", "trial", "step", "status", "parent")
    assert types == {n: "INTEGER" if n in integers else "FLOAT" for n in run.history.dtype.names}


def test_pandas_reads_history_db(run):
    import pandas

    with closing(sqlite3.connect(run.folder / "history.db")) as db:
        found = pandas.read_sql("SELECT * FROM record ORDER BY generation, slot", db)
    np.testing.assert_array_equal(found.to_numpy(), run.history.to_pandas().to_numpy())


def accumulator(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0}).Reload()


def tensorboard_points(folder):
    events = accumulator(folder)
    points = [((tag, e.step), e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    assert len(dict(points)) == len(points)
    return dict(points)


def test_tensorboard_reads_curves_histograms_and_the_config(run):
    assert_same(tensorboard_points(run.folder / "tensorboard"), curves(run))
    events = accumulator(run.folder / "tensorboard")
    for record in run.records:
        for name, values in spreads(record, run.info).items():
            (found,) = [e.histogram_value for e in events.Histograms(f"members/{name}") if e.step == record.generation]
            assert (found.num, found.min, found.max) == (len(values), values.min(), values.max())
            assert sum(found.bucket) == len(values)
    (text,) = events.Tensors("config/text_summary")
    assert "    optimizer.learning_rate.scale = 'log'" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_reads_the_hparams_of_every_trial(run):
    from tensorboard.plugins.hparams import metadata

    last = {int(row["trial"]): row for row in run.history}
    folders = {int(path.name.removeprefix("trial_")): path for path in (run.folder / "tensorboard").glob("trial_*")}
    assert folders.keys() == last.keys()
    for trial, path in folders.items():
        events = accumulator(path)
        content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        found = metadata.parse_session_start_info_plugin_data(content).hparams
        assert {k: v.number_value for k, v in found.items()} == {k: last[trial][k] for k in run.info.hyperparameters}
        ended = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
        assert ended == {k: last[trial][k] for k in run.info.metrics}


def mlflow_runs(uri, experiment):
    """The run and the winner's, of which there is one each."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert sorted(r.info.run_name for r in found) == ["run", "run, best"]
    return sorted(found, key=lambda r: r.info.run_name)


def mlflow_points(uri, run):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return [((name, m.step), m.value) for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)]


def test_mlflow_reads_one_run_and_the_winner_below_it(run):
    from mlflow import MlflowClient

    parent, child = mlflow_runs(run.uri, "vmaptune")
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    points = mlflow_points(run.uri, parent)
    assert len(points) == len(curves(run))  # of none two
    assert_same(dict(points), curves(run))
    assert parent.data.params["optimizer.learning_rate.high"] == "0.1"
    best = run.result.best
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {k: float(v) for k, v in child.data.params.items()} == best.hyperparameters
    assert child.data.metrics == {
        f"{part}.{k}": v for part in ("train", "validation", "test") for k, v in getattr(best, part).items()
    }
    client = MlflowClient(tracking_uri=run.uri)
    assert {Path(f.path).name for f in client.list_artifacts(child.info.run_id, "best")} == {
        path.name for path in (run.folder / "best").iterdir()
    }


def wandb_records(path):
    """A W&B file's records, by W&B's own protocol: a LevelDB log, in blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record as WandbRecord

    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield WandbRecord.FromString(part)
            part = b""


def wandb_points(folder):
    (path,) = folder.rglob("*.wandb")
    found, steps = {}, []
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            steps.append(row["_step"])
            found |= {(k, row["_step"]): v for k, v in row.items() if not k.startswith(("_", "members/"))}
    assert steps == [0, 1, 2, 3]
    return found


def test_wandb_keeps_every_generation_once_offline(run):
    assert_same(wandb_points(run.folder / "wandb"), curves(run))
    (path,) = (run.folder / "wandb").rglob("*.wandb")
    updates = [item for record in wandb_records(path) for item in record.summary.update]
    summary = {"/".join(item.nested_key) or item.key: item.value_json for item in updates}
    assert float(summary["test/accuracy"]) == run.result.best.test["accuracy"]


# ------------------------------------------------------------------------------------------------------------- records


@effort(max_examples=8)
@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_a_history_is_read_back_as_the_records_it_was_written_from(tmp_path_factory, seed, n):
    records, _ = made_up(5, n, seed)
    records = [emptied(record, seed) for record in records] if n > 1 else records
    path = create(tmp_path_factory.mktemp("replay") / "history.db")
    with closing(History(path)) as history, history._db as db:
        db.execute("UPDATE run SET size = ?", (n,))
    write_to(path, records)
    found = list(read_records(path))
    assert len(found) == len(records)
    for a, b in zip(found, records, strict=True):
        assert_same_record(a, b)
    assert [r.generation for r in read_records(path, 2, 3)] == [2, 3]


def write_to(path, records):
    with closing(History(path)) as history:
        for record in records:
            history.write(record)


def emptied(record, slot):
    """The record with one slot that never held a member."""
    slot = slot % len(record.trial)
    columns = {"trial": -1, "parent": -2, "step": 0, "status": 0, "fitness": np.nan, "next_trial": -1}
    fields = vars(record) | {name: getattr(record, name).copy() for name in columns}
    for name, value in columns.items():
        fields[name][slot] = value
    for name in ("metrics", "hyperparameters"):
        fields[name] = {k: np.where(np.arange(len(v)) == slot, np.float32(np.nan), v) for k, v in fields[name].items()}
    return Record(**fields)


def assert_same_record(a, b):
    for name in ("trial", "step", "status", "fitness", "parent", "next_trial"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert getattr(a, name).dtype == getattr(b, name).dtype
    for name in ("metrics", "hyperparameters"):
        assert getattr(a, name).keys() == getattr(b, name).keys()
        for k in getattr(a, name):
            np.testing.assert_array_equal(getattr(a, name)[k], getattr(b, name)[k])
    assert (a.generation, dict(a.seconds)) == (b.generation, dict(b.seconds))


# ------------------------------------------------------------------------------------------------------------- summary


def test_curves_are_numpys_quantiles_over_the_sound_members(run):
    records, _ = made_up(6, 5, seed=3)
    info = SimpleNamespace(metrics=("train.loss", "validation.loss"), hyperparameters=("optimizer.b1",), steps=2)
    assert any(record.failed.any() for record in records)
    for record in records:
        told = scalars(record, info)
        good = np.isfinite(record.fitness)
        assert (told["generation/members"], told["generation/failed"]) == (5, (~good).sum())
        assert told["generation/member_steps_per_second"] == 5 * 2 / 0.5
        for name, column in {"fitness": record.fitness, **record.metrics, **record.hyperparameters}.items():
            assert told[f"{name}/best"] == column[np.nanargmax(record.fitness)]
            for part, share in (("median", 0.5), ("q10", 0.1), ("q90", 0.9)):
                assert told[f"{name}/{part}"] == pytest.approx(np.quantile(column[good].astype(float), share), rel=1e-12)


def test_a_generation_of_failed_members_is_counted_and_drawn_nowhere(tmp_path):
    (record, *_), _ = made_up(1, 3)
    nothing = Record(**vars(record) | {"fitness": np.full(3, np.nan, np.float32)})
    info = SimpleNamespace(metrics=(), hyperparameters=("optimizer.b1",), steps=2)
    assert scalars(nothing, info) == {
        "generation/members": 3,
        "generation/failed": 3,
        "generation/member_steps_per_second": 12,
    }
    assert spreads(nothing, info) == {}


# ------------------------------------------------------------------------------------------------------------ failures


class Failing:
    """A sink that fails at one of its calls, and counts those that follow."""

    def __init__(self, at, error):
        self.at, self.error, self.calls, self.closed = at, error, [], 0

    def opened(self):
        self._call("open")
        return self

    def _call(self, name):
        self.calls.append(name)
        if name == self.at:
            raise self.error

    def write(self, record):
        self._call(record.generation)

    def finish(self, facts):
        assert facts.keys() == {"status", "best", "test", "member_steps"}
        self._call("finish")

    def close(self):
        self.closed += 1
        self._call("close")


FACTS = {"status": "finished", "best": {}, "test": None, "member_steps": 0, "seconds": {}}
POINTS = ["open", 0, 1, 2, 3, "finish", "close"]


@given(
    seed=st.integers(0, 100),
    points=st.lists(st.sampled_from([*POINTS, "never"]), min_size=1, max_size=4),
    error=st.sampled_from(
        [OSError(28, "No space left on device"), ConnectionError("away"), RuntimeError(""), ValueError("a\nb")]
    ),
)
def test_wherever_a_sink_fails_the_history_is_the_same_and_it_is_said_once(tmp_path_factory, seed, points, error):
    place = tmp_path_factory.mktemp("failing")
    (place / "run").mkdir()
    (place / "run" / "config.toml").touch()
    records, _ = made_up(4, 3, seed)
    path = create(place / "run" / "history.db")
    failing = [Failing(point, error) for point in points]
    folder = RunFolder(place / "run")
    with closing(History(path)) as history, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        listeners = Listeners([])
        listeners.attach(folder, history, [Chosen(str(i), lambda _, s=sink: s.opened()) for i, sink in enumerate(failing)])
        for record in records:
            for sink in (history, *listeners):
                sink.write(record)
        listeners.finish(FACTS)
        listeners.close()
        listeners.close()
    undisturbed = write_all(place / "history.db", records)
    found, expected = dump(path, but=("time", "created")), dump(undisturbed, but=("time", "created"))
    switched_off = [row for row in found["event"] if row["kind"] == "sink_failed"]
    assert [row for row in found["event"] if row not in switched_off] == [
        row | {"id": found_row["id"]}
        for row, found_row in zip(expected["event"], (r for r in found["event"] if r not in switched_off), strict=True)
    ]
    assert {k: v for k, v in found.items() if k != "event"} == {k: v for k, v in expected.items() if k != "event"}
    broken = [i for i, point in enumerate(points) if point != "never"]
    assert sorted(json.loads(row["detail"])["sink"] for row in switched_off) == [f"sinks.{i}" for i in broken]
    assert len(said) == len(broken)
    for sink in failing:
        until = POINTS.index(sink.at) if sink.at != "never" else len(POINTS) - 1
        told = POINTS[: until + 1]
        assert sink.calls == told + ["close"] * (sink.at not in ("open", "close", "never"))
        assert sink.closed == (sink.at != "open")


def test_a_run_whose_sinks_fail_is_the_run_without_them(run, tmp_path):
    class Away:
        def __init__(self, _, *, at: int):
            self.at = at

        def write(self, record):
            if record.generation == self.at:
                raise ConnectionError("the server is away")

        def close(self):
            raise OSError(28, "No space left on device")

    with pytest.warns(VmaptuneWarning) as said:
        result = vt.tune(TREE, out=tmp_path / "run", sinks=[Away(None, at=0), Away(None, at=2), Away(None, at=9)])
    assert [str(w.message).partition(":")[0] for w in said] == [
        "sink Away could not be written and is switched off, while the run goes on",
        "sink Away could not be written and is switched off, while the run goes on",
        "sink Away could not be closed and is switched off, while the run goes on",
    ]
    assert str(said[0].message).endswith("ConnectionError: the server is away")
    np.testing.assert_array_equal(result.history, run.history)
    assert result.as_json()["best"] == run.result.as_json()["best"]
    failed = [e for e in read_events(tmp_path / "run" / "history.db") if e["kind"] == "sink_failed"]
    assert [(e["generation"], e["detail"]["what"]) for e in failed] == [(0, "written"), (2, "written"), (None, "closed")]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_passes_through_a_sink(interrupt):
    guarded = Guarded("it", lambda: Failing(0, interrupt()), given=True)
    with pytest.raises(interrupt):
        guarded.write(made_up(1)[0][0])
    guarded.close()
    assert guarded._sink.closed == 1


# ----------------------------------------------------------------------------------------------------------- by config


def test_the_example_in_the_documentation_works_as_it_stands(run, tmp_path):
    example = re.search(r"\n((?:    .*\n|\n)*    class Best:(?:    .*\n|\n)+)", room.__doc__).group(1)
    (tmp_path / "best.py").write_text(textwrap.dedent(example))
    (tmp_path / "my.toml").write_text('[sinks."best.py:Best"]\nname = "mine.txt"\n')
    config, _ = load_config(tmp_path / "my.toml")
    ((_, make),) = choose_sinks(config.sinks)
    with closing(make(read_info(RunFolder(run.folder), tmp_path / "mine.txt"))) as sink:
        for record in run.records:
            sink.write(record)
    lines = [line.split() for line in (tmp_path / "mine.txt").read_text().splitlines()]
    assert [(int(g), np.float32(best)) for g, best in lines] == [(r.generation, r.fitness.max()) for r in run.records]
    assert len(textwrap.dedent(example).strip().splitlines()) <= 15


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"tensorbord": {}}, "sinks: there is no sink 'tensorbord'; did you mean 'tensorboard'?"),
        ({"zzz": {}}, "sinks: there is no sink 'zzz'; known: csv, mlflow, parquet, tensorboard, wandb"),
        ({"mlflow": {"url": ""}}, "sinks.mlflow: it has no setting 'url'; did you mean 'uri'?"),
        ({"csv": {"x": 1}}, "sinks.csv: it has no setting 'x'"),
        ({"wandb": {"mode": "of"}}, "sinks.wandb.mode: expected offline | online; given: 'of'"),
        ({"tensorboard": {"hparams": -1}}, "sinks.tensorboard.hparams: expected int >= 0; given: -1"),
        ({"no.such.module:It": {}}, "sinks.no.such.module:It: cannot load 'no.such.module:It': No module named 'no'"),
        ({"json:It": {}}, "sinks.json:It: json has no function 'It'"),
        ({"json:decoder": {}}, "sinks.json:decoder: does not make a sink: expected a function of the run"),
        ({"tests.test_sinks:needs": {}}, "sinks.tests.test_sinks:needs.path: must be given (str); it has no default"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(tables, sentence, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        choose_sinks(tables)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        vt.tune(TREE | {"sinks": tables}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")])
def test_a_package_that_is_not_installed_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    with pytest.raises(ConfigError) as error:
        choose_sinks({name: {}})
    assert str(error.value) == f"sinks.{name}: {package} is not installed: pip install 'vmaptune[{name}]'"


def needs(run, *, path: str):
    raise NotImplementedError


@pytest.mark.parametrize("given", [3, {"csv": 1}])
def test_a_section_that_is_no_table_is_refused(given):
    with pytest.raises(ConfigError, match=r"sinks(\.csv)?: expected a table, \[sinks(\.csv)?\]; given: "):
        resolve(TREE | {"sinks": given})


def test_sinks_change_nothing_of_what_a_run_is(tmp_path):
    plain, task = resolve(TREE)
    own = f"{tmp_path}/my best.py:Best"
    told, _ = resolve(TREE | {"sinks": {"csv": {}, own: {"name": "x", "every": [1, 2]}}})
    assert told.run_id == plain.run_id
    assert told.essence == plain.essence
    path = tmp_path / "config.toml"
    path.write_text(to_toml(told, task))
    assert load_tree(path)["sinks"] == told.sinks == {"csv": {}, own: {"name": "x", "every": [1, 2]}}


def test_a_sink_can_be_set_from_the_command_line(tmp_path):
    (tmp_path / "my.toml").write_text('[sinks.mlflow]\nexperiment = "mine"\n')
    given = ['sinks."a.py:B"={}', 'sinks."a.py:B".name=x', "sinks.mlflow={}", "sinks.csv={}"]
    found = load_tree(tmp_path / "my.toml", given)["sinks"]
    own = f"{Path('a.py').resolve()}:B"  # by its whole path, so that a run can be resumed from elsewhere
    assert found == {"mlflow": {"experiment": "mine"}, own: {"name": "x"}, "csv": {}}


def test_the_command_line_takes_sinks_and_refuses_what_it_does_not_know(tmp_path):
    from click.testing import CliRunner

    from vmaptune.cli.main import main

    refused = CliRunner().invoke(main, ["run", "--sink", "tensorbord", "--out", str(tmp_path / "run")])
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "did you mean 'tensorboard'?" in refused.output
    refused = CliRunner().invoke(main, ["check", "--set", "sinks.mlflow.url=x"])
    assert (refused.exit_code, refused.output) == (2, "Error: sinks.mlflow: it has no setting 'url'; did you mean 'uri'?\n")
