"""Networks (flax nnx modules) and the adapter that turns a module into a pair of pure functions."""

from vmaptune.models.adapters import Model, from_nnx
from vmaptune.models.cnn import CNN
from vmaptune.models.dropout import Dropout
from vmaptune.models.mlp import ACTIVATIONS, MLP, Activation

__all__ = ["ACTIVATIONS", "CNN", "MLP", "Activation", "Dropout", "Model", "from_nnx"]
