"""Compare ours with LitServe, Ray Serve and BentoML: the same weights, runner and checker, each peer in its own batching.

First each peer's best batch is found, with which it answers the most requests at saturation. Then the four take turns, each
measured at saturation and at rates that are shares of the best peer's. Install them by `pip install -e '.[peers]'`.
"""

import argparse
import asyncio
import datetime
import importlib.util
import itertools
import os
import signal
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import JsonValue
from tqdm import tqdm

from benchmarks.load import Body, Mix, Outcome, mixed_requests, open_loop, saturation
from benchmarks.servers import RunningServer, serving
from benchmarks.whole_requests import Depth
from gram.models.markdown import table
from gram.models.tasks import TASKS

OURS = "ours"
PEERS = {"litserve": "LitServe", "ray": "Ray Serve", "bentoml": "BentoML"}
_CLIENTS = 32
_DEPTHS: tuple[Depth, ...] = ("halted", "released")
_SHARES = (0.5, 0.8)
_MIXES = (
    Mix(),
    Mix(stop="first_valid"),
    Mix(TASKS["sudoku-9x9"], "hard", "first_valid"),
)
_WARM_SECONDS = 4.0
"""Of a server's start, not measured: BentoML is ready when its first worker is."""


@dataclass(frozen=True)
class Batching:
    """How a peer batches: at most so many requests, stepped to this depth."""

    size: int
    depth: Depth

    def __str__(self) -> str:
        return f"{self.size}, {self.depth}"


@dataclass
class Side:
    """A server's figures for a mix: requests per second at saturation, and the outcomes at each offered rate, by round."""

    saturation: list[float] = field(default_factory=list)
    outcomes: dict[float, list[Outcome]] = field(default_factory=dict)

    def percentile(self, rate: float, q: float) -> float:
        """The q-th percentile of the latencies of all rounds at this rate, in seconds."""
        return Outcome([latency for outcome in self.outcomes[rate] for latency in outcome.latencies], 1).percentile(q)

    def sustains(self, rate: float) -> bool:
        """Whether it kept up with this rate: in the end no more requests were open than the clients have at saturation."""
        return statistics.median(outcome.backlog for outcome in self.outcomes[rate]) <= _CLIENTS


@contextmanager
def serving_side(name: str, batching: Batching | None) -> Iterator[RunningServer]:
    """Start a server. When the context ends, no process of it is left: LitServe leaves its workers when it is terminated."""
    flags = ("--batch-size", str(batching.size), "--depth", batching.depth) if batching else ()
    module = ("benchmarks.peer_servers", name) if batching else ("gram", "serve")
    family: list[psutil.Process] = []
    try:
        with serving(*flags, module=module, log=Path(os.devnull)) as server:
            try:
                yield server
            finally:
                family = psutil.Process(server.process.pid).children(recursive=True)
    finally:
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()


def _bodies(name: str, seed: int, mix: Mix) -> Iterator[Body]:
    """The requests of a mix, as this server takes them: BentoML's batchable endpoints take a list."""
    bodies = mixed_requests(seed, mix)
    return ({"requests": [body]} for body in bodies) if name == "bentoml" else bodies


def _saturate(url: str, name: str, mix: Mix, seconds: float) -> float:
    """The server's requests per second at saturation."""
    return asyncio.run(saturation(url, _bodies(name, 0, mix), _CLIENTS, _WARM_SECONDS, seconds))


def answers(server: RunningServer, name: str, mix: Mix, count: int = 3) -> list[JsonValue]:
    """The candidates of a mix's first requests: every server gives the same, bit for bit."""
    found = []
    for body in itertools.islice(_bodies(name, 0, mix), count):
        answer = server.post("/v1/solve", json=body).raise_for_status().json()
        found.append((answer[0] if isinstance(answer, list) else answer)["candidates"])
    return found


def _tune(
    peers: list[str], sizes: list[int], mixes: list[Mix], seconds: float
) -> dict[tuple[str, Mix], tuple[Batching, float]]:
    """The batching with which each peer answers the most requests at saturation, and how many, for each mix."""
    best: dict[tuple[str, Mix], tuple[Batching, float]] = {}
    batchings = [Batching(size, depth) for depth in _DEPTHS for size in sizes]
    for name, batching in tqdm([*itertools.product(peers, batchings)], desc="tuning", unit="start"):
        with serving_side(name, batching) as server:
            for mix in mixes:
                rate = _saturate(server.url, name, mix, seconds)
                tqdm.write(f"tuning: {PEERS[name]}, batches of {batching}: {rate:.1f} requests/s at saturation of {mix}")
                if (name, mix) not in best or rate > best[name, mix][1]:
                    best[name, mix] = batching, rate
    return best


def _compare(best: dict[str, tuple[Batching, float]], mix: Mix, rounds: int, seconds: float) -> dict[str, Side]:
    """Measure the peers in their best batching and ours, in turns."""
    sides = {name: Side() for name in (OURS, *best)}
    rates = [share * max(rate for _, rate in best.values()) for share in _SHARES]
    expected: list[JsonValue] = []
    for number, (name, side) in enumerate(tqdm([*sides.items()] * rounds, desc=str(mix), unit="turn")):
        with serving_side(name, best[name][0] if name in best else None) as server:
            given = answers(server, name, mix)
            expected = expected or given
            if given != expected:
                raise SystemExit(f"{name} gives other answers than ours to {mix}; is it the same build?")
            side.saturation.append(_saturate(server.url, name, mix, seconds))
            for rate in rates:
                bodies = _bodies(name, number // len(sides) + 1, mix)
                outcome = asyncio.run(open_loop(server.url, rate, seconds, number // len(sides), bodies))
                side.outcomes.setdefault(rate, []).append(outcome)
    return sides


def report(sides: dict[str, Side]) -> str:
    """A Markdown table of the sides, and ours against the best of the others."""
    rates = [*sides[OURS].outcomes]
    head = ["server", "at saturation/s", *(f"p50 / p95 / p99 ms at {rate:.1f}/s" for rate in rates)]
    rows = []
    for name, side in sides.items():
        spread = f"{statistics.median(side.saturation):.1f} ({min(side.saturation):.1f} to {max(side.saturation):.1f})"
        cells = [" / ".join(f"{side.percentile(rate, q) * 1e3:.0f}" for q in (50, 95, 99)) for rate in rates]
        cells = [cell if side.sustains(rate) else f"{cell}, not sustained" for cell, rate in zip(cells, rates, strict=True)]
        rows.append([PEERS.get(name, name), spread, *cells])
    ours, peers = sides[OURS], {name: side for name, side in sides.items() if name != OURS}
    best = max(peers, key=lambda name: statistics.median(peers[name].saturation))
    ratios = [one / other for one, other in zip(ours.saturation, peers[best].saturation, strict=True)]
    lines = [
        table(head, rows),
        "",
        f"At saturation ours / {PEERS[best]}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    ]
    for name, side in peers.items():
        if sustained := [rate for rate in rates if side.sustains(rate)]:
            rate = max(sustained)
            ratio = side.percentile(rate, 95) / ours.percentile(rate, 95)
            lines.append(f"p95 of {PEERS[name]} / ours at {rate:.1f}/s, the highest rate that it sustains: {ratio:.2f}")
        else:
            lines.append(f"{PEERS[name]} sustains none of these rates.")
    return "\n".join(lines)


def main() -> None:
    """Find each peer's best batching, compare, and print a table for each mix."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server; default: %(default)s")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2, 8, 16], help="default: 2 8 16")
    parser.add_argument("--mixes", type=int, nargs="+", default=[0, 1, 2], help=f"of {[*map(str, _MIXES)]}; default: all")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that servers end with this process
    peers = [name for name in PEERS if importlib.util.find_spec(name)]
    if missing := [name for name in PEERS if name not in peers]:
        raise SystemExit(f"{', '.join(missing)}: not installed here; install the peers by pip install -e '.[peers]'")
    mixes = [_MIXES[number] for number in options.mixes]
    print(f"{len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}, {datetime.date.today()}")
    tuned = _tune(peers, options.batch_sizes, mixes, options.seconds)
    for mix in mixes:
        best = {name: tuned[name, mix] for name in peers}
        sides = _compare(best, mix, options.rounds, options.seconds)
        chosen = "; ".join(f"{PEERS[name]} {batching}" for name, (batching, _) in best.items())
        print(f"\n{mix} (batches: {chosen})\n\n{report(sides)}", flush=True)


if __name__ == "__main__":
    main()
