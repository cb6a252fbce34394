"""How rows are cut into three parts, and what a part must be."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from vmaptune.data import splits as module
from vmaptune.data.splits import Splits, check_splits, split_classification, split_rows
from vmaptune.errors import ConfigError

TIMES = np.arange(100)
LABELS = np.repeat([0, 1, 2], [60, 30, 10])
GROUPS = np.random.default_rng(0).integers(0, 20, 100)


def cut(**how):
    return split_rows(100, **{"validation": 0.2, "test": 0.3, "seed": 0} | how)


@pytest.mark.parametrize("how", [{}, {"stratify": LABELS}, {"groups": GROUPS}, {"times": TIMES}])
def test_parts_are_ascending_and_hold_every_row_once(how):
    parts = cut(**how)
    assert all((np.diff(rows) > 0).all() for rows in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
    if "groups" not in how:
        assert [len(rows) for rows in parts] == [50, 20, 30]


def test_each_way_to_cut_keeps_its_word():
    for rows in cut(stratify=LABELS):
        np.testing.assert_allclose(np.bincount(LABELS[rows]) / len(rows), [0.6, 0.3, 0.1], atol=0.01)
    groups = [set(GROUPS[rows]) for rows in cut(groups=GROUPS)]
    assert all(groups)
    assert not (groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2])
    assert [len(each) for each in groups] == [10, 4, 6]
    train, validation, test = cut(times=TIMES)
    assert train[-1] + 1 == validation[0]
    assert validation[-1] + 1 == test[0]


def test_a_cut_by_time_leaves_equal_times_together_and_is_near_what_was_asked():
    times = np.repeat(np.arange(9), [5, 20, 1, 29, 3, 12, 4, 16, 10])
    parts = cut(times=times)
    assert [{*times[rows].tolist()} for rows in parts] == [{0, 1, 2, 3}, {4, 5}, {6, 7, 8}]
    assert [len(rows) for rows in parts] == [55, 15, 30]
    with pytest.raises(ConfigError, match="data: cannot cut 50 examples by time: "):
        cut(times=np.repeat([0, 1], 50))


@pytest.mark.parametrize("how", [{}, {"stratify": LABELS}, {"groups": GROUPS}])
def test_a_cut_depends_on_its_seed_alone(how):
    for once, again, other in zip(cut(**how), cut(**how), cut(**how, seed=1), strict=True):
        np.testing.assert_array_equal(once, again)
        assert once.tolist() != other.tolist()


def test_digits_are_cut_as_they_always_were():
    inputs = np.arange(100.0)[:, None]
    rest, held = train_test_split(np.arange(100), test_size=0.2, random_state=3, stratify=LABELS)
    train, chosen = train_test_split(rest, test_size=0.2 / 0.8, random_state=3, stratify=LABELS[rest])
    for rows, part in zip((train, chosen, held), split_classification(inputs, LABELS, seed=3), strict=True):
        np.testing.assert_array_equal(part[0][:, 0], np.sort(rows))
        np.testing.assert_array_equal(part[1], LABELS[np.sort(rows)])


def test_a_part_that_is_given_otherwise_takes_no_rows():
    assert [len(rows) for rows in cut(test=0.0)] == [80, 20, 0]
    assert [len(rows) > 0 for rows in cut(validation=0.0, groups=GROUPS)] == [True, False, True]
    assert [len(rows) for rows in cut(validation=0.0, test=0.0, times=TIMES)] == [100, 0, 0]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"validation": 0.5, "test": 0.5}, "must leave something to train on; given: 0.5 and 0.5 of all"),
        ({"validation": -0.1}, "must leave something to train on; given: -0.1 and 0.3 of all"),
        ({"stratify": np.arange(100)}, "cannot cut 100 examples by class: one has 1 example, too few for all parts; leave it"),
        (
            {"stratify": np.arange(100) % 25},
            "cannot cut 70 examples by class: a part of 20 cannot hold all 25 classes; give more data, or larger shares",
        ),
        ({"groups": np.zeros(100)}, "cannot cut 100 examples by group: "),
        ({"groups": GROUPS, "times": TIMES}, "stratified, grouped or in order of time; given: more than one of these"),
    ],
)
def test_an_impossible_cut_is_refused(how, sentence):
    with pytest.raises(ConfigError, match=f"^data: .*{sentence}"):
        cut(**how)


@pytest.mark.parametrize(("how", "by"), [({}, "in three"), ({"times": np.arange(2)}, "by time")])
def test_a_cut_of_too_few_is_refused(how, by):
    with pytest.raises(ConfigError, match=f"data: cannot cut 1 examples {by}"):
        split_rows(2, validation=0.3, test=0.3, seed=0, **how)


def test_a_file_is_checked_in_slices_and_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLICE", 64)
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1000, 3), np.float32))
    looked_at = []
    isfinite = np.isfinite

    def counted(array):
        looked_at.append(array.size)
        return isfinite(array)

    monkeypatch.setattr(module.np, "isfinite", counted)
    inputs = np.load(path, mmap_mode="r")
    part = (inputs, np.zeros(1000, np.int32))
    assert check_splits(Splits(part, part, part), "here").train[0] is inputs
    assert max(looked_at) <= 64
    assert sum(looked_at) == 3 * 3000
    monkeypatch.undo()
    bad = np.zeros((1000, 3), np.float32)
    bad[-1, -1] = np.inf
    with pytest.raises(ConfigError, match="here: the validation split holds NaN or infinite values"):
        check_splits(Splits(part, (bad, part[1]), part), "here")
