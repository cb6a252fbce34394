"""The run folder: what is written while a run goes, and how it is read back.

    runs/<name>/
      config.toml     what was asked for, resolved, with a comment on every setting
      history.db      SQLite (WAL): every trial, every generation, every event; the truth for people and tools
      checkpoints/    Orbax: the population, the selector and the champion; the truth for resume
      best/           hyperparameters.toml, schedule.csv, weights.safetensors
      run.lock        held while a process writes here

Order of writing: the rows of a generation in one transaction, then its checkpoint. A run killed between the two has rows
newer than its newest checkpoint; resume drops them and makes them again, the same. The other way round a checkpoint could
be left without its rows, and nothing could bring them back.
"""
