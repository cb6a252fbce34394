"""Hyperparameter sets that a run was told to train: `start.csv`, a column an axis, a row a trial."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vmaptune.errors import StoreError


def start_csv(columns: Mapping[str, Sequence[float]]) -> str:
    """Columns of numbers as text; an empty cell where a number is NaN. Reads back as the same float64."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(["" if value != value else repr(float(value)) for value in row])
    return text.getvalue()


def read_start(path: Path) -> dict[str, np.ndarray]:
    """Columns f64[T] by name; NaN for an empty cell.

    Raises:
        StoreError: It cannot be read, has rows of different lengths, or a cell that is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as a table of trials: {error}") from None
    columns: dict[str, np.ndarray] = {name: np.full(len(rows), np.nan) for name in names}
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise StoreError(f"{path}: line {i + 2} has {len(row)} cells; the first line has {len(names)}")
        for name, cell in zip(names, row, strict=True):
            try:
                columns[name][i] = float(cell) if cell else np.nan
            except ValueError:
                raise StoreError(f"{path}: line {i + 2}, {name}: expected a number; given: {cell!r}") from None
    return columns
