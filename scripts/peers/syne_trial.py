"""One trial of `syne_pbt.py`: trains generation after generation, checkpoints, reports."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from network import Solo
from syne_tune import Reporter
from syne_tune.constants import ST_CHECKPOINT_DIR
from work import trained

LINGER = 30.0  # seconds; see the last lines

parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float)
parser.add_argument("--weight_decay", type=float)
parser.add_argument("--generations", type=int)
parser.add_argument("--steps", type=int)
parser.add_argument("--seed", type=int)
parser.add_argument("--count", type=Path)
parser.add_argument(f"--{ST_CHECKPOINT_DIR}", type=Path, dest="checkpoints")
options, _ = parser.parse_known_args()

solo, tell = Solo(options.seed, options.steps), Reporter()
number = int(options.checkpoints.parent.name)  # of the trial
newest = options.checkpoints / "newest.npz"
state, done = solo.load(newest) if newest.exists() else (solo.new(number), 0)  # where PBT copied a parent's, go on from there
options.checkpoints.mkdir(parents=True, exist_ok=True)
for generation in range(done + 1, options.generations + 1):
    state, accuracy = solo.train(state, number, generation, options.learning_rate, options.weight_decay)
    partial = options.checkpoints.with_name("partial.npz")  # outside: the folder may be copied at any moment
    solo.save(partial, state, generation)
    partial.replace(newest)
    trained(options.count, options.steps, accuracy, generation)
    tell(generation=generation, accuracy=accuracy)

# The tuner stops a trial once it has read its last report. A process that ends before is taken for one without metrics, and
# aborts the search (Syne Tune 0.16: "trial completed and no metrics got observed").
time.sleep(LINGER)
