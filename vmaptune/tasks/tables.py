"""Tables: a file of your own, and two small ones that scikit-learn embeds, each learnt by a multilayer perceptron."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from vmaptune.data import embedded
from vmaptune.data.preparation import Scale, class_names
from vmaptune.data.splits import Cut, Splits
from vmaptune.data.tables import Kind, rarest_class, read_table
from vmaptune.errors import ConfigError
from vmaptune.settings import Count, Seed, Share, with_settings
from vmaptune.tasks.contract import Task
from vmaptune.tasks.networks import mlp
from vmaptune.tasks.supervised import classification, regression

ClassMetric = Literal["accuracy", "balanced_accuracy", "f1", "roc_auc", "loss"]
NumberMetric = Literal["rmse", "mae", "r2", "loss"]


def table(  # noqa: D417 - the network documents its own
    *,
    path: str,
    target: str,
    kind: Kind = "auto",
    drop: tuple[str, ...] = (),
    validation: Share = 0.2,
    test: Share = 0.2,
    cut: Cut = "auto",
    group: str = "",
    time: str = "",
    split_seed: Seed = 0,
    validation_path: str = "",
    test_path: str = "",
    loss: Literal["auto", "cross_entropy", "binary_cross_entropy", "mse", "huber"] = "auto",
    metric: Literal["auto", "accuracy", "balanced_accuracy", "f1", "roc_auc", "rmse", "mae", "r2", "loss"] = "auto",
    **network: Any,
) -> Task:
    """A CSV or Parquet table of your own, one column of which is predicted from the others.

    Columns are made inputs by what the training rows hold: numbers standardised, missing ones the median with an indicator
    beside it, texts and booleans one input a category; a column that counts the rows is none. The target of a regression is
    standardised too, so that rmse, mae and the loss are in its standard deviations; r2 is what it would be anyway.

    Args:
        path: A .csv, .tsv (gzipped too) or .parquet file; a relative path begins at the current folder.
        target: Name of the column to predict.
        kind: auto: regression if the target holds numbers that are not all whole, or more than 20 different ones (or more
            than one in ten rows); else classification.
        drop: Columns that are no inputs.
        validation: Share of the rows for validation, unless validation_path is given.
        test: Share of the rows for test, unless test_path is given.
        cut: How rows are drawn. auto: grouped if there is a group, by time if there is a time, stratified for classes of at
            least five rows each, else random.
        group: Column whose equal values stay in one part, such as a patient's number; no input itself.
        time: Column that orders the rows: the oldest train, the newest test; no input itself. Rows of equal time stay in one
            part.
        split_seed: Seed of the draw, apart from the run's seed.
        validation_path: A file of the same columns that is the validation split as it is.
        test_path: The same for test.
        loss: What is paid in training; auto: cross_entropy or mse.
        metric: What members are selected by. auto: r2 for regression; accuracy for classes, unless the rarest has less than
            half of an even share of the training rows: then roc_auc if there are two, else balanced_accuracy.

    Raises:
        ConfigError: The file or a column cannot be used, or the loss or the metric does not suit the target.
    """
    read = read_table(
        path,
        target,
        kind=kind,
        drop=drop,
        validation=validation,
        test=test,
        cut=cut,
        group=group,
        time=time,
        seed=split_seed,
        validation_path=validation_path,
        test_path=test_path,
    )
    where = "task table"
    features, classes = len(read.features), len(read.classes)
    losses = ("cross_entropy", "binary_cross_entropy") if classes else ("mse", "huber")
    if loss not in ("auto", *losses):
        raise ConfigError(f"task.loss: {_what(classes)} needs {' or '.join(losses)}; given: {loss!r}")
    metrics = get_args(ClassMetric if classes else NumberMetric)
    if metric not in ("auto", *metrics):
        raise ConfigError(f"task.metric: {_what(classes)} is measured by {', '.join(metrics)}; given: {metric!r}")
    outputs = classes if classes and loss != "binary_cross_entropy" else 1
    model = mlp(features, outputs, **network)
    if classes:
        chosen = usual_metric(read.splits, classes) if metric == "auto" else metric
        objective = "cross_entropy" if loss == "auto" else loss
        task = classification(model, read.splits, loss=objective, metric=chosen, where=where)  # type: ignore[arg-type]
        task = task.prepared(classes=class_names(read.classes))
        return task._replace(features=read.features).prepared(kind="table", table=read.preprocessor, target=target)
    chosen, objective = "r2" if metric == "auto" else metric, "mse" if loss == "auto" else loss
    task = regression(model, read.splits, loss=objective, metric=chosen, where=where)  # type: ignore[arg-type]
    task = task.prepared(targets=Scale(read.mean, read.scale))
    return task._replace(features=read.features).prepared(kind="table", table=read.preprocessor, target=target)


def usual_metric(splits: Splits, classes: int) -> str:
    """What members are selected by if nobody said: accuracy, which tells little where a class is rare.

    Where the rarest class that is there has less than half of an even share of the training rows, it is roc_auc for two
    classes and balanced_accuracy for more.
    """
    labels = np.asarray(splits.train[1])
    if rarest_class(labels)[1] / len(labels) >= 0.5 / len(np.unique(labels)):
        return "accuracy"
    return "roc_auc" if classes == 2 else "balanced_accuracy"


def breast_cancer(  # noqa: D417 - the network documents its own
    *,
    validation: Share = 0.2,
    test: Share = 0.2,
    split_seed: Seed = 0,
    metric: ClassMetric = "roc_auc",
    hidden: tuple[Count, ...] = (32,),
    units: Count = 32,
    **network: Any,
) -> Task:
    """Breast cancer (scikit-learn, embedded): 569 tumours, benign (63 %) or malignant, by 30 measurements; cut by class.

    Args:
        validation: Share of the examples for validation.
        test: Share of the examples for test.
        split_seed: Seed of the cut, apart from the run's seed.
        metric: What members are selected by.
        hidden: Width of each hidden layer; none: a linear model.
        units: Width of each of `layers`.

    References:
        Street et al., Nuclear feature extraction for breast tumor diagnosis, SPIE 1905, 1993
    """
    splits, scale = embedded.scaled_breast_cancer(validation=validation, test=test, seed=split_seed)
    model = mlp(30, 2, hidden=hidden, units=units, **network)
    task = classification(model, splits, metric=metric, where="task breast_cancer")
    return task.prepared(inputs=scale, classes=("malignant", "benign"))


def diabetes(  # noqa: D417 - the network documents its own
    *,
    validation: Share = 0.2,
    test: Share = 0.2,
    split_seed: Seed = 0,
    loss: Literal["mse", "huber"] = "mse",
    metric: NumberMetric = "r2",
    hidden: tuple[Count, ...] = (32,),
    units: Count = 32,
    **network: Any,
) -> Task:
    """Diabetes (scikit-learn, embedded): how far the disease went in a year, 442 patients, 10 measurements; a regression.

    The target is standardised by the training split: rmse and mae are in its standard deviations.

    Args:
        validation: Share of the examples for validation.
        test: Share of the examples for test.
        split_seed: Seed of the cut, apart from the run's seed.
        loss: What is paid in training.
        metric: What members are selected by.
        hidden: Width of each hidden layer; none: a linear model.
        units: Width of each of `layers`.

    References:
        Efron et al., Least Angle Regression, https://arxiv.org/abs/math/0406456
    """
    splits, inputs, targets = embedded.scaled_diabetes(validation=validation, test=test, seed=split_seed)
    model = mlp(10, 1, hidden=hidden, units=units, **network)
    task = regression(model, splits, loss=loss, metric=metric, where="task diabetes")
    return task.prepared(inputs=inputs, targets=targets)


def _what(classes: int) -> str:
    return "a classification" if classes else "a regression"


for _builder in (table, breast_cancer, diabetes):
    with_settings(_builder, mlp)
