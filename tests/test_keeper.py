"""Rows before their checkpoint, the checkpoint before its confirmation: what a killed run can rely on."""

import contextlib
import sqlite3

import jax.numpy as jnp
import numpy as np
import pytest

from vmaptune.store.checkpoints import Checkpoints
from vmaptune.store.history import History
from vmaptune.store.keeper import Keeper
from vmaptune.store.reading import read_events
from vmaptune.store.record import Record


def record(generation, n=3):
    slots = np.arange(n)
    return Record(
        generation=generation,
        trial=slots,
        step=np.full(n, 2 * (generation + 1)),
        status=np.zeros(n, int),
        fitness=np.linspace(0, 1, n),
        metrics={"train.loss": np.full(n, float(generation))},
        hyperparameters={},
        parent=slots,
        next_trial=slots,
        seconds={"train": 0.0},
    )


class Watched:
    """A real store, and a diary of the order in which it was used."""

    def __init__(self, folder):
        facts = {"id": "x", "seed": 0, "metric": "loss", "direction": "min", "config": {}, "environment": {}}
        self.path = folder / "history.db"
        History.create(self.path, facts | {"size": 3, "segment_steps": 2, "generations": 99}, ["train.loss"])
        self.history, self.checkpoints, self.diary = History(self.path), Checkpoints(folder / "checkpoints"), []
        self.folder = folder / "checkpoints"
        for target, name in ((self.history, "write"), (self.checkpoints, "save"), (self.history, "event")):
            setattr(target, name, self._noting(name, getattr(target, name)))

    def _noting(self, name, method):
        def noted(*args, **kwargs):
            if name == "event" and args[0] == "checkpoint":
                assert self.whole(kwargs["generation"]), "confirmed before it was whole"
                self.diary.append(("confirmed", kwargs["generation"]))
            elif name == "write":
                self.diary.append(("rows", args[0].generation))
            elif name == "save":
                assert self.history.last_generation() >= args[0], "a checkpoint that knows more than the history"
                self.diary.append(("checkpoint", args[0]))
            return method(*args, **kwargs)

        return noted

    def whole(self, generation):
        """On disk under its own name: Orbax renames a checkpoint when all of it is there."""
        return (self.folder / str(generation)).is_dir()

    def keeper(self, *, every=1, done=-1, more=()):
        return Keeper(self.history, (self.history, *more), self.checkpoints, every=every, done=done)

    def rows(self):
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return [row[0] for row in db.execute("SELECT DISTINCT generation FROM record ORDER BY 1")]

    def confirmed(self):
        return [event["generation"] for event in read_events(self.path) if event["kind"] == "checkpoint"]

    def kept(self):
        return self.checkpoints.restore_newest(10**6, like=lambda _: {"x": jnp.zeros(2)})


@pytest.fixture
def store(tmp_path):
    watched = Watched(tmp_path)
    yield watched
    watched.checkpoints.close()
    watched.history.close()


def state(generation):
    return {"x": jnp.array([generation, generation + 0.5])}


def test_what_is_held_is_on_disk_only_once_it_is_written(store):
    keeper = store.keeper()
    keeper.hold([record(0)], state(0))
    assert (store.rows(), store.diary) == ([], [])
    keeper.write()
    assert store.rows() == [0]
    keeper.write()
    assert store.diary == [("rows", 0), ("checkpoint", 0)]


def test_rows_then_their_checkpoint_then_word_of_the_one_before(store):
    keeper = store.keeper()
    for first in (0, 2, 4):
        keeper.hold([record(first), record(first + 1)], state(first + 1))
        keeper.write()
    assert store.diary == [
        ("rows", 0),
        ("rows", 1),
        ("checkpoint", 1),
        ("rows", 2),
        ("rows", 3),
        ("checkpoint", 3),
        ("confirmed", 1),
        ("rows", 4),
        ("rows", 5),
        ("checkpoint", 5),
        ("confirmed", 3),
    ]
    assert store.history.last_checkpoint() == 3
    keeper.finish()
    assert store.diary[-1] == ("confirmed", 5)
    assert store.confirmed() == [1, 3, 5]
    generation, kept = store.kept()
    assert (generation, kept["x"].tolist()) == (5, [5.0, 5.5])


def test_to_finish_writes_what_is_held_and_waits_for_it(store):
    keeper = store.keeper()
    keeper.hold([record(0)], state(0), last=True)
    keeper.finish()
    assert store.diary == [("rows", 0), ("checkpoint", 0), ("confirmed", 0)]
    keeper.finish()
    assert len(store.diary) == 3


@pytest.mark.parametrize(
    ("every", "done", "dispatches", "saved"),
    [
        (1, -1, [1, 1, 1], [0, 1, 2]),
        (3, -1, [1, 1, 1, 1, 1, 1, 1], [2, 5]),
        (3, -1, [2, 2, 2, 2], [3, 7]),  # where a dispatch ends: at the first end that is due
        (3, 4, [1, 1, 1, 1], [7]),  # counted from where the run goes on
        (2, -1, [5, 1, 1], [4, 6]),
        (100, -1, [3, 3], []),
    ],
)
def test_a_checkpoint_is_due_every_so_many_generations(store, every, done, dispatches, saved):
    keeper, first = store.keeper(every=every, done=done), done + 1
    for count in dispatches:
        keeper.hold([record(g) for g in range(first, first + count)], state(first + count - 1))
        keeper.write()
        first += count
    keeper.finish()
    assert [generation for what, generation in store.diary if what == "checkpoint"] == saved
    assert store.confirmed() == saved
    assert store.rows() == list(range(done + 1, first))


def test_the_end_always_has_a_checkpoint(store):
    keeper = store.keeper(every=100)
    keeper.hold([record(0), record(1)], state(1))
    keeper.write()
    keeper.hold([record(2)], state(2), last=True)
    keeper.finish()
    assert store.confirmed() == [2]


def test_rows_without_a_state_are_written_without_a_checkpoint(store):
    keeper = store.keeper()
    keeper.hold([record(0)])
    keeper.finish()
    assert (store.rows(), store.confirmed()) == ([0], [])


def test_a_snapshot_is_taken_when_it_is_held_not_when_it_is_written(store):
    keeper, given = store.keeper(), state(0)
    keeper.hold([record(0)], given)
    given["x"].delete()
    keeper.finish()
    assert store.kept()[1]["x"].tolist() == [0.0, 0.5]


def test_the_history_hears_of_a_generation_before_any_sink(store):
    heard = []

    class Ear:
        def write(self, record):
            assert store.rows()[-1] == record.generation
            heard.append(record.generation)

    keeper = store.keeper(more=(Ear(), Ear()))
    keeper.hold([record(0), record(1)], state(1))
    keeper.finish()
    assert heard == [0, 0, 1, 1]


def test_a_sink_that_fails_leaves_no_checkpoint_of_what_it_did_not_hear(store):
    class Broken:
        def write(self, record):
            if record.generation == 1:
                raise RuntimeError("mine")

    keeper = store.keeper(more=(Broken(),))
    keeper.hold([record(0), record(1)], state(1))
    with pytest.raises(RuntimeError, match="mine"):
        keeper.write()
    assert store.diary == [("rows", 0), ("rows", 1)]
    assert store.kept()[0] == -1
    keeper.write()  # nothing is held any more
    assert len(store.diary) == 2


def test_a_process_that_writes_no_history_still_takes_part_in_checkpoints(store):
    keeper = Keeper(None, (), store.checkpoints, every=1, done=-1)
    store.history.write(record(0))
    keeper.hold([record(0)], state(0))
    keeper.finish()
    assert store.kept()[0] == 0
    assert store.confirmed() == []


def test_time_spent_is_counted(store):
    keeper = store.keeper()
    before = keeper.seconds
    keeper.hold([record(0)], state(0))
    keeper.finish()
    assert before == 0.0 < keeper.seconds
