"""The error that a command ends with."""


class CommandError(Exception):
    """What went wrong and what to do about it, for the terminal."""
