"""A winner's weights as an Orbax checkpoint, for those who read these."""

from __future__ import annotations

from pathlib import Path

from vmaptune.analysis.predictor import require_winner
from vmaptune.data.weights import read_weights
from vmaptune.errors import StoreError
from vmaptune.store.folder import RunFolder


def export_orbax(run: str | Path, out: str | Path) -> Path:
    """Writes the winner's weights and model state by dotted path, as in `best/weights.safetensors`.

    Plain Orbax reads them: `orbax.checkpoint.StandardCheckpointer().restore(path)` is a dict of arrays.

    Args:
        run: The run folder.
        out: Where to; a folder that is not there yet.

    Raises:
        StoreError: Not a run folder, no winner yet, or there is something at that place.
    """
    import orbax.checkpoint as ocp

    folder, path = RunFolder(run).require_run(), Path(out)
    require_winner(folder)
    if path.exists():
        raise StoreError(f"{path}: is there already; choose another place")
    weights = read_weights(str(folder.best / "weights.safetensors"), "weights").arrays
    with ocp.StandardCheckpointer() as writer:
        writer.save(path.resolve(), {name: array for name, array in weights.items() if array.size})
        writer.wait_until_finished()
    return path
