"""Runs the same search with vmaptune and with its peers, each in a process of its own, and compares whole processes.

    pip install -e '.[peers]'
    python scripts/bench_peers.py --only vmaptune --only ray-tune --members 16 --out peers

The work is in `peers/work.py`: handwritten digits, a perceptron 64-64-10, learning rate and weight decay searched. Peers take
turns, seed by seed, in an order that is turned by one every seed, so that a drift of the machine's speed touches all alike. A
peer that is not installed is skipped; one that fails is recorded as failed. Every run becomes a line of `results.jsonl`,
appended at once; `table.md` is made of all lines there (the newest of each run), so a long measurement may be made in parts.

Linux only: it reads /proc. Everything on the machine's processor, whatever else it has.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from peers.work import Work, tally

HERE = Path(__file__).parent
EVERY = 0.05  # seconds between two looks at a run's processes
SET_CHILD_SUBREAPER = 36  # of prctl: orphans among our descendants become our children, so none is lost from sight
TICKS = os.sysconf("SC_CLK_TCK")
PACKAGES = (
    *("vmaptune", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn"),
    *("ray", "syne-tune", "optuna", "torch"),
)


@dataclass(frozen=True)
class Peer:
    """A contestant: how the table calls it, its file in `peers/`, the package it needs.

    `again`: whether it is run twice, the second time with the compilation cache that the first has left.
    """

    label: str
    file: str
    package: str
    again: bool = False


PEERS = {
    "vmaptune": Peer("vmaptune", "vmaptune_run.py", "vmaptune", again=True),
    "vmapped-jax": Peer("naive vmapped JAX PBT (yardstick)", "vmapped_jax.py", "jax", again=True),
    "sequential-jax": Peer("sequential JAX loop, random settings (yardstick)", "sequential_jax.py", "jax", again=True),
    "optuna": Peer("Optuna TPE, jitted JAX step", "optuna_tpe.py", "optuna", again=True),
    "torch-ensemble": Peer("torch.func ensemble, PBT", "torch_ensemble.py", "torch"),
    "ray-tune": Peer("Ray Tune PBT, jitted JAX step", "ray_pbt.py", "ray"),
    "syne-tune": Peer("Syne Tune PBT, jitted JAX step", "syne_pbt.py", "syne-tune"),
}


@dataclass
class Usage:
    """What a run cost.

    Attributes:
        wall_s: From the start of its process to its end.
        cpu_s: Processor seconds of it and everything it started.
        foreign_cpu_s: Processor seconds that the rest of the machine took meanwhile.
        peak_mb: Highest sum over its processes of their proportional set size (PSS: shared pages counted once).
        peak_processes: Most processes at one time.
        looks: How often memory was read.
        watching_cpu_s: Processor seconds of this process, meanwhile.
        left_behind: Processes that were still there 5 s after its end, and were killed.
        exit_code: None if it was stopped.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    foreign_cpu_s: float = 0.0
    peak_mb: float = 0.0
    peak_processes: int = 0
    looks: int = 0
    watching_cpu_s: float = 0.0
    left_behind: int = 0
    exit_code: int | None = None


class Descendants:
    """The living descendants of this process. A pid is looked into once, so that looking often costs little."""

    def __init__(self) -> None:
        self.own: set[int] = set()
        self._strangers: set[int] = set()
        self._ticks: dict[int, int] = {}

    def look(self) -> set[int]:
        """Brings `own` up to date, and each one's processor time."""
        living = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()} - {os.getpid()}
        self.own &= living
        self._strangers &= living
        parents = {pid: facts[1] for pid in living - self.own - self._strangers if (facts := _stat(pid))}
        while found := {pid for pid, parent in parents.items() if parent == os.getpid() or parent in self.own}:
            self.own |= found
            parents = {pid: parent for pid, parent in parents.items() if pid not in found}
        self._strangers |= parents.keys()
        for pid in list(self.own):
            facts = _stat(pid)
            if facts is None or facts[0] == "Z":
                self.own.discard(pid)
            if facts:
                self._ticks[pid] = facts[2]
        return self.own

    @property
    def cpu_s(self) -> float:
        """Processor seconds of all that were ever seen, up to the last look at each."""
        return sum(self._ticks.values()) / TICKS

    def memory_mb(self) -> float:
        """Sum of their proportional set sizes."""
        return sum(_pss_kb(pid) for pid in self.own) / 1024

    def kill(self) -> None:
        """Kills all of them and waits until they are gone."""
        while self.look():
            for pid in self.own:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(EVERY)


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and processor ticks of a process; None if it is gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1]), int(fields[11]) + int(fields[12])
    return None


def _pss_kb(pid: int) -> int:
    with suppress(OSError), Path(f"/proc/{pid}/smaps_rollup").open() as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    return 0


def _busy_s() -> float:
    """Processor seconds that the whole machine has worked since it started."""
    user, nice, system, idle, waiting, *rest = (int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    del idle, waiting
    return (user + nice + system + sum(rest)) / TICKS


def _used_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def measured(command: list[str], environment: dict[str, str], folder: Path, limit_s: float) -> Usage:
    """Runs a command in a session of its own, for `limit_s` at the most. What it prints lands in the folder."""
    usage, family = Usage(), Descendants()
    busy, ours, theirs = _busy_s(), _used_s(resource.RUSAGE_SELF), _used_s(resource.RUSAGE_CHILDREN)
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        begun = time.perf_counter()
        child = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        ended = select.poll()
        descriptor = os.pidfd_open(child.pid)
        ended.register(descriptor, select.POLLIN)
        memory_due = 0.0
        while not ended.poll(EVERY * 1000):  # wakes at once when the process ends
            now = time.perf_counter()
            if now - begun > limit_s:
                break
            usage.peak_processes = max(usage.peak_processes, len(family.look()))
            if now >= memory_due:  # reading it costs the kernel milliseconds a process: at most a twentieth of the time
                usage.peak_mb = max(usage.peak_mb, family.memory_mb())
                usage.looks += 1
                memory_due = now + 20 * (time.perf_counter() - now)
        usage.wall_s = time.perf_counter() - begun
        os.close(descriptor)
        usage.exit_code = child.poll()
        if usage.exit_code is not None:
            grace = time.perf_counter() + 5
            while family.look() and time.perf_counter() < grace:
                time.sleep(EVERY)
            usage.left_behind = len(family.own)
    finally:
        family.kill()
        child.wait()
        with suppress(ChildProcessError):
            while True:  # orphans became our children; what they used is counted once they are buried
                os.waitpid(-1, 0)
    counted = _used_s(resource.RUSAGE_CHILDREN) - theirs
    usage.cpu_s = max(counted, family.cpu_s)  # the kernel's count lacks processes whose parent does not wait for them
    usage.watching_cpu_s = _used_s(resource.RUSAGE_SELF) - ours
    usage.foreign_cpu_s = max(0.0, _busy_s() - busy - usage.cpu_s - usage.watching_cpu_s)
    return usage


def clean_environment(cache: Path, scratch: Path) -> dict[str, str]:
    """Ours, less what could favour someone: on the processor, no settings of XLA, the given compilation cache."""
    dropped = ("JAX_", "XLA_", "RAY_", "TUNE_", "OMP_", "MKL_", "PYTHONDONTWRITEBYTECODE")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | {
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # else what compiles within a second is never kept
        "TMPDIR": str(scratch),
    }


def race(name: str, task: dict[str, int], limits: dict[str, float], environment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs a peer once, or twice with one compilation cache; yields a row a run."""
    peer, limit_s = PEERS[name], min(limits.values())
    with tempfile.TemporaryDirectory(prefix="peers-") as root:
        for run in ("first", "later") if peer.again else ("first",):
            work = Work(**task, folder=Path(root, run))
            work.folder.mkdir()
            command = [sys.executable, str(HERE / "peers" / peer.file), *work.arguments]
            usage = measured(command, clean_environment(Path(root, "cache"), work.folder), work.folder, limit_s)
            printed = [line for line in (work.folder / "stdout").read_text().splitlines() if line.startswith('{"search_s"')]
            said = json.loads(printed[-1]) if printed else {"search_s": None, **tally(work.count, work.generations)}
            row = {"peer": name, "run": run, **task, "status": "finished", **asdict(usage), **said}
            if usage.exit_code is None:
                row["status"] = f"stopped after {limit_s:g} s" if limit_s < limits["timeout"] else f"timed out ({limit_s:g} s)"
            elif usage.exit_code or not printed:
                row["status"] = "failed"
                row["error"] = (work.folder / "stderr").read_text().strip()[-2000:]
            row["member_steps_per_s"] = row["member_steps"] / usage.wall_s
            yield {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} | {
                "environment": environment
            }
            if row["status"] != "finished":
                break


def machine() -> dict[str, Any]:
    """What the rows were measured on and with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": found,
    }


NOTE = """Whole processes, from start to exit, imports included. A first run begins with an empty JAX compilation cache, a later
run with the one that the first has left (`JAX_COMPILATION_CACHE_DIR`; everything is kept, however quickly it compiled). Peak
memory: the sum over all processes of a run of their proportional set sizes. Others' load: the most processor cores that
anything else on the machine took during a run; where it is not near 0, the row is noisy. Ratios are taken seed by seed."""


def spread(values: list[float], digits: int = 0) -> str:
    """Median (smallest to largest)."""
    shown = [f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison as Markdown, a table for every size of the work."""
    newest = {(*(row[key] for key in ("members", "generations", "steps", "peer", "run", "seed")),): row for row in rows}
    parts = [_machine_line(list(newest.values())), NOTE]
    for size in sorted({key[:3] for key in newest}):
        own = [row for key, row in newest.items() if key[:3] == size]
        parts.append("{} members x {} generations x {} steps, median of the seeds (smallest to largest):".format(*size))
        parts.append(_table_of_a_size(own))
    return "\n\n".join(parts) + "\n"


def _machine_line(rows: list[dict[str, Any]]) -> str:
    places = {json.dumps(row["environment"], sort_keys=True): row["environment"] for row in rows}
    lines = []
    for place in places.values():
        packages = ", ".join(f"{name} {number}" for name, number in place["packages"].items())
        lines.append(
            f"{place['cores']} cores of {place['cpu']}, {place['memory_gb']} GB; Python {place['python']}, {packages}."
        )
    return "\n\n".join(lines)


def _table_of_a_size(rows: list[dict[str, Any]]) -> str:
    arms = [(name, run) for name in PEERS for run in ("first", "later")]
    usable = {
        arm: [r for r in rows if (r["peer"], r["run"]) == arm and not r["status"].startswith(("failed", "timed"))]
        for arm in arms
    }
    rates = {arm: {row["seed"]: row["member_steps_per_s"] for row in own} for arm, own in usable.items()}

    def ahead(run: str, arm: tuple[str, str]) -> str:
        """How many times as many member-steps a second vmaptune makes, seed by seed."""
        pairs = [(rates["vmaptune", run].get(seed), rate) for seed, rate in rates[arm].items()]
        ratios = [mine / rate for mine, rate in pairs if mine and rate]
        return f"{spread(ratios, 2)} x" if ratios else "-"

    head = ["", "member-steps/s", "vmaptune's first run is", "its later runs are", "process s", "search s", "peak memory MB"]
    head += ["member-steps trained", "best validation accuracy", "n", "others' load"]
    lines = [head, ["---"] * len(head)]
    for arm in sorted((arm for arm in arms if usable[arm]), key=lambda arm: -statistics.median(rates[arm].values())):
        own = usable[arm]
        stopped = sorted({row["status"] for row in own} - {"finished"})
        peer, which = PEERS[arm[0]], {"first": "first run", "later": "later runs"}[arm[1]]
        label = ", ".join([peer.label, *([which] if peer.again else []), *stopped])
        searches = [row["search_s"] for row in own if row["search_s"] is not None]
        bests = [row["best"] for row in own if row["best"] is not None]
        load = max(row["foreign_cpu_s"] / row["wall_s"] for row in own)
        lines.append(
            [
                label,
                spread([row["member_steps_per_s"] for row in own]),
                ahead("first", arm),
                ahead("later", arm),
                spread([row["wall_s"] for row in own], 1),
                spread(searches, 1) if searches else "-",
                spread([row["peak_mb"] for row in own]),
                spread([row["member_steps"] for row in own]),
                spread(bests, 3) if bests else "-",
                str(len(own)),
                f"{load:.2f}",
            ]
        )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) if len(lines) > 2 else "Nobody finished."
    lost = Counter((row["peer"], row["status"]) for row in rows if row["status"].startswith(("failed", "timed")))
    return "\n".join([text, *(f"\n{PEERS[peer].label}: {status} (runs: {count})." for (peer, status), count in lost.items())])


def numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """Reads "0,1,2"."""
    del context, parameter
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected whole numbers with commas between; given: {value!r}") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--members", type=click.IntRange(4), multiple=True, default=(16, 256), help="Size of the population; repeat it.")
@click.option("--generations", type=click.IntRange(1), default=10, help="Selections.")
@click.option("--steps", type=click.IntRange(1), default=100, help="Training steps between two selections.")
@click.option("--seeds", callback=numbers, default="0,1,2", help="Seeds, with commas between.")
@click.option("--only", type=click.Choice(list(PEERS)), multiple=True, help="A peer to run; repeat it. Default: all.")
@click.option("--budget", type=click.FloatRange(1), help="Seconds after which a run is stopped and counted as far as it came.")
@click.option("--timeout", type=click.FloatRange(1), default=1800, help="Seconds after which a run has failed.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=HERE.parent / "experiments" / "peers", help="Folder of results."
)
def main(
    members: tuple[int, ...],
    generations: int,
    steps: int,
    seeds: list[int],
    only: tuple[str, ...],
    budget: float | None,
    timeout: float,
    out: Path,
) -> None:
    """Compares whole processes: vmaptune and its peers on one search."""
    environment = machine()
    names = [name for name in PEERS if not only or name in only]
    for name in [name for name in names if PEERS[name].package not in environment["packages"]]:
        click.echo(f"{name} is skipped: the package {PEERS[name].package} is not installed.", err=True)
        names.remove(name)
    if not names:
        raise click.ClickException("no peer to run; install them: pip install -e '.[peers]'")
    adopt_orphans()
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    limits = {"timeout": timeout} | ({"budget": budget} if budget else {})
    for size in members:
        for turn, seed in enumerate(seeds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                task = {"members": size, "generations": generations, "steps": steps, "seed": seed}
                for row in race(name, task, limits, environment):
                    with results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    click.echo(progress(row), err=True)
    text = table([json.loads(line) for line in results.read_text().splitlines()])
    (out / "table.md").write_text(text)
    click.echo(text)


def adopt_orphans() -> None:
    """Makes every process that a run leaves behind our child, so that it is seen, counted and killed."""
    if ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise click.ClickException(f"prctl: {os.strerror(ctypes.get_errno())}")


def progress(row: dict[str, Any]) -> str:
    """A run in a line; the last line of what it complained of, if it failed."""
    what = f"{row['members']} members, seed {row['seed']}: {row['peer']}, {row['run']} run: {row['status']}"
    rate = f"{row['member_steps_per_s']:,.0f} member-steps/s in {row['wall_s']:.1f} s, {row['peak_mb']:,.0f} MB"
    left = f", {row['left_behind']} processes left behind" if row["left_behind"] else ""
    return f"{what}; {rate}{left}" + "".join(f"\n    {line}" for line in row.get("error", "").splitlines()[-1:])


if __name__ == "__main__":
    main()
