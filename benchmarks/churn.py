"""Send many small requests, some malformed and some cancelled, and show what they leave behind in gauges and memory."""

import argparse
import asyncio
import random
from collections import Counter

import httpx
import psutil
from tqdm import tqdm

from benchmarks.load import TASK, request
from benchmarks.servers import RunningServer, serving

_CLIENTS = 32
_WARM_UP = 1000
_GAUGES = ("gram_active_requests", "gram_live_slots", "gram_queue_depth")


async def churn(server: RunningServer, count: int, seed: int) -> Counter[str]:
    """Send `count` requests, a tenth malformed and a tenth cancelled, and count how each kind ended."""
    rng = random.Random(seed)
    became: Counter[str] = Counter()
    kinds = iter(tqdm([rng.choices(["plain", "malformed", "cancelled"], [8, 1, 1])[0] for _ in range(count)], unit="request"))
    puzzles = [TASK.text(puzzle) for puzzle in TASK.held_out]

    async def one(client: httpx.AsyncClient) -> None:
        for kind in kinds:
            body = request(rng.choice(puzzles), 1000 if kind == "cancelled" else 1, rng.getrandbits(53))
            body["stream"] = kind == "cancelled" and rng.random() < 0.5
            if kind == "malformed":
                body |= rng.choice([{"puzzle": "QQ"}, {"num_trajectories": 0}, {"model": "?"}, {"puzzle": "Q" * 64}])
            timeout = rng.uniform(0.001, 0.1) if kind == "cancelled" else 60
            try:
                response = await asyncio.wait_for(client.post("/v1/solve", json=body), timeout)
                became[f"{kind}: {response.status_code}"] += 1
            except TimeoutError:
                became[f"{kind}: left"] += 1

    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        await asyncio.gather(*(one(client) for _ in range(_CLIENTS)))
    return became


def main() -> None:
    """Print how the requests ended, the gauges afterwards, and how much memory grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="requests to send; default: %(default)s")
    options = parser.parse_args()
    with serving() as server:
        processes = {"API": psutil.Process(server.process.pid), "engine": server.engine()}
        asyncio.run(churn(server, _WARM_UP, seed=0))
        before = {name: process.memory_info().rss for name, process in processes.items()}
        became = asyncio.run(churn(server, options.requests, seed=1))
        httpx.post(f"{server.url}/v1/solve", json=request(TASK.text(TASK.held_out[0]), 1, 1), timeout=60).raise_for_status()
        for name, count in sorted(became.items()):
            print(f"{name}: {count}")
        for gauge in _GAUGES:
            server.wait_until(gauge, 0)
            print(f"{gauge}: {server.gauge(gauge):g}")
        for name, process in processes.items():
            after = process.memory_info().rss
            print(f"{name}: {before[name] / 2**20:.1f} MiB after {_WARM_UP} requests, {after / 2**20:.1f} MiB after them all")


if __name__ == "__main__":
    main()
