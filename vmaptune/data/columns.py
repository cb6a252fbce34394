"""Columns of a table as inputs of a network: what scikit-learn's transformers learn, as plain numbers that apply it.

Everything that is learnt from data is learnt from the training rows alone: which columns are numbers, the medians that stand
in for missing ones, means and scales, the categories that have an input. Other rows only pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmaptune.errors import ConfigError, did_you_mean, warn

if TYPE_CHECKING:
    import polars as pl

_RARE = 0.01  # share of the training rows below which categories share an input


@dataclass(frozen=True)
class Category:
    """A column of texts; each has an input of its own, which is 1 where the column holds it.

    Attributes:
        name: Of the column.
        known: Its texts that have an input, in order.
        rare: Texts that share the input after these, if there are any. Others have none.
    """

    name: str
    known: tuple[str, ...]
    rare: tuple[str, ...]


@dataclass(frozen=True)
class Preprocessor:
    """What was learnt from the training rows; `inputs_of` applies it.

    Attributes:
        numbers: Columns that are read as numbers, dates among them.
        dates: Those of them that hold dates or times.
        medians: Of each number, what stands in where it is missing.
        means: Of each number.
        scales: Of each number: its standard deviation, 1 for one that is constant.
        missing: Numbers that have an indicator of being missing.
        categories: Columns that are read as categories.
    """

    numbers: tuple[str, ...]
    dates: tuple[str, ...]
    medians: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    missing: tuple[str, ...]
    categories: tuple[Category, ...]


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
    floats, texts = _columns_of(train, numbers, dates, categories, "task.path")
    return Preprocessor(tuple(numbers), dates, *_learnt_numbers(numbers, floats), _learnt_categories(categories, texts))


def inputs_of(frame: pl.DataFrame, preprocessor: Preprocessor, where: str = "data") -> np.ndarray:
    """Inputs f32[rows, features] of a frame's rows.

    Args:
        frame: Has the columns of the table that the preprocessor was fitted to; others are ignored.
        preprocessor: Of that table.
        where: What to call the frame in an error.

    Raises:
        ConfigError: A column is missing or of another kind.
    """
    p = preprocessor
    floats, texts = _columns_of(frame, p.numbers, p.dates, [category.name for category in p.categories], where)
    filled = np.where(np.isnan(floats), np.array(p.medians), floats)
    parts = [(filled - np.array(p.means)) / np.array(p.scales)]
    parts += [np.isnan(floats[:, [p.numbers.index(name)]]) for name in p.missing]
    for column, category in zip(texts, p.categories, strict=True):
        place = {text: i for i, text in enumerate(category.known)} | dict.fromkeys(category.rare, len(category.known))
        width = len(category.known) + bool(category.rare)
        parts.append(np.array([place.get(text, -1) for text in column])[:, None] == np.arange(width))
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def input_names(preprocessor: Preprocessor) -> tuple[str, ...]:
    """Name of each input: `age`, `age missing`, `city = Paris`."""
    names = [*preprocessor.numbers, *(f"{name} missing" for name in preprocessor.missing)]
    for category in preprocessor.categories:
        names += [f"{category.name} = {value}" for value in (*category.known, *["(rare)"] * bool(category.rare))]
    return tuple(names)


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
        elif column.dtype == pl.String and len(_no_numbers(column)) * 10 <= len(column):
            warn_of_texts(train, [name])
            numbers.append(name)
        elif column.n_unique() * 2 > max(len(column), 40):
            texts = f"{counted(column.n_unique(), 'different text')} in {counted(len(column), 'training row')}"
            left_out.append(f"column {name!r} has {texts}")
        else:
            categories.append(name)
    return numbers, categories, left_out


def warn_of_texts(frame: pl.DataFrame, numbers: Sequence[str], where: str = "") -> None:
    """Warns of texts in columns that are read as numbers: they are taken for missing.

    Args:
        frame: Has the columns, or some of them.
        numbers: Their names.
        where: What to call the frame, if not the training data.
    """
    import polars as pl

    for name in numbers:
        if name in frame.columns and frame[name].dtype == pl.String and len(wrong := _no_numbers(frame[name].drop_nulls())):
            found = f"column {name!r} holds numbers, but also {wrong[0]!r}"
            warn(f"{where}{': ' * bool(where)}{found}: {counted(len(wrong), 'value')} taken for missing")


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


def _columns_of(
    frame: pl.DataFrame, numbers: Sequence[str], dates: Sequence[str], categories: Sequence[str], where: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The numbers f64[rows, numbers], NaN for missing ones, and the texts of each category."""
    import polars as pl

    for name in (*numbers, *categories):
        if name not in frame.columns:
            raise ConfigError(f"{where}: there is no column {name!r}{did_you_mean(name, frame.columns)}")
    columns = np.full((len(frame), len(numbers)), np.nan)
    for i, name in enumerate(numbers):
        column = frame[name]
        floats = _floats(column)
        empty = column.is_null().all()  # of no kind, whatever a file's reader calls it
        lost = floats.is_null().all() and not empty
        if lost or ((name in dates) != (_column_kind(column) == "dates") and not empty):
            raise ConfigError(
                f"{where}: column {name!r} must hold {'dates' if name in dates else 'numbers'}; given: {column.dtype}"
            )
        check_size(floats.drop_nulls().to_numpy(), f"{where}: column {name!r}")
        columns[:, i] = floats.fill_null(np.nan).to_numpy()
    return columns, [frame[name].cast(pl.String).fill_null("(missing)").to_numpy() for name in categories]


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


def _learnt_numbers(names: Sequence[str], floats: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Medians, means and scales of columns, and the names of those that miss some."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    if not names:
        return (), (), (), ()
    imputer, scaler = SimpleImputer(strategy="median"), StandardScaler()
    scaler.fit(imputer.fit_transform(floats))
    missing = tuple(name for name, some in zip(names, np.isnan(floats).any(axis=0), strict=True) if some)
    return *(tuple(learnt.tolist()) for learnt in (imputer.statistics_, scaler.mean_, scaler.scale_)), missing  # type: ignore[return-value]


def _learnt_categories(names: Sequence[str], texts: Sequence[np.ndarray]) -> tuple[Category, ...]:
    """The texts of each column; those of few rows are rare."""
    from sklearn.preprocessing import OneHotEncoder

    found = []
    for name, column in zip(names, texts, strict=True):
        encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=_RARE).fit(column[:, None])
        few = encoder.infrequent_categories_[0]
        rare = () if few is None else tuple(few.tolist())
        found.append(Category(name, tuple(text for text in encoder.categories_[0].tolist() if text not in rare), rare))
    return tuple(found)
