"""Why a request is not answered: the kinds of errors, by which the metrics count them."""

from typing import Literal, NamedTuple, get_args

Cause = Literal[
    "invalid",
    "not_found",
    "too_large",
    "unauthorized",
    "forbidden",
    "overloaded",
    "rate_limited",
    "deadline",
    "slow_client",
    "no_engine",
    "out_of_memory",
    "cancelled",
    "stopping",
    "job_store",
    "internal",
]
"""The kind of an error, for programs."""

CAUSES: tuple[Cause, ...] = get_args(Cause)


class Meaning(NamedTuple):
    """The HTTP statuses that come with a cause, and what it means, for the API reference."""

    statuses: tuple[int, ...]
    text: str


MEANINGS: dict[Cause, Meaning] = {
    "invalid": Meaning(
        (400, 406, 408, 409, 415, 422, 431), "the request is wrong or did not arrive whole; `errors` names each wrong place"
    ),
    "not_found": Meaning((404, 405), "there is no such path, method, model, task or job"),
    "too_large": Meaning(
        (413,),
        "the body has more bytes than `--max-body-bytes`, or the file of a job than `--max-upload-bytes`, perhaps only when it "
        "is decompressed; or a job has more puzzles than `--max-job-puzzles`",
    ),
    "unauthorized": Meaning((401,), "the key is missing, or the server does not know it"),
    "forbidden": Meaning((403,), "the key may not do this, or the server does this for nobody"),
    "overloaded": Meaning(
        (429,), "too much is queued or open, or `timeout_seconds` can't be kept; `Retry-After` says when to try again"
    ),
    "rate_limited": Meaning((429,), "the key has exceeded its rate limit; `Retry-After` as above"),
    "deadline": Meaning((504,), "the deadline came before any trajectory had ended"),
    "slow_client": Meaning((408,), "the client left more than `--max-unread` trajectories of its stream unread"),
    "no_engine": Meaning((503,), "no engine can answer: it is starting, it can't be started, or the model is out of rotation"),
    "out_of_memory": Meaning((503,), "the device ran out of memory in a step of the request; it may be sent again"),
    "cancelled": Meaning((409,), "the request was cancelled by `DELETE /v1/requests/{request_id}`"),
    "stopping": Meaning((503,), "the server is stopping and the grace period is over; the request may be sent again"),
    "job_store": Meaning(
        (503, 507), "the store of the jobs fails (503) or is full (507), or the server has none (503); what it accepted is kept"
    ),
    "internal": Meaning((500,), "an internal error; the server's log has more, under the `request_id`"),
}


def cause_of(status: int) -> Cause:
    """The cause of an error that has this status and names none: the first that comes with it, else "invalid"."""
    return next((cause for cause, meaning in MEANINGS.items() if status in meaning.statuses), "invalid")
