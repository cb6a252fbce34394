"""How a population is laid on the hardware: devices times members per chunk.

Slots are cut into as many equal blocks as there are devices; each device trains its block in chunks, one chunk after
another. Members never talk to each other while they train, so a block runs under `shard_map` without any collective.
Where N does not come out even, slots are added that nobody sees again.

On a CPU the lockstep threading of small operations leaves cores idle, so XLA is asked for one virtual device a core,
which must happen before its backend starts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vmaptune.distributed import alone
from vmaptune.errors import ConfigError
from vmaptune.lowering import Lowering, canonical

AXIS = "population"

T = TypeVar("T")


class Plan(NamedTuple):
    """A layout of the population.

    Attributes:
        devices: Number of devices that share the population.
        chunk: Members that one device trains side by side; it walks through its block chunk by chunk. With 1, a member's
            program does not depend on N, and neither do its results (the strict plan).
        lowering: How convolutions are computed. grouped: as `vmap` leaves them, those of a chunk as one grouped
            convolution. canonical: the same with dimensions in the order that XLA's fast CPU code wants. im2col: as
            matrix products of shifted inputs.
        unroll: Training steps in one iteration of the compiled loop.
    """

    devices: int
    chunk: int
    lowering: Lowering = "grouped"
    unroll: int = 1

    @property
    def mesh(self) -> Mesh:
        """The devices, as a mesh over the population axis."""
        return jax.make_mesh((self.devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[: self.devices])

    @property
    def everywhere(self) -> NamedSharding:
        """Sharding of an array that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def slots(self, n: int) -> NamedSharding:
        """Sharding of an array whose leading axis is n slots; held whole by every device where n does not come out even."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS)) if n % self.devices == 0 else self.everywhere

    def chunks(self, n: int) -> tuple[int, int]:
        """Chunks on each device, and members in each of them, all about equally wide."""
        block = math.ceil(n / self.devices)
        count = math.ceil(block / self.chunk)
        return count, math.ceil(block / count)

    def padded(self, n: int) -> int:
        """Slots that are computed for n members."""
        return self.devices * math.prod(self.chunks(n))

    def __str__(self) -> str:
        """In words: `2 devices x 8 members, canonical`."""
        unrolled = f", unroll {self.unroll}" if self.unroll > 1 else ""
        devices = "1 device" if self.devices == 1 else f"{self.devices} devices"
        return f"{devices} x {'1 member' if self.chunk == 1 else f'{self.chunk} members'}, {self.lowering}{unrolled}"


def prepare_backend() -> None:
    """Asks XLA for one virtual CPU device a core, if its backend has not started and nobody else has asked.

    Without effect on GPUs and TPUs, or when the number of CPU devices is already set (`JAX_NUM_CPU_DEVICES`, `XLA_FLAGS`).
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    with suppress(RuntimeError):  # the backend runs already, in a program that uses jax itself: its devices stay
        jax.config.update("jax_num_cpu_devices", _cores())


def idle_cores() -> int:
    """Cores that training cannot use, because the CPU backend was started with fewer devices."""
    return max(0, _cores() - jax.device_count()) if jax.default_backend() == "cpu" and alone() else 0


def _cores() -> int:
    """Cores this process may use: its affinity, and no more than its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max": no quota
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123 (a room that knows no files)
            quota, period = file.read().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def memory_limit() -> int:
    """Bytes that one device may take: what the device says, or its share of the machine's memory or the container's."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return int(stats["bytes_limit"])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = "/sys/fs/cgroup/memory.max"
    with suppress(OSError, ValueError), open(limit, encoding="ascii") as file:  # noqa: PTH123 (a room that knows no files)
        total = min(total, int(file.read()))  # no such file, or "max": no limit
    return total // jax.local_device_count()


def bytes_of(tree: Any) -> int:
    """Bytes of all arrays of a pytree, or of what will be arrays of these shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def fitted(plan: Plan, n: int) -> Plan:
    """The plan where there are only n slots."""
    devices = min(plan.devices, n) if alone() and plan.chunk > 1 else plan.devices
    return plan._replace(devices=devices, chunk=min(plan.chunk, math.ceil(n / devices)))


def is_out_of_memory(error: Exception) -> bool:
    """True if that is what JAX's error says."""
    return "RESOURCE_EXHAUSTED" in str(error)


def make_plan(
    n: int, *, devices: int = 0, chunk: int = 0, lowering: Lowering | None = None, unroll: int = 0, strict: bool = False
) -> Plan:
    """Lays N slots out by rule of thumb; `vmaptune.planner` measures instead.

    Args:
        n: N.
        devices: Devices to use; 0: all of them, but never more than N, unless several processes or a strict plan need all.
        chunk: Members per chunk; 0: eight on a CPU, whose caches hold no more, a device's whole block elsewhere.
        lowering: How convolutions are computed; default: canonical on a CPU, grouped elsewhere.
        unroll: Steps per iteration of the compiled loop; 0: one.
        strict: Choose what makes a member's results independent of N: chunks of one member, on as many devices for any N.

    Raises:
        ConfigError: There are not so many devices, or members.
    """
    available, cpu = jax.device_count(), jax.default_backend() == "cpu"
    if devices > available:
        raise ConfigError(f"plan.devices: only {available} available; given: {devices}")
    if not alone() and devices and devices != available:  # every process must have a part in every program
        raise ConfigError(f"plan.devices: several processes use all of their {available} devices; given: {devices}")
    if alone() and not strict and devices > n:
        raise ConfigError(f"plan.devices: more than population.size = {n}; given: {devices}")
    if strict and chunk > 1:
        raise ConfigError(f"plan.chunk: the strict plan trains members one by one, in chunks of 1; given: {chunk}")
    devices = devices or (min(available, n) if alone() and not strict else available)
    block = math.ceil(n / devices)
    chunk = min(block, chunk or (1 if strict else 8 if cpu else block))
    return Plan(devices, chunk, lowering or ("canonical" if cpu else "grouped"), unroll or 1)


def spread(fn: Callable[..., T], plan: Plan, shared: Any, members: Any) -> T:
    """`vmap(fn(shared, member))` over members, as a plan lays them out. Traceable.

    Args:
        fn: `(shared, member) -> result`, for one member.
        plan: The layout.
        shared: What all members see; a pytree, or None.
        members: A pytree whose leaves have a leading axis N.

    Returns:
        The results, stacked along a leading axis N.
    """
    n = len(jax.tree.leaves(members)[0])
    block = math.ceil(n / plan.devices)
    count, chunk = plan.chunks(n)
    everywhere, slots = PartitionSpec(), PartitionSpec(AXIS)

    def rewritten(of_members: Callable[..., T]) -> Callable[..., T]:
        return canonical(of_members) if plan.lowering == "canonical" else of_members

    def one_by_one(shared: Any, members: Any) -> T:
        """Without `vmap`: matrix products with a leading axis of one are slower than those without it."""
        alone = rewritten(partial(fn, shared))
        if count == 1:
            return jax.tree.map(lambda leaf: leaf[None], alone(jax.tree.map(lambda leaf: leaf[0], members)))
        return jax.lax.map(alone, members)

    def chunk_by_chunk(shared: Any, members: Any) -> T:
        side_by_side = rewritten(jax.vmap(partial(fn, shared)))
        if count == 1:
            return side_by_side(members)
        chunks = jax.tree.map(lambda leaf: leaf.reshape(count, chunk, *leaf.shape[1:]), _padded(members, count * chunk))
        results = jax.lax.map(side_by_side, chunks)
        return jax.tree.map(lambda leaf: leaf.reshape(count * chunk, *leaf.shape[2:])[:block], results)

    mapped = jax.shard_map(
        one_by_one if chunk == 1 else chunk_by_chunk,
        mesh=plan.mesh,
        in_specs=(everywhere, slots),
        out_specs=slots,
        check_vma=False,
    )
    results = mapped(shared, _padded(members, plan.devices * block))
    return jax.tree.map(lambda leaf: leaf[:n], results) if plan.devices * block > n else results


def _padded(members: Any, size: int) -> Any:
    """Fills up with copies of the last member: whatever it does, they do, and are cut off again."""
    dead = size - len(jax.tree.leaves(members)[0])
    if not dead:
        return members
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], dead, axis=0)]), members)
