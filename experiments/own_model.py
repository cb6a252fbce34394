"""Your own Flax module and your own arrays, tuned in one call: two spirals, a residual network, six settings searched."""

import os

import numpy as np
from flax import nnx

import vmaptune as vt

rng = np.random.default_rng(0)
angle, label = 3 * np.pi * np.sqrt(rng.random(1200)), rng.integers(0, 2, 1200)
arms = np.stack([np.cos(angle + np.pi * label), np.sin(angle + np.pi * label)], 1) * angle[:, None] / 5
x = (arms + 0.1 * rng.normal(size=(1200, 2))).astype(np.float32)


class Residual(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.stem, self.body = nnx.Linear(2, 32, rngs=rngs), nnx.Linear(32, 32, rngs=rngs)
        self.dropout, self.head = vt.models.Dropout(rngs=rngs), nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x, *, strength: float = 1.0, dropout: float = 0.0):  # floats: one value per member, searchable
        h = nnx.relu(self.stem(x))
        return self.head(h + strength * self.dropout(nnx.relu(self.body(h)), dropout))


task = vt.tasks.classification(vt.models.from_nnx(Residual), vt.data.split_classification(x, label))
lr, wd, b1 = vt.Axis(1e-4, 1e-1, "log"), vt.Axis(1e-6, 1e-1, "log"), vt.Axis(0.5, 0.99)
config = {
    "task": {"strength": vt.Axis(0.1, 2.0, "log"), "dropout": vt.Axis(0.0, 0.5)},
    "optimizer": {"learning_rate": lr, "weight_decay": wd, "b1": b1},
    "schedule": {"name": "cosine", "warmup": vt.Axis(0.0, 0.3)},
    "population": {"size": 32, "segment_steps": 50, "generations": 20},
}
if "VMAPTUNE_TINY" in os.environ:  # how the tests run this file
    config["population"] = {"size": 4, "segment_steps": 2, "generations": 2}
result = vt.tune(config, task=task)
print(result.best.hyperparameters, result.best.validation, result.best.test)
