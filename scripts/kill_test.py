"""Kills real runs with SIGKILL at random moments, resumes them, and compares them with a run that was never interrupted.

    python scripts/kill_test.py --kills 50
    python scripts/kill_test.py --kills 10 --set search.method=tpe --set search.trials=60 --set search.stop=asha

A run is started, killed after a random time, resumed, killed again, until it finishes; then the next one is begun, until K
kills have been made. Every finished run must equal the reference bit for bit: all rows of the history but times, the last
checkpoint, the winner's files. Prints one line a run and a summary; exits with 1 at the first difference.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

CONFIG = """
[task]
hidden = [8]
dropout = { low = 0.0, high = 0.5 }
[batch]
size = 32
[optimizer]
learning_rate = { low = 1e-4, high = 3e1, scale = "log" }  # high enough that members diverge and are replaced
weight_decay = { low = 1e-6, high = 1e-1, scale = "log" }
[schedule]
name = "cosine"
warmup = { low = 0.0, high = 0.3 }
[population]
size = 8
segment_steps = 5
generations = 60
[plan]
generations_per_dispatch = 3
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vmaptune", *arguments, "--quiet", "--json"]


SET: list[str] = []  # assignments given on the command line


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Begins the run in `folder / "run"`, or goes on with it."""
    assignments = [part for assignment in SET for part in ("--set", assignment)]
    arguments = ("run", str(folder.parent / "config.toml"), "--out", "run", "--resume", *assignments)
    return subprocess.Popen(command(*arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def generations(folder: Path) -> int:
    """How many generations are on record, without disturbing anything."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'run' / 'history.db'}?mode=ro", uri=True)) as db:
            return db.execute("SELECT coalesce(max(generation), -1) + 1 FROM record").fetchone()[0]
    except sqlite3.Error:
        return 0


def facts(folder: Path, stdout: bytes) -> dict[str, object]:
    """All that must not depend on how often the run was killed."""
    from orbax.checkpoint import StandardCheckpointer

    run = folder / "run"
    with contextlib.closing(sqlite3.connect(run / "history.db")) as db:
        tables = {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in ("record", "trial")}
        tables["diverged"] = db.execute(
            "SELECT generation, kind, detail FROM event WHERE kind = 'diverged' ORDER BY id"
        ).fetchall()
    result = json.loads(stdout)
    newest = max(int(step.name) for step in (run / "checkpoints").iterdir() if step.name.isdigit())
    state = StandardCheckpointer().restore((run / "checkpoints" / str(newest) / "default").resolve())
    return {
        **tables,
        "result": {key: result[key] for key in ("best", "test", "member_steps")},
        "files": {path.name: path.read_bytes() for path in sorted((run / "best").iterdir())},
        "state": {name: np.asarray(value).tobytes() for name, value in sorted(state.items())},
    }


def finish(process: subprocess.Popen[bytes]) -> bytes:
    stdout, stderr = process.communicate()
    if process.returncode != 0:
        sys.exit(f"a run failed with exit code {process.returncode}:\n{stderr.decode()}")
    return stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how many kills to make (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default 0)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of the run")
    options = parser.parse_args()
    SET.extend(options.set)
    moments = random.Random(options.seed)

    with tempfile.TemporaryDirectory(prefix="vmaptune-kill-") as root_name:
        root = Path(root_name)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))
        (root / "config.toml").write_text(CONFIG)
        reference_folder = root / "reference"
        for _ in range(2):  # the first fills the compilation cache, the second is timed
            shutil.rmtree(reference_folder, ignore_errors=True)
            reference_folder.mkdir()
            begun = time.monotonic()
            stdout = finish(start(reference_folder))
            duration = time.monotonic() - begun
        reference = facts(reference_folder, stdout)
        print(
            f"reference: {generations(reference_folder)} generations in {duration:.1f} s, {len(reference['trial'])} trials",
            flush=True,
        )

        kills, runs = 0, 0
        where: Counter[str] = Counter()
        while kills < options.kills:
            folder = root / f"run{runs}"
            folder.mkdir()
            killed_at = []
            while True:
                process = start(folder)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if kills < options.kills:
                        process.wait(timeout=moments.uniform(0, duration))
                if process.poll() is not None or kills >= options.kills:
                    stdout = finish(process)
                    break
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                killed_at.append(generations(folder))
                where["before the first generation" if killed_at[-1] == 0 else "while training"] += 1
            found = facts(folder, stdout)
            different = [name for name in reference if found[name] != reference[name]]
            if different:
                sys.exit(
                    f"run {runs}, killed after generations {killed_at}: differs from the reference in {', '.join(different)}"
                )
            print(
                f"run {runs}: killed {len(killed_at)} times, with {killed_at} generations on record; equal to the reference",
                flush=True,
            )
            runs += 1
            shutil.rmtree(folder)
        how = ", ".join(f"{count} {name}" for name, count in where.items())
        print(f"{kills} kills ({how}) over {runs} runs: every run equals the reference bit for bit")


if __name__ == "__main__":
    main()
