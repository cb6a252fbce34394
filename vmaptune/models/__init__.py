"""Networks (flax nnx modules) and the adapters that turn a model of any framework into a pair of pure functions."""

from vmaptune.models.adapters import Model, from_equinox, from_functions, from_haiku, from_linen, from_nnx
from vmaptune.models.cnn import CNN
from vmaptune.models.dropout import Dropout
from vmaptune.models.mlp import ACTIVATIONS, MLP, Activation
from vmaptune.models.recurrent import GRU, LSTM, Recurrent
from vmaptune.models.transformer import Transformer

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "GRU",
    "LSTM",
    "MLP",
    "Activation",
    "Dropout",
    "Model",
    "Recurrent",
    "Transformer",
    "from_equinox",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
]
