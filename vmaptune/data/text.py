"""Texts as windows of tokens, characters or bytes, for models that predict the next one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError

Level = Literal["char", "byte"]

UNKNOWN = 0
"""The token of every character that the training part does not hold."""


class Text(NamedTuple):
    """A text, cut.

    Attributes:
        splits: Parts of `(i32[n, length], i32[n, length])`: the tokens of a window, and the token after each.
        vocabulary: Code point (of a byte: its value) of each token, those of the training part in order; the token
            `UNKNOWN` has -1.
    """

    splits: Splits
    vocabulary: np.ndarray


def python_topics() -> str:
    """The language reference that Python's `help()` shows, about 470,000 characters; another in every version of Python.

    Raises:
        ConfigError: This Python was installed without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError(
            "task.path: this Python ships without its documentation (pydoc_data.topics), the text of the task where no path is "
            "given; give the path of a text file"
        ) from None
    return "\n".join(topics[name] for name in sorted(topics))


def read_text(path: str, level: Level, where: str = "task.path") -> np.ndarray:
    """Reads a text file.

    Args:
        path: Of the file; empty: Python's own documentation.
        level: char: code points of a UTF-8 file. byte: bytes of any file.
        where: What to call the path in an error.

    Returns:
        i32[n], code points or bytes.

    Raises:
        ConfigError: There is no such file, it cannot be read, or it is not UTF-8.
    """
    try:
        data = Path(path).read_bytes() if path else python_topics().encode()
    except OSError as error:
        raise ConfigError(f"{where}: cannot read {path!r}: {error.strerror}") from None
    if not data:
        raise ConfigError(f"{where}: {path} is empty")
    if level == "byte":
        return np.frombuffer(data, np.uint8).astype(np.int32)
    try:
        return np.frombuffer(data.decode().encode("utf-32-le"), np.uint32).astype(np.int32)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: {path!r} is not UTF-8 text (byte {error.start}); convert it, or read it as it is: level = 'byte'"
        ) from None


def tokens_of(texts: Sequence[str | bytes], known: Sequence[str | int]) -> list[np.ndarray]:
    """Tokens i32[n] of each text.

    Args:
        texts: What to read.
        known: What each token stands for, characters or bytes; the token `UNKNOWN` stands for all others.
    """
    place = {token: i for i, token in enumerate(known)}
    is_bytes = isinstance(known[UNKNOWN], int)

    def units(text: str | bytes) -> Sequence[str | int]:
        if is_bytes:
            return text.encode() if isinstance(text, str) else text
        return text.decode() if isinstance(text, bytes) else text

    return [np.array([place.get(unit, UNKNOWN) for unit in units(text)], np.int32) for text in texts]


def text_windows(
    text: Sequence[int] | np.ndarray,
    *,
    length: int,
    validation: float,
    test: float,
    context: int = 0,
    where: str = "task",
) -> Text:
    """Cuts a text by position, training first and test last, and each part into windows of its own, one after the other.

    The vocabulary is that of the training part. What is left of a part after its last whole window is not used. Windows of
    validation and test may overlap, so that their first tokens are read but need not be predicted without what is before them.

    Args:
        text: i32[n], code points or bytes.
        length: Tokens that a window holds and predicts.
        validation: Share of the text.
        test: Share of the text.
        context: Tokens that a window of validation or test shares with the one before it, fewer than it holds.
        where: What to call the task in an error.

    Raises:
        ConfigError: The shares leave nothing to train on, the context is no shorter than a window, or a part is too short for
            a window.
    """
    if context >= length:
        raise ConfigError(f"{where}.context: expected fewer than the {length} tokens of a window; given: {context}")
    text = np.asarray(text)
    first, last = cut(len(text), validation, test, where)
    known = np.unique(text[:first])
    parts = []
    for name, part in zip(Splits._fields, np.split(text, [first, last]), strict=True):
        if len(part) <= length:
            raise ConfigError(
                f"{where}.length: the {name} part is too short for a window of {length} and the token after it; "
                f"given: {len(part)} tokens of {len(text)}"
            )
        place = np.searchsorted(known, part).clip(max=len(known) - 1)
        tokens = np.where(known[place] == part, place + 1, UNKNOWN).astype(np.int32)
        windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)
        windows = windows[:: length if name == "train" else length - context]
        parts.append((np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])))
    return Text(Splits(*parts), np.concatenate([[-1], known]))


def cut(n: int, validation: float, test: float, where: str) -> tuple[int, int]:
    """Where the validation part and the test part of `n` steps begin.

    Raises:
        ConfigError: The shares leave nothing to train on.
    """
    if validation + test >= 1:
        raise ConfigError(
            f"{where}: validation and test must leave something to train on; given: {validation} and {test} of all"
        )
    return round(n * (1 - validation - test)), round(n * (1 - test))
