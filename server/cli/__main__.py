"""`python -m gram.server.cli`: the `gram` command."""

from gram.server.cli.main import main

main()
