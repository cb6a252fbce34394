import numpy as np
import pytest

from vmaptune.data.arrays import load_arrays
from vmaptune.data.splits import split_rows
from vmaptune.errors import ConfigError
from vmaptune.settings import settings
from vmaptune.tasks import check_task
from vmaptune.tasks.images import arrays

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = np.arange(40) % 4 * 10  # labels with gaps


def save(path, **named):
    if path.suffix == ".npz":
        np.savez(path, **named)
    else:
        path.mkdir()
        for name, array in named.items():
            np.save(path / f"{name}.npy", array)
    return str(path)


def parts(x=X, y=Y):
    """Three given parts of 20, 10 and 10 examples."""
    cuts = {"train": slice(20), "validation": slice(20, 30), "test": slice(30, 40)}
    return {f"{axis}_{part}": array[rows] for part, rows in cuts.items() for axis, array in (("x", x), ("y", y))}


@pytest.mark.parametrize("name", ["data.npz", "folder"])
def test_one_pair_is_cut_in_three_by_class(tmp_path, name):
    found = load_arrays(save(tmp_path / name, x=X, y=Y), validation=0.25, test=0.5, seed=2)
    assert found.classes == ("0", "10", "20", "30")
    rows = split_rows(40, validation=0.25, test=0.5, seed=2, stratify=Y)
    for (x, y), taken in zip(found.splits, rows, strict=True):
        np.testing.assert_array_equal(x, X[taken])
        np.testing.assert_array_equal(y, Y[taken] // 10)
        assert (x.dtype, y.dtype) == (np.float32, np.int32)


def test_given_parts_of_a_folder_stay_files(tmp_path):
    path = save(tmp_path / "folder", **parts(y=Y.astype(np.float32)))
    splits = load_arrays(path).splits
    task = arrays(path=path, hidden=())
    for part in (splits.train, splits.validation, splits.test, task.splits.train):
        assert isinstance(part[0], np.memmap)
        assert not part[0].flags.writeable
    np.testing.assert_array_equal(np.concatenate([x for x, _ in splits]), X)
    some = {name: array for name, array in parts().items() if "validation" not in name}
    cut = load_arrays(save(tmp_path / "some", **some), validation=0.2).splits
    assert [cut.size(part) for part in cut._fields] == [16, 4, 10]


@pytest.mark.parametrize(
    ("x", "y", "kind", "expected_x", "expected_y"),
    [
        (X.astype(np.float64), Y % 20 == 0, "auto", X, (Y + 10) // 10 % 2),
        (np.arange(40), np.where(Y > 0, "yes", "no"), "auto", np.arange(40.0)[:, None], Y > 0),
        (X, Y.astype(np.float64)[:, None], "classification", X, Y // 10),
        (X, Y, "regression", X, Y),
        (X, np.stack([Y, -Y], 1) / 8, "auto", X, np.stack([Y, -Y], 1) / 8),
        (np.full((40, 2, 2), 51, np.uint8), Y, "auto", np.full((40, 2, 2), np.float32(0.2)), Y // 10),
    ],
)
def test_arrays_of_other_types_are_converted(tmp_path, x, y, kind, expected_x, expected_y):
    found = load_arrays(save(tmp_path / "data.npz", **parts(x, y)), kind=kind)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found.splits]), expected_x)
    targets = np.concatenate([y for _, y in found.splits])
    np.testing.assert_array_equal(targets, expected_y)
    assert targets.dtype == (np.int32 if found.classes else np.float32)
    assert found.splits.train[0].dtype == np.float32


def nan_in(array):
    return np.where(np.arange(len(array)) == 3, np.nan, array.T).T.astype(np.float32)


@pytest.mark.parametrize(
    ("named", "options", "sentence"),
    [
        ({"x": X}, {}, r"data.npz has no array 'y'; known: x"),
        ({"a": X, "y_train": Y}, {}, "data.npz has no array 'x_train'; did you mean 'y_train'"),
        ({"a": X, "b": Y}, {}, "expected arrays x and y, or x_train, y_train, ..., y_test; given: a, b in .*data.npz$"),
        ({"train_x": X, "train_y": Y}, {}, "given: train_x, train_y in .*; did you mean 'x_train' by 'train_x'"),
        ({"x": X * np.array([1, 1e300, 1]), "y": Y}, {}, r"x holds -?\d.*e\+(299|300), too large for float32: scale it"),
        ({"x": X, "y": np.full(40, 0.5)}, {}, "the targets of train are all equal"),
        ({"x": X, "y": Y, "x_test": X}, {}, "has no array 'y_test'; did you mean 'x_test'"),
        ({"x": X, "y": Y[1:]}, {}, r"must have equally many examples; given: x \(40, 3\) and y \(39,\)"),
        ({"x": X, "y": np.float32(1)}, {}, r"must have equally many examples; given: x \(40, 3\) and y \(\)"),
        (parts() | {"x_test": X[:10, :2]}, {}, r"an example of test has shape \(2,\), of train \(3,\)"),
        ({"x": X.astype(complex), "y": Y}, {}, "x must hold real numbers; given: complex128"),
        ({"x": X.astype(str), "y": Y}, {}, "x must hold real numbers; given: <U32"),
        ({"x": X, "y": Y.astype(object)}, {}, r"an array holds Python objects; save texts as strings: y.astype\(str\)"),
        ({"x": X, "y": np.ones(40, int)}, {}, "one class only, 1; a classifier needs two or more"),
        ({"x": X, "y": X}, {"kind": "classification"}, r"classes must be one number an example; given: shape \(40, 3\)"),
        ({"x": X, "y": X[:, 0]}, {"kind": "classification"}, "classes must be whole numbers or text; given: real numbers"),
        ({"x": X, "y": Y.astype(str)}, {"kind": "regression"}, "targets of a regression must be real numbers; given: <U"),
        ({"x": X, "y": X[:, :, None]}, {}, r"targets must be of shape \(n,\) or \(n, outputs\); given: \(40, 3, 1\)"),
        (parts() | {"y_test": np.full(10, 7)}, {}, "class 7 of test is none of train"),
        ({"x": X, "y": np.arange(40)}, {}, "cannot cut 40 examples by class: one has 1 example"),
        ({"x": nan_in(X), "y": Y}, {}, "the .* split holds NaN or infinite values"),
        ({"x": X, "y": nan_in(X[:, 0])}, {}, "the .* split holds NaN or infinite values"),
        ({"x": X[:0], "y": X[:0, 0]}, {}, "cannot cut 0 examples"),
        (parts() | {"x_test": X[:0], "y_test": Y[:0]}, {}, "the test split is empty"),
        ({"x": X, "y": Y}, {"model": "cnn"}, r"a CNN needs x of shape \(n, height, width, channels\); given: \(24, 3\)"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(tmp_path, named, options, sentence):
    with pytest.raises(ConfigError, match=f"^task arrays: .*{sentence}"):
        arrays(path=save(tmp_path / "data.npz", **named), **options)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no archive")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.npy").write_bytes(b"\x93NUMPY no")
    for path, sentence in (
        ("x.npz", "cannot read .*x.npz: it is no .npz file"),
        ("folder", "cannot read .*folder"),
        ("nowhere.npz", "no such file or folder: .*nowhere.npz"),
        ("x.csv", "expected an .npz file or a folder of .npy files; given: .*x.csv"),
    ):
        with pytest.raises(ConfigError, match=f"^data: {sentence}"):
            load_arrays(str(tmp_path / path))


def test_an_mlp_is_given_arrays_that_are_standardised_by_the_training_split(tmp_path):
    x, y = 1e6 * X.astype(np.float64) + 1e6, 3e6 * X[:, :2] + 7
    x[:, 2] = 5.0
    task = arrays(path=save(tmp_path / "data.npz", **parts(x, y)), hidden=())
    for leaf, given in enumerate((x, y)):
        mean, std = given[:20].mean(0), given[:20].std(0)
        expected = (given - mean) / np.where(std > 1e-6, std, 1.0)
        found = np.concatenate([part[leaf] for part in task.splits])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert found.dtype == np.float32
    pixels = np.arange(120, dtype=np.uint8).reshape(40, 3)
    byte = arrays(path=save(tmp_path / "bytes.npz", **parts(pixels)), hidden=())
    np.testing.assert_array_equal(byte.splits.train[0], pixels[:20] / np.float32(255))
    images = arrays(path=save(tmp_path / "images.npz", **parts(np.tile(X[:, :, None], 3))), channels=(2,))
    np.testing.assert_array_equal(images.splits.train[0][:, :, 0, 0], X[:20])
    mapped = arrays(path=save(tmp_path / "folder", **parts(y=y.astype(np.float32))), hidden=())
    np.testing.assert_array_equal(mapped.splits.train[1], y[:20].astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "y", "options", "metric", "augments"),
    [
        ((3,), Y, {}, "accuracy", False),
        ((6, 4), Y, {"channels": (2,)}, "accuracy", True),
        ((6, 4, 3), Y / 10, {"channels": (2,), "norm": "layer"}, "rmse", True),
        ((6, 4), Y / 10, {"model": "mlp", "norm": "batch", "channels": (2,)}, "rmse", False),
        ((2, 3, 2, 2), np.stack([Y, Y], 1) / 10, {"hidden": (5, 5)}, "rmse", False),
    ],
)
def test_the_network_fits_the_arrays(tmp_path, shape, y, options, metric, augments):
    x = RNG.normal(size=(40, *shape)).astype(np.float32)
    task = arrays(path=save(tmp_path / "data.npz", x=x, y=y), **options)
    assert metric == task.metric
    assert check_task(task)[0] == "loss"
    assert augments == ({"flip", "crop", "cutout"} <= {*settings(task.loss)})
