"""The locked test split: read once, on record before and after, and every further look counted."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from tests.conftest import SMALL
from tests.winners import finished, unread
from vmaptune.analysis.testing import look_again
from vmaptune.cli.main import main
from vmaptune.errors import VmaptuneWarning
from vmaptune.loop import tune
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History
from vmaptune.store.ledger import read_test, recorded_test
from vmaptune.store.reading import read_run
from vmaptune.store.reading import test_reads as reads_of

WHO = {"what": "best", "trial": 3, "generation": 1}


@pytest.fixture
def run(tmp_path):
    """A finished run."""
    shutil.copytree(finished(), tmp_path / "run")
    return tmp_path / "run"


def told(*arguments):
    result = CliRunner().invoke(main, ["test", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_run_that_left_it_unread_reads_it_once_when_asked(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(unread(), run)
    path = RunFolder(run).history
    assert reads_of(path) == []
    code, text = told(run)
    assert (code, "test read once" in text, "Readings" in text) == (0, True, False), text
    (read,) = reads_of(path)
    result = read_run(RunFolder(run))["result"]
    assert (read["what"], read["trial"], read["metrics"]) == ("best", result["best"]["trial"], result["test"])
    assert (run / "best" / "weights.safetensors").is_file()
    assert json.loads(told(run, "--json")[1])["test"] == result["test"]
    tune(SMALL, out=run, resume=True)  # what is on record is not read again
    assert reads_of(path) == [read]


def test_a_second_look_is_asked_for_and_counted(run):
    code, text = told(run, "--again")
    assert (code, "test read 2 times" in text, text.count("best")) == (0, True, 2), text
    first, second = reads_of(RunFolder(run).history)
    assert second["metrics"] == pytest.approx(first["metrics"], abs=1e-6)
    assert "test read 2 times" in told(run)[1]


def test_data_that_have_changed_are_spoken_of(run):
    with closing(sqlite3.connect(RunFolder(run).history)) as db, db:
        db.execute("UPDATE event SET detail = json_set(detail, '$.digest', 'other') WHERE kind = 'data'")
    with pytest.warns(VmaptuneWarning, match="the data are not what they were .* among the validation and test splits"):
        look_again(run)


def test_a_reading_that_nobody_noted_is_counted(run):
    path = RunFolder(run).history

    def killed():
        raise KeyboardInterrupt

    with closing(History(path)) as history:
        with pytest.raises(KeyboardInterrupt):
            read_test(history, path, WHO, killed)
        assert [read["metrics"] for read in reads_of(path)[1:]] == [None]
        assert recorded_test(path, WHO) is None
        assert read_test(history, path, WHO, lambda: {"loss": 0.5, "accuracy": float("nan")})["loss"] == 0.5
    assert [read["metrics"] for read in reads_of(path)[1:]] == [None, {"loss": 0.5, "accuracy": "nan"}]
    code, text = told(run)
    assert (code, "test read 3 times" in text, "not noted: the process died" in text) == (0, True, True), text


def test_what_is_on_record_is_not_measured_again(run):
    path = RunFolder(run).history
    calls = []
    with closing(History(path)) as history:
        for again in (False, False, True):
            read_test(history, path, WHO, lambda: calls.append(1) or {"loss": 0.5}, again=again)
    assert (len(calls), len(reads_of(path))) == (2, 3)
    assert recorded_test(path, WHO | {"trial": 4}) is None


def test_a_run_of_before_the_ledger_was_read_once(run):
    path = RunFolder(run).history
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM event WHERE kind LIKE 'test_%'")
        db.execute("UPDATE run SET ended = '2026-01-01T00:00:00Z'")
    (read,) = reads_of(path)
    assert (read["what"], read["time"]) == ("best", "2026-01-01T00:00:00Z")
    who = {key: read[key] for key in WHO}
    assert recorded_test(path, who) == read["metrics"]
    with closing(History(path)) as history:
        read_test(history, path, who, lambda: read["metrics"], again=True)
        history.end("finished")  # as when it is resumed
    assert [read["what"] for read in reads_of(path)] == ["best", "best"]
    assert reads_of(path)[0] == read


def test_a_run_that_is_not_over_keeps_it_locked(run):
    with closing(History(RunFolder(run).history)) as history:
        history.end("interrupted")
    for arguments in ([], ["--again"]):
        code, text = told(run, *arguments)
        assert (code, "the run is interrupted; the test split is read when it has finished" in text) == (2, True), text
    assert len(reads_of(RunFolder(run).history)) == 1
