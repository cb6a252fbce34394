"""Schedule families as expressions of NumPy, to be written out where this package is not: the same as `vmaptune.schedules`.

In them x is the progress that the family sees, in [0, 1], and braces hold its knobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FALLS = {
    "linear": "1 - x",
    "polynomial": "(1 - x) ** {power}",
    "cosine": "np.sin(np.pi / 2 * (1 - x)) ** (2 * {exponent})",
    "wsd linear": "np.clip((1 - x) / {decay}, 0, 1)",
    "wsd cosine": "np.sin(np.pi / 2 * np.clip((1 - x) / {decay}, 0, 1)) ** 2",
    "wsd sqrt": "1 - np.sqrt(1 - np.clip((1 - x) / {decay}, 0, 1))",
}  # from 1 to 0; the family goes on to `end`
_FORMS = {
    "constant": "1.0",
    "sqrt": "((1 - x) * (1 + x)) ** ({alpha} / 2)",
    "rex": "(1 - x) / np.maximum(1 - x + {beta} * x, 1e-37)",
    "step": "{factor} ** np.floor(x / {every} * (1 + 1e-6))",
    "exponential": "{end} ** x",
    "inverse_sqrt": "({timescale} / ({timescale} + x)) ** 0.5",
    "power": "(1 + x / {timescale}) ** -{exponent}",
}
_RISES = {
    "linear": "t / {warmup}",
    "cosine": "np.sin(np.pi / 2 * t / {warmup}) ** 2",
    "polynomial": "(t / {warmup}) ** {warmup_power}",
    "exponential": "np.expm1({warmup_power} * t / {warmup}) / np.expm1({warmup_power})",
}


def expression(family: str, knobs: Mapping[str, Any]) -> str | None:
    """The multiplier as an expression of x; None for a family that has no short one.

    Args:
        family: Its name in `vmaptune.schedules.SCHEDULES`.
        knobs: All of its settings.
    """
    numbers = {name: repr(value) for name, value in knobs.items()}
    if family in _FORMS:
        return _FORMS[family].format(**numbers)
    fall = _FALLS.get(f"{family} {knobs.get('cooldown', '')}".strip())
    if fall is None or knobs.get("decay") == 0:
        return None
    text = fall.format(**numbers)
    return text if knobs["end"] == 0 else f"{numbers['end']} + (1 - {numbers['end']}) * ({text})"


def rise(knobs: Mapping[str, Any]) -> str:
    """The warm-up as an expression of t, the fraction of all steps done; empty if there is none."""
    numbers = {name: repr(value) for name, value in knobs.items()}
    return _RISES[knobs["warmup_shape"]].format(**numbers) if knobs.get("warmup") else ""
