"""The report: facts that equal the history, figures of any run, and pages in which nothing that a user named is markup."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from collections import Counter
from contextlib import closing
from html.parser import HTMLParser
from subprocess import run as execute

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.histories import write_run
from vmaptune.analysis.runs import describe_run
from vmaptune.cli.main import main
from vmaptune.errors import StoreError
from vmaptune.loop import tune
from vmaptune.report.comparing import COMPARISONS, best_so_far, comparison_page, differing
from vmaptune.report.facts import read_facts
from vmaptune.report.figures import FIGURES
from vmaptune.report.figures.axes import trial_lines
from vmaptune.report.figures.schedule import read_schedule
from vmaptune.report.page import run_page, settings_text
from vmaptune.report.writing import write_pictures, write_report
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import connect
from vmaptune.store.reading import read_history, read_lineage

RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
AXES = {RATE: {"low": 1e-4, "high": 1e-1, "scale": "log"}, DECAY: {"low": 1e-6, "high": 1e-1, "scale": "log"}}
NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script><!--<a href=javascript:alert(3)>"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was really trained: four members, three generations."""
    config = {
        "task": {"hidden": [8]},
        "batch": {"size": 32},
        "optimizer": {name.partition(".")[2]: table for name, table in AXES.items()},
        "population": {"size": 4, "segment_steps": 2, "generations": 3},
        "search": {"quantile": 0.5},
        "plan": {"generations_per_dispatch": 1},
    }
    folder = tmp_path_factory.mktemp("runs") / "trained"
    tune(config, out=folder)
    return folder


def made_up(folder, *, generations=6, n=5, copies=True, name="loss", axes=AXES, **more):
    """A run of random numbers, with copies in it and a member that diverges now and then."""
    rng = np.random.default_rng(0)
    shape = (generations, n)
    metrics = {f"{room}.{m}": rng.uniform(0.1, 1, shape) for room in ("train", "validation") for m in {"loss", name}}
    parents = rng.integers(-1, n, shape) if copies else None
    values = {axis: np.tile(rng.uniform(1e-4, 1e-1, n), (generations, 1)) for axis in axes}
    more = {"failed": rng.random(shape) < 0.15, **more}
    return write_run(folder, metrics, axes=axes, values=values, parents=parents, metric=name, **more)


# --------------------------------------------------------------------------------------------------------------- facts


def test_facts_are_the_history(finished):
    facts, history = read_facts(finished), read_history(RunFolder(finished).history)
    assert list(facts.columns) == list(history.dtype.names)
    for name, column in facts.columns.items():
        np.testing.assert_array_equal(column, np.asarray(history[name]))
        assert column.dtype == history.dtype[name]
    shown = describe_run(finished)
    assert (facts.best["trial"], facts.test, len(facts.test_reads)) == (shown["best"]["trial"], shown["test"], 1)
    assert {name: (axis.low, axis.high, axis.log) for name, axis in facts.axes.items()} == {
        RATE: (1e-4, 1e-1, True),
        DECAY: (1e-6, 1e-1, True),
    }


def test_the_lineage_is_the_one_that_the_store_tells(tmp_path):
    facts = read_facts(made_up(tmp_path / "run"))
    told = read_lineage(RunFolder(facts.path).history, facts.best["trial"], facts.best["generation"])
    mine = zip(*(facts.columns[name][facts.lineage].tolist() for name in ("generation", "trial", "slot", "step")), strict=True)
    assert list(mine) == [(a.generation, a.trial, a.slot, a.step) for a in told]


def test_ranks_are_shares_of_those_beaten(tmp_path):
    loss = np.array([[3.0, 1.0, 2.0, 9.0]])
    failed = np.array([[False, False, False, True]])
    facts = read_facts(write_run(tmp_path / "run", {"train.loss": loss, "validation.loss": loss}, failed=failed))
    np.testing.assert_array_equal(facts.rank, [0.0, 1.0, 0.5, np.nan])
    np.testing.assert_array_equal(facts.quality, [0.0, 1.0, 0.5, np.nan])


def test_a_trial_among_copies_is_judged_by_its_whole_life(tmp_path):
    loss = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    metrics = {"train.loss": loss, "validation.loss": loss}
    facts = read_facts(write_run(tmp_path / "run", metrics, parents=[[0, 1, 0], [0, 1, 2]]))
    np.testing.assert_array_equal(facts.quality, [0.5, 0.5, 0.0, 1.0])


# ------------------------------------------------------------------------------------------------------------- figures


def drawn(facts):
    return {name for name, figure in FIGURES.items() if figure(facts) is not None}


def test_a_trained_run_has_all_figures_but_what_too_few_trials_tell(finished):
    assert drawn(read_facts(finished)) >= {"progress", "curves", "schedule", "paths", "slices", "parallel", "speed"}


def test_a_run_of_many_trials_has_every_figure_but_the_schedule_that_is_not_written(tmp_path):
    assert drawn(read_facts(made_up(tmp_path / "run", n=12))) == set(FIGURES) - {"schedule"}


def test_score_by_generation_is_the_quantiles_of_the_sound(tmp_path):
    facts = read_facts(made_up(tmp_path / "run", n=30))
    traces = {trace.name: trace for trace in FIGURES["progress"](facts).data}
    rows = [np.flatnonzero((facts.generation == g) & np.isfinite(facts.fitness)) for g in facts.generations]
    loss = facts.columns["validation.loss"]
    np.testing.assert_allclose(traces["best of the generation"].y, [loss[r].min() for r in rows], rtol=1e-6)
    np.testing.assert_allclose(traces["median"].y, [np.median(loss[r]) for r in rows], rtol=1e-6)
    np.testing.assert_array_equal(traces["diverged"].y, [30 - len(r) for r in rows])


def test_a_path_begins_at_the_value_of_its_parent(tmp_path):
    loss = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    rate = np.array([[0.01, 0.05], [0.01, 0.02], [0.01, 0.02]])
    axes = {RATE: AXES[RATE]}
    metrics = {"train.loss": loss, "validation.loss": loss}
    folder = write_run(tmp_path / "run", metrics, axes=axes, values={RATE: rate}, parents=[[0, 0], [0, 1], [0, 1]])
    x, y, _ = trial_lines(read_facts(folder), RATE)
    expected = [(1, 0.01), (3, 0.01), None, (1, 0.05), None, (1, 0.01), (2, 0.02), (3, 0.02), None]
    assert [None if np.isnan(v) else (int(t), round(v, 6)) for t, v in zip(x, y, strict=True)] == expected


def test_founders_shares_add_up(tmp_path):
    figure = FIGURES["lineage"](read_facts(made_up(tmp_path / "run", n=12)))
    shares = np.array([trace.y for trace in figure.data if trace.stackgroup])
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)


def test_a_run_without_copies_has_no_lineage(tmp_path):
    assert FIGURES["lineage"](read_facts(made_up(tmp_path / "run", copies=False))) is None


def test_the_schedule_is_the_file_of_the_winner(finished):
    facts = read_facts(finished)
    columns = read_schedule(facts)
    trace = FIGURES["schedule"](facts).data[0]
    assert trace.name == RATE
    np.testing.assert_allclose(trace.y, columns[RATE], rtol=1e-6)
    np.testing.assert_array_equal(trace.x, columns["step"])


# --------------------------------------------------------------------------------------------------------------- pages


class Elements(HTMLParser):
    """Counts the elements, by the names of their attributes, and the comments."""

    def __init__(self, text):
        super().__init__()
        self.seen = Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen[tag, tuple(name for name, _ in attributes)] += 1

    def handle_comment(self, data):
        self.seen["comment"] += 1


def planted(folder, text):
    """A run in which everything that a user can name is called `text`; the folder as far as a file's name may be."""
    axes = {f"groups.{text}.learning_rate": AXES[RATE], DECAY: AXES[DECAY]}
    result = {"best": {"trial": 0}, "test": {text: 0.5}}
    run = made_up(folder / text.replace("/", "|"), n=12, name=text, axes=axes, result=result, config={"note": {text: text}})
    (run / "config.toml").write_text(f'note = "{text}"\n')
    with closing(connect(run / "history.db", write=True)) as db:
        db.execute("UPDATE run SET environment = ?", (json.dumps({"device": text, "vmaptune": text}),))
        db.execute("INSERT INTO event (time, kind, detail) VALUES (?, ?, ?)", (text, text, json.dumps({text: text})))
        db.execute("UPDATE run SET status = 'interrupted'")  # so that the best member is looked for
        db.commit()
    return run


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """Facts of a run in which every name is markup, and all figures that there are of it."""
    facts = read_facts(planted(tmp_path_factory.mktemp("nasty"), NASTY))
    figures = [figure(facts) for figure in FIGURES.values()] + [figure([facts, facts]) for figure in COMPARISONS.values()]
    return facts, [json.loads(figure.to_json()) for figure in figures if figure is not None]


def test_what_a_user_names_is_never_markup(tmp_path, nasty):
    facts, _ = nasty
    plain = read_facts(planted(tmp_path, "plain"))
    for page in (run_page, lambda run: comparison_page([run, run], run.name)):
        mine, bad = page(plain), page(facts)
        assert Elements(bad).seen == Elements(mine).seen
        assert NASTY not in bad
        assert html.escape(facts.name) in bad


def strings(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_what_a_user_names_is_no_markup_of_plotlys_either(nasty):
    """plotly makes elements of some tags in labels: only `<br>` and `<extra>`, which are ours, may be there."""
    _, figures = nasty
    texts = [text for figure in figures for text in strings(figure)]
    assert {tag for text in texts for tag in re.findall(r"<[^>]*>?", text)} <= {"<br>", "<extra>", "</extra>"}
    assert any("&lt;img" in text for text in texts)


def test_a_page_asks_for_nothing_and_runs_only_its_own_scripts(finished):
    page = run_page(read_facts(finished))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy.partition("script-src")[2]
    outside_scripts = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', outside_scripts) == []
    assert "@import" not in outside_scripts
    assert "url(" not in outside_scripts
    assert len(page) < 8e6


def test_a_page_tells_the_result_in_words(finished):
    facts = read_facts(finished)
    page = run_page(facts)
    assert f"validation accuracy {facts.best['validation.accuracy']:.4g}" in page
    assert f"test accuracy {facts.test['accuracy']:.4g}" in page
    assert "Test read once" in page
    assert f"{RATE} = {float(str(np.float32(facts.best[RATE])))}" in settings_text(facts)


def test_a_second_look_at_the_test_set_is_told(tmp_path):
    run = made_up(tmp_path / "run", result={"best": {"trial": 0, "generation": 0}, "test": {"loss": 0.5}})
    with closing(connect(run / "history.db", write=True)) as db:
        detail = json.dumps({"what": "best", "trial": 0, "metrics": {"loss": 0.4}})
        for year in (2000, 2999):
            db.execute(f"INSERT INTO event (time, kind, detail) VALUES ('{year}-01-01T00:00:00Z', 'test_read', ?)", (detail,))
        db.commit()
    assert "Test read 2 times" in run_page(read_facts(run))


def test_a_winner_chosen_with_its_replicates_is_said_to_be(tmp_path):
    best = {"trial": 0, "generation": 0, "replicates": {"n": 2, "mean": 0.25, "std": 0.125}}
    run = made_up(tmp_path / "run", result={"best": best, "test": {"loss": 0.5}})
    assert "chosen with its 2 replicates: mean fitness 0.25, standard deviation 0.125" in run_page(read_facts(run))


@pytest.mark.parametrize(
    "more",
    [
        {"generations": 1, "n": 1, "copies": False, "failed": np.zeros((1, 1), bool)},
        {"failed": np.ones((6, 5), bool), "status": "failed"},
        {"axes": {}},
        {"status": "running", "planned": 50},
    ],
    ids=["one-member", "all-failed", "nothing-searched", "going"],
)
def test_every_run_has_a_page(tmp_path, more):
    page = run_page(read_facts(made_up(tmp_path / "run", **more)))
    assert "Findings" in page


def test_a_run_without_a_generation_has_a_page(tmp_path):
    run = made_up(tmp_path / "run", status="running", planned=50)
    with closing(connect(run / "history.db", write=True)) as db:
        db.execute("DELETE FROM record")
        db.execute("DELETE FROM trial")
        db.execute("DELETE FROM event")
        db.commit()
    facts = read_facts(run)
    assert drawn(facts) == set()
    assert "No generation has ended yet" in run_page(facts)


# ------------------------------------------------------------------------------------------------------------ comparing


def test_the_best_so_far_never_gets_worse(tmp_path):
    facts = read_facts(made_up(tmp_path / "run", n=12))
    best = best_so_far(facts)
    assert (np.diff(best) <= 0).all()
    assert best[-1] == np.nanmin(facts.score)


def test_a_comparison_shows_the_settings_that_differ_and_no_others(tmp_path):
    one = read_facts(made_up(tmp_path / "one"))
    two = read_facts(made_up(tmp_path / "two", config={"search": {"method": "random"}, "seed": 1}))
    assert differing([one, two]) == [["search.method", "truncation", "random"], ["seed", "-", "1"]]


def test_a_folder_of_runs_is_compared(tmp_path):
    for name in ("one", "two"):
        made_up(tmp_path / "cohorts" / name)
    (tmp_path / "cohorts" / "begun").mkdir()
    (tmp_path / "cohorts" / "begun" / "config.toml").write_text("")
    with pytest.warns(UserWarning, match="left out: .*begun"):
        report = write_report([tmp_path / "cohorts"])
    assert report.files == (tmp_path / "cohorts" / "report.html",)
    page = report.files[0].read_text(encoding="utf-8")
    assert "2 runs, judged by loss (min)" in page
    assert [run["run"] for run in report.as_json()["runs"]] == [str(tmp_path / "cohorts" / name) for name in ("one", "two")]


# -------------------------------------------------------------------------------------------------------------- command


def test_the_command_writes_a_report_and_tells_the_facts(finished):
    told = CliRunner().invoke(main, ["report", str(finished), "--json"])
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert facts["files"] == [str(finished / "report.html")]
    assert {"verdicts", "importance", "runs"} <= facts.keys()
    assert facts["runs"][0]["test_reads"] == 1
    assert "<!doctype html>" in (finished / "report.html").read_text(encoding="utf-8")


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path):
    told = CliRunner().invoke(main, ["report", str(tmp_path / "nowhere")])
    assert told.exit_code == 2
    assert "no such folder" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("name", ["history.db", "config.toml", "best/report.html", "../run/history.db", "."])
@pytest.mark.parametrize("command", [["report"], ["export", "--to", "json", "--overwrite"]])
def test_what_a_run_is_made_of_is_never_replaced(tmp_path, command, name):
    run = made_up(tmp_path / "run")
    before = (run / "history.db").read_bytes()
    told = CliRunner().invoke(main, [*command, str(run), "--out", str(run / name)])
    assert told.exit_code == 2
    assert "Traceback" not in told.stderr
    assert (run / "history.db").read_bytes() == before
    assert not (run / "best" / "report.html").exists()


def test_answers_never_replace_the_data(tmp_path):
    run, data = made_up(tmp_path / "run"), tmp_path / "new.csv"
    data.write_text("x\n1\n")
    told = CliRunner().invoke(main, ["predict", str(run), str(data), "--out", str(data)])
    assert told.exit_code == 2
    assert "is read by this command" in told.stderr
    assert data.read_text() == "x\n1\n"


def test_pictures_without_kaleido_are_refused_in_a_sentence(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(StoreError, match=r"--png: needs kaleido; pip install 'vmaptune\[report\]'"):
        write_pictures({"progress": FIGURES["progress"](read_facts(finished))}, tmp_path)


@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no Chromium is installed")
def test_pictures_are_white_and_twice_as_wide_as_they_are_shown(tmp_path):
    figure = FIGURES["progress"](read_facts(made_up(tmp_path / "run")))
    (file,) = write_pictures({"progress": figure}, tmp_path / "figures")
    with Image.open(file) as picture:
        assert picture.width == 2200
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_report_loads_no_jax(finished, tmp_path):
    code = (
        "import sys; from vmaptune.report.writing import write_report; "
        f"write_report([{str(finished)!r}], out={str(tmp_path / 'report.html')!r}); "
        "print(sorted({'jax', 'flax', 'optax', 'orbax'} & sys.modules.keys()))"
    )
    told = execute([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
