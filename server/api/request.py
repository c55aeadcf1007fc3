"""One solve or generate request, from its validated body to its ranked answer."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from gram.models.tasks import PuzzleError, Task, Tokens
from gram.server import logs
from gram.server.api import observe
from gram.server.api.admission import Ticket
from gram.server.api.problems import ProblemError
from gram.server.api.service import Service
from gram.server.catalog import LoadedModel, choose
from gram.server.engine.messages import Ending, Step, Trajectory
from gram.server.sampling.answers import Event, PrunedEvent, SolveResponse, StartEvent, StepEvent, TrajectoryEvent
from gram.server.sampling.collector import Candidate, Collector
from gram.server.sampling.requests import SamplingRequest
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.job import Job

_DEADLINE = "the deadline came before any trajectory had ended; allow more timeout_seconds or fewer max_steps"


class _DeadlineError(Exception):
    """The request's deadline has come."""


@dataclass
class SamplingRun:
    """A request that has been checked: what it samples, from which model, and with which seed."""

    service: Service
    model: LoadedModel
    task: Task
    """The model's task, as the client sees it."""
    puzzle: Tokens
    solutions: int | None
    """How many solutions the puzzle has (see `Task.count_solutions`)."""
    seed: int
    request: SamplingRequest
    _collector: Collector | None = None

    @classmethod
    async def read(cls, service: Service, request: SamplingRequest) -> "SamplingRun":
        """Check a request against the loaded models and the limits, and read its puzzle. Raises ProblemError.

        The solutions are counted in a thread of their own, so that a puzzle on which this takes long holds nothing up.
        """
        check_limits(service, request)
        model = choose_model(service, request)
        if refusal := request.refusal(model.task):
            raise ProblemError(422, refusal, "stop")
        if reason := service.fleet.out_of_rotation.get(model.name):
            raise EngineUnavailableError(reason)
        log = logs.current()
        log.model, log.num_trajectories = model.name, request.num_trajectories
        try:
            task, puzzle = request.input(model.task)
            solutions = await asyncio.to_thread(task.solvable, puzzle)
        except PuzzleError as error:
            raise ProblemError(422, str(error), "puzzle") from error
        return cls(service, model, task, puzzle, solutions, request.chosen_seed(), request)

    def admit(self) -> Ticket:
        """Reserve its place in the queue. Raises ProblemError if it must come later."""
        request = self.request
        self.service.model(self.model.name)  # while its solutions were counted, the model may have been unloaded
        admission = self.service.admission
        admit = admission.admit if request.priority == "interactive" else admission.admit_batch
        return admit(self.model.name, request.num_trajectories, request.timeout_seconds, stream=request.stream)

    async def result(self, ticket: Ticket) -> SolveResponse:
        """Run it to its result. Raises ProblemError as `events` does."""
        async with aclosing(self.events(ticket)) as events:
            async for event in events:
                if isinstance(event, SolveResponse):
                    return event
        raise AssertionError("a run ends with its result")

    def so_far(self, top: int) -> SolveResponse | None:
        """The best candidates of a run on its way, this many at most; None before it has begun."""
        if self._collector is None:
            return None
        options = self.request.model_copy(update={"top": min(top, self.request.top or top)})
        response = SolveResponse.of(self.model.name, self._collector, self.seed, options, 0.0, 0.0)
        return response.model_copy(update={"complete": False})

    async def events(self, ticket: Ticket) -> AsyncGenerator[Event]:
        """Run it. The last event is the result; a stream has events before it. Frees its slots however it ends.

        Raises ProblemError if the deadline comes before any trajectory has ended.
        """
        request, metrics, name = self.request, self.service.metrics, self.model.name
        if request.stream_steps:
            yield StartEvent.of(name, self.task, self.puzzle, self.seed, request)
        collector = Collector(self.task, self.puzzle, request.num_trajectories, request.stop, self.solutions)
        self._collector = collector
        job = self.service.fleet.open(
            lambda number: request.submit(
                number, name, self.puzzle, self.seed, watch=request.stream_steps, background=ticket.background
            )
        )
        self.service.running[job] = logs.current()
        seconds = ticket.deadline - time.monotonic()
        deadline = asyncio.get_running_loop().call_later(seconds, self.service.fleet.end, job, _DeadlineError())
        with metrics.active.labels(name).track_inprogress():
            try:
                async with aclosing(self._sampled(job, ticket, collector)) as events:
                    async for event in events:
                        # Until the next event is asked for, the stream waits for its client to read.
                        job.max_results = job.unread + self.service.settings.max_unread
                        yield event
                        job.max_results = math.inf
            except (asyncio.CancelledError, GeneratorExit):
                if not ticket.background:
                    metrics.cancelled.labels(name).inc()
                raise
            finally:
                deadline.cancel()
                del self.service.running[job]
                self.service.fleet.close(job)
                observe.phases(job.submitted_at, job.queue_seconds)
        metrics.dropped.labels(name).inc(len(collector.dropped))
        metrics.pruned.labels(name).inc(collector.pruned)
        queue = job.queue_seconds or 0.0
        compute = time.monotonic() - job.submitted_at - queue
        yield SolveResponse.of(name, collector, self.seed, request, queue, compute)

    async def _sampled(self, job: Job, ticket: Ticket, collector: Collector) -> AsyncGenerator[Event]:
        """Collect the trajectories until enough is known or the deadline comes. Yields a stream's events."""
        task, metrics, name = self.task, self.service.metrics, self.model.name
        first = True
        try:
            async with aclosing(self.service.fleet.trajectories(job)) as trajectories:
                async for trajectory in trajectories:
                    if isinstance(trajectory, Step):
                        yield StepEvent.of_step(task, self.puzzle, trajectory)
                        continue
                    ticket.sent()
                    pruned = trajectory.ending is Ending.PRUNED
                    if first and not pruned and not ticket.background:
                        metrics.first_candidate.labels(name).observe(time.monotonic() - job.submitted_at)
                        metrics.queue_time.labels(name).observe(job.queue_seconds or 0.0)
                        first = False
                    if pruned and self.request.stream_steps:
                        yield PrunedEvent(trajectory=trajectory.index, steps=trajectory.steps)
                    for event in self._counted(collector.add(trajectory)):
                        yield event
                    if collector.done:
                        return
        except _DeadlineError:
            for event in self._counted(collector.cut_off()):
                yield event
            if not collector.counted:
                raise ProblemError(504, _DEADLINE) from None

    def _counted(self, answered: list[tuple[Trajectory, Candidate]]) -> list[Event]:
        """Measure the trajectories that count now; returns their events, of a stream."""
        for trajectory, candidate in answered:
            self.service.metrics.on_trajectory(self.model.name, trajectory, valid=candidate.valid)
        return [TrajectoryEvent.of_trajectory(self.task, *pair) for pair in answered] if self.request.stream else []


def check_limits(service: Service, request: SamplingRequest) -> None:
    """Refuse options that are larger than this server allows. Raises ProblemError."""
    for name, limit in service.settings.request_limits.items():
        if (getattr(request, name) or 0) > limit:
            place = type(request).model_fields[name].alias or name
            raise ProblemError(422, f"this server allows {limit} at most", place)


def choose_model(service: Service, request: SamplingRequest) -> LoadedModel:
    """The model that the request names, or the first one of its task. Raises ProblemError.

    A model out of rotation is chosen only if it is named, or no other model can answer.
    """
    if request.model is not None:
        model = service.model(request.model)
        if request.task not in (None, model.task.name):
            detail = f"{model.name} answers {model.task.name}, not {request.task!r}; name only one of the two"
            raise ProblemError(422, detail, "task")
        if not model.config.can(request.ability):
            raise ProblemError(422, f"{model.name} can't {request.ability}; choose another model", "model")
        return model
    able = [model for model in service.models.values() if model.config.can(request.ability)]
    try:
        task = request.meant([model.task for model in able]) if able else request.task
    except PuzzleError as error:
        raise ProblemError(422, str(error), "puzzle") from error
    in_rotation = [model for model in able if model.name not in service.fleet.out_of_rotation]
    if chosen := choose(in_rotation, task) or choose(able, task):
        return chosen
    known = ", ".join(dict.fromkeys(model.task.name for model in able)) or "none"
    raise ProblemError(
        404, f"no loaded model can {request.ability} {request.task!r}; tasks with a model that can: {known}", "task"
    )
