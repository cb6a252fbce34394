"""Handwritten digits: the task of the examples and benchmarks."""

from __future__ import annotations

from typing import Any, Literal

from vmaptune.data import embedded
from vmaptune.data.preparation import Scale
from vmaptune.settings import with_settings
from vmaptune.tasks.contract import Task
from vmaptune.tasks.networks import mlp
from vmaptune.tasks.supervised import classification

PIXELS = Scale(0.0, 16.0)
"""What was taken out of the pixels of scikit-learn's digits, which are 0 to 16."""


def digits(*, model: Literal["mlp"] = "mlp", **network: Any) -> Task:  # noqa: D417 - the network documents its own
    """Handwritten digits (scikit-learn, embedded): 1,797 images of 8x8, ten classes, classified by a small network.

    Args:
        model: The network.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    networks = {"mlp": mlp}
    task = classification(networks[model](64, 10, **network), embedded.digits(), where="task digits")
    return task.prepared(inputs=PIXELS)


with_settings(digits, mlp)
