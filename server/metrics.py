"""What Prometheus scrapes. `python -m gram.server.metrics` prints deploy/METRICS.md."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from gram.server.causes import Cause
from gram.server.engine.messages import LaneStats, Pong, StepReport, Trajectory
from gram.server.supervision.fleet import Fleet

# A series more for each, of when it began: Prometheus sees that from the values.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)

_TITLE = """# Metrics

`GET /metrics`, for Prometheus. The file is made by `python -m gram.server.metrics > deploy/METRICS.md`.

| metric | type | labels | what |
| --- | --- | --- | --- |"""

M = TypeVar("M", Counter, Gauge, Histogram)


class Described(NamedTuple):
    """A metric, as the table shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Metrics:
    """One registry and its metrics. All whose labels are known have a sample from the start: a rate misses no first event."""

    def __init__(self, tasks: Mapping[str, str]) -> None:
        """`tasks`: each loaded model's."""
        self._tasks: dict[str, str] = {}
        self._slots: dict[int, int] = {}
        self._stats: dict[str, dict[int, LaneStats]] = defaultdict(dict)
        self._memory: dict[int, int] = {}
        self._fleet: Fleet | None = None
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        self._metrics: list[tuple[Counter | Gauge | Histogram, tuple[str, ...]]] = []

        self.requests = self._counter(
            "gram_http_requests",
            "HTTP requests answered; path: the template, or other; status 499: the client left before.",
            "path",
            "status",
        )
        self.latency = self._histogram(
            "gram_http_request_seconds", "Time from an HTTP request to the end of its answer.", _SECONDS, "path"
        )
        self.errors = self._counter("gram_errors", "Errors told to clients, as an answer or in a stream.", "cause")
        for cause in get_args(Cause):
            self.errors.labels(cause)
        self.key_requests = self._counter("gram_key_requests", "Requests with an API key, by its label.", "key")
        self.cancelled = self._counter(
            "gram_requests_cancelled", "Solve and generate requests whose client left before the result.", "model"
        )
        self.active = self._gauge("gram_active_requests", "Solve and generate requests that have not ended.", "model")
        self.queue_time = self._histogram(
            "gram_queue_seconds", "Time from a request to the first slot of one of its trajectories.", _SECONDS, "model"
        )
        self.first_candidate = self._histogram(
            "gram_time_to_first_candidate_seconds", "Time from a request to its first finished trajectory.", _SECONDS, "model"
        )
        self.queue_depth = self._gauge("gram_queue_depth", "Trajectories waiting for a slot.", "model")
        self.live_slots = self._gauge("gram_live_slots", "Slots with a running trajectory.", "model")
        self.free_slots = self._gauge("gram_free_slots", "Slots without one.", "model")
        self.occupancy = self._histogram(
            "gram_batch_occupancy_ratio", "Of a supervision step: the share of the slots that were live.", _SHARES, "model"
        )
        self.step_seconds = self._histogram(
            "gram_step_seconds",
            "Time that a supervision step of the model's batch took of the engine. Steps of several models come one after the "
            "other, each counted from the end of the one before: all models' sums add up to the time that the engine computed.",
            _STEP_SECONDS,
            "model",
        )
        self.row_steps = self._counter("gram_trajectory_steps", "Supervision steps of single trajectories.", "model")
        self.trajectories = self._counter(
            "gram_trajectories",
            "Trajectories that gave an answer; valid by the exact checker or not.",
            "model",
            "task",
            "valid",
        )
        self.depth = self._histogram(
            "gram_trajectory_depth_steps", "Supervision steps of the trajectories that gave an answer.", _STEPS, "model"
        )
        self.score = self._histogram(
            "gram_lprm_score",
            "The LPRM's scores of the trajectories that gave an answer. It is calibrated where in each bucket the share of the "
            "valid ones is the score.",
            _SCORES,
            "model",
            "valid",
        )
        self.dropped = self._counter("gram_trajectories_dropped", "Trajectories whose state turned non-finite.", "model")
        self.pruned = self._counter("gram_trajectories_pruned", "Trajectories that gave up their slot by `guidance`.", "model")
        self.ready = self._gauge("gram_ready", "1 while an engine can answer, else 0: as /health/ready.")
        self.model_ready = self._gauge(
            "gram_model_ready", "1 while an engine can answer for the model; 0 too where it is out of rotation.", "model"
        )
        self.restarts = self._counter("gram_engine_restarts", "Engines that died or hung and were replaced.")
        self.device_memory = self._gauge(
            "gram_device_memory_bytes",
            "Memory that the engines hold: on a GPU PyTorch's, else that of their processes (resident).",
        )
        for model, task in tasks.items():
            self.add_model(model, task)

    def watch(self, fleet: Fleet) -> None:
        """Look at each scrape whether they can answer."""
        self._fleet = fleet
        self.ready.set_function(lambda: fleet.ready)

    def _is_ready(self, model: str) -> bool:
        fleet = self._fleet
        return fleet is not None and fleet.ready and model not in fleet.out_of_rotation

    def add_model(self, model: str, task: str) -> None:
        """Show a model from now on."""
        self._tasks[model] = task
        for metric, labels in self._metrics:
            if labels == ("model",):
                metric.labels(model)
        for valid in ("true", "false"):
            self.trajectories.labels(model, task, valid)
            self.score.labels(model, valid)
        self.model_ready.labels(model).set_function(partial(self._is_ready, model))

    def remove_model(self, model: str) -> None:
        """Show a model no more."""
        del self._tasks[model]
        self._stats.pop(model, None)
        for metric, labels in self._metrics:
            if "model" in labels:
                metric.remove_by_labels({"model": model})

    def on_ready(self, number: int, slots: int) -> None:
        """The engine of this number can answer, with so many slots for each model."""
        self._slots[number] = slots
        for model in self._tasks:
            self._on_stats(number, model, LaneStats(0, 0))

    def _on_stats(self, number: int, model: str, stats: LaneStats) -> None:
        """What a model's slots and queue hold, in all engines."""
        lanes = self._stats[model]
        lanes[number] = stats
        live = sum(lane.live for lane in lanes.values())
        self.live_slots.labels(model).set(live)
        self.free_slots.labels(model).set(sum(self._slots.values()) - live)
        self.queue_depth.labels(model).set(sum(lane.waiting for lane in lanes.values()))

    def on_pong(self, number: int, pong: Pong) -> None:
        """What an engine says of itself every second, whether or not it steps."""
        for model in pong.lanes.keys() & self._tasks.keys():
            self._on_stats(number, model, pong.lanes[model])
        if pong.memory_bytes is not None:
            self._memory[number] = pong.memory_bytes
            self.device_memory.set(sum(self._memory.values()))

    def on_report(self, number: int, report: StepReport) -> None:
        """Count a supervision step."""
        self.row_steps.labels(report.model).inc(report.rows)
        self.step_seconds.labels(report.model).observe(report.seconds)
        self.occupancy.labels(report.model).observe(report.rows / self._slots[number])
        self._on_stats(number, report.model, report.stats)

    def on_trajectory(self, model: str, trajectory: Trajectory, *, valid: bool) -> None:
        """Count a trajectory that gave an answer."""
        label = "true" if valid else "false"
        self.trajectories.labels(model, self._tasks[model], label).inc()
        self.depth.labels(model).observe(trajectory.steps)
        self.score.labels(model, label).observe(trajectory.score)

    def document(self) -> str:
        """All metrics, in Markdown."""
        rows = [f"| `{name}` | {kind} | {', '.join(labels)} | {what} |" for name, kind, labels, what in self.described]
        causes = ", ".join(f"`{cause}`" for cause in get_args(Cause))
        return "\n".join(
            [_TITLE, *rows, "", f"The causes: {causes}. `overloaded` and `rate_limited` were refused at the door.", ""]
        )

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return self._described(Counter(name, what, labels, registry=self.registry), f"{name}_total", labels)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return self._described(Gauge(name, what, labels, registry=self.registry), name, labels)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return self._described(Histogram(name, what, labels, registry=self.registry, buckets=buckets), name, labels)

    def _described(self, metric: M, name: str, labels: tuple[str, ...]) -> M:
        (family,) = metric.describe()
        self.described.append(Described(name, family.type, labels, family.documentation))
        self._metrics.append((metric, labels))
        return metric


if __name__ == "__main__":
    print(Metrics({}).document(), end="")
