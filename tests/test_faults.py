"""A run can die at any moment. Each place where it may is made on purpose here; random moments are left to real kills."""

import contextlib
import os
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
from vmaptune import loop, planner
from vmaptune.errors import OutOfMemory
from vmaptune.generation import Generations
from vmaptune.plan import Plan
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_events, read_run

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


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The same run, stopped after its third generation: rows 0 to 2 and their checkpoints."""
    stops = iter([False, False, True])
    return vt.tune(TREE, out=tmp_path_factory.mktemp("stopped") / "run", should_stop=lambda: next(stops)).run


@pytest.fixture
def cut(tmp_path, stopped):
    """A copy of it, to be damaged."""
    return shutil.copytree(stopped, tmp_path / "run")


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
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as db, db:
        db.execute("DELETE FROM event WHERE kind = 'checkpoint'")  # nobody has seen it whole
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
                raise KeyboardInterrupt  # any other is held against the sink alone

        def close(self):
            self.closed = True

    sink = Broken()
    with pytest.raises(KeyboardInterrupt):
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


# ---------------------------------------------------------------------------------- dispatches of several generations


def planned(**plan):
    return SMALL | {"population": {"size": 8, "segment_steps": 5, "generations": 6}, "plan": plan}


@pytest.fixture(scope="module")
def dispatched(tmp_path_factory):
    """The run that is cut into other dispatches, killed, and gone on with under other plans."""
    return vt.tune(planned(generations_per_dispatch=2, devices=2, chunk=2), out=tmp_path_factory.mktemp("dispatched") / "run")


@pytest.mark.parametrize("lost", [1, 2])
def test_killed_between_the_rows_of_several_generations_and_their_checkpoint(tmp_path, dispatched, lost):
    tree, whole = planned(generations_per_dispatch=2, devices=2, chunk=2), dispatched
    stops = iter([False, True])
    cut = vt.tune(tree, out=tmp_path / "cut", should_stop=lambda: next(stops))
    assert sorted(int(path.name) for path in (cut.run / "checkpoints").iterdir()) == [1, 3]
    assert int(cut.history["generation"].max()) == 3
    for generation in (3, 1)[:lost]:
        shutil.rmtree(cut.run / "checkpoints" / str(generation))
    if lost == 2:
        with contextlib.closing(sqlite3.connect(cut.run / "history.db")) as db, db:
            db.execute("DELETE FROM event WHERE kind = 'checkpoint'")
    again = vt.tune(tree, out=cut.run, resume=True)
    assert tables(cut.run) == tables(whole.run)
    jax.tree.map(np.testing.assert_array_equal, again.population, whole.population)
    resumed = [
        event["detail"]["after_generation"] for event in read_events(cut.run / "history.db") if event["kind"] == "resumed"
    ]
    assert resumed == ([1] if lost == 1 else [])


@pytest.mark.parametrize("per_dispatch", [1, 3, 4, 0, 100])
def test_generations_a_dispatch_change_no_bit(tmp_path, dispatched, per_dispatch):
    whole = dispatched
    other = vt.tune(planned(generations_per_dispatch=per_dispatch, devices=2, chunk=2), out=tmp_path / "other")
    assert tables(other.run) == tables(whole.run)
    jax.tree.map(np.testing.assert_array_equal, other.population, whole.population)


# ------------------------------------------------------------------------------------------------------- another plan


def alike(one, other):
    """Equal to rounding; who descends from whom, exactly."""
    a, b = np.asarray(one.history), np.asarray(other.history)
    assert len(a) == len(b)
    for name in a.dtype.names:
        if np.issubdtype(a.dtype[name], np.integer):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        else:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), one.population, other.population)


@pytest.mark.parametrize("other", [{"devices": 1, "chunk": 8}, {"devices": 2, "chunk": 1}, {"name": "strict"}], ids=str)
def test_a_run_goes_on_under_another_plan(tmp_path, dispatched, other):
    begun = {"generations_per_dispatch": 1, "devices": 2, "chunk": 2}
    stops = iter([False, True])
    cut = vt.tune(planned(**begun), out=tmp_path / "cut", should_stop=lambda: next(stops))
    with pytest.warns(vt.VmaptuneWarning, match=r"begun elsewhere \(.*plan\.chunk: 2 -> .*\): it goes on, equal to rounding"):
        result = vt.tune(planned(generations_per_dispatch=1, **other), out=cut.run, resume=True)
    alike(result, dispatched)
    ran = read_run(RunFolder(cut.run))["environment"]["plan"]
    assert ran["chunk"] == (1 if other.get("name") else other["chunk"])


def test_begun_elsewhere_is_told_where_tune_was_called(tmp_path):
    vt.tune(planned(chunk=2), out=tmp_path / "run", should_stop=lambda: True)
    with pytest.warns(vt.VmaptuneWarning, match="begun elsewhere") as said:
        vt.tune(planned(chunk=1), out=tmp_path / "run", resume=True)
    assert [Path(warning.filename).name for warning in said] == [Path(__file__).name]


def test_a_resumed_run_keeps_to_the_plan_that_it_was_begun_with(tmp_path, monkeypatch):
    """Though a measurement made since would choose another."""
    tree = planned(generations_per_dispatch=1)
    whole = vt.tune(tree, out=tmp_path / "whole")
    stops = iter([True])
    cut = vt.tune(tree, out=tmp_path / "cut", should_stop=lambda: next(stops))
    begun = read_run(RunFolder(cut.run))["environment"]["plan"]
    other = Plan(1, 3)
    assert begun != other._asdict()
    monkeypatch.setattr(loop, "choose_plan", lambda *_, **__: planner.Planned(other, "timed", (), 0))
    again = vt.tune(tree, out=cut.run, resume=True)
    assert read_run(RunFolder(cut.run))["environment"]["plan"] == begun
    assert tables(again.run) == tables(whole.run)
    with pytest.warns(vt.VmaptuneWarning, match="begun elsewhere"):  # and the other would have been seen
        vt.tune(tree | {"plan": {"unroll": 1}}, out=cut.run, resume=True)
    assert read_run(RunFolder(cut.run))["environment"]["plan"] == other._asdict()


def test_a_plan_that_is_asked_for_again_is_kept_to_again(tmp_path):
    """There and back: what is pinned is what runs, whatever the run was resumed with in between."""
    first, second = {"devices": 2, "chunk": 2}, {"devices": 1, "chunk": 4}
    vt.tune(planned(generations_per_dispatch=1, **first), out=tmp_path / "run", should_stop=lambda: True)
    for plan in (second, first):
        with pytest.warns(vt.VmaptuneWarning, match="begun elsewhere"):
            vt.tune(planned(generations_per_dispatch=1, **plan), out=tmp_path / "run", resume=True, should_stop=lambda: True)
        ran = read_run(RunFolder(tmp_path / "run"))["environment"]["plan"]
        assert {key: ran[key] for key in plan} == plan


# ------------------------------------------------------------------------------------------------------ out of memory


def events(folder, kind):
    return [event["detail"] for event in read_events(folder / "history.db") if event["kind"] == kind]


def remember_plans(monkeypatch):
    """Has all `Generations` keep the plan that they are made for."""
    made = Generations.__init__

    def init(self, config, task, plan, *rest, **options):
        made(self, config, task, plan, *rest, **options)
        self.plan = plan

    monkeypatch.setattr(Generations, "__init__", init)


def exhausted(monkeypatch, widest, *, after=0, late=False):
    """Dispatches wider than `widest` run out of memory, from the one after `after`; their state is gone with them."""
    remember_plans(monkeypatch)
    real, dispatched = Generations.__call__, []

    def call(self, state, first, count):
        width = self.plan.chunk
        dispatched.append((width, first, count))
        if width > widest and len(dispatched) > after:
            if late:
                real(self, state, first, count)  # donates, then fails
            else:
                jax.tree.map(lambda leaf: leaf.delete(), state)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return real(self, state, first, count)

    monkeypatch.setattr(Generations, "__call__", call)
    return dispatched


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The run that had the narrow plan from its begin."""
    return vt.tune(planned(generations_per_dispatch=2, devices=1, chunk=2), out=tmp_path_factory.mktemp("narrow") / "run")


@pytest.mark.parametrize(  # every pair of two of them
    ("after", "late", "every"),
    [(0, False, 1), (0, True, 4), (1, False, 4), (1, True, 1), (2, False, 1), (2, True, 4)],
)
def test_out_of_memory_goes_on_narrower_and_loses_nothing(tmp_path, monkeypatch, narrow, after, late, every):
    tree = planned(generations_per_dispatch=2, devices=1, chunk=8) | {"checkpoint": {"every": every}}
    tried = exhausted(monkeypatch, 2, after=after, late=late)
    with pytest.warns(vt.VmaptuneWarning) as said:
        result = vt.tune(tree, out=tmp_path / "run")
    words = "out of memory: going on from the last checkpoint with 1 device x {} members, grouped"
    assert [str(warning.message) for warning in said] == [words.format(4), words.format(2)]
    assert {Path(warning.filename).name for warning in said} == {Path(__file__).name}
    assert [detail["plan"]["chunk"] for detail in events(result.run, "out_of_memory")] == [4, 2]
    assert read_run(RunFolder(result.run))["environment"]["plan"] == Plan(1, 2)._asdict()
    assert result.status == "finished"
    assert [width for width, _, _ in tried][-1] == 2
    rows = [(int(row["generation"]), int(row["slot"])) for row in result.history]
    assert rows == [(generation, slot) for generation in range(6) for slot in range(8)]
    alike(result, narrow)
    told = [event["generation"] for event in read_events(result.run / "history.db") if event["kind"] == "generation"]
    assert told == list(range(6))
    again = vt.tune(tree, out=result.run, resume=True)  # under the plan that was found, without a warning
    assert tables(again.run) == tables(result.run)


def test_not_even_one_at_a_time_is_one_sentence(tmp_path, monkeypatch):
    dispatched = exhausted(monkeypatch, 0, after=1)
    tree = planned(generations_per_dispatch=2, devices=2, chunk=2)
    with (
        pytest.warns(vt.VmaptuneWarning, match="out of memory: going on"),
        pytest.raises(OutOfMemory, match=r"^out of memory with 2 devices x 1 member, grouped: a smaller .* helps$") as told,
    ):
        vt.tune(tree, out=tmp_path / "run")
    assert told.value.exit_code == 1
    assert [width for width, _, _ in dispatched] == [2, 2, 1]
    run = read_run(RunFolder(tmp_path / "run"))
    assert run["status"] == "stopped"
    monkeypatch.undo()
    whole = vt.tune(planned(generations_per_dispatch=2, devices=2, chunk=1), out=tmp_path / "whole")
    alike(vt.tune(tree, out=tmp_path / "run", resume=True), whole)


def test_an_error_that_is_not_about_memory_is_not_hidden(tmp_path, monkeypatch):
    def call(self, state, first, count):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(Generations, "__call__", call)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: a bug"):
        vt.tune(planned(), out=tmp_path / "run")
    assert read_run(RunFolder(tmp_path / "run"))["status"] == "stopped"


def test_a_chunk_that_no_block_fills_is_narrowed_to_another_program(tmp_path, monkeypatch):
    """Six members in chunks of 5 are 3 and 3 already: half of that is 2, not the same 3 again."""
    widths = []
    remember_plans(monkeypatch)
    real = Generations.__call__

    def call(self, state, first, count):
        widths.append(self.plan.chunks(6)[1])
        if len(widths) < 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.")
        return real(self, state, first, count)

    monkeypatch.setattr(Generations, "__call__", call)
    tree = planned(devices=1, chunk=5) | {"population": {"size": 6, "segment_steps": 2, "generations": 1}}
    with pytest.warns(vt.VmaptuneWarning, match="out of memory"):
        vt.tune(tree, out=tmp_path / "run")
    assert widths == sorted(set(widths), reverse=True), widths


def test_a_real_run_killed_at_random_moments_ends_as_if_it_never_was():
    """Compiled as users' runs are: with all optimisations, which the other tests do without."""
    ours = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "kill_test.py", "--kills", "5", "--seed", "1"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ours},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kills" in done.stdout.splitlines()[-1]
    assert done.stdout.splitlines()[-1].endswith("every run equals the reference bit for bit")
