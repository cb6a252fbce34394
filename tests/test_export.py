"""Exports: an old run told to the same sinks as a new one, and formats that other tools open."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

import vmaptune as vt
from tests.test_sinks import TREE
from vmaptune.analysis.exporting import CODE, FORMATS, code, export
from vmaptune.analysis.schedule_code import snippet
from vmaptune.cli.main import main
from vmaptune.errors import ConfigError, StoreError
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History
from vmaptune.store.reading import read_events, read_history, read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run that was told to the sinks that keep files, in a folder whose name is no plain word."""
    folder = tmp_path_factory.mktemp("export") / "run #1 50%?"
    return vt.tune(TREE | {"sinks": {"csv": {}, "parquet": {}, "tensorboard": {}}}, out=folder).run


def call(*arguments):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_an_old_run_is_told_as_a_new_one_was(run, tmp_path, name):
    found = call(run, "--to", name, "--out", tmp_path / "it")
    assert (found.exit_code, found.output) == (0, f"{run}: exported to {tmp_path / 'it'}\n")
    assert (tmp_path / "it").read_bytes() == (run / f"history.{name}").read_bytes()


def test_tensorboard_files_say_the_same_but_for_the_time(run, tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    export(run, "tensorboard", out=tmp_path / "it")
    for first in (run / "tensorboard").rglob("events.*"):
        second = next((tmp_path / "it" / first.parent.relative_to(run / "tensorboard")).glob("events.*"))
        a, b = ([(e.step, str(e.summary)) for e in EventFileLoader(str(path)).Load()] for path in (first, second))
        assert a == b
    assert len(list((tmp_path / "it").rglob("events.*"))) == len(list((run / "tensorboard").rglob("events.*"))) > 4


def test_weights_go_to_orbax_and_are_replaced_only_when_asked(run, tmp_path):
    where = export(run, "orbax", out=tmp_path / "weights")
    with pytest.raises(StoreError, match="is there already; --overwrite replaces it"):
        export(run, "orbax", out=where)
    (where / "stale").touch()
    assert export(run, "orbax", out=where, overwrite=True) == where
    assert not (where / "stale").exists()


def test_json_is_one_strict_document_of_the_whole_history(run, tmp_path):
    export(run, "json", out=tmp_path / "it.json")

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "it.json").read_text(), parse_constant=refuse)
    assert list(found) == ["run", "trials", "records", "events"]
    history = read_history(run / "history.db")
    assert [tuple(row.values()) for row in found["records"]] == history.tolist()
    assert found["events"] == read_events(run / "history.db")
    assert {k: found["run"][k] for k in ("id", "metric", "status")} == {"metric": "accuracy", "status": "finished"} | {
        "id": read_run(RunFolder(run))["id"]
    }
    assert {t["trial"] for t in found["trials"]} == {r["trial"] for r in found["records"]}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optuna_loads_the_storage_and_draws_from_it(run, tmp_path):
    import optuna

    assert export(run, "optuna", out=tmp_path / "optuna.db") == tmp_path / "optuna.db"
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as db:
        assert db.execute("SELECT study_name FROM studies").fetchall() == [(run.name,)]
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    study = optuna.load_study(study_name=run.name, storage=storage)
    history = read_history(run / "history.db")
    last = {int(row["trial"]): row for row in history}
    assert {t.user_attrs["trial"]: t.value for t in study.trials} == {k: row["validation.accuracy"] for k, row in last.items()}
    for trial in study.trials:
        row = last[trial.user_attrs["trial"]]
        assert trial.params == {k: pytest.approx(row[k]) for k in ("task.dropout", "optimizer.learning_rate")}
        assert trial.distributions["optimizer.learning_rate"].log
    for draw in ("optimization_history", "slice", "parallel_coordinate", "intermediate_values"):
        figure = getattr(optuna.visualization, f"plot_{draw}")(study)
        assert figure.data
    assert served(storage) == {run.name: len(last)}
    storage.remove_session()
    storage.engine.dispose()


def served(storage):
    """The trials that optuna-dashboard serves, by study."""
    import httpx
    from optuna_dashboard import wsgi

    with httpx.Client(transport=httpx.WSGITransport(wsgi(storage)), base_url="http://localhost") as client:
        studies = client.get("/api/studies").raise_for_status().json()["study_summaries"]
        trials = [client.get(f"/api/studies/{study['study_id']}").raise_for_status().json()["trials"] for study in studies]
    return {study["study_name"]: len(of_study) for study, of_study in zip(studies, trials, strict=True)}


@pytest.mark.parametrize("library", CODE)
def test_the_winners_schedule_is_printed_as_code_or_written(run, tmp_path, library):
    text = snippet(run, library)
    compile(text, "schedule.py", "exec")
    assert call(run, "--to", library).output == text
    assert json.loads(call(run, "--to", library, "--json").output) == {"run": str(run), "to": library, "code": text}
    assert call(run, "--to", library, "--out", tmp_path / "it.py").exit_code == 0
    assert (tmp_path / "it.py").read_text() == text == code(run, library)


def test_a_sink_of_ones_own_takes_settings(run, tmp_path):
    source = """
class Mine:
    def __init__(self, run, *, sign: int = 1):
        self.file, self.sign = run.place("mine.txt").open("w"), sign

    def write(self, record):
        self.file.write(f"{self.sign * record.generation} ")

    def finish(self, facts):
        self.file.write(f"{facts['status']} {facts['best']['trial']} {sorted(facts['test'])}")

    def close(self):
        self.file.close()
"""
    (tmp_path / "mine.py").write_text(source)
    out = tmp_path / "mine.txt"
    found = call(run, "--to", f"{tmp_path}/mine.py:Mine", "--set", "sign=-1", "--out", out, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["path"] == str(out)
    assert out.read_text() == f"0 -1 -2 -3 finished {read_run(RunFolder(run))['result']['best']['trial']} ['accuracy', 'loss']"


def test_a_run_that_is_not_over_is_exported_as_far_as_it_is(run, tmp_path):
    shutil.copytree(run, tmp_path / "half")
    with closing(History(tmp_path / "half" / "history.db")) as history:
        history.truncate(1)
        history._db.execute("UPDATE run SET status = 'stopped', result = NULL")
        history._db.commit()
    import polars

    export(tmp_path / "half", "parquet", overwrite=True)
    found = polars.read_parquet(tmp_path / "half" / "history.parquet")
    whole = polars.read_parquet(run / "history.parquet")
    assert found.equals(whole.filter(polars.col("generation") <= 1))


@pytest.mark.parametrize("name", ["csv", "parquet", "tensorboard", "json", "optuna", "optax"])
def test_what_is_there_is_kept_unless_it_is_to_be_replaced(run, tmp_path, name):
    place = tmp_path / "it"
    place.mkdir() if name == "tensorboard" else place.write_text("mine")
    refused = call(run, "--to", name, "--out", place)
    sentence = f"Error: {place}: is there already; --overwrite replaces it, --out names another place\n"
    assert (refused.exit_code, refused.output) == (2, sentence)
    assert name == "tensorboard" or place.read_text() == "mine"
    assert call(run, "--to", name, "--out", place, "--overwrite").exit_code == 0
    assert name == "tensorboard" or place.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "parket"], "--to: there is no format 'parket'; did you mean 'parquet'?"),
        (["--to", "json", "--set", "x=1"], "--set: json has no settings; given: x"),
        (["--to", "csv", "--set", "x=1"], "sinks.csv: it has no setting 'x'"),
        (["--to", "csv", "--out", "no/such/folder/it.csv"], "FileNotFoundError: "),
        (["--to", "tests.test_export:Broken"], "could not be exported to tests.test_export:Broken: ConnectionError: away"),
    ],
)
def test_a_mistake_is_one_sentence(run, arguments, sentence):
    found = call(run, *arguments)
    assert (found.exit_code, found.output.count("\n")) == (2, 1)
    assert sentence in found.output


class Broken:
    def __init__(self, run):
        pass

    def write(self, record):
        raise ConnectionError("away\nfor good")

    def close(self):
        pass


def test_a_folder_without_a_run_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "begun")
    with closing(History(tmp_path / "begun" / "history.db")) as history:
        history.truncate(-1)
    with pytest.raises(StoreError, match="has no generation yet that could be exported"):
        export(tmp_path / "begun", "json", out=tmp_path / "it")
    with pytest.raises(StoreError, match="not a run folder"):
        export(tmp_path, "csv")
    with pytest.raises(ConfigError, match="known: csv, json, mlflow, optax, optuna, orbax, parquet, tensorboard, torch, wandb"):
        export(tmp_path, "zzz")
    assert FORMATS.keys() >= set(CODE)
