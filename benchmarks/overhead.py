"""Measure the cost of HTTP: the saturated rate of a server, compared with that of the engine driven in this process."""

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import httpx

from benchmarks.load import TASK, request
from benchmarks.servers import serving
from gram.server.engine.engine import Engine
from gram.server.local import run
from gram.server.sampling.requests import SolveRequest
from gram.server.settings import EngineSettings

_IN_FLIGHT = 32


def direct(engine: Engine, bodies: list[dict[str, Any]]) -> float:
    """Return the requests per second of the engine in this process, with as many in flight as the server has."""
    parsed = [SolveRequest.model_validate(body) for body in bodies]
    submits = [r.submit(i, TASK.name, TASK.parse(r.puzzle), r.chosen_seed()) for i, r in enumerate(parsed)]
    begin = time.monotonic()
    for _ in run(engine, submits, in_flight=_IN_FLIGHT):
        pass
    return len(bodies) / (time.monotonic() - begin)


async def through_http(url: httpx.URL, bodies: list[dict[str, Any]]) -> float:
    """Return the requests per second of the server. Each client sends its next request when its last one is answered.

    The clients run on the server's cores, which real clients do not. So they are bare sockets, with a tenth of the work of
    an HTTP library.
    """
    waiting = iter(bodies)

    async def client() -> None:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        for body in waiting:
            content = json.dumps(body).encode()
            head = f"POST /v1/solve HTTP/1.1\r\nhost: {url.netloc.decode()}\r\ncontent-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 200"), answer
            await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    begin = time.monotonic()
    await asyncio.gather(*(client() for _ in range(_IN_FLIGHT)))
    return len(bodies) / (time.monotonic() - begin)


def main() -> None:
    """Alternate between the two, so that changes of the machine's speed affect both. Print each round and the median ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure; default: %(default)s")
    parser.add_argument(
        "--requests", type=int, default=150, help="requests to each of the two in a round; default: %(default)s"
    )
    parser.add_argument("--k", type=int, default=20, help="trajectories of each request; default: %(default)s")
    options = parser.parse_args()
    puzzles = [TASK.text(puzzle) for puzzle in TASK.held_out]
    ratios = []
    engine = Engine(EngineSettings())
    engine.warm_up()
    with serving() as server:
        for round_ in range(options.rounds):
            bodies = [
                request(puzzles[(round_ * options.requests + i) % len(puzzles)], options.k, i) for i in range(options.requests)
            ]
            alone = direct(engine, bodies)
            through = asyncio.run(through_http(httpx.URL(server.url), bodies))
            ratios.append(through / alone)
            print(f"direct {alone:.2f}/s, HTTP {through:.2f}/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
