"""Tasks of images and of arrays: digits, and your own files, classified by a CNN or an MLP."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from vmaptune import models
from vmaptune.data import embedded
from vmaptune.data.arrays import Kind, load_arrays, standardised
from vmaptune.data.images import load_images
from vmaptune.data.preparation import class_names
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError
from vmaptune.settings import Count, Natural, Seed, Share, with_settings
from vmaptune.tasks.augmentation import augmented
from vmaptune.tasks.contract import Task
from vmaptune.tasks.digits import PIXELS
from vmaptune.tasks.networks import cnn
from vmaptune.tasks.supervised import classification, regression


def digits_cnn(**network: Any) -> Task:
    """The handwritten digits as images, classified by a small convolutional network.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    where = "task digits_cnn"
    flat = embedded.digits()
    splits = Splits(*((inputs.reshape(-1, 8, 8, 1), labels) for inputs, labels in flat))
    task = classification(cnn((8, 8, 1), 10, where, **network), splits, transform=augmented, where=where)
    return task.prepared(inputs=PIXELS)


def images(  # noqa: D417 - the network documents its own
    *,
    path: str,
    validation: Share = 0.2,
    test: Share = 0.2,
    split_seed: Seed = 0,
    limit: Natural = 0,
    size: Natural = 0,
    **network: Any,
) -> Task:
    """Your own images, from IDX files or folders, classified by a convolutional network.

    Args:
        path: Folder of IDX files by MNIST's names (gzipped or not), or with a folder of images for each class, or with
            folders train, validation and test of such.
        validation: Share of the images outside of given parts for validation, if that has no files.
        test: Share of them for test, if that has no files.
        split_seed: Seed of the cut and of the limit.
        limit: Training images to keep, drawn at random; 0: all.
        size: Height and width to which images are resized, pixels; 0: they are all of one size.

    References:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE, 1998
    """
    where = "task images"
    shares = {"validation": validation, "test": test}
    data = load_images(path, **shares, seed=split_seed, limit=limit, size=size, where=where)
    shape = data.splits.train[0].shape[1:]
    task = classification(cnn(shape, len(data.classes), where, **network), data.splits, transform=augmented, where=where)
    return task.prepared(kind="images", classes=data.classes, pixels=True, length=size)


def arrays(  # noqa: D417 - the network documents its own
    *,
    path: str,
    kind: Kind = "auto",
    model: Literal["auto", "mlp", "cnn"] = "auto",
    hidden: tuple[Count, ...] = (64,),
    validation: Share = 0.2,
    test: Share = 0.2,
    split_seed: Seed = 0,
    **network: Any,
) -> Task:
    """Your own arrays, from an .npz or a folder of .npy files, by a small network.

    What an MLP takes (but bytes, which are taken for pixels) and targets that are real numbers are standardised by the
    training split: rmse and mae are in its standard deviations. What a CNN takes, and parts that are mapped from .npy files
    of float32, are left as they are.

    Args:
        path: The .npz, with arrays x and y, or x_train, y_train, and x_validation, ..., y_test where given; or a folder of
            .npy files of those names, which are mapped, not read.
        kind: What y is. auto: classes if it holds whole numbers, truth values or text, else real numbers.
        model: auto: cnn for images (x of shape n, height, width, and channels if any), else mlp, of x flattened. An MLP
            has no channels, kernel, stride and pooling.
        hidden: Width of each hidden layer of the MLP, or of each dense layer of the CNN before the last.
        validation: Share of the examples outside of given parts for validation, if that is not given.
        test: Share of them for test, if that is not given.
        split_seed: Seed of the cut.

    References:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE, 1998
    """
    where = "task arrays"
    data = load_arrays(path, kind=kind, validation=validation, test=test, seed=split_seed, where=where)
    inputs, targets = data.splits.train
    outputs = len(data.classes) or int(np.prod(targets.shape[1:]))
    shape = inputs.shape[1:]
    if model == "cnn" and len(shape) not in (2, 3):
        raise ConfigError(f"{where}: a CNN needs x of shape (n, height, width, channels); given: {inputs.shape}")
    if model == "cnn" or (model == "auto" and len(shape) in (2, 3)):
        shape = (*shape, 1) if len(shape) == 2 else shape
        transform = augmented
    else:
        shape, transform = (int(np.prod(shape)),), None
    chosen = arrays_network(shape, outputs, hidden=hidden, **network)
    splits = Splits(*((inputs.reshape(len(inputs), *shape), targets) for inputs, targets in data.splits))
    prepared: dict[str, Any] = {"pixels": data.pixels, "classes": class_names(data.classes)}
    if transform is None and not data.pixels:
        splits, prepared["inputs"] = standardised(splits, 0)
    if not data.classes:
        if (targets == targets[:1]).all():
            raise ConfigError(f"{where}: the targets of train are all equal; there is nothing to learn")
        splits, prepared["targets"] = standardised(splits, 1)
    task = (classification if data.classes else regression)(chosen, splits, transform=transform, where=where)
    return task.prepared(**prepared)


def arrays_network(shape: tuple[int, ...], outputs: int, *, hidden: tuple[Count, ...] = (64,), **network: Any) -> models.Model:
    """The network of a task of arrays: a CNN of images (height, width, channels), an MLP of rows of numbers."""
    if len(shape) == 3:
        return cnn(shape, outputs, "task arrays", hidden=hidden, **network)
    options = {name: network[name] for name in ("norm", "activation") if name in network}
    return models.from_nnx(lambda rngs: models.MLP(shape[0], hidden, outputs, rngs=rngs, **options))


for _builder in (digits_cnn, images, arrays):
    with_settings(_builder, cnn)
