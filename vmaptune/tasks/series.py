"""Time series: a network predicts the next steps of a column of a table."""

from __future__ import annotations

from typing import Literal

from flax import nnx

from vmaptune import models
from vmaptune.data.preparation import Scale
from vmaptune.data.series import read_series, series_windows
from vmaptune.data.splits import Splits
from vmaptune.models.recurrent import Recurrent
from vmaptune.settings import Count, Share
from vmaptune.tasks.contract import Task
from vmaptune.tasks.supervised import regression


def series(
    *,
    path: str = "",
    target: str = "",
    drop: tuple[str, ...] = (),
    window: Count = 32,
    horizon: Count = 1,
    validation: Share = 0.1,
    test: Share = 0.1,
    model: Literal["gru", "lstm", "mlp"] = "gru",
    width: Count = 32,
    depth: Count = 1,
    loss: Literal["mse", "huber"] = "mse",
    metric: Literal["rmse", "mae", "r2", "loss"] = "rmse",
) -> Task:
    """The next steps of a time series, predicted from the last ones by a small network.

    The series is cut by time: the oldest steps train. All columns are standardised by them, so errors are in standard
    deviations of the target in the training part.

    Args:
        path: A `.csv`, `.tsv`, `.parquet` or `.npy` table, the oldest row first; empty: the Mackey-Glass equation.
        target: Column to predict; empty: the only one.
        drop: Columns to leave out, such as the time.
        window: Past steps that are seen, of all columns.
        horizon: Steps after them that are predicted.
        validation: Share of the steps for validation.
        test: Share of the steps for test.
        model: The network; an MLP sees the window as one row of numbers.
        width: Units of a layer.
        depth: Layers.
        loss: What is paid in training.
        metric: What members are selected by.

    References:
        Mackey & Glass, Oscillation and Chaos in Physiological Control Systems, Science 197, 1977
    """
    read = read_series(path, drop=drop)
    splits, mean, std, column = series_windows(
        read, target=target, window=window, horizon=horizon, validation=validation, test=test
    )
    if model == "mlp":
        splits = Splits(*((inputs.reshape(len(inputs), -1), targets) for inputs, targets in splits))
    network = series_network(splits.train[0].shape[1:], horizon, model=model, width=width, depth=depth)
    task = regression(network, splits, loss=loss, metric=metric, where="task series")
    steps = window if model == "mlp" else 1  # whose columns stand side by side
    return task.prepared(
        kind="series",
        inputs=Scale(mean.tolist() * steps, std.tolist() * steps),
        targets=Scale(float(mean[column]), float(std[column])),
        columns=read.columns,
        length=window,
        target=read.columns[column],
    )


def series_network(
    shape: tuple[int, ...],
    outputs: int,
    *,
    model: Literal["gru", "lstm", "mlp"] = "gru",
    width: Count = 32,
    depth: Count = 1,
) -> models.Model:
    """The network of a series: of windows (steps, columns), or of the same as one row of numbers."""

    def network(rngs: nnx.Rngs) -> nnx.Module:
        if model == "mlp":
            return models.MLP(shape[-1], [width] * depth, outputs, rngs=rngs)
        return Recurrent(shape[-1], width, outputs, layer=model, depth=depth, rngs=rngs)

    return models.from_nnx(network)
