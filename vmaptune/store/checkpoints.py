"""Checkpoints of a run's state, by Orbax: written in the background, whole or not at all.

A state is copied to the host first, because the next dispatch reuses its buffers. Leaves are stored whole under their
dotted paths, so a checkpoint can be read without this package, and resumed on other hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.errors import StoreError


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by path: `params.head.kernel`, or `['params']['a.b']` where dots would make two paths one."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    dotted = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return dotted if len(dotted) == len(leaves) else {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


class Checkpoints:
    """The checkpoints in a folder; the newest two are kept.

    Args:
        folder: Where; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder and clears what a killed process left half-written."""
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    @staticmethod
    def snapshot(state: Any) -> dict[str, Any]:
        """Copies a state, so that its buffers can be used again: what `save` takes.

        To the host; on the devices where a state is spread over several processes, each of which then writes its part.
        """
        leaves = {path: _as_data(leaf) for path, leaf in flatten(state).items() if leaf.size}
        if all(leaf.is_fully_addressable for leaf in leaves.values()):
            return {path: np.array(leaf) for path, leaf in leaves.items()}
        return _copied(leaves)

    def save(self, generation: int, snapshot: Mapping[str, Any]) -> None:
        """Starts writing the state as it stood after a generation; waits only for the one before.

        Raises:
            StoreError: That one could not be written.
        """
        with self._told("written"):
            self._manager.save(generation, args=self._ocp.args.StandardSave(dict(snapshot)), force=True)

    def restore_newest(self, at_most: int, like: Callable[[int], Any]) -> tuple[int, Any]:
        """Reads the newest whole checkpoint back, bit for bit.

        Args:
            at_most: The newest generation to consider.
            like: Makes a state of the structure and shapes that a generation's has; its values do not matter, its shardings
                do.

        Returns:
            The generation, and the state after it; -1 and None if there is no checkpoint.

        Raises:
            StoreError: There are checkpoints, but not one of them can be read.
        """
        self.wait()
        steps = sorted((step for step in self._manager.all_steps() if step <= at_most), reverse=True)
        problem: Exception | None = None
        for step in steps:
            try:
                return step, self._restore(step, like(step))
            except Exception as error:
                problem = error
        if problem is not None:
            first = str(problem).partition("\n")[0]
            raise StoreError(f"{self._folder}: none of the checkpoints {steps} can be read: {first}") from problem
        return -1, None

    def _restore(self, generation: int, like: Any) -> Any:
        template = flatten(like)
        wanted = {path: _wanted(_as_data(leaf)) for path, leaf in template.items() if leaf.size}
        found = self._manager.restore(generation, args=self._ocp.args.StandardRestore(wanted))
        leaves = [_like(found[path], leaf) if leaf.size else leaf for path, leaf in template.items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def drop_after(self, generation: int) -> None:
        """Deletes what is newer than a generation: its rows are gone, and it will be made again."""
        for step in self._manager.all_steps():
            if step > generation:
                self._manager.delete(step)

    def wait(self) -> None:
        """Waits until the last one is written.

        Raises:
            StoreError: It could not be.
        """
        with self._told("written"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until the last one is written, and lets go of the folder."""
        try:
            self.wait()
        finally:
            self._manager.close()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turns whatever Orbax raises into one sentence."""
        try:
            yield
        except Exception as error:
            first = str(error).partition("\n")[0]
            raise StoreError(f"{self._folder}: a checkpoint could not be {what}: {first}") from error


def _as_data(leaf: Any) -> Any:
    """A typed PRNG key as the integers it is made of; anything else as it is."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


@jax.jit
def _copied(tree: Any) -> Any:
    """Copies that live on when the originals are donated."""
    return jax.tree.map(jnp.copy, tree)


def _wanted(leaf: Any) -> Any:
    """How to restore a leaf: whole on the host, or each process its part."""
    if leaf.is_fully_addressable:
        return np.empty(leaf.shape, leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _like(value: Any, leaf: Any) -> Any:
    """A restored array as the leaf it was: on its devices, and a key again if it was one."""
    array = value if isinstance(value, jax.Array) and not value.is_fully_addressable else np.asarray(value)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        array = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return array if isinstance(array, jax.Array) and not array.is_fully_addressable else jax.device_put(array, leaf.sharding)
