"""The command line: one command a file. It computes nothing; it calls the library and prints.

Results go to stdout, everything else to stderr. A command's module imports click alone, so help never waits for jax.
"""
