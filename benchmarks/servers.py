"""Real servers on real sockets, for tests and benchmarks."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

PATIENCE = 600
"""Seconds after which a wait is given up as endless. It is long, since a slow machine may take long for anything."""


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds, which must then last for a while. Raises TimeoutError after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {PATIENCE} s still not: {what}")
        time.sleep(0.1)


@dataclass
class RunningServer:
    """A `gram serve` process."""

    url: str
    process: subprocess.Popen[bytes]

    def engines(self) -> list[psutil.Process]:
        """Return its live engine processes."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it has just ended
                if "gram.server.engine.process" in child.cmdline():
                    found.append(child)
        return found

    def engine(self) -> psutil.Process:
        """Return its only engine process."""
        (engine,) = self.engines()
        return engine

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Send a GET request on a new connection."""
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Send a POST request on a new connection."""
        return httpx.post(f"{self.url}{path}", timeout=PATIENCE, **options)

    def gauge(self, name: str) -> float:
        """Return a metric's value, summed over its labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def ready(self) -> bool:
        """Return whether it can answer. Raises RuntimeError if its process has ended."""
        if (code := self.process.poll()) is not None:
            raise RuntimeError(f"the server has ended with exit code {code}")
        try:
            return self.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_until(self, name: str, value: float) -> None:
        """Wait until a metric has this value."""
        wait_for(lambda: self.gauge(name) == value, f"{name} is {value}")

    def wait_past(self, name: str, value: float) -> None:
        """Wait until a metric is above this value."""
        wait_for(lambda: self.gauge(name) > value, f"{name} is above {value}")

    @contextmanager
    def engine_stopped(self) -> Iterator[None]:
        """Suspend its engine inside the context. It is replaced if this takes longer than `--engine-timeout-seconds`."""
        engine = self.engine()
        engine.suspend()
        try:
            yield
        finally:
            engine.resume()

    def kill_engine(self) -> None:
        """Kill its engine, and wait until the server has noticed."""
        deaths = self.gauge("gram_engine_restarts_total")
        self.engine().kill()
        self.wait_past("gram_engine_restarts_total", deaths)


def interruptible() -> None:
    """Let SIGINT end a child process, even if its parent runs in the background and passes on that it ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    """Return a port of the loopback on which nobody listens.

    It is drawn from below the range that systems give to outgoing connections, so that no connection takes it before the
    server does, and from the system's randomness, so that processes whose generators have one seed draw different ports.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def serving(*flags: str, module: tuple[str, ...] = ("gram", "serve"), log: Path | None = None) -> Iterator[RunningServer]:
    """Start a server and wait until it is ready. `python -m` runs `module`; the log goes to `log`, or to standard error."""
    port = free_port()
    command = [sys.executable, "-m", *module, "--port", str(port), *flags]
    with log.open("wb") if log else nullcontext() as stderr:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=stderr, preexec_fn=interruptible)
    scheme = "https" if "--ssl-certfile" in flags else "http"
    server = RunningServer(f"{scheme}://127.0.0.1:{port}", process)
    try:
        wait_for(server.ready, "the server is ready")
        yield server
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
