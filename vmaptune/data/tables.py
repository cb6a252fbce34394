"""Tables from files: CSV and Parquet, read by polars and cut into parts."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

import numpy as np

from vmaptune.data.columns import Preprocessor, check_size, counted, fitted, input_names, inputs_of
from vmaptune.data.splits import Cut, Splits, split_rows
from vmaptune.errors import ConfigError, did_you_mean, warn

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["auto", "classification", "regression"]
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "?"]  # how files write that a value is missing
_LOOKED_AT = 200  # lines of a file by which its dialect is told
_MOST_CLASSES = 20  # of a target of whole numbers that is still taken for classes


class Table(NamedTuple):
    """A table, ready to train on.

    Attributes:
        splits: Parts of `(f32[rows, features], targets)`: i32[rows], or for regression f32[rows], standardised by the
            training rows: times `scale`, plus `mean`, they are in the file's units.
        features: Name of each input: `age`, `age missing`, `city = Paris`.
        classes: Name of each label, in order; none for regression.
        preprocessor: Makes inputs of further rows.
        mean: Of the training targets; 0 for classes.
        scale: Standard deviation of the training targets; 1 for classes.
        inferred: Sentences: what nobody said and was read off the data.
    """

    splits: Splits
    features: tuple[str, ...]
    classes: tuple[str, ...]
    preprocessor: Preprocessor
    mean: float
    scale: float
    inferred: tuple[str, ...]


def read_table(
    path: str,
    target: str,
    *,
    kind: Kind = "auto",
    drop: Sequence[str] = (),
    validation: float = 0.2,
    test: float = 0.2,
    cut: Cut = "auto",
    group: str = "",
    time: str = "",
    seed: int = 0,
    validation_path: str = "",
    test_path: str = "",
) -> Table:
    """Reads a table, cuts it, and makes numbers of its columns by what its training rows hold.

    Numbers are standardised, a missing one is the median, and a column that misses some has an indicator beside it; an
    infinite number counts as missing, a date is a number of days. Texts and booleans are categories, one column each, a
    missing value a category of its own; those of less than 1 % of the rows share a column, one never seen is all zeros. A
    column that only counts the rows is left out, with a warning.

    Args:
        path: A .csv, .tsv (gzipped too) or .parquet file, from the current folder. The header names the columns.
        target: Name of the column to predict. Rows that miss it are left out.
        kind: auto: regression if the target holds numbers that are not all whole, or more than 20 different ones (or more
            than one in ten rows); else classification.
        drop: Columns to leave out.
        validation: Share of the rows for validation, where no file is given.
        test: Share of the rows for test, where no file is given.
        cut: How rows are drawn. auto: grouped if there is a group, by time if there is a time, stratified for classes of at
            least five rows each, else random.
        group: Column whose equal values stay in one part; no input itself.
        time: Column that orders the rows: the oldest train, the newest test; one that misses it is old. Rows of equal time
            stay in one part. No input itself.
        seed: Of the draw.
        validation_path: A file of the same columns, used whole as the validation split.
        test_path: The same for test.

    Raises:
        ConfigError: A file or a column is missing, unreadable or of another kind than asked for, there is one class only, a
            split is empty, a number is too large for float32, or no input is left.
    """
    paths = {"train": path, "validation": validation_path, "test": test_path}
    frames = {"train": _read(path, _place("train"))}
    texts = [name for name, dtype in frames["train"].schema.items() if str(dtype) == "String"]
    frames |= {part: _read(file, _place(part), texts) for part, file in paths.items() if file and part != "train"}
    for setting, name in (("group", group), ("time", time), *(("drop", name) for name in drop)):
        if name:
            _check_column(frames["train"], name, setting, path)
        if name == target:
            raise ConfigError(f"task.{setting}: {target!r} is the target, which task.target names")
    counters = _counters(frames["train"], {target, group, time, *drop})
    for part, frame in frames.items():
        _check_column(frame, target, "target", paths[part])
        frames[part] = _with_target(frame, target, paths[part], _place(part))
    kind, why = _kind(frames["train"][target], kind)
    inferred = [f"{kind} of {target!r}: {why}"]
    targets, classes = _targets(frames, target, kind)
    cut, why = _way_to_cut(cut, group, time, targets["train"], classes)
    inferred += [f"cut {cut}: {why}"] * bool(why and len(frames) < 3)
    whole, of_whole = frames["train"], targets["train"]
    order = whole[time].arg_sort(nulls_last=False).to_numpy() if cut == "time" else np.arange(len(whole))
    rows = split_rows(
        len(whole),
        validation=0.0 if validation_path else validation,
        test=0.0 if test_path else test,
        seed=seed,
        stratify=of_whole if cut == "stratified" else None,
        groups=whole[group].rank("dense").fill_null(0).to_numpy() if cut == "grouped" else None,
        times=whole[order][time].rank("dense").fill_null(0).to_numpy() if cut == "time" else None,
    )
    for part, places in zip(Splits._fields, rows, strict=True):
        if part == "train" or part not in frames:
            frames[part], targets[part] = whole[order[places]], of_whole[order[places]]
    scaled, mean, scale = _scaled(targets, classes)
    for name in counters:
        warn(f"column {name!r} counts the rows and is left out")
    no_inputs = {target, *drop, *counters, *(name for name in (group, time) if name)}
    preprocessor = fitted(frames["train"], [name for name in whole.columns if name not in no_inputs])
    parts = ((inputs_of(frames[part], preprocessor, _place(part)), scaled[part]) for part in Splits._fields)
    numbers = counted(len(preprocessor.numbers), "column")
    inferred.append(f"{numbers} of numbers, {len(preprocessor.categories)} of categories")
    return Table(Splits(*parts), input_names(preprocessor), classes, preprocessor, mean, scale, tuple(inferred))


def frame_of(data: Any, where: str, texts: Sequence[str] = ()) -> pl.DataFrame:
    """Rows of a table, from wherever they are.

    Args:
        data: A path, as in `read_table`; a frame of polars or pandas; columns by name; or rows, each a mapping.
        where: What to call the data in an error.
        texts: Columns of a file that are text, also where they look like numbers: "01".

    Raises:
        ConfigError: There is no such file, or it cannot be read, or it is no table.
    """
    import polars as pl

    if isinstance(data, str | Path):
        return _read(str(data), where, texts)
    try:
        if hasattr(data, "isna") and hasattr(data, "columns"):  # of pandas
            data = {str(name): _of_pandas(column) for name, column in data.items()}
        frame = data if isinstance(data, pl.DataFrame) else pl.DataFrame(data, strict=False)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(f"{where}: expected a path, a data frame or columns by name: {why}") from None
    return _finite(frame)


def _of_pandas(column: Any) -> Any:
    """Its values; None for missing ones."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufbM":
        return column.to_numpy()
    return [None if lacks else value for value, lacks in zip(column.tolist(), column.isna(), strict=True)]


def column_names(path: str) -> list[str]:
    """Names of a table's columns.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
    """
    return _read(path, "task.path").columns


# -------------------------------------------------------------------------------------------------------------- files


def _read(path: str, where: str, texts: Sequence[str] = ()) -> pl.DataFrame:
    """A file's rows; what is not finite is missing. Columns of a text file that are called texts are read as such."""
    import polars as pl

    file = Path(path).expanduser()
    if not file.name.lower().endswith(SUFFIXES):
        raise ConfigError(f"{where}: expected a file that ends in {', '.join(SUFFIXES)}; given: {path!r}")
    if not file.is_file():
        raise ConfigError(f"{where}: there is no file {path!r} (a relative path begins at the current folder)")
    try:
        if file.suffix.lower() == ".parquet":
            frame = pl.read_parquet(file)
        else:
            separator, decimal_comma = _dialect(file)
            frame = pl.read_csv(
                file,
                separator=separator,
                decimal_comma=decimal_comma,
                null_values=_MISSING,
                try_parse_dates=True,
                infer_schema_length=None,
                schema_overrides=dict.fromkeys(texts, pl.String),
            )
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        why = str(error).strip().splitlines()[0]
        if isinstance(error, UnicodeDecodeError) or "utf-8" in why:
            why = "it is not UTF-8 text: save it in that encoding"
        elif "more fields" in why:
            why = _ragged(file) or why
        raise ConfigError(f"{where}: {path} cannot be read: {why}") from None
    return _finite(frame)


def _finite(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with nulls for numbers that are not finite."""
    import polars as pl

    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in floats)


def _opened(file: Path) -> TextIO:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix.lower() == ".gz" else file.open(encoding="utf-8")


def _dialect(file: Path) -> tuple[str, bool]:
    """What separates the names of the header, the most frequent of the usual four, and whether decimals have a comma."""
    with _opened(file) as lines:
        header, *rows = [line for line, _ in zip(lines, range(_LOOKED_AT), strict=False)] or [""]
    separator = max(",;\t|", key=header.count)
    values = [value.strip(' "\r\n') for row in rows for value in row.split(separator)]
    commas, points = (sum(bool(re.fullmatch(rf"[+-]?\d*{mark}\d+", value)) for value in values) for mark in (",", "[.]"))
    return separator, separator != "," and commas > points


def _ragged(file: Path) -> str:
    """Where the first row is that has more values than the header has names; empty if there is none."""
    try:
        with _opened(file) as lines:
            rows = csv.reader(lines, delimiter=_dialect(file)[0])
            names = len(next(rows))
            for row in rows:
                if len(row) > names:
                    return f"line {rows.line_num} has {counted(len(row), 'value')}, the header {counted(names, 'name')}"
    except (csv.Error, UnicodeDecodeError):
        pass  # what polars says must do
    return ""


def _counters(frame: pl.DataFrame, known: set[str]) -> list[str]:
    """Columns of whole numbers that count the rows, 0, 1, 2, ... or 1, 2, 3, ...: they tell where a row stood, nothing else."""
    found = []
    for column in frame.iter_columns():
        if not column.dtype.is_integer() or (column.name and column.name in known):
            continue
        if len(column) > 2 and column[0] in (0, 1) and (column.to_numpy() == np.arange(len(column)) + column[0]).all():
            found.append(column.name)
    return found


def _place(part: str) -> str:
    return "task.path" if part == "train" else f"task.{part}_path"


def _check_column(frame: pl.DataFrame, name: str, setting: str, path: str) -> None:
    if name not in frame.columns:
        raise ConfigError(f"task.{setting}: {path} has no column {name!r}{did_you_mean(name, frame.columns)}")


# ------------------------------------------------------------------------------------------------------------- target


def _with_target(frame: pl.DataFrame, target: str, path: str, where: str) -> pl.DataFrame:
    """The rows that have a target."""
    kept = frame.drop_nulls(target)
    if kept.is_empty():
        raise ConfigError(f"{where}: {path} has no row with a {target!r}; every split needs at least one example")
    if lost := len(frame) - len(kept):
        warn(f"{path}: {lost:,} of {counted(len(frame), 'row')} have no {target!r} and are left out")
    return kept


def _kind(column: pl.Series, kind: Kind) -> tuple[Kind, str]:
    """Classification or regression, and why."""
    if kind == "regression" and not column.dtype.is_numeric():
        raise ConfigError(
            f"task.target: regression needs numbers; column {column.name!r} holds {_held(column)}, such as {str(column[0])!r}"
        )
    if kind != "auto":
        return kind, "as asked"
    if not column.dtype.is_numeric():
        return "classification", f"it holds {_held(column)}"
    if column.dtype.is_float() and (column != column.round()).any():
        return "regression", "it holds numbers that are not whole"
    different = column.n_unique()
    if different > min(_MOST_CLASSES, max(2, len(column) // 10)):
        return "regression", f"it holds {different:,} different numbers"
    return "classification", f"it holds {different} different whole numbers"


def _held(column: pl.Series) -> str:
    dtype = column.dtype
    if dtype.is_temporal():
        return "times" if str(dtype) in ("Time", "Duration") else "dates"
    return {"Boolean": "booleans"}.get(str(dtype), "numbers" if dtype.is_numeric() else "text")


def _targets(frames: dict[str, pl.DataFrame], target: str, kind: Kind) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Targets by part, f64[rows] or labels i32[rows], and the names of the classes."""
    import polars as pl

    columns = {part: frame[target] for part, frame in frames.items()}
    if kind == "regression":
        for part, column in columns.items():
            if not column.dtype.is_numeric():
                raise ConfigError(f"{_place(part)}: regression needs numbers; column {target!r} holds {_held(column)}")
        return {part: column.cast(pl.Float64).to_numpy() for part, column in columns.items()}, ()
    if all(column.dtype.is_numeric() for column in columns.values()):
        columns = {part: column.cast(pl.Float64) for part, column in columns.items()}
        values = pl.concat(list(columns.values())).unique().sort()
        names = tuple(f"{value:g}" for value in values)
    else:
        columns = {part: column.cast(pl.String) for part, column in columns.items()}
        values = pl.concat(list(columns.values())).unique().sort()
        names = tuple(values)
    rows = len(columns["train"])
    if len(names) < 2:
        everywhere = f"{names[0]!r} in all of {counted(rows, 'row')}"
        raise ConfigError(f"task.target: column {target!r} holds one class only; given: {everywhere}")
    if len(names) > max(2, rows // 2):
        raise ConfigError(f"task.target: column {target!r} holds {len(names):,} classes in {rows:,} rows, too many to learn")
    labels = {
        part: column.replace_strict(values, list(range(len(names))), return_dtype=pl.Int32).to_numpy()
        for part, column in columns.items()
    }
    return labels, names


def _scaled(targets: dict[str, np.ndarray], classes: tuple[str, ...]) -> tuple[dict[str, np.ndarray], float, float]:
    """Targets as they are trained on, with the mean and the standard deviation that were taken out."""
    train = targets["train"]
    for part, values in targets.items():
        check_size(values, f"{_place(part)}: the target")
    if train.min() == train.max():
        given = f"one class only; given: {classes[train[0]]!r}" if classes else f"one value only; given: {train[0]:g}"
        raise ConfigError(f"task.target: the train split holds {given}")
    if classes:
        return targets, 0.0, 1.0
    mean, scale = float(train.mean()), float(train.std())
    return {part: ((values - mean) / scale).astype(np.float32) for part, values in targets.items()}, mean, scale


def _way_to_cut(cut: Cut, group: str, time: str, targets: np.ndarray, classes: tuple[str, ...]) -> tuple[Cut, str]:
    """How rows are cut, and why if nobody said."""
    for way, name, column in (("grouped", "group", group), ("time", "time", time)):
        if cut == way and not column:
            raise ConfigError(f"task.{name}: name the column that decides; cut = {cut!r} needs it")
        if column and cut not in ("auto", way):
            raise ConfigError(f"task.{name}: means nothing with cut = {cut!r}; given: {column!r}")
    if group and time:
        raise ConfigError(f"task.time: rows are cut by group or by time; given: both, {group!r} and {time!r}")
    if cut == "stratified" and not classes:
        raise ConfigError("task.cut: only classes can be stratified, and this is a regression; given: 'stratified'")
    if cut != "auto":
        return cut, ""
    if group or time:
        return ("grouped", f"by {group!r}") if group else ("time", f"by {time!r}")
    if not classes:
        return "random", "targets are numbers"
    rarest, least = rarest_class(targets)
    few = f"class {classes[rarest]!r} has only {counted(least, 'row')}; leave it out or merge it with another"
    return ("stratified", "by class") if least >= 5 else ("random", few)


def rarest_class(labels: np.ndarray) -> tuple[int, int]:
    """The label of which there are fewest, but one, and how many there are."""
    known, counts = np.unique(labels, return_counts=True)
    return int(known[np.argmin(counts)]), int(np.min(counts))
