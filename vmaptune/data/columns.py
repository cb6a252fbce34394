"""Columns of a table as inputs of a network, through scikit-learn's transformers.

Everything that is learnt from data is learnt from the training rows alone: which columns are numbers, the medians that stand
in for missing ones, means and scales, the categories that have an input. Other rows only pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vmaptune.errors import ConfigError, did_you_mean, warn

if TYPE_CHECKING:
    import polars as pl

_RARE = 0.01  # share of the training rows below which categories share an input


class Preprocessor(NamedTuple):
    """What was learnt from the training rows; `inputs_of` applies it.

    Attributes:
        numbers: Columns that are read as numbers, dates among them.
        dates: Those of them that hold dates or times.
        categories: Columns that are read as categories.
        transformer: scikit-learn's ColumnTransformer, fitted.
    """

    numbers: tuple[str, ...]
    dates: tuple[str, ...]
    categories: tuple[str, ...]
    transformer: Any


def fitted(train: pl.DataFrame, names: Sequence[str]) -> Preprocessor:
    """Learns from the training rows how columns become inputs.

    Args:
        train: The training rows.
        names: Columns to make inputs of. One that is empty is left out, with a warning, and so is one whose texts are
            nearly all different.

    Raises:
        ConfigError: A column is unreadable, or none is left.
    """
    numbers, categories, left_out = _columns(train, names)
    if not numbers and not categories:
        why = ": " * bool(left_out) + "; ".join(left_out)
        raise ConfigError(f"task.path: there is no column left to predict the target from{why}")
    for sentence in left_out:
        warn(f"{sentence} and is left out")
    dates = tuple(name for name in numbers if _column_kind(train[name]) == "dates")
    preprocessor = Preprocessor(tuple(numbers), dates, tuple(categories), _transformer(numbers, categories))
    preprocessor.transformer.fit(_columns_of(train, preprocessor, "task.path"))
    return preprocessor


def inputs_of(frame: pl.DataFrame, preprocessor: Preprocessor, where: str = "data") -> np.ndarray:
    """Inputs f32[rows, features] of a frame's rows.

    Args:
        frame: Has the columns of the table that the preprocessor was fitted to; others are ignored.
        preprocessor: Of that table.
        where: What to call the frame in an error.

    Raises:
        ConfigError: A column is missing or of another kind.
    """
    return np.asarray(preprocessor.transformer.transform(_columns_of(frame, preprocessor, where)), np.float32)


def input_names(preprocessor: Preprocessor) -> tuple[str, ...]:
    """Name of each input: `age`, `age missing`, `city = Paris`."""
    return tuple(_input_name(name) for name in preprocessor.transformer.get_feature_names_out())


def counted(n: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{n:,} {noun}" + "s" * (n != 1)


def _columns(train: pl.DataFrame, names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Which columns are numbers and which are categories, by what the training rows hold, and why others are neither."""
    import polars as pl

    numbers: list[str] = []
    categories: list[str] = []
    left_out: list[str] = []
    for name in names:
        column = train[name].drop_nulls()
        kind = _column_kind(column)
        if column.is_empty():
            left_out.append(f"column {name!r} is empty in all training rows")
        elif kind in ("numbers", "dates"):
            numbers.append(name)
        elif kind == "other":
            raise ConfigError(
                f"task.path: column {name!r} cannot be read: it holds {column.dtype}, no numbers, text, booleans or dates; "
                f"leave it out by task.drop"
            )
        elif column.dtype == pl.String and len(wrong := _no_numbers(column)) * 10 <= len(column):
            if len(wrong):
                warn(f"column {name!r} holds numbers, but also {wrong[0]!r}: {counted(len(wrong), 'value')} taken for missing")
            numbers.append(name)
        elif column.n_unique() * 2 > max(len(column), 40):
            texts = f"{counted(column.n_unique(), 'different text')} in {counted(len(column), 'training row')}"
            left_out.append(f"column {name!r} has {texts}")
        else:
            categories.append(name)
    return numbers, categories, left_out


def _no_numbers(texts: pl.Series) -> pl.Series:
    """Those texts that are no numbers."""
    import polars as pl

    return texts.filter(texts.cast(pl.Float64, strict=False).is_null())


def _column_kind(column: pl.Series) -> str:
    import polars as pl

    dtype = column.dtype
    if dtype.is_numeric() or dtype == pl.Null:
        return "numbers"
    if dtype.is_temporal():
        return "dates"
    return "text" if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean) else "other"


def _columns_of(frame: pl.DataFrame, preprocessor: Preprocessor, where: str) -> pl.DataFrame:
    """The columns as floats, with nulls for missing ones, and as texts."""
    import polars as pl

    numbers, dates, categories, _ = preprocessor
    for name in (*numbers, *categories):
        if name not in frame.columns:
            raise ConfigError(f"{where}: there is no column {name!r}{did_you_mean(name, frame.columns)}")
    columns = []
    for name in numbers:
        column = frame[name]
        floats = _floats(column)
        lost = floats.is_null().all() and not column.is_null().all()
        if lost or ((name in dates) != (_column_kind(column) == "dates") and column.dtype != pl.Null):
            raise ConfigError(
                f"{where}: column {name!r} must hold {'dates' if name in dates else 'numbers'}; given: {column.dtype}"
            )
        check_size(floats.drop_nulls().to_numpy(), f"{where}: column {name!r}")
        columns.append(floats)
    columns += [frame[name].cast(pl.String).fill_null("(missing)") for name in categories]
    return pl.DataFrame({column.name: column for column in columns})  # a list would lose an empty name


def check_size(numbers: np.ndarray, what: str) -> None:
    """Raises `ConfigError` if a finite number is too large for float32, that `what` holds."""
    large = (np.abs(numbers) > np.finfo(np.float32).max) & np.isfinite(numbers)
    if large.any():
        raise ConfigError(f"{what} holds {numbers[large][0]:.3g}, too large for float32: scale it")


def _floats(column: pl.Series) -> pl.Series:
    """A column as f64, what is not finite missing: dates in days, times in seconds; texts that are no numbers are missing."""
    import polars as pl

    dtype = column.dtype
    if dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).to_physical().cast(pl.Float64) / 86_400e6
    if dtype in (pl.Time, pl.Duration):
        return (column if dtype == pl.Time else column.cast(pl.Duration("ns"))).to_physical().cast(pl.Float64) / 1e9
    floats = (column.cast(pl.String) if dtype in (pl.Categorical, pl.Enum) else column).cast(pl.Float64, strict=False)
    return floats.set(~floats.is_finite(), None)


def _transformer(numbers: Sequence[str], categories: Sequence[str]) -> Any:
    """scikit-learn's, not fitted."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    one_hot = OneHotEncoder(
        handle_unknown="ignore",
        min_frequency=_RARE,
        sparse_output=False,
        dtype=np.float32,
        feature_name_combiner=_category,
    )
    return ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(numbers)),
            ("missing", MissingIndicator(error_on_new=False), list(numbers)),
            ("category", one_hot, list(categories)),
        ]
    )


def _category(column: str, value: Any) -> str:
    return f"{column} = {'(rare)' if value == 'infrequent_sklearn' else value}"


def _input_name(name: str) -> str:
    """A name of scikit-learn's, without the step that made it."""
    step, _, name = name.partition("__")
    return f"{name.removeprefix('missingindicator_')} missing" if step == "missing" else name
