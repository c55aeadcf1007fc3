"""Who is to blame when engines die: the deaths are counted against the models and the requests that were being stepped."""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from gram.server.engine.messages import Stepping
from gram.server.supervision.job import Job

MAX_DEATHS = 3
"""Consecutive engine deaths before a model is retired, a request fails, or the service stops."""


class Verdict(NamedTuple):
    """The models and the jobs that have killed MAX_DEATHS engines in a row."""

    models: list[str]
    jobs: list[Job]


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

    def is_suspect(self, job: Job) -> bool:
        """Whether an engine may have died of the job, or of its model."""
        return bool(job.deaths or self._deaths[job.submit.model])

    def clear(self, model: str) -> None:
        """The model has brought something new: forget its deaths."""
        del self._deaths[model]

    def judge(self, jobs: Collection[Job]) -> Verdict:
        """Count the death of the present engine, which had these jobs, and name those that have caused too many."""
        told = [job for job in jobs if job.sent and not job.complete]
        if self.stepping:
            models = {self.stepping.model}
            accused = [job for job in told if job.submit.request in self.stepping.requests]
        elif any(job.sent and job.sent.suspect for job in told):
            return Verdict([], [])  # it died between two steps
        else:
            models = {job.submit.model for job in told}
            accused = told
        self._deaths.update(models)
        for job in accused:
            job.deaths += 1
        deadly = [model for model in models if self._deaths[model] >= MAX_DEATHS]
        return Verdict(deadly, [job for job in accused if job.deaths >= MAX_DEATHS and job.submit.model not in deadly])
