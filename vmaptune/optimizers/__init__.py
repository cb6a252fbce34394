"""Optimizers: functions from settings to an optax transformation.

The transformation is rebuilt inside the training step from traced scalars, one set a member. Rebuilding costs trace time
only, works for every common optimizer, and avoids the surprises of `optax.inject_hyperparams` (schedules that overwrite
edits, bfloat16 casts of b2, structure that depends on values). What it asks of a row: the state's structure must not
depend on a setting's value, so momentum is always a number, never None; and no setting may act in `init` alone, because a
member is born before its settings are known.

Rows are grouped by what they keep of past gradients: `momentum`, `squares`, both (`moments`), whole `matrices`; `free` ones
need no schedule or no learning rate. What every row shares (clipping, penalties, weight decay, accumulation, averaging) is
declared once, in `rules`.
"""

from __future__ import annotations

from vmaptune.optimizers.averaging import averages, evaluation_params
from vmaptune.optimizers.free import prodigy, schedule_free_adamw, schedule_free_sgd
from vmaptune.optimizers.matrices import muon
from vmaptune.optimizers.moments import adabelief, adam, adamax, adamw, lamb, nadamw, radam, yogi
from vmaptune.optimizers.momentum import lars, lion, sgd
from vmaptune.optimizers.rules import Optimizer, opened
from vmaptune.optimizers.squares import adadelta, adafactor, adagrad, rmsprop

__all__ = [
    "OPTIMIZERS",
    "Optimizer",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "averages",
    "evaluation_params",
    "lamb",
    "lars",
    "lion",
    "muon",
    "nadamw",
    "opened",
    "prodigy",
    "radam",
    "rmsprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "yogi",
]

OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": adamw,
    "sgd": sgd,
    "adam": adam,
    "nadamw": nadamw,
    "radam": radam,
    "adabelief": adabelief,
    "adamax": adamax,
    "yogi": yogi,
    "lamb": lamb,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "adafactor": adafactor,
    "lars": lars,
    "lion": lion,
    "muon": muon,
    "schedule_free_sgd": schedule_free_sgd,
    "schedule_free_adamw": schedule_free_adamw,
    "prodigy": prodigy,
}
"""The names that `optimizer.name` may take."""
