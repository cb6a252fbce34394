"""Types of the settings that many rows share: the legal range, and where people search."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vmaptune.settings import NonNegative, Positive, Rate, Usual

Momentum = Annotated[Rate, Usual(0.5, 0.99)]
FirstMoment = Annotated[Rate, Usual(0.8, 0.98)]
SecondMoment = Annotated[Rate, Usual(0.9, 0.9999)]
Epsilon = Annotated[Positive, Usual(1e-10, 1e-3, "log")]
Gentle = Annotated[NonNegative, Usual(1e-5, 1e-1, "log")]  # learning rates of steps of about unit size, as Adam's
Steep = Annotated[NonNegative, Usual(1e-3, 1.0, "log")]  # learning rates of steps proportional to the gradient, as SGD's
Relative = Annotated[NonNegative, Usual(1e-1, 1e1, "log")]  # learning rates that multiply a step which has a scale already
NormEpsilon = Annotated[NonNegative, Usual(1e-6, 1.0, "log")]
Power = Annotated[NonNegative, Usual(0.0, 4.0)]
Interpolation = Annotated[float, Meta(gt=0, lt=1), Usual(0.8, 0.98)]
