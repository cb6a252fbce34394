"""Your own Flax module and your own arrays, tuned in one call.

Two interleaved spirals, a small residual network, and six things to search at once: the learning rate, weight decay,
momentum's decay b1, warm-up, dropout, and the strength of the residual branch, which is a setting of our own.
"""

import os

import numpy as np
from flax import nnx

import vmaptune as vt

rng = np.random.default_rng(0)
angle, label = 3 * np.pi * np.sqrt(rng.random(1200)), rng.integers(0, 2, 1200)
x = np.stack([angle * np.cos(angle + np.pi * label), angle * np.sin(angle + np.pi * label)], 1) / 5 + 0.1 * rng.normal(
    size=(1200, 2)
)


class Residual(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem, self.body = nnx.Linear(2, 32, rngs=rngs), nnx.Linear(32, 32, rngs=rngs)
        self.dropout, self.head = vt.models.Dropout(rngs=rngs), nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x, *, strength: float = 1.0, dropout: float = 0.0):  # float settings: one value per member, searchable
        h = nnx.relu(self.stem(x))
        return self.head(h + strength * self.dropout(nnx.relu(self.body(h)), dropout))


task = vt.tasks.classification(vt.models.from_nnx(Residual), vt.data.split_classification(x.astype("float32"), label))
tiny = "VMAPTUNE_TINY" in os.environ  # how the tests run this file
search = {
    "task": {"strength": vt.Axis(0.1, 2.0, "log"), "dropout": vt.Axis(0.0, 0.5)},
    "optimizer": {
        "learning_rate": vt.Axis(1e-4, 1e-1, "log"),
        "weight_decay": vt.Axis(1e-6, 1e-1, "log"),
        "b1": vt.Axis(0.5, 0.99),
    },
    "schedule": {"name": "warmup_cosine", "warmup": vt.Axis(0.0, 0.3)},
    "population": {"size": 4 if tiny else 32, "segment_steps": 2 if tiny else 50, "generations": 2 if tiny else 20},
}
result = vt.tune(search, task=task)
print(result.best.hyperparameters, result.best.validation, result.best.test)
