import numpy as np
import polars as pl
import pytest

from vmaptune.data.series import Series, mackey_glass, read_series, series_windows
from vmaptune.errors import ConfigError
from vmaptune.tasks import check_task
from vmaptune.tasks.series import series

SHARES = {"validation": 0.25, "test": 0.25}


def test_mackey_glass_follows_the_closed_form_until_the_delay_has_passed():
    # Up to t = 17 the delayed value is the constant past: dx/dt = a - 0.1 x.
    a = 0.2 * 1.2 / (1 + 1.2**10)
    time = np.arange(18)
    np.testing.assert_allclose(mackey_glass(18), 10 * a + (1.2 - 10 * a) * np.exp(-0.1 * time), rtol=1e-9)


def test_mackey_glass_does_not_depend_on_the_solver_s_step_and_rests_where_it_must():
    np.testing.assert_allclose(mackey_glass(100), mackey_glass(100, substeps=40), atol=1e-4)
    np.testing.assert_allclose(mackey_glass(100, start=1.0), 1.0)  # 0.2 / (1 + 1) = 0.1
    assert mackey_glass(1000)[500:].std() > 0.2  # and is chaotic elsewhere


def table(n=40):
    rng = np.random.default_rng(0)
    return Series(rng.normal(5.0, 3.0, (n, 2)), ("load", "wind"))


def test_windows_hold_the_past_of_all_columns_and_the_future_of_one():
    given = table()
    splits, mean, std, target = series_windows(given, target="wind", window=3, horizon=2, **SHARES)
    np.testing.assert_allclose(mean, given.values[:20].mean(0))
    np.testing.assert_allclose(std, given.values[:20].std(0))
    scaled = ((given.values - mean) / std).astype(np.float32)
    assert target == 1
    for part, rows in zip(splits, (scaled[:20], scaled[20:30], scaled[30:]), strict=True):
        inputs, targets = part
        assert inputs.shape == (len(rows) - 4, 3, 2)
        assert targets.shape == (len(rows) - 4, 2)
        for i in range(len(inputs)):
            np.testing.assert_array_equal(inputs[i], rows[i : i + 3])
            np.testing.assert_array_equal(targets[i], rows[i + 3 : i + 5, 1])


def test_a_shifted_end_changes_nothing_of_the_beginning_and_a_constant_column_is_zero():
    given = table()
    shifted = given._replace(values=np.concatenate([given.values[:30], given.values[30:] + 1e3]))
    cut = {"target": "load", "window": 3, "horizon": 1, **SHARES}
    one, other = series_windows(given, **cut), series_windows(shifted, **cut)
    for part in ("train", "validation"):
        for a, b in zip(getattr(one.splits, part), getattr(other.splits, part), strict=True):
            np.testing.assert_array_equal(a, b)
    assert other.splits.test[0].min() > 100
    flat = given._replace(values=given.values * [1.0, 0.0] + [0.0, 0.1])
    np.testing.assert_allclose(series_windows(flat, **cut).splits.train[0][..., 1], 0.0, atol=1e-12)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "npy"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, suffix):
    path, values = tmp_path / f"a.{suffix}", np.arange(12.0).reshape(6, 2)
    if suffix == "npy":
        np.save(path, values)
        assert read_series(str(path)).columns == ("0", "1")
    else:
        frame = pl.DataFrame({"load": values[:, 0], "wind": values[:, 1].astype(int), "day": ["mon"] * 6})
        if suffix == "parquet":
            frame.write_parquet(path)
        else:
            frame.write_csv(path, separator="\t" if suffix == "tsv" else ",")
        assert read_series(str(path), drop=["day"]).columns == ("load", "wind")
    np.testing.assert_array_equal(read_series(str(path), drop=["day"] if suffix != "npy" else []).values, values)


def test_every_network_fits_the_task():
    for model in ("gru", "lstm", "mlp"):
        task = series(model=model, window=8, horizon=3, width=4, metric="r2")
        assert check_task(task) == ["loss", "mae"]
        assert task.splits.train[1].shape[1] == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": "nowhere.csv"}, "task.path: there is no file 'nowhere.csv'"),
        ({"path": "a.xls"}, "task.path: expected a .csv, .tsv, .parquet or .npy file; given: 'a.xls'"),
        ({"path": "broken.parquet"}, "task.path: cannot read 'broken.parquet'"),
        ({"path": "cube.npy"}, r"cannot read 'cube.npy': expected shape \(steps,\) or \(steps, columns\), not \(2, 2, 2\)"),
        ({"path": "a.csv", "drop": ("wind",)}, r"column 'day' of 'a.csv' holds no numbers; leave it out: drop = \['day'\]"),
        ({"path": "a.csv", "drop": ("dya",)}, "task.drop: 'a.csv' has no column 'dya'; did you mean 'day'"),
        ({"path": "a.csv", "drop": ("day",)}, "column 'wind' of 'a.csv' has no finite number in row 3"),
        ({"path": "a.csv", "drop": ("day", "wind", "load", "sun")}, "no column of 'a.csv' is left"),
        ({"path": "a.csv", "drop": ("day", "wind")}, "task.target: name the column to predict: load, sun"),
        ({"path": "a.csv", "drop": ("day", "wind"), "target": "laod"}, "no column 'laod'; did you mean 'load'"),
        (
            {"path": "a.csv", "drop": ("day", "wind"), "target": "load"},
            "task.window: the train part is too short for 32 steps and 1 after them; given: 5 steps of 6; lower task.window",
        ),
        ({"path": "short.npy"}, "given: 30 steps of 300; lower task.window to 29 at most, or raise task.validation above 0.11"),
        ({"path": "flat.npy"}, "task.target: column '0' is constant in the training part; nothing can be learnt"),
        ({"validation": 0.7, "test": 0.4}, "must leave something to train on"),
    ],
)
def test_what_cannot_be_is_refused(settings, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wind = [1.0, 2.0, 3.0, None, 5.0, 6.0]
    pl.DataFrame({"load": range(6), "sun": range(6), "wind": wind, "day": ["mon"] * 6}).write_csv("a.csv")
    (tmp_path / "a.xls").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    np.save("cube.npy", np.zeros((2, 2, 2)))
    np.save("flat.npy", np.full(400, 0.1))
    np.save("short.npy", np.arange(300.0))
    with pytest.raises(ConfigError, match=sentence):
        series(**settings)
