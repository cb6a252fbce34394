"""Raw data as the inputs of a trained network, by what the run folder says of its preprocessing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmaptune.data.arrays import read_inputs
from vmaptune.data.columns import inputs_of, warn_of_texts
from vmaptune.data.images import image_files, read_images
from vmaptune.data.preparation import Preparation
from vmaptune.data.series import series_of
from vmaptune.data.tables import SUFFIXES, frame_of
from vmaptune.data.text import tokens_of
from vmaptune.errors import ConfigError


class Inputs(NamedTuple):
    """What a network takes.

    Attributes:
        values: Arrays of examples on the leading axis, f32 or tokens i32: one, or several of different lengths.
        names: Of the examples, where they have any: files.
    """

    values: list[np.ndarray]
    names: tuple[str, ...] = ()


def inputs_from(data: Any, preparation: Preparation, where: str = "data") -> Inputs:
    """Makes inputs of raw data.

    Args:
        data: Of a table: a path (.csv, .tsv, .parquet), a data frame, columns by name or rows. Of images: an array, paths of
            files, or a folder. Of a series: a table or an array [steps, columns], of which every whole window is taken, the
            newest last, or windows [n, window, columns]. Of a text: one, several, or the `Path` of one. Else an array [n, ...]
            in the units of the raw data, an .npz or .npy file, or a table with as many columns as an example has numbers.
        preparation: What the network was trained on.
        where: What to call the data in an error.

    Raises:
        ConfigError: They cannot be read, or do not fit the network.
    """
    found = _KINDS[preparation.kind](data, preparation, where)
    if not sum(map(len, found.values)):
        raise ConfigError(f"{where}: holds no example")
    return found


def _table(data: Any, preparation: Preparation, where: str) -> Inputs:
    if preparation.table is None:
        raise ConfigError(f"{where}: the run does not say how the columns of its table become inputs")
    # A boolean column is one of the categories too, and is read as it was for the training: TRUE is true.
    texts = [c.name for c in preparation.table.categories if not {*c.known, *c.rare} <= {"true", "false", "(missing)"}]
    frame = frame_of(data, where, texts)
    inputs = inputs_of(frame, preparation.table, where)
    warn_of_texts(frame, preparation.table.numbers, where)
    return Inputs([inputs])


def _arrays(data: Any, preparation: Preparation, where: str) -> Inputs:
    if isinstance(data, str | Path) and not str(data).lower().endswith(SUFFIXES):
        raw = read_inputs(data, where)
    elif isinstance(data, str | Path | Mapping) or hasattr(data, "columns"):
        raw = frame_of(data, where).to_numpy()
    else:
        raw = np.asarray(data)
    return Inputs([_fitted(raw, preparation, where)])


def _images(data: Any, preparation: Preparation, where: str) -> Inputs:
    if isinstance(data, str | Path) and not str(data).endswith((".npz", ".npy")):
        data = image_files(data, where)
    if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], str | Path):
        pixels = read_images(data, preparation.shape, size=preparation.length, where=where)
        return Inputs([_fitted(pixels, preparation, where)], tuple(map(str, data)))
    return _arrays(data, preparation, where)


def _series(data: Any, preparation: Preparation, where: str) -> Inputs:
    columns, length = preparation.columns, preparation.length
    if isinstance(data, str | Path | Mapping) or hasattr(data, "columns"):
        named = data if isinstance(data, str | Path | Mapping) else {name: data[name] for name in data.columns}
        raw = series_of(named, columns, where)
    else:
        raw = np.asarray(data)
        raw = raw[:, None] if raw.ndim == 1 else raw
    if raw.ndim == 2:
        if raw.shape[1] != len(columns) or len(raw) < length:
            least = f"{length} steps or more of {len(columns)} columns"
            raise ConfigError(f"{where}: expected {least}; given: {len(raw)} of {raw.shape[1]}")
        raw = np.lib.stride_tricks.sliding_window_view(raw, length, axis=0).swapaxes(1, 2)
    return Inputs([_fitted(raw, preparation, where)])


def _text(data: Any, preparation: Preparation, where: str) -> Inputs:
    if isinstance(data, Path):
        try:
            data = data.read_bytes()
        except OSError as error:
            raise ConfigError(f"{where}: cannot read {str(data)!r}: {error.strerror}") from None
    try:
        tokens = tokens_of([data] if isinstance(data, str | bytes) else list(data), preparation.classes)
    except (TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: expected texts: {error}") from None
    if not all(len(each) for each in tokens):
        raise ConfigError(f"{where}: a text is empty; the next character follows at least one")
    return Inputs([each[None, -preparation.length :] for each in tokens])


def _fitted(raw: np.ndarray, preparation: Preparation, where: str) -> np.ndarray:
    """Raw numbers in the network's shape and units."""
    shape = preparation.shape
    if raw.dtype.kind not in "fiub":
        raise ConfigError(f"{where}: expected numbers; given: {raw.dtype}")
    if raw.ndim < 2 or math.prod(raw.shape[1:]) != math.prod(shape):
        alone = ": for one example alone, data[None]" if raw.shape == shape else ""
        raise ConfigError(f"{where}: expected an array of shape {('n', *shape)}; given: {raw.shape}{alone}")
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise ConfigError(f"{where}: holds NaN or infinite values; impute or drop them first")
    if preparation.pixels and raw.dtype.kind in "iu":  # bytes, or what a table or a library makes of them
        if raw.size and not 0 <= raw.min() <= raw.max() <= 255:
            raise ConfigError(f"{where}: pixels must lie in 0..255; given: {raw.min()}..{raw.max()}")
        raw = raw.astype(np.float32) / np.float32(255)
    return preparation.inputs.removed(raw.reshape(len(raw), *shape))


_KINDS: dict[str, Callable[[Any, Preparation, str], Inputs]] = {
    "arrays": _arrays,
    "table": _table,
    "images": _images,
    "series": _series,
    "text": _text,
}
