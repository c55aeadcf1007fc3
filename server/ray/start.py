"""`gram serve --ray`: the application on a cluster that runs."""

import contextlib
import logging
import signal
import socket
import threading

import ray
from ray import serve

from gram.server.ray.application import Arguments, build
from gram.server.settings import ServerSettings
from gram.server.supervision.errors import EngineUnavailableError

APPLICATION = "gram"
_LOOK_SECONDS = 5

log = logging.getLogger("gram")


def serve_on(address: str, settings: ServerSettings) -> None:
    """Run the application on the cluster at this address until a signal. Then it ends its requests, and is removed.

    Raises EngineUnavailableError if there is no such cluster, or if the application can't be started on it.
    """
    try:
        _look(address)
        ray.init(address, logging_level=logging.WARNING, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineUnavailableError(f"no Ray cluster can be used at {address!r}: {_gist(error)}") from error
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    resources = {"num_cpus": settings.threads or 1, "num_gpus": int(settings.device == "cuda")}
    own = settings.model_dump(mode="json", exclude={"model"}, exclude_unset=True)
    options = {"engine": {"num_replicas": settings.engines or 1, "ray_actor_options": resources}}
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        app = build(Arguments(settings=own, engines={"engine": settings.model}, options=options))
        serve.run(app, name=APPLICATION)
    except RuntimeError as error:
        raise EngineUnavailableError(f"the application can't be started on Ray: {_gist(error)}") from error
    else:
        log.info("serving on Ray at http://%s:%d", settings.host, settings.port)
        stopping.wait()
    finally:
        with contextlib.suppress(Exception):
            serve.delete(APPLICATION)
        ray.shutdown()


def _look(address: str) -> None:
    """Raise OSError if nobody listens at an address of the form host:port. Ray itself would look for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _LOOK_SECONDS).close()


def _gist(error: Exception) -> str:
    """The line of a message that says what is wrong: of a traceback, the last one."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()
