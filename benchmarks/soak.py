"""Saturate a server for half an hour, and show whether memory grows, slots or requests leak, and latency stays the same."""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.load import mixed_requests
from benchmarks.servers import RunningServer, serving
from gram.models.tasks import TASKS

_CLIENTS = 16
_SAMPLE_SECONDS = 5
_WARM_UP_SHARE = 0.1
_PARTS = 6
"""Parts of the time after the warm-up. Their 99th percentiles show whether the latency stays the same."""

_ABANDONED, _STREAMED = 0.05, 0.3
"""Shares of the requests that are abandoned before the answer, and that are streamed."""

_GAUGES = ("gram_active_requests", "gram_live_slots", "gram_queue_depth")


def requests(seed: int) -> Iterator[dict[str, Any]]:
    """Yield requests without end: three in four are those of the usual mix, the others are for random other tasks."""
    rng, queens = random.Random(seed), mixed_requests(seed)
    others = [task for name, task in TASKS.items() if name != "nqueens-8"]
    while True:
        body = next(queens)
        if rng.random() < 0.25:
            task = rng.choice(others)
            body |= {"task": task.name, "puzzle": task.text(rng.choice(list(task.held_out[:100])))}
        yield body | {"stream": rng.random() < _STREAMED}


def anonymous_mib(pid: int) -> float:
    """Return the anonymous resident memory of a process (RssAnon) in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


async def soak(server: RunningServer, seconds: float) -> tuple[list[tuple[float, float]], NDArray[np.float64], Counter[str]]:
    """Return (time, latency) of each answer, the memory of both processes by time [T, 3], and the counts of statuses."""
    latencies: list[tuple[float, float]] = []
    memory: list[list[float]] = []
    became: Counter[str] = Counter()
    bodies, rng = requests(0), random.Random(1)
    pids = server.process.pid, server.engine().pid
    begin = time.monotonic()

    async def client(session: httpx.AsyncClient) -> None:
        while time.monotonic() - begin < seconds:
            body = next(bodies)
            sent = time.monotonic()
            patience = rng.uniform(0.001, 0.2) if rng.random() < _ABANDONED else None
            try:
                response = await asyncio.wait_for(session.post("/v1/solve", json=body), patience)
            except TimeoutError:
                became["abandoned"] += 1
                continue
            became[str(response.status_code)] += 1
            latencies.append((time.monotonic() - begin, time.monotonic() - sent))

    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=None)) as session:
        clients = [asyncio.create_task(client(session)) for _ in range(_CLIENTS)]
        for _ in tqdm(range(int(seconds / _SAMPLE_SECONDS)), unit_scale=_SAMPLE_SECONDS, unit="s"):
            await asyncio.sleep(_SAMPLE_SECONDS)
            memory.append([time.monotonic() - begin, *map(anonymous_mib, pids)])
        await asyncio.gather(*clients)
    return latencies, np.array(memory), became


def slope(seconds: NDArray[np.float64], mib: NDArray[np.float64]) -> tuple[float, float]:
    """Return the growth in MiB per hour by least squares, and its standard error, from the means of ten intervals.

    Neighbouring samples are alike, so the scatter of single samples would make the error too small.
    """
    hours, means = (np.array([part.mean() for part in np.array_split(values, 10)]) for values in (seconds / 3600, mib))
    line, covariance = np.polyfit(hours, means, 1, cov=True)
    return float(line[0]), float(covariance[0, 0] ** 0.5)


def main() -> None:
    """Print the growth of memory, the 99th percentiles of each part, and the gauges afterwards."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="length of the run; default: %(default)s")
    options = parser.parse_args()
    seconds = options.minutes * 60
    with serving() as server:
        latencies, memory, became = asyncio.run(soak(server, seconds))
        for what, count in sorted(became.items()):
            print(f"{what}: {count}")
        warm_up = seconds * _WARM_UP_SHARE
        kept = memory[memory[:, 0] > warm_up]
        for column, name in enumerate(("API", "engine"), start=1):
            growth, error = slope(kept[:, 0], kept[:, column])
            first, last = kept[0, column], kept[-1, column]
            ends = f"{first:.1f} MiB after the warm-up, {last:.1f} MiB at the end"
            print(f"{name}: RssAnon {ends}; slope {growth:+.2f} +- {error:.2f} MiB/h")
        edges = np.linspace(warm_up, seconds, _PARTS + 1)
        for begin, end in pairwise(edges):
            part = [took for answered, took in latencies if begin < answered <= end]
            p50, p99 = np.percentile(part, [50, 99])
            api, engine = memory[(memory[:, 0] > begin) & (memory[:, 0] <= end), 1:].mean(0)
            times = f"{len(part)} answers, p50 {p50:.2f} s, p99 {p99:.2f} s"
            print(f"{begin / 60:.0f} to {end / 60:.0f} min: {times}; RssAnon API {api:.1f} MiB, engine {engine:.1f} MiB")
        for gauge in _GAUGES:
            server.wait_until(gauge, 0)
            print(f"{gauge}: {server.gauge(gauge):g}")
        print(f"restarts: {server.gauge('gram_engine_restarts_total'):g}")


if __name__ == "__main__":
    main()
