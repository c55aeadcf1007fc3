"""The deployments of Ray Serve: engines, and the API in front of them."""

import asyncio
import logging
from functools import cached_property
from typing import Any

import ray
from prometheus_client import generate_latest
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from gram.server import logs
from gram.server.api.admission import Admission
from gram.server.api.app import create_app, work
from gram.server.api.background import keep_jobs
from gram.server.api.keys import Keys
from gram.server.api.problems import stopping
from gram.server.api.service import Service
from gram.server.catalog import model_name, read_models
from gram.server.engine.messages import Ready, StepReport
from gram.server.jobs.place import open_store
from gram.server.metrics import Metrics
from gram.server.ray.behind import BehindProxy, Measured
from gram.server.ray.drain import end_late
from gram.server.ray.fleet import ReplicaFleet
from gram.server.ray.messages import Place
from gram.server.ray.relay import Relay
from gram.server.ray.scaling import BUSY, QUEUED_SECONDS
from gram.server.settings import ServerSettings
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.rotation import Rotation
from gram.server.supervision.supervisor import Listener

log = logging.getLogger("gram")

_ASK_SECONDS = 2
"""Time for the replicas of a deployment to answer what all of them are asked."""


class Engine:
    """A replica that computes. The API processes reach its engine over connections of their own."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Start the engine. Raises CheckpointError or EngineUnavailableError if it can't be started; Ray shows the message.

        `settings`: ServerSettings, with this deployment's models.
        """
        self._settings = ServerSettings.model_validate(settings)
        logs.configure(self._settings.log_format)
        if self._settings.threads is None:
            cpus = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
            self._settings = self._settings.model_copy(update={"threads": max(cpus, 1)})
        models = read_models(self._settings.model)
        self._metrics = Metrics({name: model.task.name for name, model in models.items()})
        ready = asyncio.Event()

        def on_ready(number: int, said: Ready) -> None:
            self._metrics.on_ready(number, said.slots)
            ready.set()

        listener = Listener(self._metrics.on_report, self._metrics.on_pong, on_ready, self._metrics.restarts.inc)
        rotation = Rotation({model_name(folder): folder for folder in self._settings.model})
        self._relay = Relay(serve.get_replica_context().replica_tag, self._settings, rotation, listener)
        self._metrics.watch(self._relay)
        self._place = await self._relay.listen(ray.util.get_node_ip_address())
        self._running = asyncio.create_task(self._relay.run())
        starting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._running, starting}, return_when=asyncio.FIRST_COMPLETED)
        await self.check_health()

    async def place(self) -> Place:
        """Where the engine is reached."""
        return self._place

    async def measured(self) -> Measured:
        """The metrics of this replica."""
        return self._place.replica, generate_latest(self._metrics.registry).decode()

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this raises."""
        if self._running.done():
            self._running.result()
            raise EngineUnavailableError("the engine is not supervised any more")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve, for the policy in scaling.py."""
        workload = self._relay.workload
        return {BUSY: workload.busy(self._relay.slots), QUEUED_SECONDS: workload.queued_seconds}

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is about to go, at most graceful_shutdown_timeout_s before its end."""
        await self._relay.drain()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@serve.ingress()
class API:
    """A replica that speaks HTTP: it reads requests, shares them out over the engines, and checks and ranks what they bring."""

    async def __init__(self, settings: dict[str, Any], *engines: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        """`settings`: ServerSettings, with the models of all `engines`.

        They say nothing of `jobs`: GRAM_JOBS does, where the replica runs. Raises StoreError if that can't be used.
        """
        self._settings = ServerSettings.model_validate(settings)
        logs.configure(self._settings.log_format)
        self._engines = engines
        models = read_models(self._settings.model)
        self._metrics = Metrics({name: model.task.name for name, model in models.items()})
        admission = Admission(self._settings)

        def on_report(_: int, report: StepReport) -> None:
            admission.on_report(report)

        def on_ready(number: int, ready: Ready) -> None:
            self._service.engines[number] = ready
            log.info("engine %d ready: %s on %s in %s", number, ", ".join(ready.models), ready.device, ready.dtype)

        # What the engines do is measured where they are.
        listener = Listener(on_report, lambda *_: None, on_ready, lambda: None)
        self._fleet = ReplicaFleet(self._settings, listener, self._places)
        self._metrics.watch(self._fleet)
        keys = Keys(self._settings.keys_file) if self._settings.keys_file else None
        self._service = Service(self._settings, models, self._metrics, self._fleet, admission, keys)
        self._service.cancel_everywhere = self._cancel_everywhere
        self._store = open_store(self._settings) if self._settings.jobs else None
        if self._store:
            keep_jobs(self._service, self._store)
        self._running = asyncio.create_task(self._fleet.run())
        self._working = asyncio.create_task(work(self._service.jobs))
        self._watching = asyncio.create_task(end_late(self._listed, self._settings.grace_seconds, self._end))

    def __serve_build_asgi_app__(self) -> ASGIApp:  # the name is Ray's
        return BehindProxy(create_app(self._service), self._measure)

    async def measured(self) -> Measured:
        """The metrics of this replica."""
        return await self.name(), generate_latest(self._metrics.registry).decode()

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this raises."""
        if self._running.done():
            self._running.result()

    async def name(self) -> str:
        """The replica's name in Ray."""
        name: str = serve.get_replica_context().replica_tag
        return name

    async def cancel(self, request_id: str, key: str | None) -> bool:
        """End the open requests of this replica with this id and key. Returns whether there are any."""
        return self._service.cancel(request_id, key)

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica has no open requests any more, and is to go."""
        tasks = (self._watching, self._working, self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._store:
            self._store.close()

    @cached_property
    def _own(self) -> DeploymentHandle[Any]:
        context = serve.get_replica_context()
        return serve.get_deployment_handle(context.deployment, context.app_name)

    async def _places(self) -> list[Place]:
        return [place for engine in self._engines for place in await ask_all(engine, "place")]

    async def _measure(self) -> list[Measured]:
        """The metrics of all replicas."""
        told = await asyncio.gather(*(ask_all(handle, "measured") for handle in (self._own, *self._engines)))
        return [measured for deployment in told for measured in deployment]

    async def _cancel_everywhere(self, request_id: str, key: str | None) -> bool:
        """Cancel a request on whatever replica it runs."""
        return any(await ask_all(self._own, "cancel", request_id, key))

    async def _listed(self) -> bool:
        """Whether Ray Serve has this replica on the list of those that run."""
        try:
            return await self.name() in await answers(self._own, "name")
        except TimeoutError:  # another one does not answer
            return True

    def _end(self) -> None:
        self._working.cancel()
        self._fleet.end_all(stopping())


async def ask_all(handle: DeploymentHandle[Any], method: str, *args: object) -> list[Any]:
    """What all replicas of a deployment answer; nothing if one does not answer in time, which the log says."""
    try:
        return await answers(handle, method, *args)
    except TimeoutError:
        log.warning("not all replicas of %s answer %s in %d s", handle.deployment_name, method, _ASK_SECONDS)
        return []


async def answers(handle: DeploymentHandle[Any], method: str, *args: object) -> list[Any]:
    """What all replicas of a deployment answer; without those that are lost just now. Raises TimeoutError."""
    try:
        asked = handle.broadcast(method, *args)
        told = await asyncio.wait_for(asked.results_async(return_exceptions=True), _ASK_SECONDS)
    except DeploymentUnavailableError:
        return []  # none is there
    return [answer for answer in told if not isinstance(answer, BaseException)]
