"""What is often wrong with data is said in a sentence, and sound data are not spoken about."""

import numpy as np
import pytest

from tests.conftest import blobs
from vmaptune import tasks
from vmaptune.data import embedded
from vmaptune.data.diagnosis import warnings_of
from vmaptune.data.splits import Splits, split_rows

NAMES = ("age", "height", "weight", "income")


def numbers(n=120, seed=0):
    """A regression on four columns."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, 4)).astype(np.float32)
    targets = (inputs.sum(axis=1) + rng.normal(size=n)).astype(np.float32)
    return Splits(*((inputs[rows], targets[rows]) for rows in split_rows(n, validation=0.2, test=0.2, seed=0)))


def with_column(splits, make):
    """The splits with column 1 made of the inputs and targets of each part."""
    parts = []
    for inputs, targets in splits:
        changed = inputs.copy()
        changed[:, 1] = make(inputs, targets)
        parts.append((changed, targets))
    return Splits(*parts)


@pytest.mark.parametrize("splits", [blobs(), numbers(), embedded.breast_cancer(), embedded.diabetes()])
def test_nothing_is_said_about_sound_data(splits):
    assert warnings_of(splits) == []


def test_of_data_without_inputs_and_targets_nothing_is_said():
    assert warnings_of(tasks.TASKS["branin"]().splits) == []
    assert warnings_of(tasks.TASKS["linear_regression"]().splits) == []


@pytest.mark.parametrize(
    ("splits", "make", "sentence"),
    [
        (blobs(), lambda x, y: 3.0, "column 'height' holds the same value in all training rows and can teach nothing"),
        (blobs(), lambda x, y: y, "column 'height' holds the target itself in other words"),
        (blobs(), lambda x, y: np.array([5.0, -1.0, 2.0])[y], "column 'height' holds the target itself"),  # renamed
        (blobs(), lambda x, y: y == 2, "column 'height' holds the target itself"),  # one of its categories
        (numbers(), lambda x, y: y, "column 'height' holds the target itself"),
        (numbers(), lambda x, y: 40.0 - 7.0 * y, "column 'height' holds the target itself"),
    ],
)
def test_columns_that_teach_nothing_or_everything_are_named(splits, make, sentence):
    said = warnings_of(with_column(splits, make), NAMES)
    assert len(said) == 1
    assert said[0].startswith(sentence)
    unnamed = warnings_of(with_column(splits, make))
    assert "same value" in sentence or unnamed[0].startswith(sentence.replace("'height'", "1"))
    assert "same value" not in sentence or unnamed == []  # it may be a pixel


def test_a_column_that_almost_gives_the_target_away_is_let_be():
    def one_wrong(inputs, targets):
        return np.where(np.arange(len(targets)) == 3, -1, targets)

    assert warnings_of(with_column(blobs(), one_wrong)) == []
    assert warnings_of(with_column(numbers(), one_wrong)) == []


def test_rows_in_two_parts_are_counted():
    good = numbers()
    validation = tuple(np.concatenate([held, own[:5]]) for held, own in zip(good.validation, good.train, strict=True))
    test = tuple(np.concatenate([held, own[:1]]) for held, own in zip(good.test, good.validation, strict=True))
    said = warnings_of(Splits(good.train, validation, test))
    assert [sentence.partition(",")[0] for sentence in said] == [
        "5 of 29 validation rows are in the train split too",
        "a test row is in the validation split too",
    ]


def test_windows_of_a_series_may_repeat_and_tokens_may_be_constant(tmp_path):
    np.save(tmp_path / "sine.npy", np.tile(np.sin(np.arange(20.0)), 20))
    for model in ("gru", "mlp"):
        task = tasks.TASKS["series"](path=str(tmp_path / "sine.npy"), window=8, model=model)
        assert warnings_of(task.splits) == []
    (tmp_path / "a.txt").write_text("a" * 500)
    said = warnings_of(tasks.TASKS["text"](path=str(tmp_path / "a.txt"), length=8).splits)
    assert not any("column" in sentence for sentence in said)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64, np.bool_, np.int32])
def test_rows_of_every_type_are_compared_whole(dtype):
    rng = np.random.default_rng(0)
    images = (rng.random((60, 3, 5, 1)) * 200 + 2).astype(dtype) if dtype != np.bool_ else rng.random((60, 3, 5, 1)) < 0.5
    parts = [(images[rows], np.zeros(20, np.float32)) for rows in np.split(np.arange(60), 3)]
    assert warnings_of(Splits(*parts)) == []
    parts[2][0][7] = parts[0][0][4]
    assert len(warnings_of(Splits(*parts))) == 1
    parts[2][0][7, 2, 4, 0] = parts[2][0][7, 2, 4, 0] == 0  # the last number alone
    assert warnings_of(Splits(*parts)) == []


def test_classes_without_examples_are_named():
    inputs, labels = blobs().train
    said = warnings_of(Splits(*(tuple(leaf[labels != absent] for leaf in (inputs + absent, labels)) for absent in (0, 1, 3))))
    assert [sentence.partition(":")[0] for sentence in said] == [
        "the train split has no example of class 0, which cannot be learnt",
        "the validation split has no example of class 1, which is not measured there",
    ]


def test_a_large_file_is_looked_at_here_and_there_and_constants_are_checked_in_full(tmp_path, monkeypatch):
    from vmaptune.data import diagnosis

    monkeypatch.setattr(diagnosis, "_NUMBERS", 4000)
    rng = np.random.default_rng(0)
    path = tmp_path / "x.npy"
    inputs = np.lib.format.open_memmap(path, "w+", np.float32, (5000, 4))
    inputs[:] = rng.normal(size=(5000, 4))
    inputs[:, 1:3] = 1.0
    inputs[1, 2] = 2.0  # between those that are sampled
    targets = rng.normal(size=5000).astype(np.float32)
    held = numbers()
    said = warnings_of(Splits((np.load(path, mmap_mode="r"), targets), held.validation, held.test), "abcd")
    assert said == ["column 'b' holds the same value in all training rows and can teach nothing: leave it out"]
    inputs[:, 1:3] = rng.normal(size=(5000, 2))
    inputs[:, 3] = targets
    assert warnings_of(Splits((inputs, targets), held.validation, held.test))[0].startswith("column 3 holds the target")
