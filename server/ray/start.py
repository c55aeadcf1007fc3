"""`gram serve --ray`: the server, with its engines on a Ray cluster."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from gram.server.ray.application import check_version, engines
from gram.server.ray.deployments import ask_all
from gram.server.ray.fleet import ReplicaFleet
from gram.server.ray.messages import Place
from gram.server.settings import ServerSettings
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.supervisor import Listener

APPLICATION = "gram-engines"
"""The name of what runs on the cluster, in Ray Serve's status."""
_LOOK_SECONDS = 5

log = logging.getLogger("gram")


@contextlib.contextmanager
def fleet_on(address: str, settings: ServerSettings) -> Iterator["_MakeFleet"]:
    """Start the engines on the cluster at this address. Yields what makes their fleet. At the end they are removed.

    Raises EngineUnavailableError if there is no such cluster, or if they can't be started on it.
    """
    try:
        check_version()
        _look(address)
        ray.init(address, logging_level=logging.WARNING, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineUnavailableError(f"no Ray cluster can be used at {address!r}: {_gist(error)}") from error
    resources = {"num_cpus": settings.threads or 1, "num_gpus": int(settings.device == "cuda")}
    options = {"num_replicas": settings.engines or 1, "ray_actor_options": resources}
    try:
        (engine,) = engines({"engine": settings}, {"engine": options})
        serve.start(proxy_location="Disabled")  # unless Ray Serve runs already
        handle = serve.run(engine, name=APPLICATION, route_prefix=None)
        yield partial(_fleet, handle)
    except RuntimeError as error:
        raise EngineUnavailableError(f"the engines can't be started on Ray: {_why() or _gist(error)}") from error
    finally:
        with contextlib.suppress(Exception):
            serve.delete(APPLICATION)
        ray.shutdown()


_MakeFleet = partial[Fleet]


def _fleet(handle: DeploymentHandle[Any], settings: ServerSettings, listener: Listener) -> Fleet:
    async def places() -> list[Place]:
        return await ask_all(handle, "place")

    return ReplicaFleet(settings, listener, places)


def _look(address: str) -> None:
    """Raise OSError if nobody listens at an address of the form host:port. Ray itself would look for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _LOOK_SECONDS).close()


def _why() -> str | None:
    """What the engine's deployment says of its failure, if there is one: Ray Serve shows the traceback of the constructor."""
    application = serve.status().applications.get(APPLICATION)
    messages = [deployment.message for deployment in application.deployments.values()] if application else []
    told = [line for message in messages for line in message.splitlines() if "Error: " in line]
    return told[-1].partition("Error: ")[2] if told else None


def _gist(error: Exception) -> str:
    """The last line of a message."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
