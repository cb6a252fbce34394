"""Checkpoints of a run's state, by Orbax: written in the background, whole or not at all.

Leaves are copied to the host before the call returns, because the next segment donates their buffers. They are stored
under their dotted paths, so a checkpoint can be read without this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np


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
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, generation: int, state: Any) -> None:
        """Starts writing the state as it stands after a generation; waits only for the one before."""
        host = {path: np.array(leaf) for path, leaf in flatten(state).items() if leaf.size}
        self._manager.save(generation, args=self._ocp.args.StandardSave(host), force=True)

    def newest(self, at_most: int) -> int:
        """The newest generation that can be restored and is not after `at_most`, or -1."""
        return max([step for step in self._manager.all_steps() if step <= at_most], default=-1)

    def restore(self, generation: int, like: Any) -> Any:
        """Reads a state back, bit for bit.

        Args:
            generation: Which.
            like: A state of the same structure and shapes; its values do not matter, its shardings do.
        """
        template = flatten(like)
        wanted = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in template.items() if leaf.size}
        host = self._manager.restore(
            generation, args=self._ocp.args.StandardRestore({p: np.empty(s.shape, s.dtype) for p, s in wanted.items()})
        )
        leaves = [
            jax.device_put(np.asarray(host[path]), leaf.sharding) if leaf.size else leaf for path, leaf in template.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def drop_after(self, generation: int) -> None:
        """Deletes what is newer than a generation: its rows are gone, and it will be made again."""
        for step in self._manager.all_steps():
            if step > generation:
                self._manager.delete(step)

    def close(self) -> None:
        """Waits until the last one is written."""
        self._manager.wait_until_finished()
        self._manager.close()
