"""What a finished run leaves to be used elsewhere: the folder `best/`.

hyperparameters.toml   a config that `vmaptune run` takes: one member, every searched setting at the winner's value
schedule.csv           every hyperparameter at every step of the winner's lineage, as it was applied
preprocessing.json     how raw data become its inputs, and its outputs answers, where the task knows
weights.safetensors    its weights and model state
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.anneal import anneal
from vmaptune.config import RunConfig
from vmaptune.finetuning import whole
from vmaptune.plan import Plan
from vmaptune.plateau import SCALE
from vmaptune.population import Member
from vmaptune.programs import Program
from vmaptune.recipe import LEARNING_RATE, Recipe
from vmaptune.store.checkpoints import flatten
from vmaptune.store.folder import RunFolder, write_text
from vmaptune.store.reading import Ancestor
from vmaptune.tasks import Task
from vmaptune.toml import to_toml
from vmaptune.train import make_evaluate


def shortest(value: Any) -> float:
    """A float32 as the shortest decimal that is still the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))


def test_metrics(task: Task, member: Member) -> dict[str, float]:
    """Reads the test split for one member, given without the population axis."""
    evaluate = make_evaluate(task, split="test", plan=Plan(devices=1, chunk=1))
    alone = jax.tree.map(lambda leaf: np.asarray(leaf)[None], member)
    return {name: shortest(value[0]) for name, value in jax.device_get(evaluate(alone)).items()}


def write_winner(
    folder: RunFolder,
    config: RunConfig,
    task: Task,
    params: Any,
    model_state: Any,
    values: Mapping[str, float],
    lineage: Sequence[Ancestor],
    header: str,
) -> None:
    """Writes `best/`: each file whole or not at all.

    Args:
        folder: The run.
        config: Its config.
        task: Its task.
        params: The winner's weights, on the host: those that were evaluated.
        model_state: Its model state.
        values: Its hyperparameters by dotted name.
        lineage: Whose steps its weights were trained by.
        header: Comment at the top of hyperparameters.toml.
    """
    write_text(folder.best / "hyperparameters.toml", to_toml(config.with_values(values), task, header=header))
    write_text(folder.best / "schedule.csv", schedule_csv(config, config.recipe(task), lineage))
    write_preprocessing(folder, task)
    write_weights(folder, params, model_state)


def schedule_csv(config: RunConfig, recipe: Recipe, lineage: Sequence[Ancestor]) -> str:
    """The hyperparameters in force at each step of a lineage, and of the look-ahead that it was judged by, if any.

    Columns: step, trial, then every traced setting of the optimizer and the loss, with schedules applied.
    """
    length, ahead = config.population.segment_steps, config.lookahead
    steps = np.concatenate([np.arange(a.step - length, a.step) for a in lineage]).astype(np.int32)
    whose = np.repeat(np.arange(len(lineage)), length)
    fall = np.ones(len(steps), np.float32)
    if ahead.steps:
        numbers = lineage[-1].step + np.arange(ahead.steps, dtype=np.int32)
        steps, whose = np.concatenate([steps, numbers]), np.append(whose, [len(lineage) - 1] * ahead.steps)
        remaining = (ahead.steps - np.arange(ahead.steps)) / ahead.steps
        fall = np.append(fall, np.asarray(anneal(jnp.asarray(remaining, jnp.float32), ahead.shape)))
    space = recipe.space
    values: dict[str, Any] = {name: np.full(len(steps), value, np.float32) for name, value in space.constants.items()}
    for name in [*space.axes, *([SCALE] if recipe.on_plateau else [])]:
        values[name] = np.array([a.values[name] for a in lineage], np.float32)[whose]
    held = np.minimum(steps, lineage[-1].step)  # a look ahead leaves all else as it was when it began
    shaped = jax.device_get(Program("schedule", jax.vmap(recipe.shaped))(values, jnp.asarray(held)))
    if ahead.steps:
        shaped[LEARNING_RATE] = shaped[LEARNING_RATE] * fall
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "trial", *shaped])
    for i in range(len(steps)):
        writer.writerow([steps[i], lineage[whose[i]].trial, *(_decimal(column[i]) for column in shaped.values())])
    return text.getvalue()


def _decimal(value: np.float32) -> str:
    """The shortest text that reads back as the same float32."""
    return str(np.float32(value))


def weights_of(params: Any, model_state: Any) -> dict[str, Any]:
    """Weights and model state by dotted path, as the model itself has them, whatever of its parameters is frozen."""
    params, model_state = whole(params, model_state)
    return flatten({"params": params, "model_state": model_state})


def write_preprocessing(folder: RunFolder, task: Task) -> None:
    """Writes how raw data become inputs, if the task knows."""
    if task.serving:
        write_text(folder.best / "preprocessing.json", task.serving.preparation.as_json())


def write_weights(folder: RunFolder, params: Any, model_state: Any) -> None:
    """Writes weights and model state by dotted path: `params.head.kernel`, `model_state.norm.mean`; frozen ones as any."""
    from safetensors.numpy import save_file

    weights = weights_of(params, model_state)
    tensors = {path: np.asarray(array, order="C") for path, array in weights.items()}
    partial = folder.best / "weights.safetensors.partial"
    save_file(tensors, partial)
    partial.replace(folder.best / "weights.safetensors")
