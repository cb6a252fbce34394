import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.solo import shuffled
from vmaptune.data import embedded
from vmaptune.data.batching import batch_indices
from vmaptune.data.splits import Splits, check_splits, split_classification
from vmaptune.errors import ConfigError

KEY = jax.random.key(3)


@effort(max_examples=30)
@given(st.integers(1, 40), st.data())
def test_an_epoch_sees_no_example_twice_and_every_start_continues_the_same_stream(examples, data):
    batch = data.draw(st.integers(1, examples))
    steps = data.draw(st.integers(1, 12))
    start = data.draw(st.integers(0, 50))
    found = np.asarray(batch_indices(KEY, start, steps=steps, batch_size=batch, examples=examples))
    assert found.shape == (steps, batch)
    assert found.min() >= 0
    assert found.max() < examples
    per_epoch = examples // batch
    for epoch in {(start + s) // per_epoch for s in range(steps)}:
        rows = [found[s] for s in range(steps) if (start + s) // per_epoch == epoch]
        seen = np.concatenate(rows)
        assert len(set(seen.tolist())) == len(seen)
        order = shuffled(jax.random.fold_in(KEY, epoch), examples)
        first = max(start, epoch * per_epoch) - epoch * per_epoch
        np.testing.assert_array_equal(seen, order[first * batch : first * batch + len(seen)])


def test_epochs_are_shuffled_differently():
    found = np.asarray(batch_indices(KEY, 0, steps=2, batch_size=50, examples=50))
    assert (np.sort(found, axis=1) == np.arange(50)).all()
    assert (found[0] != found[1]).any()


def test_digits_are_split_by_class_into_disjoint_parts():
    splits = embedded.digits()
    assert [splits.size(part) for part in Splits._fields] == [1077, 360, 360]
    rows = [x.tobytes() + bytes([y]) for part in splits for x, y in zip(*part, strict=True)]
    assert len(set(rows)) == len(rows) == 1797
    shares = [np.bincount(labels, minlength=10) / len(labels) for _, labels in splits]
    np.testing.assert_allclose(shares[1], shares[0], atol=0.005)
    np.testing.assert_allclose(shares[2], shares[0], atol=0.005)
    assert splits.train[0].dtype == np.float32
    assert 0.0 <= splits.train[0].min() < splits.train[0].max() == 1.0


def test_a_split_depends_on_its_own_seed_alone():
    x, y = np.arange(60, dtype=np.float32)[:, None], np.arange(60) % 3
    once, again, other = (split_classification(x, y, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(once.train[0], again.train[0])
    assert (once.train[0] != other.train[0]).any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": np.zeros(5, int)}, "inputs and labels differ in length; given: 60 and 5"),
        ({"test": 0.6, "validation": 0.5}, "must leave something to train on; given: 0.5 and 0.6 of all"),
        ({"labels": np.arange(60)}, "cannot cut 60 examples by class"),
    ],
)
def test_impossible_splits_are_refused(change, sentence):
    arguments = {"inputs": np.zeros((60, 2), np.float32), "labels": np.arange(60) % 3} | change
    with pytest.raises(ConfigError, match=sentence):
        split_classification(**arguments)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ((np.zeros((0, 2), np.float32), np.zeros(0, int)), "the test split is empty"),
        ((np.zeros((4, 2), np.float32), np.zeros(3, int)), r"arrays of the test split differ in length: \[3, 4\]"),
        ((np.zeros((4, 3), np.float32), np.zeros(4, int)), r"an example of the test split has shape \(3,\), in train \(2,\)"),
        ((np.full((4, 2), np.nan, np.float32), np.zeros(4, int)), "the test split holds NaN or infinite values"),
        (np.zeros((4, 2), np.float32), "the test split is built differently from train"),
    ],
)
def test_broken_splits_are_refused(part, sentence):
    good = (np.zeros((4, 2), np.float32), np.zeros(4, int))
    with pytest.raises(ConfigError, match=f"here: {sentence}"):
        check_splits(Splits(good, good, part), "here")
