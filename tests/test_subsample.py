"""Less data for a coarse search: what is kept, in which shares, and that labels stay what they were."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune import models, tasks
from vmaptune.data.splits import Splits, split_classification
from vmaptune.data.subsample import subsampled
from vmaptune.errors import ConfigError

COUNTS = {0: 60, 1: 30, 2: 10, 7: 5}  # of 105 examples; class 7, so that classes need not be neighbours


def labelled(seed=0):
    """Inputs that say which example they are, by part."""
    labels = np.repeat(list(COUNTS), list(COUNTS.values())).astype(np.int32)
    labels = np.random.default_rng(seed).permutation(labels)
    ids = np.arange(len(labels), dtype=np.float32)
    return split_classification(ids[:, None], labels)


SPLITS = labelled()


def keep(fraction=1.0, classes=(), seed=0, splits=SPLITS):
    return subsampled(splits, fraction=fraction, classes=classes, seed=seed)


def ids(part):
    return part[0][:, 0].astype(int).tolist()


def counts(part):
    return dict(zip(*(values.tolist() for values in np.unique(part[1], return_counts=True)), strict=True))


def test_all_of_the_data_is_the_data():
    assert keep() is SPLITS


def test_classes_are_kept_in_every_part_and_keep_their_labels():
    kept = keep(classes=[7, 1])
    for part, before in zip(kept, SPLITS, strict=True):
        expected = [i for i, label in zip(ids(before), before[1], strict=True) if label in (1, 7)]
        assert ids(part) == expected
        assert set(part[1].tolist()) == {1, 7}
        assert (part[0].dtype, part[1].dtype) == (before[0].dtype, before[1].dtype)


@given(fraction=st.floats(0.001, 1.0), seed=st.integers(0, 2**32 - 1))
def test_every_class_gives_its_share_and_the_held_out_parts_stay(fraction, seed):
    kept = keep(fraction, seed=seed)
    all_of = counts(SPLITS.train)
    for label, count in counts(kept.train).items():
        assert abs(count - fraction * all_of[label]) <= max(0.5, 1 - fraction * all_of[label])
        assert count >= 1
    assert counts(kept.train).keys() == all_of.keys()
    assert kept.validation is SPLITS.validation
    assert kept.test is SPLITS.test
    assert ids(kept.train) == [i for i in ids(SPLITS.train) if i in set(ids(kept.train))]  # once each, in their old order
    np.testing.assert_array_equal(kept.train[1], [SPLITS.train[1][ids(SPLITS.train).index(i)] for i in ids(kept.train)])


@given(one=st.floats(0.01, 1.0), other=st.floats(0.01, 1.0), seed=st.integers(0, 100))
def test_less_is_part_of_more(one, other, seed):
    small, large = sorted((one, other))
    assert set(ids(keep(small, seed=seed).train)) <= set(ids(keep(large, seed=seed).train))


def test_a_class_gives_the_same_examples_whatever_else_is_kept():
    few, together = keep(0.3, classes=[1, 7]), keep(0.3)
    of_class = [i for i, label in zip(ids(together.train), together.train[1], strict=True) if label in (1, 7)]
    assert ids(few.train) == of_class


def test_seeds_decide_the_draw_and_nothing_else_does():
    assert ids(keep(0.5, seed=1).train) == ids(keep(0.5, seed=1).train)
    draws = {tuple(ids(keep(0.5, seed=seed).train)) for seed in range(10)}
    assert len(draws) == 10
    chosen = np.bincount([i for seed in range(400) for i in ids(keep(0.5, seed=seed).train)])[ids(SPLITS.train)]
    big = SPLITS.train[1] == 0
    assert abs(chosen[big] / 400 - 0.5).max() < 0.1  # 4 standard deviations: every example has the same chance


def test_examples_without_labels_are_drawn_from_as_they_are():
    x, y = np.arange(50.0, dtype=np.float32)[:, None], np.linspace(0, 1, 50, dtype=np.float32)
    splits = Splits({"x": x, "y": y}, {"x": x[:5], "y": y[:5]}, {"x": x[:5], "y": y[:5]})
    kept = subsampled(splits, fraction=0.3, classes=[], seed=0)
    assert kept.train["x"].shape == (15, 1)
    rows = kept.train["x"][:, 0].astype(int)
    np.testing.assert_array_equal(kept.train["y"], y[rows])
    assert subsampled(splits, fraction=0.001, classes=[], seed=0).train["x"].shape == (1, 1)


def test_a_model_has_the_same_outputs_with_some_classes():
    model = models.from_nnx(lambda rngs: models.MLP(1, [4], 8, rngs=rngs))
    task = tasks.classification(model, keep(0.5, classes=[0, 2]))
    assert task.splits.size("train") < SPLITS.size("train")


REAL = Splits(*((np.zeros((3, 1), np.float32), np.zeros(3, np.float32)) for _ in range(3)))


WITHOUT_0 = SPLITS._replace(test=(np.zeros((1, 1)), np.array([1])))


@pytest.mark.parametrize(
    ("splits", "wanted", "sentence"),
    [
        (SPLITS, {"fraction": 0.0}, "data.fraction: expected float > 0 and <= 1; given: 0.0"),
        (SPLITS, {"fraction": 1.5}, "data.fraction: expected float > 0 and <= 1; given: 1.5"),
        (SPLITS, {"fraction": float("nan")}, "data.fraction: expected float > 0 and <= 1; given: nan"),
        (SPLITS, {"classes": [1]}, "data.classes: expected two classes or more, to tell apart; given: [1]"),
        (SPLITS, {"classes": [0, 3]}, "data.classes: the train split has no example of class 3; known: 0, 1, 2, 7"),
        (WITHOUT_0, {"classes": [0, 1]}, "the test split has no example of class 0"),
        (REAL, {"classes": [0, 1]}, "the task's data have no integer labels: parts that are pairs"),
        (Splits(np.arange(3), np.arange(3), np.arange(3)), {"classes": [0, 1]}, "the task's data have no integer labels"),
    ],
)  # fmt: skip
def test_what_leaves_nothing_is_refused_in_one_sentence(splits, wanted, sentence):
    with pytest.raises(ConfigError) as caught:
        subsampled(splits, **({"fraction": 1.0, "classes": [], "seed": 0} | wanted))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
