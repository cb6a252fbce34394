"""The networks of shipped tasks, built from what a run folder says: without the data that they were trained on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vmaptune.models import Model
from vmaptune.tasks.images import arrays_network
from vmaptune.tasks.networks import cnn, mlp
from vmaptune.tasks.series import series_network
from vmaptune.tasks.text import text_network


def network_of(name: str, shape: tuple[int, ...], outputs: int, table: Mapping[str, Any]) -> Model | None:
    """The network of a task.

    Args:
        name: Of the task.
        shape: Of one example, as the network takes it.
        outputs: Numbers that it returns for an example.
        table: The task's settings, whole: `[task]` of the run's config.

    Returns:
        The network, or None for a task of the user's own.
    """
    if name not in _NETWORKS:
        return None
    build, of = _NETWORKS[name]
    known = inspect.signature(of).parameters
    return build(shape, outputs, **{setting: value for setting, value in table.items() if setting in known})


def _mlp(shape: tuple[int, ...], outputs: int, **settings: Any) -> Model:
    return mlp(shape[0], outputs, **settings)


_NETWORKS: dict[str, tuple[Callable[..., Model], Callable[..., Any]]] = {
    **dict.fromkeys(("digits", "breast_cancer", "diabetes", "table"), (_mlp, mlp)),
    **dict.fromkeys(("digits_cnn", "images"), (partial(cnn, where="the run"), cnn)),
    "arrays": (arrays_network, cnn),
    "text": (text_network, text_network),
    "series": (series_network, series_network),
}
