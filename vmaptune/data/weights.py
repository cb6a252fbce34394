"""Weights from safetensors files: those that runs leave behind, and others with the same names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vmaptune.errors import ConfigError

_RUN = "run:"  # before the folder of a run


class Weights(NamedTuple):
    """Arrays of a file.

    Attributes:
        path: Of the file.
        sha256: Of its content, in hexadecimal.
        arrays: By name: `params.head.kernel`, `model_state.norm.mean`.
    """

    path: str
    sha256: str
    arrays: Mapping[str, np.ndarray]


def located(source: str, folder: str | Path = "") -> str:
    """A source of weights by its whole path, so that it is found from anywhere.

    Args:
        source: See `read_weights`.
        folder: Where it is named from; default: the current folder.
    """
    if not source:
        return ""
    run = _RUN if source.startswith(_RUN) else ""
    return f"{run}{(folder / Path(source.removeprefix(_RUN))).resolve()}"


def read_weights(source: str, where: str = "init.from") -> Weights:
    """Reads weights.

    Args:
        source: A safetensors file, or `run:` and the folder of a run: its winner's weights.
        where: What to call it in an error.

    Raises:
        ConfigError: There is no such file or run, the run has no winner yet, or the file is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    is_run = source.startswith(_RUN)
    folder = Path(source.removeprefix(_RUN))
    path = folder / "best" / "weights.safetensors" if is_run else folder
    if is_run and not folder.is_dir():
        raise ConfigError(f"{where}: no such run folder; given: {source!r}")
    try:
        content = path.read_bytes()
        return Weights(str(path), hashlib.sha256(content).hexdigest(), load(content))
    except FileNotFoundError:
        what = "the run has no best/weights.safetensors; is it finished?" if is_run else "no such file;"
        raise ConfigError(f"{where}: {what} given: {source!r}") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy does not have
        raise ConfigError(f"{where}: {path} cannot be read as safetensors: {error}") from None
