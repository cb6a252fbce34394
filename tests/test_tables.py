"""Tables of a user's own: what is read, what is learnt from the training rows alone, and what is refused."""

import contextlib
import datetime
import gzip

import jax
import numpy as np
import polars as pl
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from vmaptune.data import embedded
from vmaptune.data.columns import inputs_of
from vmaptune.data.splits import Splits
from vmaptune.data.tables import read_table
from vmaptune.errors import ConfigError, VmaptuneWarning
from vmaptune.settings import settings
from vmaptune.tasks import tables
from vmaptune.tasks.tables import table

DAY = datetime.date(2020, 1, 1)


def people(n=200, seed=0):
    """A table with a column of every kind; `row` says which row is where."""
    rng = np.random.default_rng(seed)
    age, height = rng.normal(40, 12, n), rng.normal(1.7, 0.1, n)
    return pl.DataFrame(
        {
            "row": np.arange(n) + 5,
            "age": [None if i % 9 == 0 else x for i, x in enumerate(age)],
            "height": height,
            "city": [None if i % 20 == 0 else "Rome" if i == 7 else x for i, x in enumerate(rng.choice(["Bern", "Oslo"], n))],
            "member": rng.random(n) < 0.5,
            "since": [DAY + datetime.timedelta(days=int(d)) for d in rng.integers(0, 900, n)],
            "clinic": rng.integers(0, 25, n),
            "income": 1000 * age + 200 * rng.normal(size=n),
            "ill": rng.choice(["no", "yes"], n, p=[0.7, 0.3]),
        }
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people().write_csv("people.csv")
    return tmp_path


def rows_of(found):
    """Which rows of `people` each part holds."""
    at = found.features.index("row")
    mean, scale = found.preprocessor.means[at], found.preprocessor.scales[at]
    return [np.rint(x[:, at] * scale + mean).astype(int) - 5 for x, _ in found.splits]


def test_columns_become_inputs_as_scikit_learn_makes_them(here):
    found = read_table("people.csv", "ill", drop=["income", "clinic"])
    assert found.classes == ("no", "yes")
    numbers = ("row", "age", "height", "since")
    cities = ("city = (missing)", "city = Bern", "city = Oslo", "city = (rare)")
    assert found.features == (*numbers, "age missing", *cities, "member = false", "member = true")
    frame, rows = people(), rows_of(found)
    plain = frame.select("row", "age", "height", (pl.col("since") - DAY).dt.total_days()).to_numpy().astype(float)
    scaler, imputer = StandardScaler(), SimpleImputer(strategy="median")
    scaler.fit(imputer.fit_transform(plain[rows[0]]))
    for part, taken in zip(found.splits, rows, strict=True):
        np.testing.assert_allclose(part[0][:, :4], scaler.transform(imputer.transform(plain[taken])), rtol=1e-4, atol=1e-4)
        own = frame[taken]
        np.testing.assert_array_equal(part[0][:, 4], own["age"].is_null().to_numpy())
        np.testing.assert_array_equal(part[0][:, 5], own["city"].is_null().to_numpy())
        np.testing.assert_array_equal(part[0][:, 7], (own["city"] == "Oslo").fill_null(False).to_numpy())
        np.testing.assert_array_equal(part[0][:, 10], own["member"].to_numpy())
        np.testing.assert_array_equal(part[1], (own["ill"] == "yes").to_numpy())
        assert (part[0].dtype, part[1].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(inputs_of(frame[rows[2]], found.preprocessor), found.splits.test[0])


def test_categories_that_training_does_not_know_are_zeros_and_rare_ones_share_an_input(here):
    train = pl.DataFrame({"city": ["a"] * 150 + ["b"] * 148 + ["c", "d"], "y": [0.5, 1.5] * 150})
    train.write_csv("train.csv")
    other = pl.DataFrame({"city": ["a", "c", "d", "e"], "y": [0.0, 1.0, 2.0, 3.0]})
    other.write_csv("other.csv")
    found = read_table("train.csv", "y", validation_path="other.csv", test_path="other.csv")
    assert found.features == ("city = a", "city = b", "city = (rare)")
    np.testing.assert_array_equal(found.splits.validation[0], [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(found.splits.test[1] * found.scale + found.mean, [0, 1, 2, 3], atol=1e-6)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_nothing_is_learnt_from_validation_and_test(here, kind):
    target = "ill" if kind == "classification" else "income"
    first = read_table("people.csv", target, seed=1)
    held = np.concatenate(rows_of(first)[1:])
    frame = people()
    strange = pl.Series([i in set(held.tolist()) for i in range(len(frame))])
    shifted = frame.with_columns(
        *(pl.when(strange).then(pl.col(name) * 1e3 + 7).otherwise(pl.col(name)).alias(name) for name in ("height", "income")),
        pl.when(strange).then(pl.lit(None)).otherwise(pl.col("since")).alias("since"),
        pl.when(strange).then(pl.lit("Paris")).otherwise(pl.col("city")).alias("city"),
    )
    shifted.write_csv("shifted.csv")
    second = read_table("shifted.csv", target, seed=1)
    assert second.features == first.features
    for once, again in zip(first.splits.train, second.splits.train, strict=True):
        np.testing.assert_array_equal(once, again)
    at = first.features.index("height")
    assert np.abs(second.splits.test[0][:, at]).min() > 100  # not standardised by itself
    assert second.splits.validation[0][:, [name.startswith("city") for name in first.features]].max() == 0


def test_a_table_is_cut_as_asked(here):
    times = people().with_columns(when=pl.Series([DAY + datetime.timedelta(days=(i * 77) % 200) for i in range(200)]))
    times = times.with_columns(month=pl.col("when").dt.truncate("1mo"))
    times.write_csv("times.csv")
    months = read_table("times.csv", "income", time="month")
    month = [{*times["month"].to_numpy()[rows].tolist()} for rows in rows_of(months)]
    assert not (month[0] & month[1] | month[1] & month[2])
    assert max(month[0]) < min(month[1])
    found = read_table("times.csv", "income", time="when", drop=["month"])
    assert "cut time: by 'when'" in found.inferred
    when = times["when"].to_numpy()
    parts = [when[rows] for rows in rows_of(found)]
    assert [len(part) for part in parts] == [120, 40, 40]
    assert parts[0].max() < parts[1].min() <= parts[1].max() < parts[2].min()
    assert "when" not in found.features
    clinics = people()["clinic"].to_numpy()
    groups = [set(clinics[rows]) for rows in rows_of(read_table("people.csv", "ill", group="clinic"))]
    assert not (groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2])
    shares = [labels.mean() for _, labels in read_table("people.csv", "ill").splits]
    np.testing.assert_allclose(shares, shares[0], atol=0.02)
    mixed = read_table("people.csv", "ill", cut="random").splits
    assert mixed.size("test") == 40


def test_given_files_are_used_as_they_are(here):
    people(30, seed=5).write_csv("test.csv")
    found = read_table("people.csv", "ill", test_path="test.csv", validation=0.25)
    assert [found.splits.size(part) for part in Splits._fields] == [150, 50, 30]
    np.testing.assert_array_equal(rows_of(found)[2], np.arange(30))


def test_every_kind_of_file_gives_the_same_table(here):
    expected = read_table("people.csv", "ill")
    frame = people()
    frame.write_parquet("people.parquet")
    frame.write_csv("people.tsv", separator="\t")
    frame.write_csv("semicolons.csv", separator=";", null_value="NA")
    (here / "people.csv.gz").write_bytes(gzip.compress((here / "people.csv").read_bytes()))
    commas = frame.with_columns(pl.col("age", "height", "income").cast(pl.String).str.replace(".", ",", literal=True))
    commas.write_csv("commas.csv", separator=";")
    for path in ("people.parquet", "people.tsv", "semicolons.csv", "commas.csv", "people.csv.gz", str(here / "people.csv")):
        found = read_table(path, "ill")
        assert found.features == expected.features
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.splits, expected.splits)


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (["a", "b"] * 50, "classification", "it holds text"),
        ([True, False] * 50, "classification", "it holds booleans"),
        ([0, 1, 2, 3] * 25, "classification", "it holds 4 different whole numbers"),
        ([3.0, 5.0] * 50, "classification", "it holds 2 different whole numbers"),
        ([0.0, 0.5] * 50, "regression", "it holds numbers that are not whole"),
        (list(range(100)), "regression", "it holds 100 different numbers"),
        (list(range(25)) * 4, "regression", "it holds 25 different numbers"),
    ],
)
def test_the_kind_is_inferred_from_the_target(here, values, kind, why):
    pl.DataFrame({"x": np.arange(100.0), "y": values}).write_csv("kind.csv")
    found = read_table("kind.csv", "y")
    assert found.inferred[0] == f"{kind} of 'y': {why}"
    assert bool(found.classes) == (kind == "classification")
    if kind == "regression":
        targets = np.concatenate([part[1] * found.scale + found.mean for part in found.splits])
        np.testing.assert_allclose(np.sort(targets), np.sort(np.array(values, float)), atol=1e-4)
        np.testing.assert_allclose([found.splits.train[1].mean(), found.splits.train[1].std()], [0, 1], atol=1e-5)
    else:
        names = [found.classes[label] for part in found.splits for label in part[1]]
        wanted = [f"{v:g}" if isinstance(v, float) else str(v).lower() for v in values]
        assert sorted(names) == sorted(wanted)


@pytest.mark.parametrize(
    ("columns", "warning", "features"),
    [
        ({"name": [f"n{i}" for i in range(100)]}, "column 'name' has 60 different texts in 60 training rows", ("x",)),
        ({"": range(100), "count": range(1, 101)}, "column '(count)?' counts the rows and is left out", ("x",)),
        ({"": [2, 1, 5, 4, 3] * 20}, "", ("x", "")),
        ({"none": [None] * 100}, "column 'none' is empty in all training rows and is left out", ("x",)),
        (
            {"z": ["abc", *map(str, range(1, 100))]},
            "holds numbers, but also 'abc': 1 value taken for missing",
            ("x", "z", "z missing"),
        ),
        ({"y": [None, *([0, 1, 1] * 33)]}, "columns.csv: 1 of 100 rows have no 'y' and are left out", ("x",)),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(here, columns, warning, features):
    pl.DataFrame({"x": np.arange(100.0), "y": [0, 1] * 50} | columns).write_csv("columns.csv")
    with pytest.warns(VmaptuneWarning, match=warning) if warning else contextlib.nullcontext():
        found = read_table("columns.csv", "y", cut="time", time="x") if "z" in columns else read_table("columns.csv", "y")
    assert found.features == tuple(name for name in features if "z" not in columns or name != "x")


def test_infinite_numbers_count_as_missing(here):
    pl.DataFrame({"x": [np.inf, *range(99)], "y": [0, 1] * 50}).write_csv("infinite.csv")
    found = read_table("infinite.csv", "y", cut="random", seed=3)
    assert found.features[0] == "x"
    assert all(np.isfinite(part[0]).all() for part in found.splits)


def test_the_task_is_the_table_with_a_network(here):
    task = table(path="people.csv", target="ill", hidden=(4,), norm="layer", residual=True)
    assert (task.metric, task.direction) == ("accuracy", "max")
    params, _ = jax.eval_shape(task.init, jax.random.key(0), task.sample)
    assert params["head"]["kernel"].shape == (4, 2)
    assert {"dropout", "class_balance"} <= {*settings(task.loss)}
    one = table(path="people.csv", target="ill", hidden=(), loss="binary_cross_entropy", metric="f1")
    assert jax.eval_shape(one.init, jax.random.key(0), one.sample)[0]["head"]["kernel"].shape[1] == 1
    numbers = table(path="people.csv", target="income", layers=2, units=3, loss="huber")
    assert (numbers.metric, numbers.direction) == ("r2", "max")
    assert jax.eval_shape(numbers.init, jax.random.key(0), numbers.sample)[0]["head"]["kernel"].shape == (3, 1)


@pytest.mark.parametrize(
    ("labels", "metric"),
    [([0, 1, 1, 1] * 25, "accuracy"), ([0] + [1] * 9, "roc_auc"), ([0, 1, 1, 1, 2, 2, 2, 1, 2, 1], "balanced_accuracy")],
)
def test_the_metric_is_chosen_by_how_rare_a_class_is(labels, metric):
    part = (np.zeros((len(labels), 1), np.float32), np.array(labels, np.int32))
    assert tables.usual_metric(Splits(part, part, part), len(set(labels))) == metric


def test_embedded_tables_are_standardised_by_their_training_split():
    for task, classes in ((tables.breast_cancer(split_seed=4), 2), (tables.diabetes(split_seed=4), 0)):
        inputs, targets = task.splits.train
        np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(inputs.std(axis=0), 1, atol=1e-5)
        assert np.abs(task.splits.test[0].mean(axis=0)).max() > 1e-3
        assert task.metric == ("roc_auc" if classes else "r2")
        assert classes or abs(targets.std() - 1) < 1e-5
    sizes = [embedded.breast_cancer(validation=0.1, test=0.3).size(part) for part in Splits._fields]
    assert sizes == [341, 57, 171]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"path": "pepole.csv"}, "task.path: there is no file 'pepole.csv'"),
        ({"path": "people.xls"}, r"task.path: expected a file that ends in .csv, .*; given: 'people.xls'"),
        ({"path": "torn.parquet"}, "task.path: torn.parquet cannot be read: "),
        ({"path": "torn.csv.gz"}, "task.path: torn.csv.gz cannot be read: "),
        ({"path": "binary.csv"}, "task.path: binary.csv cannot be read: "),
        ({"path": "empty.csv"}, "task.path: empty.csv cannot be read: "),
        ({"path": "lists.parquet"}, r"task.path: column 'z' cannot be read: it holds List.*; leave it out by task.drop"),
        ({"path": "header.csv"}, "task.path: header.csv has no row with a 'ill'"),
        ({"path": "latin.csv"}, "task.path: latin.csv cannot be read: it is not UTF-8 text: save it in that encoding"),
        ({"path": "ragged.csv"}, "task.path: ragged.csv cannot be read: line 3 has 3 values, the header 2 names"),
        ({"path": "huge.csv"}, r"task.path: column 'a' holds 1e\+300, too large for float32: scale it"),
        (
            {"path": "texts.csv"},
            "task.path: there is no column left to predict the target from: column 'z' has 24 different texts",
        ),
        ({"target": "ILL"}, "task.target: people.csv has no column 'ILL'; did you mean 'ill'?"),
        ({"drop": ("ill",)}, "task.drop: 'ill' is the target"),
        ({"target": "il"}, "task.target: people.csv has no column 'il'; did you mean 'ill'?"),
        ({"drop": ("hight",)}, "task.drop: people.csv has no column 'hight'; did you mean 'height'?"),
        ({"group": "clinics"}, "task.group: people.csv has no column 'clinics'; did you mean 'clinic'?"),
        ({"kind": "regression"}, "task.target: regression needs numbers; column 'ill' holds text, such as '(no|yes)'"),
        ({"path": "one.csv"}, "task.target: column 'ill' holds one class only; given: 'no' in all of 20 rows"),
        ({"path": "flat.csv", "kind": "regression"}, "task.target: the train split holds one value only; given: 3"),
        (
            {"target": "income", "kind": "classification"},
            "task.target: column 'income' holds 200 classes in 200 rows, too many",
        ),
        ({"drop": tuple(people().drop("ill").columns)}, "task.path: there is no column left to predict the target from"),
        ({"validation": 0.6, "test": 0.4}, "data: validation and test must leave something to train on"),
        ({"cut": "time"}, "task.time: name the column that decides; cut = 'time' needs it"),
        ({"cut": "random", "group": "clinic"}, "task.group: means nothing with cut = 'random'; given: 'clinic'"),
        ({"group": "clinic", "time": "since"}, "task.time: rows are cut by group or by time; given: both"),
        ({"target": "income", "cut": "stratified"}, "task.cut: only classes can be stratified, and this is a regression"),
        ({"test_path": "narrow.csv"}, "task.test_path: there is no column 'row'"),
        ({"test_path": "dated.csv"}, "task.test_path: column 'height' must hold numbers; given: Date"),
        ({"loss": "mse"}, "task.loss: a classification needs cross_entropy or binary_cross_entropy; given: 'mse'"),
        ({"metric": "r2"}, "task.metric: a classification is measured by accuracy, .*; given: 'r2'"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(here, change, sentence):
    (here / "torn.parquet").write_bytes(b"PAR1 no more")
    (here / "torn.csv.gz").write_bytes(gzip.compress((here / "people.csv").read_bytes())[:40])
    (here / "binary.csv").write_bytes(b"a,ill\n\xff\xfe,\x80\n")
    (here / "empty.csv").write_bytes(b"")
    (here / "people.xls").write_bytes(b"")
    pl.DataFrame({"ill": ["no", "yes"] * 10, "z": [[1, 2]] * 20}).write_parquet("lists.parquet")
    people().clear().write_csv("header.csv")
    (here / "latin.csv").write_bytes("a,ill\ncaf\xe9,no\n".encode("latin-1"))
    (here / "ragged.csv").write_text("a,ill\n1,no\n1,no,yes\n")
    pl.DataFrame({"ill": ["no", "yes"] * 20, "a": [1e300] * 40}).write_csv("huge.csv")
    pl.DataFrame({"ill": ["no", "yes"] * 20, "z": [f"t{i}" for i in range(40)]}).write_csv("texts.csv")
    pl.DataFrame({"ill": ["no"] * 20, "z": range(20)}).write_csv("one.csv")
    pl.DataFrame({"ill": [3] * 20, "z": range(20)}).write_csv("flat.csv")
    people().select("age", "ill").write_csv("narrow.csv")
    people().with_columns(height=pl.col("since")).write_csv("dated.csv")
    with pytest.raises(ConfigError, match=f"^{sentence}") as error:
        table(**{"path": "people.csv", "target": "ill"} | change)
    assert "\n" not in str(error.value)
