"""One solve request, from its validated body to its ranked answer."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from models.tasks import PuzzleError, Tokens
from server.api.problems import ProblemError
from server.api.schemas import SolveRequest, SolveResponse
from server.api.service import LoadedModel, Service
from server.solving import Collector, Outcome


@dataclass
class Solve:
    """A request that has been understood."""

    service: Service
    model: LoadedModel
    puzzle: Tokens
    seed: int
    request: SolveRequest

    @classmethod
    def read(cls, service: Service, request: SolveRequest) -> "Solve":
        """Check the request against what is loaded and the limits. Raises ProblemError."""
        limits = service.settings
        for name, limit in (("num_trajectories", limits.max_trajectories), ("max_steps", limits.max_steps)):
            if getattr(request, name) > limit:
                raise ProblemError(422, f"this server allows {limit} at most", name)
        model = _choose(service, request)
        try:
            puzzle = model.task.parse(request.puzzle)
        except PuzzleError as error:
            raise ProblemError(422, str(error), "puzzle") from error
        return cls(service, model, puzzle, request.chosen_seed(), request)

    async def run(self) -> AsyncGenerator[Outcome | SolveResponse]:
        """Run it: each trajectory that counts as it ends, then the result. Frees its slots however it ends."""
        request, metrics, name = self.request, self.service.metrics, self.model.name
        collector = Collector(self.model.task, self.puzzle, request.num_trajectories, request.stop)
        job = self.service.engine.open(lambda number: request.submit(number, name, self.puzzle, self.seed))
        first = True
        with metrics.active.labels(name).track_inprogress():
            try:
                async with aclosing(self.service.engine.trajectories(job)) as trajectories:
                    async for trajectory in trajectories:
                        if first:
                            metrics.first_candidate.labels(name).observe(time.monotonic() - job.submitted_at)
                            metrics.queue_time.labels(name).observe(job.queue_seconds or 0.0)
                            first = False
                        for outcome in collector.add(trajectory):
                            metrics.trajectories.labels(name, str(outcome.valid).lower()).inc()
                            metrics.depth.labels(name).observe(outcome.steps)
                            yield outcome
                        if collector.done:
                            break
            finally:
                self.service.engine.close(job)
        metrics.dropped.labels(name).inc(len(collector.dropped))
        queue = job.queue_seconds or 0.0
        compute = time.monotonic() - job.submitted_at - queue
        yield SolveResponse.of(name, collector, self.seed, request, queue, compute)


def _choose(service: Service, request: SolveRequest) -> LoadedModel:
    """The model that the request names, or the first loaded one for its task. Raises ProblemError."""
    if request.model is not None:
        model = service.models.get(request.model)
        if model is None:
            raise ProblemError(404, f"{request.model!r} is not loaded; loaded: {', '.join(service.models)}", "model")
        if request.task not in (None, model.task.name):
            raise ProblemError(
                422, f"{model.name} answers {model.task.name}, not {request.task!r}; name one of the two", "task"
            )
        return model
    for model in service.models.values():
        if model.task.name == request.task:
            return model
    answered = dict.fromkeys(model.task.name for model in service.models.values())
    raise ProblemError(404, f"no loaded model answers {request.task!r}; answered: {', '.join(answered)}", "task")
