"""Arrays with targets from files: `.npz`, or a folder of `.npy`, which may be larger than memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile, is_zipfile

import numpy as np

from vmaptune.data.columns import check_size
from vmaptune.data.preparation import Scale, scale_of
from vmaptune.data.splits import Splits, split_rows
from vmaptune.errors import ConfigError, did_you_mean

Kind = Literal["auto", "classification", "regression"]


class Arrays(NamedTuple):
    """A data set of arrays.

    Attributes:
        splits: Parts of `(inputs, targets)`; targets i32[n], labels 0..classes-1, or f32[n] or f32[n, outputs].
        classes: The label in the files of each class, in order; empty for a regression.
        pixels: Whether inputs were bytes, which are taken for pixels.
    """

    splits: Splits
    classes: tuple[str, ...]
    pixels: bool


Part = tuple[np.ndarray, np.ndarray]


def load_arrays(
    path: str, *, kind: Kind = "auto", validation: float = 0.2, test: float = 0.2, seed: int = 0, where: str = "data"
) -> Arrays:
    """Reads inputs and targets, examples on the leading axis.

    They are named `x` and `y`, or `x_train` and `y_train`, and `x_validation`, `y_validation`, `x_test`, `y_test` where those
    parts are given: arrays of one `.npz`, or files `x.npy` and so on in a folder. Parts that are not given are cut from
    the rest. In a folder, arrays are mapped, not read: where all parts are given, in float32, none is held in memory.

    Args:
        path: The `.npz` or the folder.
        kind: What the targets are. auto: classes if they are whole numbers, truth values or text; else real numbers.
        validation: Share of the examples outside of given parts for validation, if that is not given.
        test: Share of them for test, if that is not given.
        seed: Seed of the cut, which gives each part the same share of every class.
        where: What to call the data in an error.

    Returns:
        The arrays. Inputs are taken as they are in f32, but for bytes, which are taken for pixels and divided by 255.

    Raises:
        ConfigError: A file or a name is missing, is unreadable or holds Python objects; shapes or lengths do not fit
            together; targets are not of the kind, not finite or of one class only; a class is too small to be cut.
    """
    found = _found(Path(path), where)
    stem = "" if "x" in found else "_train"
    parts = {"train": _pair(found, stem, path, where)}
    for part in ("validation", "test"):
        if f"x_{part}" in found or f"y_{part}" in found:
            parts[part] = _pair(found, f"_{part}", path, where)
    first, shape = parts["train"][1], parts["train"][0].shape[1:]
    for part, (inputs, _) in parts.items():
        if inputs.shape[1:] != shape:
            raise ConfigError(f"{where}: an example of {part} has shape {inputs.shape[1:]}, of train {shape}, in {path}")
    classes: tuple[str, ...] = ()
    if kind == "classification" or (kind == "auto" and first.dtype.kind not in "fc"):
        known = np.unique(first)
        classes = tuple(map(str, known.tolist()))
        parts = {part: (inputs, _labels(targets, known, part, where)) for part, (inputs, targets) in parts.items()}
    else:
        parts = {part: (inputs, _numbers(targets, part, where)) for part, (inputs, targets) in parts.items()}
    pixels = found[f"x{stem}"].dtype == np.uint8
    return Arrays(_cut(parts, validation, test, seed, bool(classes), where), classes, pixels)


def read_inputs(path: str | Path, where: str = "data") -> np.ndarray:
    """The inputs of an `.npz` (its array x, or its only one) or an `.npy` file.

    Raises:
        ConfigError: It cannot be read, or it is not known which array of it is meant.
    """
    file = Path(path)
    if file.suffix == ".npy":
        try:
            return np.load(file, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise ConfigError(f"{where}: cannot read {file}: {error}") from None
    found = _found(file, where)
    if "x" not in found and len(found) != 1:
        raise ConfigError(f"{where}: expected an array x, or one alone; given: {', '.join(found) or 'none'} in {file}")
    return found["x"] if "x" in found else next(iter(found.values()))


def standardised(splits: Splits, leaf: int) -> tuple[Splits, Scale]:
    """The inputs (leaf 0) or the targets (leaf 1) minus their mean in the training part, over their deviation there.

    Each number of an example is standardised by itself; one that is constant becomes zero. Where a part is mapped from a
    file, everything is left as it is.

    Returns:
        The parts, and what was taken out.
    """
    if any(isinstance(part[leaf], np.memmap) for part in splits):
        return splits, Scale()
    with np.errstate(invalid="ignore"):  # what is not finite is refused later, by name
        scale = scale_of(splits.train[leaf])
        parts = [[*part] for part in splits]
        for part in parts:
            part[leaf] = scale.removed(part[leaf])
    return Splits(*map(tuple, parts)), scale


def _found(path: Path, where: str) -> dict[str, np.ndarray]:
    """The arrays of a file, or those of a folder, mapped."""
    try:
        if path.is_dir():
            return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        if path.suffix != ".npz":
            raise ConfigError(f"{where}: expected an .npz file or a folder of .npy files; given: {path}")
        if path.is_file() and not is_zipfile(path):
            raise ConfigError(f"{where}: cannot read {path}: it is no .npz file")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file or folder: {path}") from None
    except (OSError, EOFError, ValueError, BadZipFile) as error:
        if "Object arrays" in str(error):
            raise ConfigError(
                f"{where}: cannot read {path}: an array holds Python objects; save texts as strings: y.astype(str)"
            ) from None
        raise ConfigError(f"{where}: cannot read {path}: {error}") from None


def _pair(found: Mapping[str, np.ndarray], suffix: str, path: str, where: str) -> Part:
    """Inputs and targets of a part, of the same length."""
    names = (f"x{suffix}", f"y{suffix}")
    if not {*names} & {*found}:
        turned = [name for name in found if "_".join(reversed(name.lower().split("_"))) in names]
        hint = f"; did you mean {names[0]!r} by {turned[0]!r}?" if turned else ""
        raise ConfigError(
            f"{where}: expected arrays x and y, or x_train, y_train, ..., y_test; given: {', '.join(found) or 'none'} in {path}"
            + hint
        )
    for name in names:
        if name not in found:
            raise ConfigError(f"{where}: {path} has no array {name!r}{did_you_mean(name, found)}")
    inputs, targets = found[f"x{suffix}"], found[f"y{suffix}"]
    if not inputs.ndim or not targets.ndim or len(inputs) != len(targets):
        shapes = f"x{suffix} {inputs.shape} and y{suffix} {targets.shape}"
        raise ConfigError(f"{where}: inputs and targets must have equally many examples; given: {shapes} in {path}")
    return _inputs(inputs, f"x{suffix}", where), targets


def _inputs(inputs: np.ndarray, name: str, where: str) -> np.ndarray:
    """Inputs f32[n, ...]: the very array, mapped or not, if it is that already."""
    if inputs.dtype.kind not in "fiub":
        raise ConfigError(f"{where}: {name} must hold real numbers; given: {inputs.dtype}")
    inputs = inputs[:, None] if inputs.ndim == 1 else inputs
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float32) / np.float32(255)
    return _single(inputs, name, where)


def _labels(targets: np.ndarray, known: np.ndarray, part: str, where: str) -> np.ndarray:
    """Labels i32[n]: the place of each target among the classes of the training part."""
    targets = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else np.asarray(targets)
    if targets.ndim != 1:
        raise ConfigError(f"{where}: classes must be one number an example; given: shape {targets.shape} in {part}")
    if targets.dtype.kind == "f" and not (targets == np.round(targets)).all():
        raise ConfigError(f"{where}: classes must be whole numbers or text; given: real numbers in {part}")
    if len(known) < 2:
        raise ConfigError(f"{where}: one class only, {', '.join(map(str, known))}; a classifier needs two or more")
    place = np.clip(np.searchsorted(known, targets), 0, len(known) - 1)
    if (strange := known[place] != targets).any():
        raise ConfigError(f"{where}: class {targets[strange][0]} of {part} is none of train")
    return place.astype(np.int32)


def _numbers(targets: np.ndarray, part: str, where: str) -> np.ndarray:
    """Targets f32[n] or f32[n, outputs]."""
    if targets.dtype.kind not in "fiub":
        raise ConfigError(f"{where}: targets of a regression must be real numbers; given: {targets.dtype} in {part}")
    if targets.ndim > 2:
        raise ConfigError(f"{where}: targets must be of shape (n,) or (n, outputs); given: {targets.shape} in {part}")
    return _single(targets, f"y of {part}", where)


def _single(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """An array as f32: the very one, mapped or not, if it is that already."""
    if array.dtype == np.float32:
        return array
    if array.dtype.itemsize > 4:
        check_size(array, f"{where}: {name}")
    return array.astype(np.float32)


def _cut(parts: dict[str, Part], validation: float, test: float, seed: int, stratified: bool, where: str) -> Splits:
    """The three parts, those that are not given cut from train; train untouched if nothing is."""
    validation, test = 0.0 if "validation" in parts else validation, 0.0 if "test" in parts else test
    if validation or test:
        inputs, targets = parts.pop("train")
        labels = targets if stratified else None
        try:
            rows = split_rows(len(inputs), validation=validation, test=test, seed=seed, stratify=labels)
        except ConfigError as error:
            raise ConfigError(f"{where}: {str(error).removeprefix('data: ')}") from None
        parts = {part: (inputs[r], targets[r]) for part, r in zip(Splits._fields, rows, strict=True)} | parts
    return Splits(*(parts[part] for part in Splits._fields))
