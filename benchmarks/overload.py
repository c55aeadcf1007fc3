"""Send more requests than the server can answer, and show how it treats those that it accepts and those that it refuses."""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from benchmarks.load import LARGEST_K, mixed_requests
from benchmarks.servers import RunningServer, serving

_CLIENTS = 32
"""Clients of the closed loop. Together they ask for about 500 trajectories at a time, many times the slots."""


@dataclass(frozen=True)
class Answer:
    """How a request ended: its status, whether all its trajectories ended, and when it was sent and answered."""

    k: int
    status: int
    complete: bool
    sent: float
    answered: float

    @property
    def good(self) -> bool:
        return self.status == 200 and self.complete

    @property
    def seconds(self) -> float:
        return self.answered - self.sent


async def ask(url: httpx.URL, body: dict[str, Any]) -> Answer:
    """Send a request over a new bare socket, since an HTTP library would take the server's cores."""
    content = json.dumps(body).encode()
    sent = time.monotonic()
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST /v1/solve HTTP/1.1\r\nhost: {url.netloc.decode()}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    answer = await reader.read()
    writer.close()
    return Answer(body["num_trajectories"], int(answer.split()[1]), b'"complete":true' in answer, sent, time.monotonic())


async def closed_loop(url: httpx.URL, requests: Iterator[dict[str, Any]], seconds: float) -> list[Answer]:
    """Let each client send its next request when its last one is answered."""
    answers: list[Answer] = []
    end = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            answers.append(await ask(url, next(requests)))

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return answers


async def open_loop(url: httpx.URL, requests: Iterator[dict[str, Any]], rate: float, seconds: float) -> list[Answer]:
    """Send requests at Poisson arrivals, without waiting for earlier answers."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1 / rate, size=max(1, round(rate * seconds))))
    begin = time.monotonic()

    async def one(arrival: float, body: dict[str, Any]) -> Answer:
        await asyncio.sleep(begin + arrival - time.monotonic())
        return await ask(url, body)

    return await asyncio.gather(*(one(float(arrival), body) for arrival, body in zip(arrivals, requests, strict=False)))


@dataclass(frozen=True)
class Goodput:
    """Complete answers per second, from the end of the warm-up, in which the queue fills, to the last arrival."""

    requests: float
    trajectories: float

    @classmethod
    def of(cls, answers: list[Answer], warm_up: float) -> "Goodput":
        begin, end = min(a.sent for a in answers) + warm_up, max(a.sent for a in answers)
        counted = [answer.k for answer in answers if answer.good and begin < answer.answered <= end]
        return cls(len(counted) / (end - begin), sum(counted) / (end - begin))


def percentiles(answers: list[Answer]) -> str:
    """Describe the times of answers by their percentiles."""
    seconds = [answer.seconds for answer in answers]
    return ", ".join(f"p{q} {np.percentile(seconds, q) * 1e3:.0f} ms" for q in (50, 95, 99, 100)) if seconds else "none"


def overload(server: RunningServer, seed: int, options: argparse.Namespace) -> float:
    """Measure the server's goodput at its capacity, then at `times` that load. Returns the ratio of the two goodputs."""
    url = httpx.URL(server.url)
    most = Goodput.of(asyncio.run(closed_loop(url, mixed_requests(seed), options.seconds)), options.seconds / 4)
    server.wait_until("gram_active_requests", 0)
    bodies = (body | {"timeout_seconds": options.timeout} for body in mixed_requests(seed + 1))
    offered = most.requests * options.times
    answers = asyncio.run(open_loop(url, bodies, offered, options.seconds))
    server.wait_until("gram_active_requests", 0)
    goodput = Goodput.of(answers, options.seconds / 4)
    accepted, refused = ([a for a in answers if (a.status == 429) == is_refused] for is_refused in (False, True))
    kept = sum(answer.good for answer in accepted)
    large = [a for a in answers if a.k > LARGEST_K // 2]
    print(f"capacity: {most.trajectories:.1f} trajectories/s, {most.requests:.2f} requests/s")
    print(f"at {offered:.1f} requests/s: {goodput.trajectories:.1f} trajectories/s, {goodput.requests:.2f} requests/s")
    print(f"  accepted {len(accepted)}, of which {kept} complete and in time: {percentiles(accepted)}")
    print(f"  refused {len(refused)}: {percentiles(refused)}")
    print(f"  accepted with K > {LARGEST_K // 2}: {sum(a.status != 429 for a in large)} of {len(large)}")
    print(f"  ratio {goodput.trajectories / most.trajectories:.3f}", flush=True)
    return goodput.trajectories / most.trajectories


def main() -> None:
    """Alternate between the two loads, so that changes of the machine's speed affect both. Print each round and the median."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to measure; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=30, help="length of each load in a round; default: %(default)s")
    parser.add_argument(
        "--times", type=float, default=5, help="offered load as a multiple of the capacity; default: %(default)s"
    )
    parser.add_argument("--timeout", type=float, default=10, help="deadline of each request in seconds; default: %(default)s")
    options = parser.parse_args()
    with serving() as server:
        ratios = [overload(server, 2 * round_, options) for round_ in range(options.rounds)]
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
