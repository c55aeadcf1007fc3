"""The `gram` command."""
