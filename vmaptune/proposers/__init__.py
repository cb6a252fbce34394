"""Where trials begin: random, quasi-random, grid, and model-based proposers, on the host.

One method a file, each around a well-kept library. Proposers see genotypes in the unit cube and fitness, never weights.
"""

from __future__ import annotations

from collections.abc import Callable

from vmaptune.proposers.contract import Propose, Proposer, Told
from vmaptune.proposers.covariance import cmaes
from vmaptune.proposers.evolution import evolution
from vmaptune.proposers.gp import gp
from vmaptune.proposers.grid import grid
from vmaptune.proposers.sobol import sobol
from vmaptune.proposers.tpe import tpe
from vmaptune.proposers.uniform import random

__all__ = ["PROPOSERS", "Propose", "Proposer", "Told", "cmaes", "evolution", "gp", "grid", "random", "sobol", "tpe"]

PROPOSERS: dict[str, Callable[..., Proposer]] = {
    "random": random,
    "sobol": sobol,
    "grid": grid,
    "tpe": tpe,
    "cmaes": cmaes,
    "gp": gp,
    "evolution": evolution,
}
"""Where trials begin, by name: each is also a search method, a row of `SELECTORS`."""
