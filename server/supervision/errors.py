"""Why a request ends without an answer. The messages are for clients."""

from typing import Literal


class EngineUnavailableError(Exception):
    """No engine is going to answer; the message says why, and what to do."""

    cause: Literal["no_engine", "out_of_memory"] = "no_engine"


class OutOfMemoryError(EngineUnavailableError):
    """The device ran out of memory in a step of the request."""

    cause = "out_of_memory"

    def __init__(self, model: str) -> None:
        super().__init__(f"out of device memory while running {model}; send the request again, or serve with fewer --slots")


class SlowClientError(Exception):
    """The client of a stream leaves too many trajectories unread."""
