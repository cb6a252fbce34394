"""A local web page over all runs in a folder, live while they train.

It changes nothing: histories are opened read-only, and only GET and HEAD are answered. (SQLite itself keeps two small files,
`history.db-shm` and an empty `history.db-wal`, beside a history that anybody reads: readers say there what they look at, so
that a writer can go on.) It serves nothing but what it found to be a run below its folder. Nothing here loads jax.
"""
