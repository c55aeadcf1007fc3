"""What differs for the API behind Ray Serve's proxy."""

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gram.server.api.observe import REQUEST_ID

Measured = tuple[str, str]
"""A replica's name, and its metrics in Prometheus' text format."""


class BehindProxy:
    """Middleware. The proxy has given the request its id, and adds that to the answer: it must not be there twice.

    `GET /metrics` reaches one replica, and tells of all.
    """

    def __init__(self, app: ASGIApp, measured: Callable[[], Awaitable[list[Measured]]]) -> None:
        self.app = app
        self.measured = measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0].lower() != REQUEST_ID.encode()]
                message = {**message, "headers": headers}
            await send(message)

        app: ASGIApp = self.app
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] == "/metrics":
            app = Response(merge(await self.measured()), media_type=CONTENT_TYPE_LATEST)
        await app(scope, receive, without_id)


def merge(measured: list[Measured]) -> bytes:
    """The metrics of all replicas as one text, in which each series has the replica as a label."""
    families: dict[str, Metric] = {}
    for replica, text in measured:
        for family in text_string_to_metric_families(text):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)

    class Merged(Collector):
        def collect(self) -> list[Metric]:
            return [*families.values()]

    registry = CollectorRegistry()
    registry.register(Merged())
    return generate_latest(registry)
