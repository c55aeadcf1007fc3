"""One solve or generate request, from its validated body to its ranked answer."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from gram.models.tasks import PuzzleError, Tokens
from gram.server import logs
from gram.server.api import observe
from gram.server.api.admission import Ticket
from gram.server.api.problems import ProblemError
from gram.server.api.service import Service
from gram.server.catalog import LoadedModel, choose
from gram.server.engine.messages import Step
from gram.server.sampling.answers import PrunedEvent, SolveResponse, StartEvent
from gram.server.sampling.collector import Collector, Outcome
from gram.server.sampling.requests import SamplingRequest
from gram.server.supervision.job import EngineUnavailableError, Job

Shown = Outcome | Step | PrunedEvent
"""What a client may see of the trajectories: those that end and count, and if it watches them also those on their way."""


class _TimeOverError(Exception):
    """The request's deadline has come."""


@dataclass
class Solve:
    """A request that has been understood."""

    service: Service
    model: LoadedModel
    puzzle: Tokens
    seed: int
    request: SamplingRequest

    @classmethod
    def read(cls, service: Service, request: SamplingRequest) -> "Solve":
        """Check the request against what is loaded and the limits. Raises ProblemError."""
        for name, limit in service.settings.request_limits.items():
            if (getattr(request, name) or 0) > limit:
                place = type(request).model_fields[name].alias or name
                raise ProblemError(422, f"this server allows {limit} at most", place)
        model = _choose(service, request)
        if reason := service.engines.out_of_rotation.get(model.name):
            raise EngineUnavailableError(reason)
        seen = logs.current()
        seen.model, seen.num_trajectories = model.name, request.num_trajectories
        try:
            puzzle = request.input(model.task)
        except PuzzleError as error:
            raise ProblemError(422, str(error), "puzzle") from error
        return cls(service, model, puzzle, request.chosen_seed(), request)

    def admit(self) -> Ticket:
        """What it takes to run. Raises ProblemError where it must come later."""
        request = self.request
        return self.service.admission.admit(
            self.model.name, request.num_trajectories, request.timeout_seconds, stream=request.stream
        )

    def started(self) -> StartEvent:
        """What was understood of it."""
        return StartEvent.of(self.model.name, self.model.task, self.puzzle, self.seed, self.request)

    async def run(self, ticket: Ticket) -> AsyncGenerator[Shown | SolveResponse]:
        """Run it: each trajectory that counts as it ends, then the result. Frees its slots however it ends.

        Raises ProblemError where the time is over before any trajectory has ended.
        """
        request, metrics, name = self.request, self.service.metrics, self.model.name
        collector = Collector(self.model.task, self.puzzle, request.num_trajectories, request.stop)
        job = self.service.engines.open(
            lambda number: request.submit(number, name, self.puzzle, self.seed, watch=request.stream_steps)
        )
        seconds = ticket.deadline - time.monotonic()
        time_over = asyncio.get_running_loop().call_later(seconds, self.service.engines.end, job, _TimeOverError())
        with metrics.active.labels(name).track_inprogress():
            try:
                async with aclosing(self._shown(job, ticket, collector)) as items:
                    async for item in items:
                        if isinstance(item, Outcome):
                            metrics.on_outcome(name, item)
                        # Until the next is asked for, the reader waits for its client.
                        job.max_results = job.unread + self.service.settings.max_unread
                        yield item
                        job.max_results = math.inf
            except (asyncio.CancelledError, GeneratorExit):
                metrics.cancelled.labels(name).inc()
                raise
            finally:
                time_over.cancel()
                self.service.engines.close(job)
                observe.phases(job.submitted_at, job.queue_seconds)
        metrics.dropped.labels(name).inc(len(collector.dropped))
        metrics.pruned.labels(name).inc(collector.pruned)
        queue = job.queue_seconds or 0.0
        compute = time.monotonic() - job.submitted_at - queue
        yield SolveResponse.of(name, collector, self.seed, request, queue, compute)

    async def _shown(self, job: Job, ticket: Ticket, collector: Collector) -> AsyncGenerator[Shown]:
        """The outcomes that count, as the trajectories end, and what is watched: until enough is known, or the time is over."""
        metrics, name = self.service.metrics, self.model.name
        first = True
        try:
            async with aclosing(self.service.engines.trajectories(job)) as trajectories:
                async for trajectory in trajectories:
                    if isinstance(trajectory, Step):
                        yield trajectory
                        continue
                    ticket.sent()
                    if first and not trajectory.pruned:
                        metrics.first_candidate.labels(name).observe(time.monotonic() - job.submitted_at)
                        metrics.queue_time.labels(name).observe(job.queue_seconds or 0.0)
                        first = False
                    if trajectory.pruned and self.request.stream_steps:
                        yield PrunedEvent(trajectory=trajectory.index, steps=trajectory.steps)
                    for outcome in collector.add(trajectory):
                        yield outcome
                    if collector.done:
                        return
        except _TimeOverError:
            for outcome in collector.cut_off():
                yield outcome
            if not collector.counted:
                detail = "the time was over before a trajectory had ended; give it more timeout_seconds, or fewer max_steps"
                raise ProblemError(504, detail) from None


def _choose(service: Service, request: SamplingRequest) -> LoadedModel:
    """The model that the request names, or the best suited one of its task: see `choose`. Raises ProblemError.

    One that is out of rotation only where it is named, or there is no other.
    """
    if request.model is not None:
        model = service.model(request.model)
        if request.task not in (None, model.task.name):
            raise ProblemError(
                422, f"{model.name} answers {model.task.name}, not {request.task!r}; name one of the two", "task"
            )
        if request.ability not in model.config.abilities:
            abilities = " and ".join(model.config.abilities) or "nothing"
            raise ProblemError(422, f"{model.name} can't {request.ability}; what it can: {abilities}", "model")
        return model
    able = [model for model in service.models.values() if request.ability in model.config.abilities]
    in_rotation = [model for model in able if model.name not in service.engines.out_of_rotation]
    if chosen := choose(in_rotation, request.task) or choose(able, request.task):
        return chosen
    known = ", ".join(dict.fromkeys(model.task.name for model in able)) or "none"
    raise ProblemError(404, f"no loaded model can {request.ability} {request.task!r}; tasks that one can: {known}", "task")
