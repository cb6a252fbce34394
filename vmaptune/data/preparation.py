"""What a trained network needs besides its weights to be used on raw data: plain numbers and names, kept as JSON.

    raw data -> reshaped, minus the mean, over the scale -> the model -> classes and their probabilities, or numbers in the
    target's own units

All of it was learnt from the training split. Nothing here reads that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from vmaptune.data.columns import Preprocessor
from vmaptune.errors import ConfigError

Kind = Literal["arrays", "table", "images", "series", "text"]


@dataclass(frozen=True)
class Scale:
    """A shift and a scale: raw numbers are `mean` + `scale` times what the model sees.

    Attributes:
        mean: One for all numbers of an example, or one for each along its last axis.
        scale: The same.
    """

    mean: float | list[float] = 0.0
    scale: float | list[float] = 1.0

    def removed(self, raw: np.ndarray) -> np.ndarray:
        """Raw numbers as the model sees them, f32."""
        if self == Scale():
            return raw.astype(np.float32)
        return ((raw - np.asarray(self.mean)) / np.asarray(self.scale)).astype(np.float32)

    def restored(self, values: np.ndarray) -> np.ndarray:
        """What the model says in raw units; f64, unless there is nothing to do."""
        if self == Scale():
            return values
        return values.astype(np.float64) * np.asarray(self.scale) + np.asarray(self.mean)


@dataclass(frozen=True)
class Preparation:
    """How raw data become inputs, and outputs become answers.

    Attributes:
        kind: What raw data are.
        shape: Of one example, as the model takes it.
        outputs: Numbers that the model returns for an example; for a text, for a token.
        inputs: What was taken out of the inputs.
        targets: What was taken out of the targets of a regression.
        classes: What each class is called, in order; none for a regression. Of a text: each token, "" for unknown ones.
        pixels: Whether whole numbers are pixels of one byte, which are divided by 255.
        table: How the columns of a table become inputs.
        columns: Names of the columns of a series.
        length: Past steps of a series that are seen, tokens of a text, or the side that images are resized to, in pixels (0:
            none is).
        target: What is predicted, where it has a name.
    """

    kind: Kind
    shape: tuple[int, ...]
    outputs: int
    inputs: Scale = Scale()
    targets: Scale = Scale()
    classes: tuple[str | int, ...] = ()
    pixels: bool = False
    table: Preprocessor | None = None
    columns: tuple[str, ...] = ()
    length: int = 0
    target: str = ""

    def as_json(self) -> str:
        """One JSON document."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes, where: str) -> Preparation:
        """Reads what `as_json` wrote.

        Raises:
            ConfigError: It is no such document.
        """
        try:
            return msgspec.json.decode(text, type=Preparation)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: does not say how the winner's data were prepared: {error}") from None


def class_names(names: tuple[str, ...]) -> tuple[str | int, ...]:
    """Names of classes as whole numbers, if all of them are written as such."""
    whole = [name.removeprefix("-").isdecimal() and str(int(name)) == name for name in names]
    return tuple(map(int, names)) if all(whole) else names


def scale_of(raw: np.ndarray) -> Scale:
    """What standardising by these rows takes out: mean and standard deviation of each column; 1 for one that is constant."""
    mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, dtype=np.float64)
    return Scale(mean.tolist(), np.where(std > 1e-12 * np.abs(mean), std, 1.0).tolist())
