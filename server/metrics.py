"""What Prometheus scrapes."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.engine.messages import StepReport

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)


class Metrics:
    """One registry and its metrics."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("gram_http_requests", "HTTP requests answered", ["path", "status"], registry=registry)
        self.latency = Histogram(
            "gram_http_request_seconds",
            "Time from a request to the end of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_candidate = Histogram(
            "gram_time_to_first_candidate_seconds",
            "Time from a request to its first finished trajectory",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_time = Histogram(
            "gram_queue_seconds", "Time from a request to its first slot", ["model"], buckets=_SECONDS, registry=registry
        )
        self.queue_depth = Gauge("gram_queue_depth", "Trajectories waiting for a slot", ["model"], registry=registry)
        self.active = Gauge(
            "gram_active_requests", "Solve and generate requests that have not ended", ["model"], registry=registry
        )
        self.live_slots = Gauge("gram_live_slots", "Slots with a running trajectory", ["model"], registry=registry)
        self.slots = Gauge("gram_slots", "Slots, live or free", ["model"], registry=registry)
        self.steps = Counter("gram_steps", "Supervision steps of the batch", ["model"], registry=registry)
        self.row_steps = Counter(
            "gram_trajectory_steps", "Supervision steps of single trajectories", ["model"], registry=registry
        )
        self.step_seconds = Counter("gram_step_seconds", "Time spent in supervision steps", ["model"], registry=registry)
        self.trajectories = Counter("gram_trajectories", "Trajectories finished", ["model", "valid"], registry=registry)
        self.depth = Histogram(
            "gram_trajectory_depth_steps", "Supervision steps to the halt", ["model"], buckets=_STEPS, registry=registry
        )
        self.dropped = Counter(
            "gram_trajectories_dropped", "Trajectories whose state turned non-finite", ["model"], registry=registry
        )
        self.pruned = Counter(
            "gram_trajectories_pruned", "Trajectories that gave up their slot by `guidance`", ["model"], registry=registry
        )
        self.restarts = Gauge("gram_engine_restarts", "Engines that died and were replaced", registry=registry)

    def on_report(self, report: StepReport) -> None:
        """Count a supervision step."""
        self.steps.labels(report.model).inc()
        self.row_steps.labels(report.model).inc(report.rows)
        self.step_seconds.labels(report.model).inc(report.seconds)
        self.live_slots.labels(report.model).set(report.stats.live)
        self.queue_depth.labels(report.model).set(report.stats.waiting)


class HttpMetrics:
    """Counts and times the requests of an app."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 499  # the client left before an answer

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            # The route's template, not the address asked for: labels must stay few.
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, status).inc()
            self.metrics.latency.labels(path).observe(time.monotonic() - begin)
