"""A cache of answers, off by default: with a seed, an answer is a pure function of its request."""

import hashlib
import json
import time
from collections import OrderedDict
from typing import NamedTuple

from gram.server.sampling.answers import SolveResponse
from gram.server.sampling.requests import SamplingRequest

_NOT_OF_THE_ANSWER = {"model", "task", "priority", "stream", "stream_steps", "timeout_seconds"}
"""Fields of a request that don't change what is kept: complete answers of a model that is known."""


class Answer(NamedTuple):
    """A kept answer: its body in JSON, and when it was made, by time.monotonic()."""

    body: bytes
    made_at: float

    @property
    def age(self) -> int:
        """Seconds since it was made."""
        return int(time.monotonic() - self.made_at)


class AnswerCache:
    """The answers that were asked for last, as many as fit in `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def key(self, model: str, request: SamplingRequest) -> bytes | None:
        """What a request's answer is kept by; None if the answer can't be kept."""
        if not self._max_bytes or request.seed is None or request.stream:
            return None
        asked = request.model_dump(mode="json", exclude=_NOT_OF_THE_ANSWER)
        return hashlib.sha256(json.dumps([request.ability, model, asked], sort_keys=True).encode()).digest()

    def get(self, key: bytes | None) -> Answer | None:
        """The answer that is kept by this key, if there is one."""
        if key is None or key not in self._answers:
            return None
        self._answers.move_to_end(key)
        return self._answers[key]

    def put(self, key: bytes | None, response: SolveResponse, body: bytes) -> None:
        """Keep an answer, if it is complete, and drop those that have not been asked for longest."""
        if key is None or not response.complete or len(body) > self._max_bytes:
            return
        self.drop(key)
        self._answers[key] = Answer(body, time.monotonic())
        self._bytes += len(body)
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._answers)))

    def drop(self, key: bytes) -> None:
        """Forget an answer."""
        if answer := self._answers.pop(key, None):
            self._bytes -= len(answer.body)

    def clear(self) -> None:
        """Forget all answers."""
        self._answers.clear()
        self._bytes = 0
