"""The engine process: it takes messages from the API process, steps the engine, and sends reports back."""

import argparse
import itertools
import json
import logging
import os
import select
import signal
import socket
import sys
from pathlib import Path

from gram.server import logs
from gram.server.engine.device import num_devices, trim
from gram.server.engine.engine import Engine
from gram.server.engine.lane import Outcome
from gram.server.engine.messages import (
    Failed,
    FromEngine,
    Load,
    Ping,
    Ready,
    Stepping,
    ToEngine,
    Unframer,
    Unload,
    frame,
)
from gram.server.settings import EngineSettings

_log = logging.getLogger("gram")

_TRIM_PINGS = 60
"""After this many pings, one a second, freed memory is returned to the system."""


def serve(channel: socket.socket, engine: Engine) -> None:
    """Receive, step and report until the other end closes. Messages are taken between two steps.

    The reports of a step are written and sent while the next one runs, so that the device does not wait. While a request is
    suspect, the models step one at a time, and each step is announced: if the engine dies in it, the culprit is known.
    """
    unframer: Unframer[ToEngine] = Unframer(ToEngine)
    outcomes: list[Outcome] = []
    pings = itertools.count(1)
    while True:
        ready, _, _ = select.select([channel], [], [], None if engine.idle and not outcomes else 0)
        if ready:
            data = channel.recv(1 << 16)
            if not data:
                return
            for message in unframer.feed(data):
                match message:
                    case Ping():
                        send(channel, engine.pong())
                        if next(pings) % _TRIM_PINGS == 0:
                            trim()
                    case Load():
                        outcomes += engine.drain()
                        send(channel, engine.load(Path(message.folder)))
                    case Unload():
                        outcomes += engine.drain()
                        engine.unload(message.model)
                    case _:
                        engine.handle(message)
        if engine.has_suspects:
            send(channel, *(outcome.report() for outcome in [*outcomes, *engine.drain()]))
            outcomes = []
            for lane, half in engine.one_by_one():
                send(channel, Stepping(lane.name, sorted(lane.admit(half))))
                send(channel, *lane.step(half))
        else:
            engine.start()
            send(channel, *(outcome.report() for outcome in outcomes))
            outcomes = engine.finish()


def send(channel: socket.socket, *messages: FromEngine) -> None:
    """Send messages, each one whole."""
    for message in messages:
        channel.sendall(frame(message))


def main() -> None:
    """Run an engine process. The API process starts it with one end of a socket pair."""
    parser = argparse.ArgumentParser(prog="python -m gram.server.engine.process", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the socket to the API process")
    parser.add_argument("--number", type=int, default=0, help="the engine's number, and its device's if there are several")
    parser.add_argument("--settings", required=True, help="EngineSettings as JSON")
    parser.add_argument("--known", type=json.loads, default={}, help="fingerprints of the models served before, as JSON")
    parser.add_argument("--log-format", default="text", help="text or json")
    options = parser.parse_args()
    logs.configure(options.log_format)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # the API process may have another policy
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the API process ends this one
    channel = socket.socket(fileno=options.fd)
    try:
        settings = EngineSettings.model_validate_json(options.settings)
        engine = Engine(settings, options.known, options.number, calibrated=True)
        engine.warm_up()
    except Exception as error:
        send(channel, Failed(f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    send(channel, _ready(engine))
    try:
        serve(channel, engine)
    except ConnectionError:
        os._exit(0)  # the API process is gone, and nobody waits for answers
    except Exception as error:
        _log.exception("the engine process exits after an internal error")
        raise SystemExit(1) from error


def _ready(engine: Engine) -> Ready:
    place = engine.placement
    return Ready(
        models=engine.fingerprints,
        kernels=engine.kernels,
        missing=engine.missing,
        device=place.where,
        devices=num_devices(place.device),
        dtype=str(place.dtype),
        slots=place.slots,
        threads=place.threads if place.device.type == "cpu" else None,
    )


if __name__ == "__main__":
    main()
