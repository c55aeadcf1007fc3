"""Keep up a load while engines die, hang and reload a corrupted file and clients leave; count lost and wrong answers."""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.servers import RunningServer, serving
from gram.models.config import WEIGHTS_FILE
from gram.models.tasks import TASKS
from gram.server.catalog import bundled_models, model_name
from gram.server.engine.engine import Engine
from gram.server.local import run
from gram.server.sampling.answers import SolveResponse, TrajectoryEvent
from gram.server.sampling.collector import Collector
from gram.server.sampling.requests import SolveRequest
from gram.server.settings import EngineSettings

_STEADY, _CORRUPTED = "nqueens-8", "corrupted"
"""The model that must always answer, and the name of the copy whose file is corrupted."""

_LARGEST_K = 32
_DROPPED_K = 1000
_TIMEOUT_SECONDS = 5
"""The server's --engine-timeout-seconds. Its default would make the run a minute and a half longer."""

_PAUSE_SECONDS = (2.0, 5.0)
"""Range of the random pause before a fault, which begins when every client has had an answer since the last fault."""

_GAUGES = ("gram_active_requests", "gram_live_slots", "gram_queue_depth")

Body = dict[str, Any]


@dataclass
class Exchange:
    """A request, and its result and stream events from an engine without faults."""

    body: Body
    result: Body = field(default_factory=dict)
    events: dict[int, Body] = field(default_factory=dict)


@dataclass
class Tally:
    """How the requests ended, and the seconds until the server was ready again after each kind of fault."""

    became: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: {"kill": [], "hang": []})
    restarts: float = 0

    def bad(self, what: str, detail: str) -> None:
        """Count a request that was lost or answered wrongly."""
        self.became[what] += 1
        self.details.append(f"{what}: {detail}")


def bodies(count: int, seed: int) -> list[Body]:
    """Draw requests of all kinds: most to the steady model, K log-uniform, half of them streams, a third with guidance."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        model, task = rng.choice([(_STEADY, TASKS["nqueens-8"])] * 3 + [(_CORRUPTED, TASKS["sudoku-4x4"])])
        puzzle = task.text(rng.choice(list(task.held_out)))
        k = int(np.exp(rng.uniform(0, np.log(_LARGEST_K + 1))))
        body: Body = {"model": model, "puzzle": puzzle, "num_trajectories": k, "seed": rng.getrandbits(53)}
        body["stream"] = rng.random() < 0.5
        body["stop"] = rng.choice(["all", "all", "first_valid"])
        body["guidance"] = rng.choice(["none", "none", {"prune": {"keep": 0.5, "steps": [2, 4]}}])
        made.append(body)
    return made


def undisturbed(models: list[Path], requests: list[Body]) -> list[Exchange]:
    """Answer the requests with an engine in this process."""
    engine = Engine(EngineSettings(model=models))
    tasks = {_STEADY: TASKS["nqueens-8"], _CORRUPTED: TASKS["sudoku-4x4"]}
    exchanges = [Exchange(body) for body in requests]
    collectors, submits, parsed = [], [], []
    for number, body in enumerate(requests):
        request = SolveRequest.model_validate(body)
        task, puzzle = request.input(tasks[body["model"]])
        parsed.append(request)
        collectors.append(Collector(task, puzzle, request.num_trajectories, request.stop))
        submits.append(request.submit(number, body["model"], puzzle, body["seed"]))
    total = sum(request.num_trajectories for request in parsed)
    for trajectory in tqdm(run(engine, submits, in_flight=32), "undisturbed", total, unit="trajectory"):
        collector, exchange = collectors[trajectory.request], exchanges[trajectory.request]
        for counted, candidate in collector.add(trajectory):
            event = TrajectoryEvent.of_trajectory(collector.task, counted, candidate)
            exchange.events[counted.index] = event.model_dump()
    for exchange, collector, request in zip(exchanges, collectors, parsed, strict=True):
        answer = SolveResponse.of(exchange.body["model"], collector, exchange.body["seed"], request, 0.0, 0.0)
        exchange.result = untimed(answer.model_dump())
    return exchanges


def untimed(result: Body) -> Body:
    """Remove the times from a result, which differ between two runs."""
    return {name: value for name, value in result.items() if not name.endswith("_ms")}


async def events(client: httpx.AsyncClient, body: Body) -> AsyncIterator[tuple[str, Body]]:
    """Yield the answer as named events, whether or not it is a stream: trajectories, then `result` or `error`."""
    headers = {"accept": "application/x-ndjson"}
    async with client.stream("POST", "/v1/solve", json=body, headers=headers) as response:
        if response.status_code != 200:
            yield "error", json.loads(await response.aread())
        elif body["stream"]:
            async for line in response.aiter_lines():
                event = json.loads(line)
                yield event["event"], event["data"]
        else:
            yield "result", json.loads(await response.aread())


async def one(client: httpx.AsyncClient, exchange: Exchange, tally: Tally, corrupted: asyncio.Event) -> None:
    """Send a request and compare its answer, bit for bit."""
    body = exchange.body
    seen: dict[int, Body] = {}
    may_be_refused = body["model"] == _CORRUPTED
    try:
        async for name, data in events(client, body):
            if name == "trajectory":
                if data["trajectory"] in seen:
                    tally.bad("wrong", f"trajectory {data['trajectory']} came twice: {body}")
                    return
                seen[data["trajectory"]] = data
            elif name == "result":
                right = untimed(data) == exchange.result and (not body["stream"] or seen == exchange.events)
                if right:
                    tally.became["answered"] += 1
                else:
                    tally.bad("wrong", str(body))
                return
            elif may_be_refused and corrupted.is_set() and data["status"] == 503 and "out of rotation" in data["detail"]:
                tally.became["refused"] += 1
                return
            else:
                tally.bad("lost", str(data))
                return
        tally.bad("lost", f"the stream ended without a result: {body}")
    except httpx.HTTPError as error:
        tally.bad("lost", repr(error))


async def drop(client: httpx.AsyncClient, body: Body, seconds: float, tally: Tally) -> None:
    """Send a request and leave before it is answered."""

    async def read() -> None:
        async for name, _ in events(client, body):
            if name != "trajectory":
                return

    try:
        await asyncio.wait_for(read(), seconds)
        tally.bad("lost", "a request ended before its client could leave")
    except TimeoutError:
        tally.became["dropped"] += 1


async def until_ready(client: httpx.AsyncClient, server: RunningServer, restarts: int) -> None:
    """Wait until another engine is ready after this many restarts."""
    # The restarts come first: until the death is noticed, the server still says that it is ready.
    while await metric(server, "gram_engine_restarts_total") < restarts or not await ready(client):
        await asyncio.sleep(0.05)


async def ready(client: httpx.AsyncClient) -> bool:
    """Return whether an engine can answer."""
    return (await client.get("/health/ready")).status_code == 200


async def metric(server: RunningServer, name: str) -> float:
    """Return the present value of a metric."""
    return await asyncio.to_thread(server.gauge, name)


async def fault_run(server: RunningServer, weights: Path, exchanges: list[Exchange], options: argparse.Namespace) -> Tally:
    """Cause the faults in random order under load. The file is corrupted after half of them."""
    rng = random.Random(options.seed)
    faults = ["kill"] * options.kills + ["hang"] * options.hangs
    rng.shuffle(faults)
    tally, corrupted, over = Tally(), asyncio.Event(), False
    waiting: Iterator[Exchange] = cycle(exchanges)
    dropped_body = {**exchanges[0].body, "model": _STEADY, "puzzle": {"queens": []}, "num_trajectories": _DROPPED_K}
    dropped_body |= {"stop": "all", "guidance": "none"}
    drops = iter(range(options.drops))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        ended = [0] * options.clients

        async def load(number: int) -> None:
            while not over:
                await one(client, next(waiting), tally, corrupted)
                ended[number] += 1

        async def until_all_come_further() -> None:
            """Wait until each client has an answer, since the server ends a request that sees three deaths in a row."""
            before = [*ended]
            while any(now == then for now, then in zip(ended, before, strict=True)):
                await asyncio.sleep(0.05)

        async def dropping(count: int) -> None:
            for _, number in zip(range(count), drops, strict=False):
                body = {**dropped_body, "stream": number % 2 == 0}
                await drop(client, body, rng.uniform(0.001, 0.1), tally)

        clients = [asyncio.create_task(load(number)) for number in range(options.clients)]
        each = -(-options.drops // max(1, len(faults)))
        for number, fault in enumerate(tqdm(faults, "faults", unit="fault")):
            leaving = asyncio.create_task(dropping(each))
            await until_all_come_further()
            await asyncio.sleep(rng.uniform(*_PAUSE_SECONDS))
            if number == len(faults) // 2:
                data = bytearray(weights.read_bytes())
                data[-1] ^= 1
                corrupted.set()
                weights.write_bytes(data)
            engine = server.engine()
            begin = time.monotonic()
            if fault == "kill":
                engine.kill()
            else:
                engine.suspend()
            await until_ready(client, server, number + 1)
            tally.recoveries[fault].append(time.monotonic() - begin)
            await leaving
        await dropping(options.drops)
        over = True
        await asyncio.gather(*clients)
        # The last engine answers each request once more.
        for exchange in exchanges:
            await one(client, exchange, tally, corrupted)
        tally.restarts = await metric(server, "gram_engine_restarts_total")
    return tally


def main() -> None:
    """Print how the requests ended. Exits with 1 if one was lost or wrong, or if the restarts are not those of the faults."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="engines to kill; default: %(default)s")
    parser.add_argument("--hangs", type=int, default=3, help="engines to suspend; default: %(default)s")
    parser.add_argument("--drops", type=int, default=1000, help="requests that their clients abandon; default: %(default)s")
    parser.add_argument("--clients", type=int, default=8, help="clients, each with one request at a time; default: %(default)s")
    parser.add_argument(
        "--requests", type=int, default=200, help="different requests, sent again and again; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the requests and faults; default: %(default)s")
    options = parser.parse_args()
    bundled = {model_name(folder): folder for folder in bundled_models()}
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(bundled["sudoku-4x4"], Path(place) / _CORRUPTED)
        models = [bundled[_STEADY], copy]
        exchanges = undisturbed(models, bodies(options.requests, options.seed))
        flags = [part for folder in models for part in ("--model", str(folder))]
        with serving(*flags, "--engine-timeout-seconds", str(_TIMEOUT_SECONDS)) as server:
            begin = time.monotonic()
            tally = asyncio.run(fault_run(server, copy / WEIGHTS_FILE, exchanges, options))
            print(f"{time.monotonic() - begin:.0f} s under load")
            for gauge in _GAUGES:
                server.wait_until(gauge, 0)
    for detail in tally.details[:10]:
        print(detail)
    for what in ("answered", "refused", "dropped", "wrong", "lost"):
        print(f"{what}: {tally.became[what]}")
    faults = options.kills + options.hangs
    print(f"restarts: {tally.restarts:g} of {faults}")
    for kind, seconds in tally.recoveries.items():
        if seconds:
            print(f"ready again after a {kind}: median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s")
    sys.exit(bool(tally.became["wrong"] or tally.became["lost"] or tally.restarts != faults))


if __name__ == "__main__":
    main()
