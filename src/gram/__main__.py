"""`python -m gram`: the command line."""

from gram.server.cli.main import main

main()
