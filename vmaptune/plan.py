"""How a population is laid on the hardware: devices times members per chunk.

Slots are cut into as many equal blocks as there are devices; each device trains its block in chunks, one chunk after
another. Members never talk to each other while they train, so a block runs under `shard_map` without any collective.

On a CPU the lockstep threading of small operations leaves cores idle, so XLA is asked for one virtual device a core,
which must happen before its backend starts.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vmaptune.errors import ConfigError

AXIS = "population"


class Plan(NamedTuple):
    """A layout of the population.

    Attributes:
        devices: Number of devices that share the population.
        chunk: Members that one device trains side by side; it walks through its block chunk by chunk.
    """

    devices: int
    chunk: int

    @property
    def mesh(self) -> Mesh:
        """The devices, as a mesh over the population axis."""
        return jax.make_mesh((self.devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[: self.devices])

    @property
    def slots(self) -> NamedSharding:
        """Sharding of an array whose leading axis is the slots."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def everywhere(self) -> NamedSharding:
        """Sharding of an array that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())


def prepare_backend() -> None:
    """Asks XLA for one virtual CPU device a core, if its backend has not started and nobody else has asked.

    Without effect on GPUs and TPUs, or when the number of CPU devices is already set (`JAX_NUM_CPU_DEVICES`, `XLA_FLAGS`).
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    with suppress(
        RuntimeError
    ):  # the backend runs already, in a program that uses jax itself: its devices are taken as they are
        jax.config.update("jax_num_cpu_devices", _cores())


def _cores() -> int:
    """Cores this process may use: its affinity, and no more than its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max": no quota
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123 (a room that knows no files)
            quota, period = file.read().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def make_plan(size: int, *, devices: int = 0, chunk: int = 0) -> Plan:
    """Lays N slots out.

    Args:
        size: N.
        devices: Devices to use; 0: the most that divide N.
        chunk: Members per chunk; 0: a device's whole block.

    Raises:
        ConfigError: There are not so many devices, or N does not divide evenly.
    """
    available = jax.device_count()
    if devices > available:
        raise ConfigError(f"plan.devices: only {available} available; given: {devices}")
    if devices and size % devices:
        raise ConfigError(f"plan.devices: must divide population.size = {size}; given: {devices}")
    devices = devices or max(d for d in range(1, available + 1) if size % d == 0)
    block = size // devices
    if chunk and block % chunk:
        raise ConfigError(
            f"plan.chunk: must divide the {block} members of a device (population.size / plan.devices); given: {chunk}"
        )
    return Plan(devices, chunk or block)
