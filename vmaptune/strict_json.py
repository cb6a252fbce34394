"""JSON as the standard has it: no NaN, no Infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_json(value: Any) -> Any:
    """Makes a tree strict JSON: infinities and NaN become the strings "inf", "-inf" and "nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {k: finite_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(v) for v in value]
    return value
