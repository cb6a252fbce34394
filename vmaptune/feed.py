"""What each generation trains on: data that lies on the devices, or is streamed to them a chunk at a time.

Data that does not fit a device stays on the host, in memory or in a memory-mapped file. The order of examples is a pure
function of the run's key and a step, so the host knows which of them a generation will see: it gathers them in the order of
their batches, into a chunk, and sends the next chunk while a device trains on this one. A member sees the same numbers
either way; the device holds two chunks, at most.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.data.batching import Batches
from vmaptune.distributed import alone, put
from vmaptune.errors import ConfigError
from vmaptune.plan import Plan, bytes_of, memory_limit
from vmaptune.population import root_key
from vmaptune.programs import Program
from vmaptune.recipe import Recipe
from vmaptune.tasks import Task
from vmaptune.train import Inputs, make_inputs, shared_rows

Placement = Literal["auto", "device", "host"]
_SHARE = 0.4  # of a device's memory that training data may take before they are streamed: the rest is for members


def placed(batches: Batches, task: Task, placement: Placement, *, steps: int) -> Batches:
    """Decides where training data lie.

    Args:
        batches: How they are cut.
        task: Whose they are.
        placement: What is asked for; auto: on the host where they and the validation split, which is always on the devices,
            would take too much of a device's memory, and where two chunks are smaller than they are.
        steps: Of a chunk.

    Raises:
        ConfigError: Data that are to be streamed, though each trial sees them in an order of its own.
    """
    if placement == "auto":
        train, validation = bytes_of(task.splits.train), bytes_of(task.splits.validation)
        chunks = 2 * steps * batches.size * train / task.splits.size("train")
        large = alone() and train + validation > _SHARE * memory_limit() and chunks < train
        return batches._replace(streamed=large and batches.order == "shared")
    if placement == "host" and batches.order != "shared":
        raise ConfigError(f"data.placement: host needs batch.order = 'shared'; given: {batches.order!r}")
    return batches._replace(streamed=placement == "host")


class Feed:
    """The inputs of the generations of a run.

    Args:
        recipe: How members are trained.
        batches: How the training split is cut, and whether it is streamed.
        seed: Seed of the run, or its key.
        plan: Layout.
        segment_steps: Steps of a generation.
        ahead: Steps of its look-ahead.
        round_: Generations after which the order begins anew.
    """

    def __init__(
        self,
        recipe: Recipe,
        batches: Batches,
        *,
        seed: jax.Array | int,
        plan: Plan,
        segment_steps: int,
        ahead: int = 0,
        round_: int = 1,
    ) -> None:
        """Puts on the devices what stays there."""
        self.streamed = batches.streamed
        self._inputs = make_inputs(recipe, batches, seed=seed, plan=plan)
        self._plan, self._steps, self._round = plan, segment_steps, round_
        self._chunk: tuple[int, Any] = (-1, None)
        if self.streamed:
            self._split = recipe.task.splits.train
            self._rows = Program("rows", partial(_rows_of, batches, steps=segment_steps + ahead))
            self._root, self._table = root_key(seed), () if batches.rows is None else batches.rows
            self._order = 0, self._rows_at(0)

    def __call__(self, generation: int) -> Inputs:
        """The inputs of a generation; of any, where data lie on the devices."""
        if not self.streamed:
            return self._inputs
        if self._chunk[0] != generation:
            self.prepare(generation)
        (_, chunk), self._chunk = self._chunk, (-1, None)
        self._order = generation + 1, self._rows_at(generation + 1)  # ahead of the training that a device will be busy with
        return self._inputs._replace(train=chunk)

    def prepare(self, generation: int) -> None:
        """Gathers the chunk of a generation and begins to send it, while another is trained on."""
        if self.streamed:
            rows = np.asarray(self._order[1] if self._order[0] == generation else self._rows_at(generation))
            chunk = jax.tree.map(lambda leaf: gathered(leaf, rows), self._split)
            self._chunk = generation, put(chunk, self._plan.everywhere)

    def _rows_at(self, generation: int) -> Any:
        return self._rows(self._root, jnp.int32(generation % self._round * self._steps), self._table)


def _rows_of(batches: Batches, root: jax.Array, start: jax.Array, table: Any, *, steps: int) -> jax.Array:
    return shared_rows(batches, root, start, steps, table).reshape(-1)


def gathered(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]`, read from a memory-mapped file in its order: neighbours together."""
    order = np.argsort(rows, kind="stable")
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for at in np.array_split(order, max(1, len(order) // 4096)):
        found[at] = array[rows[at]]
    return found
