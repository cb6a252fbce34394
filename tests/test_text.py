import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmaptune import models, tasks
from vmaptune.data.splits import Splits
from vmaptune.data.text import UNKNOWN, python_topics, read_text, text_windows
from vmaptune.errors import ConfigError
from vmaptune.tasks.text import language_model, text

KEY = jax.random.key(0)
TEXT = "abcabcabcabcabcabcabc" + "abcxabcab" + "cyabcabca"
SHARES = {"validation": 9 / 39, "test": 9 / 39}


def codes(string):
    return np.array([ord(c) for c in string])


def test_windows_lie_one_after_the_other_inside_a_part_and_know_the_training_part_s_characters():
    splits, vocabulary = text_windows(codes(TEXT), length=4, **SHARES)
    assert vocabulary.tolist() == [-1, *codes("abc")]
    for part, whole in zip(splits, (TEXT[:21], TEXT[21:30], TEXT[30:]), strict=True):
        known = [max(0, "?abc".find(c)) for c in whole]
        inputs, targets = part
        n = (len(whole) - 1) // 4
        assert inputs.shape == targets.shape == (n, 4)
        assert inputs.dtype == targets.dtype == np.int32
        assert inputs.ravel().tolist() == known[: 4 * n]
        assert targets.ravel().tolist() == known[1 : 4 * n + 1]
    assert UNKNOWN in splits.validation[0]
    assert UNKNOWN not in splits.train[0]


def test_windows_that_overlap_measure_each_token_once_after_its_context():
    splits, _ = text_windows(np.arange(60), length=6, context=4, validation=0.4, test=0.2)
    np.testing.assert_array_equal(splits.train[0], text_windows(np.arange(60), length=6, validation=0.4, test=0.2)[0].train[0])
    inputs, targets = splits.validation  # none of whose tokens is known, so look at where windows begin by another cut
    assert len(inputs) == len(targets) == (24 - 1 - 6) // 2 + 1
    whole = np.tile(np.arange(6), 20)
    inputs, targets = text_windows(whole, length=7, context=3, validation=0.4, test=0.2)[0].validation
    scored = targets[:, 3:].ravel()
    np.testing.assert_array_equal(scored, 1 + whole[48 + 4 : 48 + 4 + len(scored)])  # 0 is for the unknown
    with pytest.raises(ConfigError, match=r"^task\.context: expected fewer than the 6 tokens of a window; given: 6$"):
        text_windows(np.arange(60), length=6, context=6, validation=0.4, test=0.2)


def test_what_is_context_is_trained_on_and_not_measured():
    logits = jax.random.normal(KEY, (9, 5, 3))
    model = models.Model(lambda key: ({"w": jnp.ones(())}, {}), lambda p, s, x, key, *, train: (p["w"] * logits[: len(x)], s))
    part = (np.zeros((2, 5), np.int32), np.array([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]], np.int32))
    task = language_model(model, Splits(part, part, part), context=2)
    each = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits[:2])), part[1][..., None], axis=-1)[..., 0]
    for train, expected in ((True, each.mean()), (False, each[:, 2:].mean())):
        loss, (_, metrics) = task.loss({"w": jnp.ones(())}, {}, part, KEY, train=train)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert metrics["bits_per_character"] == pytest.approx(expected / math.log(2), rel=1e-5)


def test_the_end_of_a_text_changes_nothing_of_the_beginning():
    shifted = text_windows(codes(TEXT[:30] + "z" * 9), length=4, **SHARES)
    plain = text_windows(codes(TEXT), length=4, **SHARES)
    assert shifted.vocabulary.tolist() == plain.vocabulary.tolist()
    jax.tree.map(np.testing.assert_array_equal, shifted.splits[:2], plain.splits[:2])
    assert (shifted.splits.test[0] == UNKNOWN).all()


def test_a_file_is_read_by_character_or_byte(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("aé€".encode())
    assert read_text(str(path), "char").tolist() == [0x61, 0xE9, 0x20AC]
    assert read_text(str(path), "byte").tolist() == list("aé€".encode())


def test_the_embedded_text_is_python_s_documentation():
    assert len(python_topics()) > 300_000
    assert "exception" in python_topics()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": "nowhere.txt"}, "task.path: cannot read 'nowhere.txt': No such file or directory"),
        ({"path": "empty.txt"}, "task.path: empty.txt is empty"),
        ({"path": "bad.txt"}, r"task.path: 'bad.txt' is not UTF-8 text \(byte 1\).*level = 'byte'"),
        ({"limit": 100, "length": 10}, "task.length: the validation part is too short .* given: 10 tokens of 100"),
        ({"validation": 0.5, "test": 0.5}, "must leave something to train on; given: 0.5 and 0.5 of all"),
        ({"model": "transformer", "width": 6}, "task.width: expected a multiple of the 4 heads; given: 6"),
    ],
)
def test_what_cannot_be_is_refused(settings, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"a\xff")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ConfigError, match=sentence):
        text(**settings)


def splits_of(inputs, targets):
    return Splits(*[(np.asarray(inputs, np.int32), np.asarray(targets))] * 3)


def model_of(logits):
    """A model whose logits are a table's rows: those of each token."""
    return models.Model(lambda key: ({"table": jnp.asarray(logits)}, {}), lambda p, s, x, key, *, train: (p["table"][x], s))


def test_a_language_model_pays_cross_entropy_in_nats_a_token():
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.0]], np.float32)
    inputs, targets = np.array([[0, 1, 2], [1, 1, 0]]), np.array([[1, 1, 2], [1, 0, 0]])
    task = language_model(model_of(logits), splits_of(inputs, targets.astype(np.int32)))
    assert {*tasks.check_task(task)} == {"loss", "bits_per_character", "accuracy"}
    assert (task.metric, task.direction) == ("bits_per_character", "min")
    params, state = task.init(KEY, task.sample)
    loss, (_, metrics) = task.loss(params, state, task.splits.train, KEY, train=True)
    chance = np.exp(logits[inputs]) / np.exp(logits[inputs]).sum(-1, keepdims=True)
    expected = -np.mean([math.log(c[t]) for c, t in zip(chance.reshape(6, 3), targets.ravel(), strict=True)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert metrics["bits_per_character"] == pytest.approx(expected / math.log(2), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(np.mean(logits[inputs].argmax(-1) == targets))


@pytest.mark.parametrize(
    ("model", "targets", "sentence"),
    [
        (model_of(np.zeros((3, 3), np.float32)), [[1, 3]], r"targets must be integers in 0\.\.2.*given: int64, 1\.\.3"),
        (model_of(np.zeros((3, 3), np.float32)), [[1.0, 2.0]], "targets must be integers.*given: float64"),
        (model_of(np.zeros(3, np.float32)), [[1, 2]], r"logits of shape \(batch, time, tokens\); given: \(2, 2\)"),
        (
            model_of(np.zeros((3, 3), np.float32)),
            [[1, 2, 0]],
            r"given: \(2, 2, 3\) for a batch of 2, targets of shape \(1, 3\)",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(model, targets, sentence):
    with pytest.raises(ConfigError, match=sentence):
        language_model(model, splits_of([[0, 1]], targets))


def test_an_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        language_model(model_of(np.zeros((3, 3), np.float32)), splits_of([[0, 1]], [[1, 2]]), metric="acuracy")
