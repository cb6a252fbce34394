"""Schedule families: how a hyperparameter moves while a member trains.

A family is a function `multiplier(t, *, knobs) -> f32[]` of progress `t = step / horizon` in [0, 1). Its value multiplies
the hyperparameter it shapes (the learning rate, unless the config says another), so a family has no scale of its own and
shape and scale are searched apart. Knobs are floats and traced: each member has its own. Hence no Python `if` on `t` or
a knob, and no step counts: optax's schedules branch in Python on both, and cannot differ per member. In the equations x is
the progress that the family sees, which is t without a warm-up and the rest of the horizon after one.

Any pure function of this form is a family, `with_warmup` gives it a warm-up, and to ship one is to add a row to
`SCHEDULES`: its contract tests come for free. What combines families takes them without their warm-ups (`bare`) and puts
one in front of all (`warmed`).
"""

from __future__ import annotations

from vmaptune.schedules.curves import smooth_nonmonotonic, table, two_points_linear, two_points_spline
from vmaptune.schedules.cycles import (
    cosine_restarts,
    exp_range,
    one_cycle,
    one_cycle_momentum,
    triangular,
    triangular2,
)
from vmaptune.schedules.decays import (
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear,
    polynomial,
    power,
    rex,
    sqrt,
    step,
    wsd,
)
from vmaptune.schedules.primitives import Schedule
from vmaptune.schedules.warmup import bare as _bare
from vmaptune.schedules.warmup import rise, warmed, with_warmup

SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "polynomial": polynomial,
    "cosine": cosine,
    "sqrt": sqrt,
    "rex": rex,
    "step": step,
    "exponential": exponential,
    "inverse_sqrt": inverse_sqrt,
    "power": power,
    "wsd": wsd,
    "cosine_restarts": cosine_restarts,
    "triangular": triangular,
    "triangular2": triangular2,
    "exp_range": exp_range,
    "one_cycle": one_cycle,
    "one_cycle_momentum": one_cycle_momentum,
    "two_points_linear": two_points_linear,
    "two_points_spline": two_points_spline,
    "smooth_nonmonotonic": smooth_nonmonotonic,
    "table": table,
}
"""The names that `schedule.name` may take."""


def bare(family: str | Schedule) -> Schedule:
    """A family without the warm-up in front of it.

    Args:
        family: A name in `SCHEDULES`, a family, or a `functools.partial` of one, which stays a partial.

    Returns:
        The family with its own knobs alone.
    """
    return _bare(SCHEDULES[family] if isinstance(family, str) else family)


__all__ = [
    "SCHEDULES",
    "Schedule",
    "bare",
    "constant",
    "cosine",
    "cosine_restarts",
    "exp_range",
    "exponential",
    "inverse_sqrt",
    "linear",
    "one_cycle",
    "one_cycle_momentum",
    "polynomial",
    "power",
    "rex",
    "rise",
    "smooth_nonmonotonic",
    "sqrt",
    "step",
    "table",
    "triangular",
    "triangular2",
    "two_points_linear",
    "two_points_spline",
    "warmed",
    "with_warmup",
    "wsd",
]
