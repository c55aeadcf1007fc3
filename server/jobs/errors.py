"""What the store can't do. The messages are for clients and operators."""


class StoreError(Exception):
    """The job store fails; what it has accepted is kept."""


class StoreFullError(StoreError):
    """The job store has no room."""


class TooManyPuzzlesError(Exception):
    """A job has more puzzles than one may have."""


class TooManyJobsError(Exception):
    """A key has as many jobs as it may have."""
