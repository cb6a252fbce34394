"""The model edge: whatever a model was written in, it becomes a pair of pure functions, and past this room all is arrays.

One file a framework. What they share: parameters and state (batch statistics) belong to a member; randomness does not. On
every call the keys of a model are derived afresh from the key that is passed in, so that a copied member can never share
randomness with its parent, and no key is ever stored. Keyword-only float parameters of the model's own call become settings
of the task: traced, one value a member, and searchable.
"""

from vmaptune.models.adapters.contract import Model
from vmaptune.models.adapters.equinox_modules import from_equinox
from vmaptune.models.adapters.haiku_functions import from_haiku
from vmaptune.models.adapters.linen_modules import from_linen
from vmaptune.models.adapters.nnx_modules import from_nnx
from vmaptune.models.adapters.plain_functions import from_functions

__all__ = ["Model", "from_equinox", "from_functions", "from_haiku", "from_linen", "from_nnx"]
