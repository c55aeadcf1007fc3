"""What Ray Serve costs and brings: `python -m benchmarks.scaleout` needs gram-server[ray], and runs on one machine.

overhead: the same engine in `gram serve`, behind it on a cluster, and behind Ray Serve's proxy, asked by turns.
scaling: engines whose steps take as long as they are told, on a model that computes next to nothing, since the cores of one
machine can't show more than one machine's worth of real steps.
faults: replicas and engines are killed while clients ask; what is lost, and what is changed?
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks.servers import PATIENCE, RunningServer, serving
from gram.models.checkpoint import save_checkpoint
from gram.models.config import CheckpointConfig, ModelConfig
from gram.models.network import GRAM
from gram.models.tasks import TASKS
from gram.server.catalog import bundled_models

QUEENS = TASKS["nqueens-8"]
CLIENTS = 8
STEP_SECONDS = 0.05


def body(number: int, **options: Any) -> dict[str, Any]:
    """A request with an answer of its own."""
    puzzle = QUEENS.text(QUEENS.held_out[number % len(QUEENS.held_out)])
    return {"model": "nqueens-8", "puzzle": puzzle, "num_trajectories": 20, "seed": number} | options


def answer(client: httpx.Client, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer without its times. Raises HTTPError if there is none."""
    response = client.post("/v1/solve", json=asked).raise_for_status()
    return {name: value for name, value in response.json().items() if not name.endswith("_ms")}


def overhead(rounds: int) -> None:
    """Latency of a lone client, and throughput of several, of each server by turns."""
    from benchmarks.ray_servers import ray_cluster, serving_on_ray

    checkpoint = next(folder for folder in bundled_models() if folder.name == "nqueens-8")
    with ExitStack() as running:
        cluster = running.enter_context(ray_cluster(nodes=1))
        servers: dict[str, RunningServer] = {
            "gram serve": running.enter_context(serving("--model", str(checkpoint), "--slots", "8", "--threads", "1")),
            "serve run": running.enter_context(serving_on_ray(cluster, checkpoint, replicas=1)),
            "gram serve --ray": running.enter_context(
                serving("--model", str(checkpoint), "--slots", "8", "--threads", "1", "--ray", cluster.address)
            ),
        }
        alone: dict[str, list[float]] = {name: [] for name in servers}
        rates: dict[str, list[float]] = {name: [] for name in servers}
        for number in range(rounds):
            for name, server in servers.items():
                with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
                    for each in range(20):
                        begin = time.monotonic()
                        answer(client, body(20 * number + each))
                        alone[name].append(time.monotonic() - begin)
                    begin = time.monotonic()
                    with ThreadPoolExecutor(CLIENTS) as clients:
                        list(clients.map(lambda n: answer(client, body(n)), range(5 * CLIENTS)))
                    rates[name].append(5 * CLIENTS / (time.monotonic() - begin))
        print("| server | p50 of a lone client | requests/s of 8 clients |\n| --- | --- | --- |")
        for name in servers:
            print(f"| {name} | {1e3 * statistics.median(alone[name]):.1f} ms | {statistics.median(rates[name]):.1f} |")


@contextmanager
def simulated_steps(folder: Path) -> Iterator[Path]:
    """A checkpoint that computes next to nothing, and, for the processes started in this context, steps of STEP_SECONDS."""
    sizes = ModelConfig(vocab_size=9, seq_len=9, dim=8, num_layers=1, mixer_dim=8, mlp_dim=8, guidance_dim=8, num_registers=1)
    torch.manual_seed(0)
    checkpoint = folder / "simulated"
    save_checkpoint(checkpoint, CheckpointConfig(task="nine", checked=False, model=sizes), GRAM(sizes, torch.float32))
    (folder / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if 'gram.server.engine.process' in sys.orig_argv:\n"
        "    from gram.server.engine.runner import Runner\n"
        "    compute = Runner.start\n"
        "    def start(self, pool):\n"
        f"        end = time.monotonic() + {STEP_SECONDS}\n"
        "        compute(self, pool)\n"
        "        time.sleep(max(end - time.monotonic(), 0))\n"
        "    Runner.start = start\n"
    )
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield checkpoint
    finally:
        os.environ["PYTHONPATH"] = before


def scaling() -> None:
    """Trajectories per second of one request for many, divided over 1, 2 and 4 engines with simulated steps."""
    from benchmarks.ray_servers import ray_cluster, serving_on_ray

    asked = {"model": "simulated", "puzzle": "000000000", "seed": 1, "max_steps": 8, "halt": "never"}
    with tempfile.TemporaryDirectory() as folder, simulated_steps(Path(folder)) as checkpoint, ray_cluster(nodes=4) as cluster:
        print("| replicas | trajectories/s | of linear |\n| --- | --- | --- |")
        first = None
        for replicas in (1, 2, 4):
            with (
                serving_on_ray(cluster, checkpoint, replicas=replicas) as server,
                httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
            ):
                answer(client, asked | {"num_trajectories": 32 * replicas})  # so that the rates are known
                count = 320 * replicas
                begin = time.monotonic()
                answer(client, asked | {"num_trajectories": count})
                rate = count / (time.monotonic() - begin)
                first = first or rate
                print(f"| {replicas} | {rate:.0f} | {rate / first / replicas:.0%} |", flush=True)


def faults(kills: int) -> None:
    """Kill engines and replicas by turns under load, and compare every answer with that of an undisturbed server."""
    from benchmarks.ray_servers import ray_cluster, serving_on_ray

    checkpoint = next(folder for folder in bundled_models() if folder.name == "nqueens-8")
    with ray_cluster() as cluster, serving_on_ray(cluster, checkpoint) as server:
        expected: dict[int, dict[str, Any]] = {}
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            for number in range(CLIENTS):
                expected[number] = answer(client, body(number, num_trajectories=40))
            asked = lost = changed = 0
            killing = True

            def keep_asking(number: int) -> None:
                nonlocal asked, lost, changed
                while killing:
                    asked += 1
                    try:
                        changed += answer(client, body(number, num_trajectories=40)) != expected[number]
                    except httpx.HTTPError:
                        lost += 1

            with ThreadPoolExecutor(CLIENTS) as clients:
                busy = [clients.submit(keep_asking, number) for number in range(CLIENTS)]
                for kill in range(kills):
                    time.sleep(random.uniform(2, 6))
                    random.choice(server.engines() if kill % 2 else server.replicas()).kill()
                time.sleep(2)
                killing = False
                for each in busy:
                    each.result()
        print(f"requests {asked}, kills {kills}, lost {lost}, changed {changed}")


def main() -> None:
    """Run what is asked for, or all."""
    parts: dict[str, Callable[[], None]] = {
        "overhead": lambda: overhead(rounds=5),
        "scaling": scaling,
        "faults": lambda: faults(kills=10),
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaleout", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    for name in parser.parse_args().parts or parts:
        print(f"\n{name}", flush=True)
        parts[name]()


if __name__ == "__main__":
    main()
