"""One solve or generate request, from its validated body to its ranked answer."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from models.tasks import PuzzleError, Tokens
from server.api.problems import ProblemError
from server.api.schemas import SamplingRequest, SolveResponse
from server.api.service import LoadedModel, Service, choose
from server.solving import Collector, Outcome


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
        limits = service.settings
        for name, limit in (("num_trajectories", limits.max_trajectories), ("max_steps", limits.max_steps)):
            if getattr(request, name) > limit:
                place = type(request).model_fields[name].alias or name
                raise ProblemError(422, f"this server allows {limit} at most", place)
        model = _choose(service, request)
        try:
            puzzle = request.input(model.task)
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
                        if first and not trajectory.pruned:
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
        metrics.pruned.labels(name).inc(collector.pruned)
        queue = job.queue_seconds or 0.0
        compute = time.monotonic() - job.submitted_at - queue
        yield SolveResponse.of(name, collector, self.seed, request, queue, compute)


def _choose(service: Service, request: SamplingRequest) -> LoadedModel:
    """The model that the request names, or the best suited one of its task: see `choose`. Raises ProblemError."""
    if request.model is not None:
        model = service.models.get(request.model)
        if model is None:
            raise ProblemError(404, f"{request.model!r} is not loaded; loaded: {', '.join(service.models)}", "model")
        if request.task not in (None, model.task.name):
            raise ProblemError(
                422, f"{model.name} answers {model.task.name}, not {request.task!r}; name one of the two", "task"
            )
        if request.ability not in model.config.abilities:
            abilities = " and ".join(model.config.abilities) or "nothing"
            raise ProblemError(422, f"{model.name} can't {request.ability}; what it can: {abilities}", "model")
        return model
    able = [model for model in service.models.values() if request.ability in model.config.abilities]
    if chosen := choose(able, request.task):
        return chosen
    known = ", ".join(dict.fromkeys(model.task.name for model in able)) or "none"
    raise ProblemError(404, f"no loaded model can {request.ability} {request.task!r}; tasks that one can: {known}", "task")
