"""Bits per character of a population of networks and of n-grams on the same text; writes results.csv.

python run.py [SEEDS]
"""

import csv
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ngrams import bits_per_character

import vmaptune as vt
from vmaptune.data.text import UNKNOWN, read_text
from vmaptune.toml import load_config

HERE = Path(__file__).parent
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def parts(settings):
    """The training and validation characters of a text task, as its own vocabulary numbers them."""
    text = read_text(settings["path"], settings["level"])[: settings["limit"] or None]
    ends = [round(len(text) * (1 - settings["validation"] - settings["test"])), round(len(text) * (1 - settings["test"]))]
    train, validation, _ = np.split(text, ends)
    known = np.unique(train)
    place = np.searchsorted(known, validation).clip(max=len(known) - 1)
    held = np.where(known[place] == validation, place + 1, UNKNOWN)
    return np.searchsorted(known, train) + 1, held, len(known) + 1


def show(row):
    print(row, flush=True)
    return row


config, _ = load_config(HERE / "config.toml", [])
train, validation, size = parts(config.task.values)
rows = [
    show(
        {
            "what": kind,
            "n": n,
            "seed": "",
            "bits": round(bits_per_character(train, validation, size, n, kind), 4),
            "seconds": "",
        }
    )
    for kind in ("kneser_ney", "witten_bell")
    for n in range(1, 7)
]
for seed in range(SEEDS):
    config, task = load_config(HERE / "config.toml", [], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        best = vt.tune(config, task=task, out=f"{folder}/run").best
        seconds = round(time.perf_counter() - begun)
    bits = round(float(best.validation["bits_per_character"]), 4)
    rows.append(show({"what": config.task.values["model"], "n": "", "seed": seed, "bits": bits, "seconds": seconds}))
with (HERE / "results.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
