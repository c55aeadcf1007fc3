"""Load for a server: a mix of requests, open-loop and closed-loop clients, and latency percentiles."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import numpy as np

from gram.models.tasks import TASKS, Task

TASK = TASKS["nqueens-8"]
LARGEST_K = 64
_TIMEOUT = httpx.Timeout(600)

Body = dict[str, Any]


@dataclass(frozen=True)
class Mix:
    """What the requests of a load ask: held-out puzzles of one of a task's sets, and when to stop."""

    task: Task = TASK
    test_set: str = "held-out"
    stop: Literal["all", "first_valid"] = "all"

    def __str__(self) -> str:
        return f"{self.task.name}, {self.test_set}, stop: {self.stop}"


def mixed_requests(seed: int, mix: Mix | None = None) -> Iterator[Body]:
    """Yield requests without end, of 8 queens by default: puzzles in random order, K log-uniform from 1 to 64."""
    mix = mix or Mix()
    puzzles = mix.task.test_sets[mix.test_set]
    rng = np.random.default_rng(seed)
    while True:
        puzzle = puzzles[rng.integers(len(puzzles))]
        k = int(np.exp(rng.uniform(0, np.log(LARGEST_K + 1))))
        body = {"task": mix.task.name, "puzzle": mix.task.text(puzzle), "num_trajectories": k, "stop": mix.stop}
        yield body | {"seed": int(rng.integers(2**53))}


def request(puzzle_text: str, k: int, seed: int) -> Body:
    """Return the body of a solve request for k trajectories."""
    return {"task": TASK.name, "puzzle": puzzle_text, "num_trajectories": k, "seed": seed}


@dataclass(frozen=True)
class Outcome:
    """The latencies of a run's requests in seconds, from the scheduled arrival of each, and the length of the run.

    `backlog`: the requests that were open when the last one was sent.
    """

    latencies: list[float]
    seconds: float
    backlog: int = 0

    @property
    def throughput(self) -> float:
        """Completed requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, q: float) -> float:
        """Return the q-th percentile of the latencies, in seconds."""
        return float(np.percentile(self.latencies, q))


async def open_loop(url: str, rate: float, seconds: float, seed: int, bodies: Iterable[Body] | None = None) -> Outcome:
    """Send requests at Poisson arrivals, `rate` per second, without waiting for earlier answers. Returns after all answers.

    The bodies must be enough for the run; by default they are mixed requests.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, size=max(1, round(rate * seconds))))
    requests = bodies or mixed_requests(seed)
    async with _client(url) as client:
        begin = time.monotonic()

        async def one(arrival: float, body: Body) -> float:
            await asyncio.sleep(begin + arrival - time.monotonic())
            await _post(client, body)
            return time.monotonic() - begin - arrival

        latencies = await asyncio.gather(*(one(float(a), b) for a, b in zip(arrivals, requests, strict=False)))
        backlog = sum(float(a) + latency > arrivals[-1] for a, latency in zip(arrivals, latencies, strict=True))
        return Outcome(list(latencies), time.monotonic() - begin, backlog)


async def closed_loop(url: str, bodies: Iterable[Body], clients: int) -> Outcome:
    """Let each client send its next request when its last one is answered, until the bodies are used up."""
    waiting = iter(bodies)
    latencies: list[float] = []
    async with _client(url) as client:
        begin = time.monotonic()

        async def one() -> None:
            for body in waiting:
                sent = time.monotonic()
                await _post(client, body)
                latencies.append(time.monotonic() - sent)

        await asyncio.gather(*(one() for _ in range(clients)))
        return Outcome(latencies, time.monotonic() - begin)


async def saturation(url: str, bodies: Iterator[Body], clients: int, warm: float, seconds: float) -> float:
    """The requests per second that are answered to clients each of which sends its next request when its last one is answered.

    Answers are counted for so many seconds, after `warm` seconds of the same load. Neither the first answers count nor those to
    the last requests, for which the server has fewer and fewer clients.
    """
    begin = time.monotonic() + warm
    end = begin + seconds
    answered = 0
    async with _client(url) as client:

        async def one() -> None:
            nonlocal answered
            while time.monotonic() < end:
                await _post(client, next(bodies))
                answered += begin < time.monotonic() < end

        await asyncio.gather(*(one() for _ in range(clients)))
    return answered / seconds


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, limits=httpx.Limits(max_connections=None))


async def _post(client: httpx.AsyncClient, body: Body) -> None:
    response = await client.post("/v1/solve", json=body)
    response.raise_for_status()
