"""What searching costs beside training: digits, many slots, every search method, on this machine.

For methods whose proposals are made on the host, the seconds that they took, as a share of training. For the others, the
selector's update by itself, jitted, as a share of the seconds of a generation. One JSON line a method.

python scripts/search_overhead.py [--slots 1024] [--methods tpe,gp] > results.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import vmaptune as vt
from vmaptune.config import resolve
from vmaptune.selectors import SELECTORS, TRIAL_METHODS
from vmaptune.store.reading import read_events
from vmaptune.toml import default_tree


def tree_of(method: str, slots: int, stop: str, rounds: int) -> dict:
    tree = default_tree()
    search = {"method": method}
    if method in TRIAL_METHODS:
        search |= {"trials": rounds * slots, "stop": stop} | ({"points": 6} if method == "grid" else {})
    return tree | {"search": search, "population": tree["population"] | {"size": slots}}


def update_seconds(config: vt.RunConfig, repeats: int = 5) -> float:
    """The median of a few updates of random fitness, compilation apart."""
    n, selector = config.population.size, config.selector()
    key = jax.random.key(0)
    numbers, zeros = jnp.arange(n, dtype=jnp.int32), jnp.zeros(n, jnp.int32)
    genotype = jax.random.uniform(key, (n, config.space.dimension))
    view = vt.View(genotype, zeros + 50, numbers, zeros, zeros > 0, zeros + 1, zeros * 0.05)
    state, update = selector.init(key, config.space, n), jax.jit(selector.update)
    seconds = []
    for i in range(repeats + 1):
        fitness = jax.random.normal(jax.random.fold_in(key, i), (n,))
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(update(jax.random.fold_in(key, i), state, view, fitness))
        seconds.append(time.perf_counter() - begun)
        view = view._replace(step=view.step + 50, age=view.age + 1, progress=view.progress + 0.05)
    return statistics.median(seconds[1:])


def measure(method: str, slots: int, stop: str, rounds: int) -> dict:
    config, task = resolve(tree_of(method, slots, stop, rounds))
    with tempfile.TemporaryDirectory() as folder:
        run = vt.tune(config, task=task, out=Path(folder) / "run")
        events = [e for e in read_events(run.run / "history.db") if e["kind"] == "generation"]
        generation = statistics.median(e["detail"]["seconds"]["train"] for e in events)
        found = {"method": method, "stop": stop, "slots": slots, "generations": len(events), "member_steps": run.member_steps}
        seconds = {name: round(run.seconds[name], 3) for name in ("train", "propose", "total")}
        trials = int(run.history["trial"].max()) + 1
    share = run.seconds["propose"] / (run.seconds["train"] - run.seconds["propose"])
    found |= {"seconds": seconds, "trials": trials} | {
        "generation_seconds": round(generation, 4),
        "propose_share": round(share, 4),
    }
    if method not in TRIAL_METHODS:
        found["update_share"] = round(update_seconds(config) / generation, 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1024)
    parser.add_argument("--stop", default="none")
    parser.add_argument("--rounds", type=int, default=3, help="trials per slot, for trials over slots")
    parser.add_argument("--methods", default=",".join(name for name in SELECTORS if name != "evolution"))
    given = parser.parse_args()
    for method in given.methods.split(","):
        print(
            json.dumps(measure(method, given.slots, given.stop if method in TRIAL_METHODS else "none", given.rounds)),
            flush=True,
        )


if __name__ == "__main__":
    main()
