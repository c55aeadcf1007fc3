"""What the tests and the benchmarks share: engines of the bundled model, and real servers on real sockets."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from server.engine.loop import Engine
from server.settings import EngineSettings

PATIENCE = 600
"""Seconds for whatever may take long on a slow machine: a limit for what never ends, no measure of anything."""


@dataclass
class RunningServer:
    """A `gram serve` process."""

    url: str
    process: subprocess.Popen[bytes]

    def engine(self) -> psutil.Process:
        """Its engine process."""
        return next(
            child for child in psutil.Process(self.process.pid).children() if "server.engine.loop" in " ".join(child.cmdline())
        )

    def gauge(self, name: str) -> float:
        """A metric's value, summed over its labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=PATIENCE).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def wait_until(self, condition: str, value: float) -> None:
        """Wait for a metric to come to a value; fails after a while."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.gauge(condition) == value:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{condition} is {self.gauge(condition)}, not {value}")


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
def serving(*flags: str, module: tuple[str, ...] = ("server.cli", "serve"), log: Path | None = None) -> Iterator[RunningServer]:
    """A server of the bundled models, ready to answer; `module` is what `python -m` runs, `log` where its log goes."""
    port = free_port()
    command = [sys.executable, "-m", *module, "--port", str(port), *flags]
    with log.open("wb") if log else nullcontext() as stderr:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=stderr, preexec_fn=interruptible)
    server = RunningServer(f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if httpx.get(f"{server.url}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not come up (exit code {process.poll()})")
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(30)


def make_engine(checkpoint: Path, slots: int) -> Engine:
    """An engine in this process."""
    return Engine(EngineSettings(model=[checkpoint], slots=slots, device="cpu"))
