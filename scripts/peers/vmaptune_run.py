"""vmaptune as a user calls it: `vmaptune.tune` with its history, its checkpoints of every generation and its run folder."""

from __future__ import annotations

import time

import numpy as np
from work import BATCH, CLASSES, FEATURES, HIDDEN, LEARNING_RATE, WEIGHT_DECAY, asked, data, report, trained

import vmaptune as vt

work = asked()
x_train, y_train, x_validation, y_validation = data()
begun = time.perf_counter()


class Count:
    """A listener that writes the count file."""

    def write(self, record: vt.Record) -> None:
        best = float(np.nanmax(record.metrics["validation.accuracy"]))
        trained(work.count, work.members * work.steps, best, record.generation + 1)

    def close(self) -> None:
        pass


held = (x_validation, y_validation)  # also stands for the test part, which is read once, at the end
task = vt.tasks.classification(
    vt.models.from_nnx(lambda rngs: vt.models.MLP(FEATURES, [HIDDEN], CLASSES, rngs=rngs)),
    vt.Splits((x_train, y_train), held, held),
)
config = {
    "seed": work.seed,
    "batch": {"size": BATCH, "order": "independent"},
    "optimizer": {
        "name": "adamw",
        "learning_rate": vt.Axis(*LEARNING_RATE, "log"),
        "weight_decay": vt.Axis(*WEIGHT_DECAY, "log"),
    },
    "population": {"size": work.members, "segment_steps": work.steps, "generations": work.generations},
    "search": {"method": "truncation"},
}
result = vt.tune(config, task=task, out=work.folder / "run", sinks=[Count()])
report(work, time.perf_counter() - begun, seconds={part: round(seconds, 3) for part, seconds in result.seconds.items()})
