r'''Sinks: where a run's results go besides its own history, while it trains. One a file.

    [sinks.tensorboard]                        a section a sink, or: vmaptune run --sink tensorboard
    [sinks.mlflow]
    uri = "sqlite:///mlflow.db"

A sink changes no result, so a run can go on with others than it was begun with. It is told of a generation after the history
has its rows, and while the next ones train; one that fails is switched off, with one warning and a row among the run's
events. One that is slow holds the run up. Of 1,024 members, a generation takes 1 ms (csv, parquet), 5 ms (wandb, offline),
8 ms (tensorboard) or 30 ms (mlflow, in SQLite) on one CPU core. `vmaptune export` tells an old run to any of them.

A sink of your own is a class in a file, here `best.py`, and a section `[sinks."best.py:Best"]`, or `--sink best.py:Best`:

    import numpy as np

    class Best:
        """The best fitness of each generation, a line each."""

        def __init__(self, run, *, name: str = "best.txt"):
            self.file = run.place(name).open("w")

        def write(self, record):
            self.file.write(f"{record.generation} {np.nanmax(record.fitness)}\n")

        def close(self):
            self.file.close()

It is made anew by every process that trains, with the `RunInfo` of its run and its keyword-only settings, and is told of
every generation from the first: those from before a resume are read back from the history. `newest` and `finish` are there
for more: see `vmaptune.store.record.Sink`. A sink that is open already is passed to `tune(config, sinks=[it])`.
'''

from __future__ import annotations

from vmaptune.sinks.choosing import SINKS, Chosen, choose_sinks
from vmaptune.sinks.contract import RunInfo, read_info
from vmaptune.sinks.guard import Guarded, Listeners

__all__ = ["SINKS", "Chosen", "Guarded", "Listeners", "RunInfo", "choose_sinks", "read_info"]
