"""The error that every call of a client raises."""

from gram.server.api.schemas import Problem

RETRYABLE = (429, 503)
"""Statuses with which a server refuses a request now that it may answer later."""


class GramError(Exception):
    """There is no answer; the message says why.

    `status`: the HTTP status, `problem`: the server's explanation; both are None if the server said nothing.
    `retry_after`: seconds after which the server wants to be asked again. `lost`: there was no server, or the connection broke.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        problem: Problem | None = None,
        retry_after: float | None = None,
        *,
        lost: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        self.lost = lost

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered later. A 500 that is not the server's own is a proxy's that has lost it."""
        return self.lost or self.status in RETRYABLE or (self.status == 500 and self.problem is None)
