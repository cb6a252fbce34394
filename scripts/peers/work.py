"""The piece of work that every peer does, and how a peer says what it did. Imports nothing heavy.

Handwritten digits (1,437 images train, 360 validate), a perceptron 64-64-10 with ReLU, batches of 64, AdamW; learning rate and
weight decay are searched, both on a log scale. A population of `members` trains `generations` times `steps`.

A peer appends a line to its count file whenever it has trained something, so that a run which is stopped is counted too, and
prints one JSON line when it is done.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FEATURES, HIDDEN, CLASSES, BATCH = 64, 64, 10, 64
TRAIN = 1437
LEARNING_RATE = (1e-4, 1e-1)
WEIGHT_DECAY = (1e-6, 1e-1)
BOUNDS = (LEARNING_RATE, WEIGHT_DECAY)
QUANTILE = 0.25  # of a hand-written PBT: as in vmaptune, Ray and Syne Tune
FACTORS = (0.8, 1.25)


@dataclass(frozen=True)
class Work:
    """What one peer process is asked to do, and where it may write."""

    members: int
    generations: int
    steps: int
    seed: int
    folder: Path

    @property
    def count(self) -> Path:
        """The count file: a line `member-steps accuracy generation` for everything trained."""
        return self.folder / "count.txt"

    @property
    def arguments(self) -> list[str]:
        """What `asked` reads back."""
        return [str(value) for value in (self.members, self.generations, self.steps, self.seed, self.folder)]


def asked() -> Work:
    """The work on this process's command line."""
    parser = argparse.ArgumentParser()
    for name in ("members", "generations", "steps", "seed"):
        parser.add_argument(name, type=int)
    parser.add_argument("folder", type=Path)
    return Work(**vars(parser.parse_args()))


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs and labels to train on, inputs and labels to validate on; the same split for every peer and seed."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16.0).astype(np.float32), y[order].astype(np.int32)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def start_settings(work: Work) -> np.ndarray:
    """f32[2, members]: learning rates and weight decays to begin with, for peers that draw none themselves."""
    rng = np.random.default_rng(work.seed)
    return np.exp([rng.uniform(*np.log(bounds), work.members) for bounds in BOUNDS]).astype(np.float32)


def trained(count: Path, member_steps: int, accuracy: float, generation: int) -> None:
    """Counts what was trained: `generation` from 1, `accuracy` the best on validation among the members that it stands for."""
    with count.open("a") as file:
        file.write(f"{member_steps} {accuracy} {generation}\n")


def tally(count: Path, generations: int) -> dict[str, float | int | None]:
    """What a count file says: member-steps, and the best member of the last generation (if none got there: of all)."""
    lines = [line.split() for line in count.read_text().splitlines() if line.count(" ") == 2] if count.exists() else []
    last = [float(accuracy) for _, accuracy, generation in lines if int(generation) == generations]
    best = max(last or (float(accuracy) for _, accuracy, _ in lines), default=None)
    return {"member_steps": sum(int(steps) for steps, _, _ in lines), "best": best, "lines": len(lines)}


def report(work: Work, search_s: float, **extra: object) -> None:
    """Prints the line that the parent reads."""
    print(json.dumps({"search_s": round(search_s, 3), **tally(work.count, work.generations), **extra}), flush=True)
