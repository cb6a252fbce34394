import gzip
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.conftest import forget
from vmaptune.data.images import load_images
from vmaptune.errors import ConfigError
from vmaptune.settings import settings
from vmaptune.tasks import check_task
from vmaptune.tasks.images import digits_cnn, images
from vmaptune.toml import load_config

RNG = np.random.default_rng(0)


def write_idx(path, array, magic=b"\0\0\x08", cut=0):
    """An IDX file, from its definition: magic, number of axes, their lengths in big-endian, the bytes."""
    content = magic + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    content = content[: len(content) - cut]
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def mnist(folder, n=40, test=10, suffix="", side=5):
    """Random images in MNIST's layout, four classes: the pixels and labels of both parts."""
    parts = []
    for prefix, count in (("train", n), ("t10k", test)):
        pixels, labels = RNG.integers(0, 256, (count, side, side)), np.arange(count) % 4
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", pixels)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
        parts.append((pixels, labels))
    return parts


def picture(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).convert(mode or "L").save(path)


def pictures(folder, classes=("cat", "dog"), n=5, shape=(4, 6), suffix="png"):
    """A folder of pictures a class, each of one grey that tells which it is."""
    for label, name in enumerate(classes):
        for i in range(n):
            picture(folder / name / f"{i}.{suffix}", np.full(shape, 20 * i + 5 * label))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_as_written(tmp_path, suffix):
    (pixels, _), (test_pixels, test_labels) = mnist(tmp_path, suffix=suffix)
    found = load_images(str(tmp_path), validation=0.2, test=0.5, seed=3)  # test has files of its own: its share says nothing
    assert found.classes == ("0", "1", "2", "3")
    train, validation, test = found.splits
    np.testing.assert_array_equal(test[0], test_pixels[..., None].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(test[1], test_labels)
    assert [(len(y), x.dtype, y.dtype) for x, y in (train, validation)] == [
        (32, np.float32, np.int32),
        (8, np.float32, np.int32),
    ]
    both = np.concatenate([train[0], validation[0]])
    assert sorted(map(bytes, np.round(both * 255).astype(np.uint8))) == sorted(map(bytes, pixels[..., None].astype(np.uint8)))
    np.testing.assert_array_equal(np.bincount(validation[1]), [2, 2, 2, 2])
    few = load_images(str(tmp_path), validation=0.2, seed=3, limit=10).splits
    assert few.size("train") == 10
    np.testing.assert_array_equal(few.validation[0], validation[0])
    assert {*map(bytes, few.train[0])} < {*map(bytes, train[0])}
    assert load_images(str(tmp_path), size=3).splits.test[0].shape == (10, 3, 3, 1)


def test_a_folder_a_class_is_cut_in_three(tmp_path):
    pictures(tmp_path, n=10)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    found = load_images(str(tmp_path))
    assert found.classes == ("cat", "dog")
    seen = []
    for (x, y), size in zip(found.splits, (12, 4, 4), strict=True):
        assert x.shape == (size, 4, 6, 1)
        grey = np.round(x[:, 0, 0, 0] * 255).astype(int)
        np.testing.assert_array_equal(grey % 20, 5 * y)  # each image has its folder's label
        np.testing.assert_array_equal(x, np.broadcast_to(x[:, :1, :1], x.shape))
        seen += grey.tolist()
    assert sorted(seen) == sorted(20 * i + 5 * label for i in range(10) for label in range(2))


def test_folders_of_parts_are_kept_apart_and_one_coloured_image_colours_all(tmp_path):
    for part, n in (("train", 5), ("val", 2), ("test", 3)):
        pictures(tmp_path / part, n=n)
    picture(tmp_path / "test" / "cat" / "red.png", np.full((4, 6, 3), (255, 0, 0)), "RGB")
    splits = load_images(str(tmp_path)).splits
    assert [splits.size(part) for part in splits._fields] == [10, 4, 7]
    assert splits.train[0].shape[1:] == (4, 6, 3)
    np.testing.assert_array_equal(splits.train[0][..., 0], splits.train[0][..., 2])
    assert (splits.test[0] == np.float32([1, 0, 0])).all((1, 2, 3)).sum() == 1


def test_images_are_resized_to_one_size(tmp_path):
    pictures(tmp_path)
    picture(tmp_path / "dog" / "large.png", np.full((20, 8), 40))
    with pytest.raises(ConfigError, match=r"images differ in size: .*large.png is 8x20, .*0.png is 6x4; set size to resize"):
        load_images(str(tmp_path))
    splits = load_images(str(tmp_path), size=7).splits
    assert splits.train[0].shape[1:] == (7, 7, 1)
    assert 40 in np.round(np.concatenate([x for x, _ in splits])[:, 3, 3, 0] * 255)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda f: (f / "train-labels-idx1-ubyte").unlink(),
            "no file train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz in .*; did you mean",
        ),
        (
            lambda f: write_idx(f / "train-images-idx3-ubyte", np.zeros((40, 5, 5)), magic=b"\0\0\x0d"),
            "train-images-idx3-ubyte is no IDX file of unsigned bytes; it begins with 00000d03",
        ),
        (
            lambda f: (f / "train-images-idx3-ubyte").write_bytes(b""),
            "is no IDX file of unsigned bytes; it begins with nothing",
        ),
        (
            lambda f: write_idx(f / "train-images-idx3-ubyte", np.zeros((40, 5, 5)), cut=1),
            r"train-images-idx3-ubyte is damaged: expected 1,000 bytes for shape \(40, 5, 5\); given: 999",
        ),
        (
            lambda f: [(f / "train-images-idx3-ubyte").unlink(), (f / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bno")],
            "cannot read .*train-images-idx3-ubyte.gz",
        ),
        (
            lambda f: write_idx(f / "train-labels-idx1-ubyte", np.zeros(39)),
            r"images and labels of train do not fit together; given: \(40, 5, 5\) and \(39,\)",
        ),
        (lambda f: write_idx(f / "train-labels-idx1-ubyte", np.full(40, 3)), "one class only, 3, in"),
        (
            lambda f: write_idx(f / "t10k-images-idx3-ubyte", np.zeros((10, 6, 6))),
            r"images of the test split are \(6, 6, 1\), of train \(5, 5, 1\)",
        ),
        (
            lambda f: [
                write_idx(f / f"t10k-{what}-ubyte", np.zeros(s)) for what, s in (("images-idx3", (0, 5, 5)), ("labels-idx1", 0))
            ],
            "no images in the test files",
        ),
    ],
)
def test_idx_files_that_cannot_be_meant_are_refused(tmp_path, change, sentence):
    mnist(tmp_path)
    change(tmp_path)
    with pytest.raises(ConfigError, match=f"^task images: .*{sentence}"):
        load_images(str(tmp_path), where="task images")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: (f / "empty").mkdir(), "no images in .*empty; known are files of .bmp"),
        (lambda f: pictures(f / "train", ("cat",)), "one class only, cat, in"),
        (
            lambda f: [pictures(f / "train"), pictures(f / "test", ("cat", "dot"))],
            "dot is of no class of train; did you mean 'dog'",
        ),
        (lambda f: [pictures(f / "train"), (f / "val").mkdir()], "no images in .*val"),
        (lambda f: (f / "train").mkdir(), "no images in .*train; it must hold a folder of images for each class"),
        (lambda f: (f / "cat" / "0.png").write_bytes(b"text"), "cannot read the image .*0.png: cannot identify"),
        (lambda f: (f / "cat" / "0.png").write_bytes((f / "cat" / "1.png").read_bytes()[:45]), "cannot read the image .*0.png"),
        (
            lambda f: Image.fromarray(np.zeros((4, 6), np.uint16)).save(f / "cat" / "0.png"),
            "0.png has pixels of mode I;16; convert it to 8 bits a channel",
        ),
        (lambda f: picture(f / "eel" / "0.png", np.zeros((4, 6))), "cannot cut 11 examples by class: one has 1 example"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(tmp_path, change, sentence):
    pictures(tmp_path)
    change(tmp_path)
    with pytest.raises(ConfigError, match=f"^data: .*{sentence}"):
        load_images(str(tmp_path))


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no such folder: .*nowhere; give a folder of IDX files"):
        load_images(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"not a folder: .*file"):
        load_images(str(tmp_path / "file"))


def test_the_tasks_of_images_take_the_networks_settings(tmp_path):
    mnist(tmp_path, side=8)
    network = {"channels", "kernel", "stride", "norm", "pooling", "activation", "hidden"}
    assert network < {*settings(images)}
    assert network == {*settings(digits_cnn)}
    task = images(path=str(tmp_path), channels=(2,), stride=2, hidden=(3,), norm="batch")
    assert check_task(task) == ["loss", "accuracy"]
    assert {"flip", "crop", "cutout", "mixup", "dropout"} < {*settings(task.loss)}
    shapes = jax.tree.map(np.shape, jax.eval_shape(task.init, jax.random.key(0), task.sample)[0])
    assert shapes["hidden"][0]["kernel"] == (8, 3)
    assert shapes["head"]["kernel"] == (3, 4)
    with pytest.raises(ConfigError, match=r"task images: channels: expected at least one width; given: \[\]"):
        images(path=str(tmp_path), channels=())
    with pytest.raises(ConfigError, match=r"task digits_cnn: a CNN of 4 convolutions, .* leaves nothing of an image of 8x8"):
        digits_cnn(channels=(1, 1, 1, 1))
    forget()


def test_the_experiment_with_fashion_mnist_resolves(tmp_path):
    path = Path(__file__).parent.parent / "experiments" / "fashion_mnist" / "config.toml"
    mnist(tmp_path, n=80, side=28)
    config, task = load_config(path, [f"task.path='{tmp_path}'"])
    assert {"task.dropout", "optimizer.learning_rate"} < {*config.recipe(task).space.axes}
    assert task.sample[0].shape == (1, 28, 28, 1)
