"""Who is to blame when engines die: the deaths are counted against the models and the requests that were being stepped."""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from gram.server.engine.messages import Stepping
from gram.server.supervision.job import Share

MAX_DEATHS = 3
"""Consecutive engine deaths before a model is retired, a request fails, or the service stops."""


class Verdict(NamedTuple):
    """The models and the shares that have killed MAX_DEATHS engines in a row."""

    models: list[str]
    shares: list[Share]


class Blame:
    """Counts the deaths of one supervisor's engines.

    The first death counts against all that was open, since the steps of several models overlap. Those requests are then
    submitted again as suspects, and an engine that has a suspect announces each step. So the next death counts against one
    model, and the requests in its slots.
    """

    def __init__(self) -> None:
        self._deaths: Counter[str] = Counter()
        self.stepping: Stepping | None = None
        """The step that the present engine has announced and not finished."""

    def is_suspect(self, share: Share) -> bool:
        """Whether an engine may have died of the share, or of its model."""
        return bool(share.deaths or self._deaths[share.submit.model])

    def clear(self, model: str) -> None:
        """The model has brought something new: forget its deaths."""
        del self._deaths[model]

    def judge(self, shares: Collection[Share]) -> Verdict:
        """Count the death of the present engine, which had these shares, and name those that have caused too many."""
        told = [share for share in shares if share.sent and not share.complete]
        if self.stepping:
            models = {self.stepping.model}
            accused = [share for share in told if share.submit.request in self.stepping.requests]
        elif any(share.sent and share.sent.suspect for share in told):
            return Verdict([], [])  # it died between two steps
        else:
            models = {share.submit.model for share in told}
            accused = told
        self._deaths.update(models)
        for share in accused:
            share.deaths += 1
        deadly = [model for model in models if self._deaths[model] >= MAX_DEATHS]
        return Verdict(deadly, [share for share in accused if share.deaths >= MAX_DEATHS and share.submit.model not in deadly])
