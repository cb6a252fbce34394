"""What can be said of a config or a run, for people: sizes, tables of names, winners. Nothing here trains."""
