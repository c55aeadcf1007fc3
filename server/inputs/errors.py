"""The error of a file that can't be read."""


class InputError(Exception):
    """What is wrong with a file of puzzles, and what to do."""
