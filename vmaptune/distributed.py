"""Several processes or hosts as one run: each is started with the same command, and all run the same program in step.

Process 0 writes the history; checkpoints are written by all, to a folder that all of them see. What the host decides
between two dispatches (how many generations come next, whether to stop) is agreed on here, so that nobody waits for a
collective that another never calls. With a single process every function here is the identity.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from vmaptune.errors import ConfigError, VmaptuneError

T = TypeVar("T")

_TEXT = 4096

# How launchers say how many processes there are.
_COUNTS = ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def start(wanted: bool | None = None) -> None:
    """Joins the other processes of this run, if there are any. Before anything else touches a device.

    Slurm, Open MPI, Kubernetes and TPU pods are found by JAX. By hand: `JAX_COORDINATOR_ADDRESS` (host:port of process 0),
    `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Args:
        wanted: True: join. False: run alone. None: join if a launcher says that there are several processes.

    Raises:
        ConfigError: There is nobody to join, or it did not work.
    """
    if jax.distributed.is_initialized() or not (_several() if wanted is None else wanted):
        return
    _keep_stdout()
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM stays ours; all stop at the same dispatch anyway
    numbers = [os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
    try:
        count, process = (None if number is None else int(number) for number in numbers)
        by_hand = "deactivate" if None not in (count, process) else None
        jax.distributed.initialize(num_processes=count, process_id=process, cluster_detection_method=by_hand)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        names = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        raise ConfigError(f"--distributed: cannot join the other processes: {first}; without a launcher, set {names}") from None


def _keep_stdout() -> None:
    """Leaves stdout to results: the libraries that connect processes write to it as well, from C++; that goes to stderr."""
    sys.stdout.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    os.dup2(2, 1)


def _several() -> bool:
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or any(os.environ.get(name, "1") not in ("", "1") for name in _COUNTS)


def is_main() -> bool:
    """True in the one process that writes the history and speaks to the user."""
    return jax.process_index() == 0


def alone() -> bool:
    """True if this process is the whole run."""
    return jax.process_count() == 1


def agreed(number: int) -> int:
    """Process 0's number, in all processes."""
    if alone():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def texts(text: str) -> list[str]:
    """The text of each process, in order, in all processes; at most a few thousand bytes of each."""
    if alone():
        return [text]
    from jax.experimental import multihost_utils

    buffer = np.zeros(_TEXT, np.uint8)
    data = np.frombuffer(text.encode()[:_TEXT], np.uint8)
    buffer[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(buffer)).reshape(-1, _TEXT)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows]


def together(do: Callable[[], T]) -> T:
    """Does something that may fail in one process alone; then it fails in all, with the same sentence, and nobody waits.

    Raises:
        VmaptuneError: What it raised here, or in another process.
    """
    if alone():
        return do()
    problem: VmaptuneError | None = None
    try:
        result = do()
    except VmaptuneError as error:
        problem = error
    told = [text for text in texts(str(problem) if problem else "") if text]
    if problem:
        raise problem
    if told:
        raise VmaptuneError(told[0])
    return result


def anyone(flag: bool) -> bool:
    """True in all processes if it is true in one of them."""
    if alone():
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


def put(tree: Any, sharding: Any) -> Any:
    """`jax.device_put` of what every process holds whole, also onto devices of other processes."""
    if alone():
        return jax.device_put(tree, sharding)

    def one(leaf: Any, where: Any) -> Any:
        if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(leaf), where)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, where, lambda index: host[index])

    broadcast = jax.tree.map(lambda where, part: jax.tree.map(lambda _: where, part), sharding, tree, is_leaf=_is_sharding)
    return jax.tree.map(one, tree, broadcast)


def _is_sharding(x: Any) -> bool:
    return isinstance(x, jax.sharding.Sharding)
