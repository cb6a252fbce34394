"""Weights on file and weights in a task's own form: the winner's, an ensemble's, and those of a run's last checkpoint."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vmaptune.config import RunConfig
from vmaptune.data.weights import read_weights
from vmaptune.errors import StoreError
from vmaptune.finetuning import Frozen, whole
from vmaptune.optimizers import evaluation_params
from vmaptune.population import Member, Status, make_newborn, unborn
from vmaptune.store.checkpoints import flatten
from vmaptune.store.folder import RunFolder
from vmaptune.tasks import Task

_ENSEMBLE = "ensemble.json"


class Candidate(NamedTuple):
    """A member of the last checkpoint, with the weights that it is evaluated by.

    Attributes:
        trial: Number of its trial.
        step: Steps it has been trained.
        params: Its weights, as the model itself has them, on the host.
        model_state: Its model state, likewise.
    """

    trial: int
    step: int
    params: Any
    model_state: Any


def shapes_of(task: Task) -> tuple[Any, Any]:
    """Shapes of a task's weights and model state, as the model itself has them, whatever is frozen."""
    return whole(*_born(task))


def tree_from(arrays: Mapping[str, np.ndarray], like: tuple[Any, Any], where: str) -> tuple[Any, Any]:
    """Weights and model state from arrays by dotted path.

    Args:
        arrays: As in `weights.safetensors`.
        like: Shapes of both.
        where: What to call the file in an error.

    Raises:
        StoreError: An array is missing, or of another shape.
    """
    tree = dict(zip(("params", "model_state"), like, strict=True))
    leaves = []
    for path, leaf in flatten(tree).items():
        if path not in arrays or arrays[path].shape != leaf.shape:
            given = f"shape {arrays[path].shape}" if path in arrays else "none"
            raise StoreError(f"{where}: of another network: expected {path} of shape {leaf.shape}; given: {given}")
        leaves.append(arrays[path])
    tree = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return tree["params"], tree["model_state"]


def as_trained(task: Task, params: Any, model_state: Any) -> tuple[Any, Any]:
    """Weights and model state as the task has them: what is frozen stands in the state."""
    trained, state = _born(task)
    if not isinstance(state, Frozen):
        return params, model_state

    def only(where: Any) -> Any:
        return jax.tree.map(lambda wanted, leaf: None if wanted is None else leaf, where, params, is_leaf=lambda x: x is None)

    return only(trained), Frozen(only(state.params), model_state)


def _born(task: Task) -> tuple[Any, Any]:
    return jax.eval_shape(task.init, jax.eval_shape(lambda: jax.random.key(0)), task.sample)


# ----------------------------------------------------------------------------------------------------- last checkpoint


class _State(NamedTuple):
    """The parts of a run's state with weights, by the names that they have in a checkpoint."""

    population: Member
    champion: Any


class _Champion(NamedTuple):
    member: Member


def read_candidates(folder: RunFolder, config: RunConfig, task: Task) -> list[Candidate]:
    """The champion, then the sound members of the last checkpoint; none twice.

    Raises:
        StoreError: There is no checkpoint, or it cannot be read.
    """
    arrays = _newest_checkpoint(folder)
    slots = len(arrays["population.trial"])
    recipe = config.recipe(task)
    newborn = make_newborn(task, recipe.opened, seed=config.seed, replicates=config.population.seeds)
    like = unborn(newborn, slots, recipe.space.dimension)
    one = jax.tree.map(lambda leaf: leaf[0], like)
    template = flatten(_State(like, _Champion(one)))
    try:
        # What has no numbers in it is not stored; random keys of an optimizer's state are of no use here.
        leaves = [arrays.get(path, leaf) for path, leaf in template.items()]
        population, (champion,) = jax.tree.unflatten(jax.tree.structure(_State(like, _Champion(one))), leaves)
    except (KeyError, ValueError) as error:
        raise StoreError(f"{folder.checkpoints}: cannot be read as members of this run: {error}") from None
    living = [s for s in range(slots) if population.trial[s] >= 0 and population.status[s] == Status.OK]
    members = [champion, *(jax.tree.map(lambda leaf, s=s: leaf[s], population) for s in living)]
    found: dict[tuple[int, int], Candidate] = {}
    for member in members:
        params, model_state = whole(evaluation_params(member.opt_state, member.params), member.model_state)
        candidate = Candidate(int(member.trial), int(member.step), *jax.device_get((params, model_state)))
        found.setdefault((candidate.trial, candidate.step), candidate)
    return list(found.values())


def _newest_checkpoint(folder: RunFolder) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint by path."""
    import orbax.checkpoint as ocp

    steps = sorted(int(path.name) for path in folder.checkpoints.glob("*") if path.name.isdecimal())
    if not steps:
        raise StoreError(f"{folder.path}: there is no checkpoint, so only the winner's weights are left")
    try:
        handler = ocp.StandardCheckpointHandler()
        with ocp.CheckpointManager(folder.checkpoints.resolve(), item_handlers=handler) as manager:
            shapes = manager.item_metadata(steps[-1])
            wanted = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in dict(shapes).items()}
            found = manager.restore(steps[-1], args=ocp.args.StandardRestore(wanted))
        return {name: np.asarray(leaf) for name, leaf in found.items()}
    except Exception as error:  # Orbax has none of its own
        raise StoreError(f"{folder.checkpoints}: cannot be read: {str(error).partition(chr(10))[0]}") from error


# ------------------------------------------------------------------------------------------------------------ ensembles


def write_ensemble(folder: RunFolder, facts: Mapping[str, Any], members: Mapping[str, tuple[Any, Any]]) -> Path:
    """Writes `ensemble/`, in place of one that was there: the facts, and a safetensors file a member.

    Args:
        folder: The run.
        facts: As JSON values; `picks` names members in the order in which they were picked.
        members: Weights and model state by name.
    """
    from safetensors.numpy import save_file

    home, partial = folder.path / "ensemble", folder.path / "ensemble.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, (params, model_state) in members.items():
            tensors = flatten({"params": params, "model_state": model_state})
            save_file({path: np.asarray(a, order="C") for path, a in tensors.items()}, partial / f"{name}.safetensors")
        (partial / _ENSEMBLE).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        shutil.rmtree(home, ignore_errors=True)
        partial.replace(home)
    except OSError as error:
        raise StoreError(f"{home}: cannot be written: {error.strerror}") from None
    return home


def read_ensemble(folder: RunFolder, size: int) -> list[tuple[float, Mapping[str, np.ndarray]]]:
    """The first picks of a run's ensemble: shares and arrays.

    Raises:
        StoreError: The run has no ensemble, or one of fewer picks.
    """
    home = folder.path / "ensemble"
    try:
        facts = json.loads((home / _ENSEMBLE).read_text(encoding="utf-8"))
        picks: Sequence[str] = facts["picks"]
    except FileNotFoundError:
        raise StoreError(f"{folder.path}: there is no ensemble yet: vmaptune ensemble {folder.path}") from None
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{home}: cannot be read: {error}") from None
    if size > len(picks):
        larger = f"vmaptune ensemble {folder.path} --method greedy --size {size}"
        one = "is a soup, one network" if facts.get("method") == "soup" else f"has {len(picks)} picks"
        raise StoreError(f"{home}: {one}; for {size}: {larger}")
    return [
        (count / size, read_weights(str(home / f"{name}.safetensors"), "ensemble").arrays)
        for name, count in Counter(picks[:size]).items()
    ]
