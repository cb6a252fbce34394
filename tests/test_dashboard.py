"""The dashboard: its numbers are the history's, it changes nothing, and serves nothing but the runs in its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.browser import ask, served
from tests.conftest import SMALL
from vmaptune.analysis.runs import list_runs
from vmaptune.analysis.verdict import verdicts
from vmaptune.cli.main import main
from vmaptune.dashboard.app import make_app
from vmaptune.dashboard.members import PAGE, read_members
from vmaptune.dashboard.serving import LOCAL, address_of, token_for
from vmaptune.dashboard.workshop import Workshop
from vmaptune.errors import ConfigError, StoreError
from vmaptune.loop import tune
from vmaptune.report.comparing import COMPARISONS
from vmaptune.report.facts import read_facts
from vmaptune.report.figures import FIGURES
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History
from vmaptune.store.reading import read_generation, read_history
from vmaptune.store.record import Record

MARKUP = "<img src=x onerror=alert(1)>"
SECRET = "nobody may read this"
BESIDE = ("history.db-shm", "history.db-wal")  # SQLite makes these two for whoever reads a history in WAL mode


def grow(folder):
    """Adds a generation to a run as its writer would: the newest one again."""
    with closing(History(folder.history)) as history:
        g = history.last_generation()
        rows = sorted(read_generation(folder.history, g), key=lambda row: row["slot"])
        columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
        numbers = {name: columns[name].astype(np.int32) for name in ("trial", "step", "status", "slot")}
        named = {name: column for name, column in columns.items() if "." in name}
        metrics = {name: c for name, c in named.items() if name.startswith(("train.", "validation."))}
        axes = {name: c for name, c in named.items() if name not in metrics}
        facts = (numbers["trial"], numbers["step"], numbers["status"], columns["fitness"], metrics, axes)
        history.write(Record(g + 1, *facts, numbers["slot"], numbers["trial"], {"train": 0.5}))
    return g + 1


def revive(folder):
    """Makes a finished run one that this process is writing."""
    with closing(sqlite3.connect(folder.history)) as db:
        process = (os.getpid(), socket.gethostname())
        db.execute("UPDATE run SET status = 'running', ended = NULL, result = NULL, pid = ?, host = ?", process)
        db.execute("DELETE FROM event WHERE kind NOT IN ('started', 'generation', 'checkpoint')")
        db.commit()


def plant(source, to):
    """Copies a run; its metric, its task and one of its columns are called by a piece of markup."""
    shutil.copytree(source, to)
    with closing(sqlite3.connect(to / "history.db")) as db:
        config, result = map(json.loads, db.execute("SELECT config, result FROM run").fetchone())
        config["task"]["name"] = MARKUP
        result["test"][MARKUP] = result["test"].pop("accuracy")
        db.execute("UPDATE run SET config = ?, result = ?, metric = ?", (json.dumps(config), json.dumps(result), MARKUP))
        for column in ("train.accuracy", "validation.accuracy", "schedule.warmup"):
            db.execute(f'ALTER TABLE record RENAME COLUMN "{column}" TO "{column.partition(".")[0]}.{MARKUP}"')
        db.commit()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of runs: a good one, one whose names hold markup, broken ones, and links that lead out."""
    outside = tmp_path_factory.mktemp("outside")
    root = tmp_path_factory.mktemp("place") / "runs"
    tune(SMALL, out=root / "first")
    plant(root / "first", root / MARKUP)
    for name, history in (("half", None), ("rubbish", b"not SQLite's"), ("empty", b"")):
        (root / name).mkdir()
        (root / name / "config.toml").write_text("")
        if history is not None:
            (root / name / "history.db").write_bytes(history)
    shutil.copytree(root / "first", outside / "run")
    (outside / "run" / "config.toml").write_text(SECRET)
    (outside / "secret.txt").write_text(SECRET)
    (root / "linked").symlink_to(outside / "run")
    (root / "away").mkdir()
    (root / "away" / "config.toml").symlink_to(outside / "secret.txt")
    shutil.copy(root / "first" / "history.db", root / "away" / "history.db")
    return root


@pytest.fixture(scope="module")
def port(root):
    with served(make_app(root, hosts=LOCAL)) as port:
        yield port


def data(port, path, **query):
    """What an address of the dashboard answers, decoded; asks again while a figure is being made."""
    while True:
        answer = ask(port, f"{path}?{urlencode(query, doseq=True)}")
        if answer.status != 202:
            return answer.status, json.loads(answer.body)


def snapshot(root):
    """Every file and link below a folder with its size, time and bytes."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name not in BESIDE and not path.is_dir():
            status = path.lstat()
            found[str(path)] = (status.st_size, status.st_mtime_ns, status.st_mode, path.read_bytes())
    return found


# ------------------------------------------------------------------------------------------------------------- its numbers


def test_list_tells_what_the_command_line_tells(root, port):
    status, answer = data(port, "/api/runs")
    assert status == 200
    lines = {line["run"]: line for line in answer["runs"]}
    told = {Path(line["run"]).name: line for line in list_runs(root)}
    assert set(lines) == set(told) == {"first", MARKUP, "half", "rubbish", "empty", "linked", "away"}
    shared = ("status", "task", "created", "generation", "generations", "population", "metric", "validation", "test")
    assert {k: lines["first"][k] for k in shared} == {k: told["first"][k] for k in shared}
    best = np.fmax.reduceat(read_history(root / "first" / "history.db")["fitness"], np.arange(0, 32, 8))
    assert lines["first"]["spark"] == best.tolist()
    assert lines["first"]["throughput"] > 0


def test_broken_runs_are_lines_that_say_so(port):
    lines = {line["run"]: line for line in data(port, "/api/runs")[1]["runs"]}
    broken = {name: line["problem"] for name, line in lines.items() if line["status"] == "unreadable"}
    assert set(broken) == {"half", "rubbish", "empty", "linked"}
    assert broken["half"] == "half/history.db: no such history; is half a run folder?"
    assert "cannot be read as a history" in broken["rubbish"]
    assert "a link out of this folder" in broken["linked"]
    for name in ("half", "rubbish", "empty"):
        assert data(port, "/api/run", run=name)[1]["problem"] == broken[name]
        for path in ("/api/figure", "/api/members"):
            status, answer = data(port, path, run=name, name=next(iter(FIGURES)))
            assert (status, bool(answer["problem"])) == (404, True)
        assert ask(port, f"/run?run={name}").status == 200


def test_figures_are_the_reports(root, port):
    facts = read_facts(root / "first")
    for name, draw in FIGURES.items():
        status, answer = data(port, "/api/figure", run="first", name=name)
        figure = draw(facts)
        assert status == 200
        assert answer["figure"] == (figure and json.loads(figure.to_json()))
    assert data(port, "/api/figure", run="first", name="no such")[0] == 404
    found = [verdict.as_json() for verdict in verdicts(facts)]
    assert data(port, "/api/figure", run="first", name="findings")[1]["figure"] == {"findings": found}


def test_comparisons_are_the_reports(root, port):
    names = ["first", MARKUP]
    facts = [read_facts(root / name) for name in names]
    for name, draw in COMPARISONS.items():
        status, answer = data(port, "/api/figure", run=names, name=name)
        assert (status, answer["figure"]) == (200, json.loads(draw(facts).to_json()))
    answer = data(port, "/api/figure", run=names, name="differences")[1]
    assert answer["figure"] == {"differences": [["task.name", "digits", MARKUP]]}
    assert ask(port, f"/compare?{urlencode({'run': names}, doseq=True)}").status == 200
    for wrong in (["first"], ["first", "first"], ["first", "no such"], [str(i) for i in range(21)]):
        assert ask(port, f"/compare?{urlencode({'run': wrong}, doseq=True)}").status == 404
    for run, name in ((names, "progress"), (["first"], "race"), (["first", "half"], "race"), ([], "race")):
        assert data(port, "/api/figure", run=run, name=name)[0] == 404


def test_a_grown_history_is_seen(root, tmp_path):
    shutil.copytree(root / "first", tmp_path / "runs" / "live")
    folder = RunFolder(tmp_path / "runs" / "live")
    name = next(iter(FIGURES))
    revive(folder)
    with closing(History(folder.history)) as history, served(make_app(tmp_path / "runs")) as port:
        before = ask(port, "/api/run?run=live")
        line, figure = json.loads(before.body), data(port, "/api/figure", run="live", name=name)[1]
        assert (line["status"], line["generation"], figure["version"]) == ("running", 4, line["version"])
        assert ask(port, "/api/run?run=live", If_None_Match=before.headers["etag"]).status == 304
        assert grow(folder) == 4
        after = ask(port, "/api/run?run=live", If_None_Match=before.headers["etag"])
        assert (after.status, json.loads(after.body)["generation"]) == (200, 5)
        while figure["version"] != json.loads(after.body)["version"]:
            figure = data(port, "/api/figure", run="live", name=name)[1]
        assert figure["figure"] == json.loads(FIGURES[name](read_facts(folder.path)).to_json())
        assert data(port, "/api/members", run="live")[1]["generation"] == 4
        history.sign(2**22 + 1, socket.gethostname())  # no process has that number
        assert data(port, "/api/run", run="live")[1]["status"] == "stopped"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A made-up history of one generation of 250 members, some without values, many of them equal."""
    folder = RunFolder(tmp_path_factory.mktemp("crowd"))
    rng = np.random.default_rng(0)
    facts = {"metric": "loss", "direction": "min", "size": 250, "segment_steps": 2, "generations": 9}
    config = {"task": {"name": "x"}, "population": {"segment_steps": 2, "generations": 9}}
    run = {"id": "x", "seed": 0, "config": config, "environment": {}, **facts}
    History.create(folder.history, run, ["validation.loss", "odd <b>name.x"])
    n = np.arange(250, dtype=np.int32)
    values = [np.where(rng.random(250) < 0.2, np.nan, rng.integers(0, 20, 250) / 4.0) for _ in range(3)]
    record = Record(
        0, n, n, n * 0, values[0], {"validation.loss": values[1]}, {"odd <b>name.x": values[2]}, n, n, {"train": 1.0}
    )
    with closing(History(folder.history)) as history:
        history.write(record)
    return folder


@pytest.mark.parametrize("column", ["fitness", "slot", "validation.loss", "odd <b>name.x"])
@pytest.mark.parametrize("descending", [True, False])
def test_members_are_sorted_with_the_unknown_last(crowd, column, descending):
    pages = [read_members(crowd, sort=column, descending=descending, page=p) for p in range(3)]
    assert [len(page["rows"]) for page in pages] == [PAGE, PAGE, 250 - 2 * PAGE]
    assert {(page["generation"], page["total"], page["pages"]) for page in pages} == {(0, 250, 3)}
    rows = np.array([row for page in pages for row in page["rows"]], np.float64)
    keys = read_history(crowd.history)[column].astype(np.float64)
    order = np.lexsort((np.arange(250), -keys if descending else keys))  # NaN last
    np.testing.assert_array_equal(rows[:, pages[0]["columns"].index("slot")], order)


def test_members_out_of_range(crowd):
    assert read_members(crowd, page=99)["page"] == 2
    with pytest.raises(StoreError, match=r"'fitnes': no such column; did you mean 'fitness'\?"):
        read_members(crowd, sort="fitnes")


def test_page_of_members_must_be_a_number(port):
    for page in ("-1", "x", "1e3", "٣", "9" * 30):
        assert data(port, "/api/members", run="first", page=page)[0] == 404


# --------------------------------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize("file", ["config.toml", "best/hyperparameters.toml", "best/schedule.csv", "best/weights.safetensors"])
def test_downloads_are_the_files(root, port, file):
    answer = ask(port, f"/download?run=first&file={file}")
    assert (answer.status, answer.body) == (200, (root / "first" / file).read_bytes())
    assert answer.headers["content-disposition"] == f'attachment; filename="first-{file.rpartition("/")[2]}"'


def test_history_is_copied_whole_while_it_is_written(root, tmp_path):
    shutil.copytree(root / "first", tmp_path / "runs" / "live")
    path = tmp_path / "runs" / "live" / "history.db"
    with closing(sqlite3.connect(path)) as writer, served(make_app(tmp_path / "runs")) as port:
        writer.execute("INSERT INTO event (time, kind, detail) VALUES ('', 'seen', '{}')")
        writer.commit()  # in the -wal file alone
        writer.execute("INSERT INTO event (time, kind, detail) VALUES ('', 'not yet', '{}')")
        answer = ask(port, "/download?run=live&file=history.db")
        assert answer.status == 200
        assert path.with_name("history.db-wal").stat().st_size > 0
        writer.rollback()
    (tmp_path / "copy.db").write_bytes(answer.body)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT kind FROM event ORDER BY id DESC LIMIT 1").fetchone() == ("seen",)
    assert read_history(tmp_path / "copy.db").tolist() == read_history(path).tolist()


# ------------------------------------------------------------------------------------------------------------------ safety

TRICKS = [
    "../secret.txt",
    "..",
    "first/../../secret.txt",
    "%2e%2e/secret.txt",
    "..%2fsecret.txt",
    "%2e%2e%2fsecret.txt",
    "%252e%252e%252fsecret.txt",
    "....//secret.txt",
    "..\\secret.txt",
    "..%5csecret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "first/config.toml%00.txt",
    "%00",
    "first%00",
    "linked",
    "linked/config.toml",
    "linked/../first",
    "best/../../../secret.txt",
    "config.toml/",
    ".",
    "~root",
    "%c0%ae%c0%ae/secret.txt",
    "a" * 5000,
    "first/" * 500,
]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick[:40])
def test_nothing_outside_is_served(port, trick):
    paths = [f"/{trick}", f"/static/{trick}", f"/run?run={trick}", f"/api/run?run={trick}", f"/compare?run={trick}"]
    paths += [f"/download?run={trick}&file=config.toml", f"/download?run=first&file={trick}", f"/api/members?run={trick}"]
    paths += [f"/api/figure?run={trick}&name={next(iter(FIGURES))}", f"/api/figure?run=first&name={trick}"]
    for path in paths:
        answer = ask(port, path.replace("\\", "%5c") if " " in path else path)
        listed = trick == "linked" and path.startswith(("/run", "/api/run"))
        assert answer.status in (400, 404) or (answer.status == 200 and (path in ("/.", "/..", "/%00") or listed)), path
        assert SECRET.encode() not in answer.body
        assert b"root:" not in answer.body


@effort(max_examples=60)
@given(name=st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_names_that_no_run_has_lead_nowhere(port, name):
    for path in ("/run", "/api/run", "/api/members"):
        assert ask(port, f"{path}?run={quote('first/' + name, safe='')}").status == 404
    assert ask(port, f"/download?run=first&file={quote('best/' + name, safe='')}").status == 404


@pytest.mark.parametrize(("run", "file"), [("linked", "config.toml"), ("linked", "history.db"), ("away", "config.toml")])
def test_links_that_lead_out_are_not_followed(port, run, file):
    answer = ask(port, f"/download?run={run}&file={file}")
    assert answer.status == 404
    assert "config.toml" not in data(port, "/api/run", run="away")[1]["files"]


def test_changes_nothing(root, port):
    before = snapshot(root)
    for run in sorted(path.name for path in root.iterdir()):
        for path in ("/run", "/api/run", "/api/members", "/compare"):
            ask(port, f"{path}?{urlencode({'run': run})}")
        for name in FIGURES:
            data(port, "/api/figure", run=run, name=name)
        for file in ("config.toml", "history.db", "best/schedule.csv"):
            ask(port, f"/download?{urlencode({'run': run, 'file': file})}")
    assert snapshot(root) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_get_and_head(root, port, method):
    before = snapshot(root)
    for path in ("/", "/api/runs", "/run?run=first", "/download?run=first&file=config.toml"):
        answer = ask(port, path, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert snapshot(root) == before


@pytest.mark.parametrize("path", ["/", "/run?run=first", "/api/runs", "/static/run.js", "/static/plotly.js", "/nowhere"])
def test_every_answer_is_safe_to_show(port, path):
    answer, head = ask(port, path), ask(port, path, method="HEAD")
    assert (head.status, head.body) == (answer.status, b"")
    for headers in (answer.headers, head.headers):
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in headers
    assert ask(port, path, method="POST").headers["content-security-policy"] == answer.headers["content-security-policy"]


class _Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]


def test_markup_in_names_makes_no_element(port):
    plain = _Elements(ask(port, "/run?run=first").body.decode())
    page = ask(port, f"/run?{urlencode({'run': MARKUP})}").body.decode()
    marked = _Elements(page)
    assert marked.tags == plain.tags
    assert MARKUP not in page
    assert ("main", "data-run", MARKUP) in marked.attributes
    assert not [a for a in marked.attributes if a[1].startswith("on")]
    assert "script" in marked.tags
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page)  # no script but our files
    assert ask(port, "/api/runs").headers["content-type"] == "application/json"


def test_another_sites_name_does_not_lead_here(port):
    for host in ("127.0.0.1", "localhost", "localhost:1234", "[::1]:80", "LOCALHOST"):
        assert ask(port, "/api/runs", Host=host).status == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a b"):
        assert ask(port, "/api/runs", Host=host).status == 400


def test_a_token_opens_the_door(root):
    token = "an-easy-to-remember-token"
    with served(make_app(root, token=token)) as port:
        for path in ("/", "/api/runs", "/static/list.js", "/?token=wrong", "/?token=", "/?token=%ff", "/?token=%C3%A9"):
            assert ask(port, path).status == 401
            assert ask(port, path, Cookie=f"vmaptune_{port}=wrong").status == 401
        assert ask(port, "/", method="HEAD").status == 401
        answer = ask(port, f"/run?run=first&token={token}")
        assert (answer.status, answer.headers["location"]) == (303, "/run?run=first")
        assert ask(port, f"//evil.example/?token={token}").headers["location"] == "/evil.example/"
        cookie, *flags = [part.strip() for part in answer.headers["set-cookie"].split(";")]
        assert {flag.lower() for flag in flags} >= {"httponly", "samesite=strict"}
        assert ask(port, "/api/runs", Cookie=cookie).status == 200
        assert ask(port, "/api/runs", Cookie=cookie, Host="evil.example").status == 200  # it cannot know the cookie


def test_who_needs_a_token():
    assert [token_for(host, None) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8")] == [None] * 4
    made = {token_for(host, None) for host in ("0.0.0.0", "::", "192.168.0.7", "node7", "node7")}
    assert len(made) == 5
    assert min(map(len, made)) >= 32
    assert token_for("127.0.0.1", "x" * 16) == "x" * 16
    for short in ("", "x" * 15, "x" * 20 + ";", "ü" * 20):
        with pytest.raises(ConfigError, match="expected at least 16"):
            token_for("0.0.0.0", short)
    assert address_of("::1", 80, "x") == "http://[::1]:80/?token=x"


# ---------------------------------------------------------------------------------------------------------------- workshop


def test_workshop_gives_the_last_one_while_it_makes_the_next():
    may, made = threading.Semaphore(1), []

    def make(key, version):
        with may:
            made.append((key, version))
            return key + version

    shop = Workshop(make, keep=2)
    assert shop.get("a", "1", 10.0) == ("1", "a1")
    may.acquire()
    assert shop.get("a", "2", 0.0) == ("1", "a1")
    assert shop.get("a", "3", 0.01) == ("1", "a1")  # 2 is under way
    assert shop.get("b", "1", 0.0) is None
    may.release()
    assert shop.get("b", "1", 10.0) == ("1", "b1")
    assert shop.get("a", "3", 10.0) == ("3", "a3")
    assert shop.get("a", "3", 0.0) == ("3", "a3")
    assert made == [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3")]
    assert shop.get("c", "1", 10.0) == ("1", "c1")
    assert shop.get("b", "1", 0.0) is None  # asked for longest ago
    shop.close()


# ------------------------------------------------------------------------------------------------------------ command line


def failure(*arguments):
    result = CliRunner().invoke(main, ["dashboard", *arguments])
    assert result.exit_code == 2
    return result.output


def test_mistakes_are_sentences(root, tmp_path, monkeypatch):
    assert failure(str(tmp_path / "none")) == f"Error: {tmp_path / 'none'}: no such folder; `vmaptune run` makes one\n"
    assert "expected at least 16" in failure(str(root), "--token", "short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = f"Error: port {port} of 127.0.0.1 is in use; choose another with --port (0: any that is free)\n"
        assert failure(str(root), "--port", str(port)) == sentence
    assert failure(str(root), "--host", "192.0.2.1", "--port", "0").startswith("Error: 192.0.2.1: cannot be bound to: ")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert failure(str(root), "--port", "0") == "Error: the dashboard needs uvicorn: pip install 'vmaptune[dashboard]'\n"


def test_command_serves_until_it_is_interrupted(root):
    command = [sys.executable, "-m", "vmaptune", "dashboard", str(root), "--port", "0", "--token", "t" * 20]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/\?token=t{20}$", line.strip())[1])
        assert ask(port, "/api/runs").status == 401
        assert ask(port, "/api/runs", Cookie=f"vmaptune_{port}={'t' * 20}").status == 200
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")


def test_loads_no_jax():
    heavy = ("jax", "jaxlib", "flax", "optax", "orbax")
    code = f"import sys, vmaptune.dashboard.app; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
