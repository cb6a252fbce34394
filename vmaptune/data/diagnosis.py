"""What is often wrong with data, said before anything is trained on it.

Everything is looked at with a bounded number of numbers, spread evenly over a part, so that a file larger than memory is
diagnosed in a moment; what seems constant in these is then checked in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vmaptune.data.splits import Splits

_NUMBERS = 2**23  # looked at in each part
_SLICE = 2**22  # of them side by side
_NAMED = 5  # columns and classes that a sentence names
_MOST_SHIFT = 64  # columns of a series whose windows are told by their overlap
_LEAST = 20  # training rows; of fewer, a column may fit the targets by chance


def warnings_of(splits: Splits, names: Sequence[str] = ()) -> list[str]:
    """Sentences about what makes training pointless or its scores untrue; none for sound data.

    Constant columns (of the training split), columns that give the target away (a copy of it, shifted or scaled, or one that
    has one value in each class), rows that are in two parts (not windows of a series, which repeats itself as it likes),
    classes that a part has no example of.

    Args:
        splits: Parts of `(inputs, targets)`, arrays each; of other data nothing is said. Columns are looked at where inputs
            are [rows, features] and no tokens, classes where targets are integers [rows].
        names: Of the features; default: their numbers, and constant columns are not spoken of: they may be pixels.
    """
    if not all(_is_pair(part) for part in splits):
        return []
    found = []
    inputs, targets = (np.asarray(leaf) for leaf in splits.train)
    if inputs.ndim == 2 and not np.issubdtype(inputs.dtype, np.integer):
        named = [repr(name) for name in names] or [f"{i}" for i in range(inputs.shape[1])]
        constant = _constant(inputs)
        if constant.any() and names:  # of pixels, some are always black, and nobody would leave them out
            found.append(f"{_columns(named, constant)} the same value in all training rows and can teach nothing: leave it out")
        if len(inputs) >= _LEAST and targets.ndim == 1:
            copies = _giving_away(inputs, targets) & ~constant
            if copies.any():
                found.append(
                    f"{_columns(named, copies)} the target itself in other words, so that scores mean nothing: leave it out, "
                    f"unless it is known before the target is"
                )
    return found + ([] if _slides(inputs) else _shared_rows(splits)) + _absent_classes(splits)


def _is_pair(part: Any) -> bool:
    return isinstance(part, tuple | list) and len(part) == 2 and all(hasattr(leaf, "ndim") and leaf.ndim for leaf in part)


def _slides(inputs: np.ndarray) -> bool:
    """Whether rows are windows that move over a series: each is the one before it, moved on by a step."""
    rows = inputs[:8].reshape(min(8, len(inputs)), -1)
    shifts = [inputs.shape[-1]] if inputs.ndim == 3 else range(1, 1 + min(_MOST_SHIFT, rows.shape[1] // 2))
    return len(rows) > 1 and any(
        np.array_equal(rows[1:, :-shift], rows[:-1, shift:]) for shift in shifts if 0 < shift < rows.shape[1]
    )


def _columns(named: Sequence[str], chosen: np.ndarray) -> str:
    places = np.flatnonzero(chosen)
    listed = ", ".join(named[i] for i in places[:_NAMED]) + (", ..." if len(places) > _NAMED else "")
    return f"column {listed} holds" if len(places) == 1 else f"{len(places)} columns ({listed}) each hold"


def _sampled(array: np.ndarray) -> np.ndarray | slice:
    """Rows of an array, evenly spread, at most so many that a bounded number of numbers is read; all: a slice, no copy."""
    most = max(1000, _NUMBERS // max(1, array[0].size))
    return slice(None) if len(array) <= most else np.linspace(0, len(array) - 1, most).astype(np.int64)


def _constant(inputs: np.ndarray) -> np.ndarray:
    """Which columns have one value: bool[features]."""
    constant = (inputs[_sampled(inputs)] == inputs[:1]).all(axis=0)
    rows = max(1, _SLICE // max(1, inputs.shape[1]))
    for start in range(0, len(inputs), rows):
        places = np.flatnonzero(constant)
        if not len(places):
            break
        constant[places] = (inputs[start : start + rows][:, places] == inputs[:1, places]).all(axis=0)
    return constant


def _giving_away(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which columns are the target: bool[features]. Of classes, by one value a class; of numbers, by a straight line."""
    rows = _sampled(inputs)
    inputs, targets = inputs[rows], targets[rows]
    if np.issubdtype(targets.dtype, np.integer):
        _, first, of = np.unique(targets, return_index=True, return_inverse=True)
        return (inputs == inputs[first[of]]).all(axis=0) & (inputs[first] != inputs[first[:1]]).any(axis=0)
    centred = inputs - inputs.mean(axis=0, dtype=np.float64)
    about = targets - targets.mean(dtype=np.float64)
    slope = about @ centred / np.maximum((centred**2).sum(axis=0), np.finfo(np.float64).tiny)
    return np.abs(about[:, None] - slope * centred).max(axis=0) <= 1e-5 * np.abs(about).max()


def _shared_rows(splits: Splits) -> list[str]:
    """Which part has rows whose inputs another part has too."""
    everything = {part: np.asarray(getattr(splits, part)[0]) for part in Splits._fields}
    hashes = {part: _hashes(inputs[_sampled(inputs)]) for part, inputs in everything.items()}
    found = []
    for part, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        shared = np.isin(hashes[part], hashes[other]).sum()
        if shared:
            rows = f"{shared:,} of {len(hashes[part]):,} {part} rows are" if shared > 1 else f"a {part} row is"
            found.append(
                f"{rows} in the {other} split too, with the same inputs, and tested by memory: drop copies, or cut by group"
            )
    return found


def _hashes(rows: np.ndarray) -> np.ndarray:
    """A number of 64 bits for each row: u64[rows], equal for equal rows and hardly ever for others."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    if np.issubdtype(flat.dtype, np.floating):
        flat = flat + np.zeros(1, flat.dtype)  # minus zero is zero
    words = flat.view(np.uint8).reshape(len(flat), -1)
    words = np.pad(words, ((0, 0), (0, -words.shape[1] % 4))).view(np.uint32)
    factors = np.random.default_rng(0).integers(0, 2**64, words.shape[1], np.uint64) | np.uint64(1)
    total = np.zeros(len(words), np.uint64)
    step = max(1, _SLICE // max(1, words.shape[1]))
    for start in range(0, len(words), step):
        mixed = words[start : start + step].astype(np.uint64) * factors
        total[start : start + step] = (mixed ^ (mixed >> np.uint64(32))).sum(axis=1, dtype=np.uint64)
    return total


def _absent_classes(splits: Splits) -> list[str]:
    labels = {part: np.asarray(getattr(splits, part)[1]) for part in Splits._fields}
    if not all(each.ndim == 1 and np.issubdtype(each.dtype, np.integer) for each in labels.values()):
        return []
    there = {part: np.unique(each) for part, each in labels.items()}
    known = np.unique(np.concatenate(list(there.values())))
    found = []
    for part, classes in there.items():
        absent = np.setdiff1d(known, classes)
        if len(absent):
            listed = ", ".join(map(str, absent[:_NAMED])) + (", ..." if len(absent) > _NAMED else "")
            what = "cannot be learnt" if part == "train" else "is not measured there"
            noun = "class" if len(absent) == 1 else "classes"
            found.append(f"the {part} split has no example of {noun} {listed}, which {what}: cut by class, or give more data")
    return found
