"""What the tests and the benchmarks share: engines of the bundled model, and real servers on real sockets."""

import os
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
"""Seconds for whatever may take long on a slow machine: a limit for what never ends, no measure of anything."""


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds that stays so, or that lasts long. Raises TimeoutError where it never does."""
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
        """Its engine processes that live."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it has just ended
                if "gram.server.engine.process" in child.cmdline():
                    found.append(child)
        return found

    def engine(self) -> psutil.Process:
        """Its engine process."""
        (engine,) = self.engines()
        return engine

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET on a connection of its own."""
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST on a connection of its own."""
        return httpx.post(f"{self.url}{path}", timeout=PATIENCE, **options)

    def gauge(self, name: str) -> float:
        """A metric's value, summed over its labels."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def ready(self) -> bool:
        """Whether it can answer; raises RuntimeError when it has ended."""
        if (code := self.process.poll()) is not None:
            raise RuntimeError(f"the server has ended with exit code {code}")
        try:
            return self.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_until(self, name: str, value: float) -> None:
        """Wait for a metric to come to a value."""
        wait_for(lambda: self.gauge(name) == value, f"{name} is {value}")

    def wait_past(self, name: str, value: float) -> None:
        """Wait for a metric to come above a value."""
        wait_for(lambda: self.gauge(name) > value, f"{name} is above {value}")

    @contextmanager
    def engine_stopped(self) -> Iterator[None]:
        """While this lasts, its engine brings nothing; longer than `--engine-timeout-seconds` and it is replaced."""
        engine = self.engine()
        engine.suspend()
        try:
            yield
        finally:
            engine.resume()

    def kill_engine(self) -> None:
        """Kill its engine, and wait until it is known to be dead."""
        deaths = self.gauge("gram_engine_restarts_total")
        self.engine().kill()
        self.wait_past("gram_engine_restarts_total", deaths)


def interruptible() -> None:
    """For a child before it runs: Ctrl-C reaches it, though a parent in the background ignores that, and hands it on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(*flags: str, module: tuple[str, ...] = ("gram", "serve"), log: Path | None = None) -> Iterator[RunningServer]:
    """A server of the bundled models, ready to answer; `module` is what `python -m` runs, `log` where its log goes."""
    port = free_port()
    command = [sys.executable, "-m", *module, "--port", str(port), *flags]
    with log.open("wb") if log else nullcontext() as stderr:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=stderr, preexec_fn=interruptible)
    server = RunningServer(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(server.ready, "the server is ready")
        yield server
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)
