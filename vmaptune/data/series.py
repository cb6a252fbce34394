"""Time series as windows: what was measured in the last steps, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmaptune.data.splits import Splits
from vmaptune.data.text import cut
from vmaptune.errors import ConfigError, did_you_mean


class Series(NamedTuple):
    """A table of numbers, one row a time step.

    Attributes:
        values: f64[steps, columns].
        columns: Their names.
    """

    values: np.ndarray
    columns: tuple[str, ...]


class Windows(NamedTuple):
    """A series, cut.

    Attributes:
        splits: Parts of `(f32[n, window, columns], f32[n, horizon])`, all of it standardised.
        mean: f64[columns], of the training part.
        std: f64[columns], of the training part; 1 for a column that is constant there.
        target: Which column is predicted.
    """

    splits: Splits
    mean: np.ndarray
    std: np.ndarray
    target: int


def mackey_glass(steps: int, *, delay: float = 17.0, start: float = 1.2, substeps: int = 10) -> np.ndarray:
    """The Mackey-Glass equation, chaotic for a delay of 17: dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x(t).

    Solved by the classical Runge-Kutta method, with the delayed value between two points of the grid taken from the cubic
    through both and their slopes.

    Args:
        steps: How many values, one a unit of time, the first at time 0.
        delay: In units of time; a whole number of substeps.
        start: The value at and before time 0.
        substeps: Steps of the solver in a unit of time.

    Returns:
        f64[steps].

    References:
        Mackey & Glass, Oscillation and Chaos in Physiological Control Systems, Science 197, 1977
    """
    h, lag = 1.0 / substeps, round(delay * substeps)
    x = [start] * (lag + 1)  # from -delay to 0
    slope = [0.0] * (lag + 1)  # the past stands still

    def rate(now: float, before: float) -> float:
        return 0.2 * before / (1.0 + before**10) - 0.1 * now

    for i in range((steps - 1) * substeps):
        now, first, last = x[-1], x[i], x[i + 1]
        between = (first + last) / 2 + h * (slope[i] - slope[i + 1]) / 8
        a = rate(now, first)
        b = rate(now + h / 2 * a, between)
        c = rate(now + h / 2 * b, between)
        d = rate(now + h * c, last)
        x.append(now + h / 6 * (a + 2 * b + 2 * c + d))
        slope.append(rate(x[-1], last))
    return np.asarray(x[lag::substeps])


def read_series(path: str, *, drop: Sequence[str] = (), where: str = "task") -> Series:
    """Reads a table of numbers, the oldest row first.

    Args:
        path: A `.csv`, `.tsv` or `.parquet` table, or a `.npy` array [steps] or [steps, columns], whose columns are called
            "0", "1" and so on. Empty: 4,000 steps of the Mackey-Glass equation, after 500 that are left out.
        drop: Columns to leave out, such as the time.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such file, it cannot be read, a column to drop is not there, or one that is left holds
            something else than finite numbers.
    """
    if not path:
        return Series(mackey_glass(4500)[500:, None], ("x",))
    table = _read(path, where)
    if unknown := [name for name in drop if name not in table]:
        raise ConfigError(f"{where}.drop: {path!r} has no column {unknown[0]!r}{did_you_mean(unknown[0], table)}")
    table = {name: _numbers(column, name, path, where) for name, column in table.items() if name not in drop}
    if not table:
        raise ConfigError(f"{where}.path: no column of {path!r} is left")
    return Series(np.stack(list(table.values()), axis=1), tuple(table))


def series_of(data: Any, columns: Sequence[str], where: str = "data") -> np.ndarray:
    """Columns of a table of numbers by name, the oldest row first.

    Args:
        data: A path, as in `read_series`, or columns by name.
        columns: Those that are wanted, in order.
        where: What to call the data in an error.

    Returns:
        f64[steps, columns].

    Raises:
        ConfigError: It cannot be read, a column is not there, or holds something else than finite numbers.
    """
    path = str(data) if isinstance(data, str | Path) else ""
    table = _read(path, where) if path else {str(name): np.asarray(column) for name, column in data.items()}
    for name in columns:
        if name not in table:
            raise ConfigError(f"{where}: there is no column {name!r}{did_you_mean(name, table)}")
    return np.stack([_numbers(table[name], name, path, where) for name in columns], axis=1)


def series_windows(
    series: Series, *, target: str, window: int, horizon: int, validation: float, test: float, where: str = "task"
) -> Windows:
    """Cuts a series by time, the oldest part for training, and each part into its own windows, one a step.

    Every column is standardised by the training part: its mean there becomes 0, its standard deviation 1.

    Args:
        series: The table.
        target: Column to predict; empty: the only one.
        window: Past steps that are seen, of all columns.
        horizon: Steps after them that are predicted.
        validation: Share of the steps.
        test: Share of the steps.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such column, it is constant where it is to be learnt, the shares leave nothing to train on,
            or a part is too short for a window.
    """
    values, columns = series
    if not target and len(columns) > 1:
        raise ConfigError(f"{where}.target: name the column to predict: {', '.join(columns[:20])}")
    if target and target not in columns:
        raise ConfigError(f"{where}.target: there is no column {target!r}{did_you_mean(target, columns)}")
    column = columns.index(target) if target else 0
    first, last = cut(len(values), validation, test, where)
    mean, std = values[:first].mean(axis=0), values[:first].std(axis=0)
    varies = std > 1e-12 * np.abs(mean)
    if first and not varies[column]:
        raise ConfigError(f"{where}.target: column {columns[column]!r} is constant in the training part; nothing can be learnt")
    std = np.where(varies, std, 1.0)
    parts = []
    for name, part in zip(Splits._fields, np.split((values - mean) / std, [first, last]), strict=True):
        if len(part) < window + horizon:
            raise ConfigError(
                f"{where}.window: the {name} part is too short for {window} steps and {horizon} after them; "
                f"given: {len(part)} steps of {len(values)}; lower task.window"
                + f" to {len(part) - horizon} at most" * (len(part) > horizon)
                + f", or raise task.{name} above {(window + horizon) / len(values):.2g}" * (name != "train")
            )
        views = np.lib.stride_tricks.sliding_window_view(part.astype(np.float32), window + horizon, axis=0)
        parts.append((views[:, :, :window].swapaxes(1, 2).copy(), views[:, column, window:].copy()))
    return Windows(Splits(*parts), mean, std, column)


def _read(path: str, where: str) -> dict[str, np.ndarray]:
    """Columns by name."""
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise ConfigError(f"{where}.path: there is no file {path!r}")
    if suffix not in (".csv", ".tsv", ".parquet", ".npy"):
        raise ConfigError(f"{where}.path: expected a .csv, .tsv, .parquet or .npy file; given: {path!r}")
    try:
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.ndim not in (1, 2):
                raise ValueError(f"expected shape (steps,) or (steps, columns), not {array.shape}")
            return {str(i): column for i, column in enumerate(array.reshape(len(array), -1).T)}
        import polars

        separator = "\t" if suffix == ".tsv" else ","
        frame: Any = polars.read_parquet(path) if suffix == ".parquet" else polars.read_csv(path, separator=separator)
        return {column.name: column.to_numpy() for column in frame.iter_columns()}
    except Exception as error:  # polars' own are no ValueErrors
        raise ConfigError(f"{where}.path: cannot read {path!r}: {str(error).splitlines()[0]}") from error


def _numbers(column: np.ndarray, name: str, path: str, where: str) -> np.ndarray:
    """A column as f64[steps]."""
    if not (np.issubdtype(column.dtype, np.number) or column.dtype == bool):
        raise ConfigError(f"{where}.path: column {name!r} of {path!r} holds no numbers; leave it out: drop = [{name!r}]")
    values = column.astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise ConfigError(f"{where}.path: column {name!r} of {path!r} has no finite number in row {row}; fill it, or drop it")
    return values
