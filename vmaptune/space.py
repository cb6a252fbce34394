"""The search space: an axis stands where the number would stand.

A `Space` maps dotted setting names to a number or an `Axis`. The genotype of a member is its point in the unit cube, one
gene an axis: the only stored truth, from which values are decoded. Moving a gene by the same amount means the same ratio
on a log axis and the same difference on a linear one, so selectors perturb genes and never need to know the scale.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.settings import Setting, convert, show


@dataclass(frozen=True)
class Axis:
    """A searched dimension, standing where a number would stand.

    Either an interval `low..high` on a scale, or a short list of numbers (`choices`, in an order in which neighbours are
    alike: selectors move along it). With `integer`, values are whole numbers, each of the same share of the scale.

    Attributes:
        low: Smallest value, included.
        high: Largest value, included.
        scale: "linear" or "log"; log needs `low > 0`.
        integer: Whole numbers only.
        choices: The numbers to choose from, instead of an interval.
    """

    low: float = math.nan
    high: float = math.nan
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False
    choices: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuses an axis that no number lies on."""
        check_axis(self, "axis")

    @property
    def low32(self) -> np.float32:
        """The smallest float32 that is not below `low`: a decoded value never leaves the bounds, not by a rounding."""
        value = np.float32(self.low)
        return value if float(value) >= self.low else np.nextafter(value, np.float32(np.inf))

    @property
    def high32(self) -> np.float32:
        """The largest float32 that is not above `high`."""
        value = np.float32(self.high)
        return value if float(value) <= self.high else np.nextafter(value, np.float32(-np.inf))

    @property
    def interval(self) -> tuple[float, float]:
        """The interval that the unit interval maps onto before the scale is undone.

        An integer axis is widened by half a step at both ends, so that its first and last value get a full share.
        """
        low, high = (self.low - 0.5, self.high + 0.5) if self.integer else (self.low, self.high)
        return (math.log(low), math.log(high)) if self.scale == "log" else (low, high)

    @property
    def share(self) -> float:
        """Share of the unit interval that one value of a discrete axis has (the largest, on a log scale); 0 if continuous."""
        if self.choices:
            return 1 / len(self.choices)
        if not self.integer:
            return 0.0
        low, high = self.interval
        return (math.log((self.low + 0.5) / (self.low - 0.5)) if self.scale == "log" else 1.0) / (high - low)

    def as_toml(self) -> dict[str, Any]:
        """The inline table that stands for this axis in a config."""
        if self.choices:
            return {"choices": list(self.choices)}
        table: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.scale != "linear":
            table["scale"] = self.scale
        if self.integer:
            table["integer"] = True
        return table


def check_axis(axis: Axis, where: str) -> None:
    """Raises `ConfigError` for an axis that no number lies on, naming the place `where` it stands."""
    if axis.choices:
        if not math.isnan(axis.low) or not math.isnan(axis.high):
            raise ConfigError(
                f"{where}: an axis has either choices or low and high, not both; given: {axis.as_toml()} with bounds"
            )
        if axis.scale != "linear" or axis.integer:
            raise ConfigError(f"{where}: an axis of choices has no scale and is not integer; given: {axis.as_toml()}")
        check_choices(axis.choices, where)
        return
    if axis.scale not in ("linear", "log"):
        raise ConfigError(
            f"{where}: scale must be 'linear' or 'log'{did_you_mean(str(axis.scale), ('linear', 'log'))}; given: {axis.scale!r}"
        )
    if not (math.isfinite(axis.low) and math.isfinite(axis.high)):
        raise ConfigError(
            f"{where}: an axis needs a finite low and high, or choices; given: low = {axis.low}, high = {axis.high}"
        )
    if not axis.low < axis.high:
        raise ConfigError(f"{where}: low must be below high; given: low = {axis.low:g}, high = {axis.high:g}")
    if axis.scale == "log" and axis.low <= 0:
        raise ConfigError(f"{where}: a log scale needs low > 0; given: low = {axis.low:g}")
    if axis.integer and not (float(axis.low).is_integer() and float(axis.high).is_integer()):
        raise ConfigError(f"{where}: an integer axis needs whole bounds; given: low = {axis.low:g}, high = {axis.high:g}")
    limit = 2.0**24 if axis.integer else float(np.finfo(np.float32).max) / 2
    for end in (axis.low, axis.high):
        if abs(end) > limit:
            raise ConfigError(f"{where}: beyond {limit:g}, where float32 values end; given: {end:g}")
    if axis.scale == "log" and axis.low < (tiny := float(np.finfo(np.float32).tiny)):
        raise ConfigError(f"{where}: below {tiny:g}, the smallest float32; given: low = {axis.low:g}")
    if not axis.low32 < axis.high32:
        raise ConfigError(f"{where}: low and high are the same float32 number; given: low = {axis.low!r}, high = {axis.high!r}")


def check_choices(choices: Sequence[float], where: str) -> None:
    """Raises `ConfigError` unless the choices are two or more finite numbers that differ as float32."""
    limit = float(np.finfo(np.float32).max)
    if not all(abs(choice) <= limit for choice in choices) or len(set(map(np.float32, choices))) < max(2, len(choices)):
        raise ConfigError(f"{where}: choices must be two or more different finite numbers; given: {list(choices)}")


def axis_from_table(table: Mapping[str, Any], setting: Setting, where: str) -> Axis:
    """Reads an axis from its TOML table and checks its ends against the setting it stands for.

    Raises:
        ConfigError: An unknown key, a bound of the wrong type or outside the setting's range, or an empty interval.
    """
    known = ("low", "high", "scale", "integer", "choices")
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: an axis has no key {key!r}{did_you_mean(key, known)}")
    if not setting.traced:
        several = where.partition(".")[0] in ("task", "batch", "optimizer", "schedule")
        instead = " (`vmaptune run` opens a cohort for each of { choices = [...] })" if several else ""
        raise ConfigError(
            f"{where}: an axis cannot stand here, because {setting.name} is static ({setting.type_name}): "
            f"it shapes the compiled program, which all members share{instead}; given: {show(dict(table))}"
        )
    if "choices" in table:
        if not isinstance(table["choices"], list | tuple):
            raise ConfigError(f"{where}.choices: expected a list of numbers; given: {show(table['choices'])}")
        if bad := [key for key in table if key != "choices"]:
            raise ConfigError(f"{where}: an axis of choices has no {bad[0]}; given: {show(dict(table))}")
        if not table["choices"]:
            check_choices((), where)
        axis = _unchecked(choices=tuple(float(convert(setting, v, f"{where}.choices")) for v in table["choices"]))
    else:
        ends = {}
        for end in ("low", "high"):
            if end not in table:
                raise ConfigError(f"{where}: an axis needs both low and high, or choices; given: {show(dict(table))}")
            ends[end] = float(convert(setting, table[end], f"{where}.{end}"))
        if not isinstance(table.get("integer", False), bool):
            raise ConfigError(f"{where}.integer: expected true or false; given: {show(table['integer'])}")
        axis = _unchecked(**ends, scale=table.get("scale", "linear"), integer=table.get("integer", False))
    check_axis(axis, where)
    return axis


def _unchecked(**fields: Any) -> Axis:
    """An `Axis` whose checks are left to the caller, who knows the place to name."""
    axis = object.__new__(Axis)
    for name, field in Axis.__dataclass_fields__.items():
        object.__setattr__(axis, name, fields.get(name, field.default))
    return axis


class Space:
    """The settings of a member by dotted name: axes that are searched, and constants that are not.

    Args:
        entries: Number or `Axis` by name, such as `{"optimizer.learning_rate": Axis(1e-4, 1e-1, "log")}`.

    Attributes:
        axes: The axes, in order: gene d belongs to the d-th.
        constants: The fixed numbers.
    """

    def __init__(self, entries: Mapping[str, float | Axis]) -> None:
        """Sorts the entries into axes and constants."""
        self.axes: dict[str, Axis] = {k: v for k, v in entries.items() if isinstance(v, Axis)}
        self.constants: dict[str, float] = {k: float(v) for k, v in entries.items() if not isinstance(v, Axis)}

    @property
    def names(self) -> tuple[str, ...]:
        """All names: axes first, then constants."""
        return (*self.axes, *self.constants)

    @property
    def dimension(self) -> int:
        """Number of axes D."""
        return len(self.axes)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every number of the space, as arrays to pass into a compiled program.

        Passed as an argument rather than baked in, they let runs that differ only in bounds or constants share one
        executable (and one entry of a persistent compilation cache).
        """
        axes = list(self.axes.values())
        width = max([len(a.choices) for a in axes], default=0) or 1
        table = np.zeros((len(axes), width), np.float32)
        for d, a in enumerate(axes):
            table[d, : len(a.choices)] = a.choices
        unit = (0.0, 1.0)
        return {
            "interval": np.array([unit if a.choices else a.interval for a in axes], np.float32).reshape(-1, 2),
            "bounds": np.array([unit if a.choices else (a.low32, a.high32) for a in axes], np.float32).reshape(-1, 2),
            "choices": table,
            "constants": np.array(list(self.constants.values()), np.float32),
        }

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """Draws n genotypes uniformly from the unit cube: f32[n, D]. The first k rows do not depend on n."""
        return jax.random.uniform(key, (n, self.dimension), jnp.float32)

    def decode(self, genotype: jax.Array, arrays: Mapping[str, Any] | None = None) -> dict[str, jax.Array]:
        """Turns genotypes into values.

        Args:
            genotype: f32[..., D] in [0, 1].
            arrays: `self.arrays`, possibly traced; default: taken as constants.

        Returns:
            f32[...] by name, constants broadcast. Never outside an axis's bounds.
        """
        arrays = self.arrays if arrays is None else arrays
        if genotype.ndim > 1:
            return jax.vmap(lambda row: self.decode(row, arrays))(genotype)
        axes = list(self.axes.values())
        low, high = arrays["interval"][:, 0], arrays["interval"][:, 1]
        x = low + genotype * (high - low)
        x = jnp.where(np.array([a.scale == "log" for a in axes], bool), jnp.exp(x), x)
        x = jnp.where(np.array([a.integer for a in axes], bool), jnp.round(x), x)
        x = jnp.clip(x, arrays["bounds"][:, 0], arrays["bounds"][:, 1])
        size = np.array([len(a.choices) for a in axes], np.int32)
        index = jnp.clip(jnp.floor(genotype * size).astype(jnp.int32), 0, np.maximum(size - 1, 0))
        chosen = jnp.asarray(arrays["choices"])[np.arange(len(axes)), index]
        x = jnp.where(size > 0, chosen, x)
        values = {name: x[d] for d, name in enumerate(self.axes)}
        return values | {name: jnp.asarray(arrays["constants"])[i] for i, name in enumerate(self.constants)}

    def encode_columns(self, columns: Mapping[str, Any], *, optional: Collection[str] = ()) -> np.ndarray:
        """Genotypes f32[T, D] of T hyperparameter sets.

        Args:
            columns: T numbers by the name of each axis.
            optional: Axes that do not matter to every set, such as a knob of a schedule family that it does not follow: there
                a number may be NaN.

        Raises:
            ConfigError: A column is missing, or names no axis; columns differ in length; or a value is not on its axis.
        """
        if unknown := [name for name in columns if name not in self.axes]:
            raise ConfigError(f"start: there is no axis {unknown[0]!r}{did_you_mean(unknown[0], self.axes)}")
        if missing := [name for name in self.axes if name not in columns]:
            raise ConfigError(f"start: no column {missing[0]!r}; given: {', '.join(columns) or 'none'}")
        if len(lengths := {len(column) for column in columns.values()}) > 1 or lengths == {0}:
            raise ConfigError(f"start: columns must be equally long, and not empty; given: lengths {sorted(lengths)}")
        numbers = {}
        for name, column in columns.items():
            try:
                numbers[name] = np.asarray(column, np.float64)
            except (TypeError, ValueError):
                raise ConfigError(f"start: {name}: expected numbers; given: {show(list(column))}") from None
        rows = []
        for i in range(max(lengths, default=0)):
            given = {name: float(numbers[name][i]) for name in self.axes}
            matters = {name: axis for name, axis in self.axes.items() if not (name in optional and math.isnan(given[name]))}
            try:
                known = dict(zip(matters, Space(matters).encode(given), strict=True))
            except ConfigError as error:
                raise ConfigError(f"start: row {i + 1}: {error}") from None
            rows.append([known.get(name, 0.5) for name in self.axes])
        return np.array(rows, np.float32)

    def encode(self, values: Mapping[str, float]) -> np.ndarray:
        """The genotype f32[D] that decodes to `values` (to rounding; the middle of a choice's or integer's share).

        Raises:
            ConfigError: A value is missing, or lies on none of the axis's points.
        """
        genes = []
        for name, axis in self.axes.items():
            if name not in values:
                raise ConfigError(f"{name}: no value given to encode; given: {', '.join(values)}")
            value = float(values[name])
            if axis.choices:
                nearest = min(range(len(axis.choices)), key=lambda i: abs(axis.choices[i] - value))
                if not math.isclose(axis.choices[nearest], value, rel_tol=1e-6):
                    raise ConfigError(f"{name}: not one of the choices {list(axis.choices)}; given: {value:g}")
                genes.append((nearest + 0.5) / len(axis.choices))
                continue
            if not axis.low <= value <= axis.high:
                raise ConfigError(f"{name}: outside {axis.low:g}..{axis.high:g}; given: {value:g}")
            if axis.integer and not value.is_integer():
                raise ConfigError(f"{name}: an integer axis has whole values only; given: {value:g}")
            low, high = axis.interval
            genes.append(((math.log(value) if axis.scale == "log" else value) - low) / (high - low))
        return np.clip(np.array(genes, np.float32), 0, 1)
