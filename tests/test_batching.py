"""Batches in which rare classes come more often: how often each class and each example is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from vmaptune.data.batching import make_batches
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError

KEY = jax.random.key(5)
COUNTS = (30, 10, 4)
LABELS = np.repeat([2, 0, 7], COUNTS).astype(np.int32)  # any integers may be labels


def splits(labels=LABELS):
    part = (np.arange(len(labels), dtype=np.float32)[:, None], labels)
    return Splits(part, part, part)


def seen(batches, steps, start=0):
    return np.asarray(batches.indices(KEY, jnp.int32(start), steps, batches.rows))


def test_an_oversampled_epoch_has_as_many_of_each_class_as_of_the_largest():
    batches = make_batches(splits(), size=9, balance="oversample")
    assert batches.examples == 90
    epochs = seen(batches, 20).reshape(2, -1)
    for rows in epochs:
        assert np.bincount(LABELS[rows])[[2, 0, 7]].tolist() == [30, 30, 30]
        times = np.bincount(rows, minlength=len(LABELS))
        for label, count in zip((2, 0, 7), COUNTS, strict=True):  # each of its examples as often as any other, or once more
            assert set(times[label == LABELS]) <= {30 // count, -(-30 // count)}
    assert (epochs[0] != epochs[1]).any()


def test_a_balanced_batch_has_as_many_of_each_class():
    whole = seen(make_batches(splits(), size=9, balance="batch"), 20)
    assert all(np.bincount(LABELS[rows])[[2, 0, 7]].tolist() == [3, 3, 3] for rows in whole)
    for epoch in whole.reshape(2, -1):
        assert np.bincount(epoch[LABELS[epoch] == 2]).max() == 1  # nobody of the largest class twice
    uneven = seen(make_batches(splits(), size=8, balance="batch"), 30)
    counts = np.stack([np.bincount(LABELS[rows])[[2, 0, 7]] for rows in uneven])
    assert set(counts.ravel()) == {2, 3}
    assert (counts.sum(axis=0) == 80).all()  # the class that has one fewer changes in turn


@effort(max_examples=15)
@given(st.sampled_from(["none", "oversample", "batch"]), st.integers(0, 40))
def test_every_start_continues_the_same_stream(balance, start):
    batches = make_batches(splits(), size=6, balance=balance)
    np.testing.assert_array_equal(seen(batches, 4, start), seen(batches, 44)[start : start + 4])


def test_labels_that_are_balanced_already_stay_as_they_are():
    even = splits(np.arange(12, dtype=np.int32) % 3)
    rows = make_batches(even, size=4, balance="oversample").rows
    assert sorted(rows.tolist()) == list(range(12))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 45}, "batch.size: must be between 1 and the 44 training examples; given: 45"),
        ({"size": 0}, "batch.size: must be between 1 and the 44 training examples; given: 0"),
        ({"size": 2, "balance": "batch"}, "batch.size: with batch.balance, between the 3 classes and 90 examples; given: 2"),
        ({"size": 4, "balance": "batch", "real": True}, "batch.balance: the task's data have no integer labels to balance"),
    ],
)
def test_impossible_batches_are_refused(options, sentence):
    labels = LABELS.astype(np.float32) if options.pop("real", False) else LABELS
    with pytest.raises(ConfigError, match=sentence):
        make_batches(splits(labels), **options)
