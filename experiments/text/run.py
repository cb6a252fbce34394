"""Bits per character of a population of networks and of n-grams on the same text; writes results.csv.

python run.py [SEEDS]
"""

import sys
from pathlib import Path

import numpy as np
from ngrams import bits_per_character

from vmaptune.data.text import UNKNOWN, read_text
from vmaptune.toml import load_config

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "scripts"))
from seeds import winners, write  # noqa: E402

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


def rows():
    """Every n-gram, and the winner of each seed."""
    config, _ = load_config(HERE / "config.toml", [])
    train, validation, size = parts(config.task.values)
    for kind in ("kneser_ney", "witten_bell"):
        for n in range(1, 7):
            bits = bits_per_character(train, validation, size, n, kind)
            yield {"what": kind, "n": n, "seed": "", "bits": float(bits), "seconds": ""}
    for seed, _, result, seconds in winners(HERE / "config.toml", SEEDS):
        bits = result.best.validation["bits_per_character"]
        yield {"what": config.task.values["model"], "n": "", "seed": seed, "bits": bits, "seconds": seconds}


write(HERE / "results.csv", rows())
