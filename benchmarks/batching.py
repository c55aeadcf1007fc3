"""Compare continuous batching with whole-request batching: the same weights and the same open-loop load in one run."""

import argparse
import asyncio
import itertools
from dataclasses import dataclass

from benchmarks.load import Outcome, closed_loop, mixed_requests, open_loop
from benchmarks.servers import serving

_SERVERS = {
    "ours": ("gram", "serve"),
    "plain, full depth": ("benchmarks.plain_server", "--depth", "full"),
    "plain, to the last halt": ("benchmarks.plain_server", "--depth", "halted"),
}
_LOADS = (0.25, 0.5, 0.75, 0.9)
_SATURATING_CLIENTS = 32


@dataclass(frozen=True)
class Point:
    """The outcome of one server at one offered rate, in requests per second."""

    server: str
    load: float
    rate: float
    outcome: Outcome


def main() -> None:
    """Measure the capacity of each server, then its latency at fractions of that capacity; print both and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="length of each open-loop run; default: %(default)s")
    parser.add_argument(
        "--requests", type=int, default=150, help="requests for measuring a server's capacity; default: %(default)s"
    )
    options = parser.parse_args()
    capacity = {}
    points: list[Point] = []
    for name, module in _SERVERS.items():
        with serving(module=module) as server:
            bodies = list(itertools.islice(mixed_requests(0), options.requests))
            capacity[name] = asyncio.run(closed_loop(server.url, bodies, _SATURATING_CLIENTS)).throughput
            print(f"{name}: {capacity[name]:.2f} requests/s at saturation", flush=True)
            for load in _LOADS:
                rate = load * capacity[name]
                outcome = asyncio.run(open_loop(server.url, rate, options.seconds, seed=1))
                points.append(Point(name, load, rate, outcome))
    print(f"\n{'server':<25}{'load':>6}{'offered/s':>11}{'done/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}")
    for p in points:
        latencies = "".join(f"{p.outcome.percentile(q) * 1e3:>9.0f}" for q in (50, 95, 99))
        print(f"{p.server:<25}{p.load:>6.0%}{p.rate:>11.2f}{p.outcome.throughput:>9.2f}{latencies}")
    print()
    for name in list(_SERVERS)[1:]:
        print(f"throughput at saturation, ours / {name}: {capacity['ours'] / capacity[name]:.2f}")
        for theirs in (p for p in points if p.server == name):
            limit = theirs.outcome.percentile(95)
            ours = max((p.rate for p in points if p.server == "ours" and p.outcome.percentile(95) <= limit), default=None)
            ratio = f"{ours / theirs.rate:.2f}" if ours else "none, our p95 is longer at every load"
            print(f"  our rate within its p95 of {limit * 1e3:.0f} ms at {theirs.load:.0%} load / its rate: {ratio}")


if __name__ == "__main__":
    main()
