"""`python -m vmaptune`."""

from vmaptune.cli.main import main

main()
