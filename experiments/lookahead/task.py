"""A task that does not saturate: noisy labels of a random teacher, which a small network can just begin to see."""

import numpy as np
from flax import nnx

import vmaptune as vt


class Network(nnx.Module):
    """One hidden layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden, self.head = nnx.Linear(32, 64, rngs=rngs), nnx.Linear(64, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def teacher(*, examples: int = 6000, seed: int = 20261121) -> vt.Task:
    """Five classes drawn from the softmax of a random two-layer teacher, of 32 Gaussian inputs.

    2,000 examples train, 1,000 validate, the rest test: validation is noisy enough to be overfitted, test is not.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, 32)).astype(np.float32)
    hidden = np.maximum(x @ rng.normal(size=(32, 24)) / np.sqrt(32), 0)
    logits = 4.0 * hidden @ rng.normal(size=(24, 5)) / np.sqrt(24)
    y = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1).astype(np.int32)
    cuts = [slice(0, 2000), slice(2000, 3000), slice(3000, None)]
    splits = vt.Splits(*[(x[cut], y[cut]) for cut in cuts])
    return vt.tasks.classification(vt.models.from_nnx(Network), splits, metric="loss")
