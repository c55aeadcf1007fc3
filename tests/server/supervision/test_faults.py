"""What clients get while engines die, hang and run out of memory, on real processes over real sockets."""

import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from benchmarks.servers import PATIENCE, RunningServer, serving, wait_for
from gram.models.checkpoint import save_checkpoint
from gram.models.config import WEIGHTS_FILE, CheckpointConfig, ModelConfig
from gram.models.network import GRAM
from gram.models.tasks import TASKS

QUEENS, SUDOKU = TASKS["nqueens-8"], TASKS["sudoku-4x4"]
TINY = ModelConfig(
    vocab_size=QUEENS.vocab_size, seq_len=64, dim=8, num_layers=1, mixer_dim=8, mlp_dim=8, guidance_dim=8, num_registers=1
)

Answer = dict[str, Any]
Body = dict[str, Any]
Event = tuple[str, Answer]


def queens(number: int = 0, **options: Any) -> Body:
    return {
        "model": "nqueens-8",
        "puzzle": QUEENS.text(QUEENS.held_out[number]),
        "num_trajectories": 20,
        "seed": number,
    } | options


def sudoku(model: str, **options: Any) -> Body:
    return {"model": model, "puzzle": SUDOKU.text(SUDOKU.held_out[0]), "num_trajectories": 20, "seed": 1} | options


def untimed(answer: Answer) -> Answer:
    """An answer without what may differ between two runs."""
    return {name: value for name, value in answer.items() if not name.endswith("_ms")}


def ask(client: httpx.Client, body: Body) -> Answer:
    response = client.post("/v1/solve", json=body)
    assert response.status_code == 200, response.text
    return untimed(response.json())


def refused(client: httpx.Client, body: Body) -> str:
    """The detail of the 503 that answers it."""
    response = client.post("/v1/solve", json=body)
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json"), response.text
    detail: str = response.json()["detail"]
    return detail


def stream(client: httpx.Client, body: Body, received: list[Event] | None = None) -> list[Event]:
    """The events of a solve's stream; `received` has them as they come."""
    events = [] if received is None else received
    headers = {"accept": "application/x-ndjson"}
    with client.stream("POST", "/v1/solve", json=body | {"stream": True}, headers=headers) as response:
        assert response.status_code == 200, response.read()
        for line in map(json.loads, response.iter_lines()):
            events.append((line["event"], line["data"]))
    return events


def ordered(events: list[Event]) -> list[Event]:
    """A stream's events, without those of steps, the trajectories in the order of their index."""
    *between, (last, result) = events
    return [*sorted(between, key=lambda event: event[1].get("trajectory", -1)), (last, untimed(result))]


def statuses(client: httpx.Client) -> dict[str, str]:
    return {model["name"]: model["status"] for model in client.get("/v1/models").json()}


@contextmanager
def serving_models(*models: Path, flags: tuple[str, ...] = ()) -> Iterator[tuple[RunningServer, httpx.Client]]:
    named = [part for model in models for part in ("--model", str(model))]
    with (
        serving(*named, "--max-timeout-seconds", str(10 * PATIENCE), *flags) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        yield server, client


def make_checkpoint(folder: Path, config: ModelConfig) -> Path:
    """A checkpoint of 8 queens of random weights."""
    save_checkpoint(folder, CheckpointConfig(task="nqueens-8", model=config), GRAM(config, torch.float32, posterior=False))
    return folder


@pytest.fixture
def crashing(tmp_path: Path) -> Path:
    """A checkpoint whose engine dies of each board with a queen on it: the vocabulary has no such symbol."""
    return make_checkpoint(tmp_path / "crashing", TINY.model_copy(update={"vocab_size": 2}))


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A checkpoint whose engine does not come back from a step of many rows for minutes, of few for less than a second."""
    return make_checkpoint(tmp_path / "endless", TINY.model_copy(update={"low_steps": 1000}))


QUICK_STEPS = ("--slots", "8", "--threads", "1", "--engine-timeout-seconds", "15")
"""An engine looks at its messages between two steps: these are short, beside the time for which it may say nothing."""


@pytest.mark.parametrize("at_work", [True, False])
def test_an_engine_that_is_stopped_is_replaced(checkpoint: Path, at_work: bool) -> None:
    with serving_models(checkpoint, flags=QUICK_STEPS) as (server, client), ExitStack() as open_streams:
        body = queens(num_trajectories=60)
        alone = ask(client, body)
        engine = server.engine()
        if at_work:
            endless = queens(num_trajectories=100_000, stream=True)
            lines = open_streams.enter_context(client.stream("POST", "/v1/solve", json=endless)).iter_lines()
            next(lines)
            server.wait_past("gram_live_slots", 0)
        engine.suspend()
        assert ask(client, body) == alone
        server.wait_until("gram_engine_restarts_total", 1)
        engine.wait(PATIENCE)


def test_an_idle_engine_and_a_stopped_api_process_are_not_taken_for_a_hang(checkpoint: Path) -> None:
    with serving_models(checkpoint, flags=QUICK_STEPS) as (server, client):
        api = psutil.Process(server.process.pid)
        api.suspend()
        time.sleep(20)
        api.resume()
        time.sleep(20)
        assert ask(client, queens())
        assert server.gauge("gram_engine_restarts_total") == 0


def test_it_is_ready_exactly_while_an_engine_can_answer(checkpoint: Path, hold: Path) -> None:
    with serving_models(checkpoint) as (server, client):
        for death in range(1, 5):  # more than may die in a row of one thing
            hold.touch()
            server.kill_engine()
            assert not server.ready()
            assert client.get("/health/live").status_code == 200
            hold.unlink()
            wait_for(server.ready, "another engine is ready")
            assert ask(client, queens(num_trajectories=1))
            assert server.gauge("gram_engine_restarts_total") == death


def test_streams_send_each_event_once_and_the_same_however_often_engines_die(checkpoint: Path) -> None:
    bodies = [
        queens(0, num_trajectories=150),
        queens(1, num_trajectories=150, temperature=2, stop=1.0),
        queens(2, num_trajectories=150, temperature=2, max_steps=3),
        queens(3, num_trajectories=60, stream_steps=True),
    ]
    with serving_models(checkpoint) as (server, client), ThreadPoolExecutor(len(bodies)) as clients:
        undisturbed = [stream(client, body) for body in bodies]
        received: list[list[Event]] = [[] for _ in bodies]
        streams = [clients.submit(stream, client, *each) for each in zip(bodies, received, strict=True)]
        deaths = kill_at_random_moments(server, streams, received)
        for before, answer in zip(undisturbed, streams, strict=True):
            check_agreement(before, answer.result())
        assert deaths > 1


def check_agreement(undisturbed: list[Event], disturbed: list[Event]) -> None:
    """Two streams of a request are the same, but for steps that either has missed: its client may read too slowly for some."""

    def of_steps(events: list[Event]) -> dict[tuple[int, int], Answer]:
        steps = [data for name, data in events if name == "step"]
        placed = {(data["trajectory"], data["steps"]): data for data in steps}
        assert len(placed) == len(steps), "each comes once"
        return placed

    def others(events: list[Event]) -> list[Event]:
        return ordered([event for event in events if event[0] != "step"])

    assert others(disturbed) == others(undisturbed)
    before, after = of_steps(undisturbed), of_steps(disturbed)
    both = before.keys() & after.keys()
    assert {place: before[place] for place in both} == {place: after[place] for place in both}
    assert bool(both) == bool(before)


def kill_at_random_moments(server: RunningServer, streams: list[Future[Any]], received: list[list[Event]]) -> int:
    """Kill up to six engines, each after all streams that are open have come further; returns how many."""
    moments, deaths = random.Random(0), 0
    while deaths < 6:
        before = [len(events) for events in received]
        while any(len(r) == n and not s.done() for r, n, s in zip(received, before, streams, strict=True)):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        if all(answer.done() for answer in streams):
            break
        server.kill_engine()
        deaths += 1
        wait_for(server.ready, "another engine is ready")
    return deaths


def test_a_guided_stream_runs_again_from_its_beginning_and_sends_each_event_once(checkpoint: Path) -> None:
    body = queens(1, num_trajectories=60, guidance={"prune": {"keep": 0.7, "steps": [2, 3]}})
    with serving_models(checkpoint) as (server, client), ThreadPoolExecutor(1) as clients:
        undisturbed = ordered(stream(client, body))
        received: list[Event] = []
        answer = clients.submit(stream, client, body, received)
        for moment in (5, 12):
            wait_for(lambda: len(received) >= moment, "the stream has come so far")  # noqa: B023  # it is called here
            server.kill_engine()
            wait_for(server.ready, "another engine is ready")
        assert ordered(answer.result()) == undisturbed


def test_a_request_that_comes_no_further_between_three_deaths_ends_alone(checkpoint: Path) -> None:
    body = queens(1, num_trajectories=100_000, guidance={"prune": {"keep": 0.5, "steps": [2]}})
    with serving_models(checkpoint) as (server, client), ThreadPoolExecutor(1) as clients:
        received: list[Event] = []
        answer = clients.submit(stream, client, body, received)
        wait_for(lambda: len(received) >= 250, "the stream has come so far")
        for _ in range(3):
            server.kill_engine()
            assert ask(client, queens(num_trajectories=1)), "the model brings answers between"
        *_, (name, problem) = answer.result(PATIENCE)
        assert (name, problem["status"]) == ("error", 503)
        assert problem["detail"].startswith("3 engines in a row died in the steps of this request")
        assert statuses(client) == {"nqueens-8": "serving"}


def test_a_model_whose_steps_kill_engines_leaves_the_rotation_and_the_others_go_on(checkpoint: Path, crashing: Path) -> None:
    sudoku_4x4 = checkpoint.with_name("sudoku-4x4")
    body = queens(model="crashing")
    with (
        serving_models(checkpoint, crashing, sudoku_4x4) as (server, client),
        ThreadPoolExecutor(8) as clients,
    ):
        alone = [ask(client, queens(number)) for number in range(4)]
        alone_sudoku = ask(client, sudoku("sudoku-4x4"))
        long = clients.submit(stream, client, sudoku("sudoku-4x4", num_trajectories=100))
        stopped = threading.Event()

        def go_on(number: int) -> int:
            rounds = 0
            while not stopped.is_set():
                assert ask(client, queens(number)) == alone[number]
                rounds += 1
            return rounds

        others = [clients.submit(go_on, number) for number in range(4)]
        first, second = clients.submit(stream, client, body), clients.submit(refused, client, body)
        ((name, problem),) = first.result()
        assert (name, problem["status"]) == ("error", 503)
        assert problem["detail"] == second.result()
        assert problem["detail"].startswith(
            "crashing is out of rotation: 3 engines in a row died in its steps; ask another model"
        )
        assert server.gauge("gram_engine_restarts_total") == 3
        wait_for(server.ready, "another engine is ready")
        stopped.set()
        assert all(other.result() for other in others)
        assert len(long.result()) == 101
        assert ask(client, sudoku("sudoku-4x4")) == alone_sudoku
        assert refused(client, body) == refused(client, body | {"stream": True}) == problem["detail"]
        assert statuses(client) == {"nqueens-8": "serving", "crashing": "out_of_rotation", "sudoku-4x4": "serving"}
        assert ask(client, queens(model=None, task="nqueens-8"))["model"] == "nqueens-8"
        assert server.gauge("gram_engine_restarts_total") == 3


def test_clients_that_do_not_wait_for_the_third_death_are_not_forgotten(checkpoint: Path, crashing: Path) -> None:
    with serving_models(checkpoint, crashing) as (server, client):
        assert ask(client, queens(model=None, task="nqueens-8", puzzle={"queens": []}))["model"] == "crashing"
        for death in range(3):
            assert statuses(client)["crashing"] == "serving"
            while server.gauge("gram_engine_restarts_total") == death:
                with suppress(httpx.ReadTimeout):
                    client.post("/v1/solve", json=queens(model="crashing"), timeout=httpx.Timeout(PATIENCE, read=0.5))
            wait_for(server.ready, "another engine is ready")
        assert statuses(client) == {"nqueens-8": "serving", "crashing": "out_of_rotation"}
        assert ask(client, queens(model=None, task="nqueens-8", puzzle={"queens": []}))["model"] == "nqueens-8"


def test_a_model_whose_step_does_not_end_leaves_the_rotation(checkpoint: Path, endless: Path) -> None:
    flags = ("--engine-timeout-seconds", "10", "--slots", "512")
    with serving_models(checkpoint, endless, flags=flags) as (server, client), ThreadPoolExecutor(2) as clients:
        alone = ask(client, queens())
        hanging = clients.submit(refused, client, queens(model="endless", num_trajectories=512))
        other = clients.submit(ask, client, queens())
        assert "endless is out of rotation: 3 engines in a row died in its steps" in hanging.result()
        assert other.result() == alone
        assert server.gauge("gram_engine_restarts_total") == 3


def test_a_service_without_a_model_left_ends_with_a_code_that_is_not_0(crashing: Path) -> None:
    with serving_models(crashing) as (server, client):
        assert "crashing is out of rotation" in refused(client, queens(model="crashing"))
        assert server.process.wait(PATIENCE) == 1


@pytest.mark.parametrize("damage", ["a bit", "the end"])
def test_a_model_whose_file_is_corrupted_before_a_reload_leaves_the_rotation(
    checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    folder = shutil.copytree(checkpoint.with_name("sudoku-4x4"), tmp_path / "corrupted")
    with serving_models(folder, checkpoint) as (server, client), ThreadPoolExecutor(3) as clients:
        alone = ask(client, queens(num_trajectories=60))
        weights = bytearray((folder / WEIGHTS_FILE).read_bytes())
        weights[-1] ^= 1
        open_requests: list[Future[Any]] = [
            clients.submit(stream, client, sudoku("corrupted", num_trajectories=50_000)),
            clients.submit(refused, client, sudoku("corrupted", num_trajectories=50_000)),
        ]
        server.wait_until("gram_active_requests", 2)
        assert ask(client, sudoku("corrupted")), "what is in memory serves on"
        open_requests.append(clients.submit(ask, client, queens(num_trajectories=60)))
        (folder / WEIGHTS_FILE).write_bytes(weights if damage == "a bit" else weights[:1000])
        server.engine().kill()
        cut_off, waiting, other = [request.result() for request in open_requests]
        assert isinstance(cut_off, list)
        assert {name for name, _ in cut_off[:-1]} <= {"trajectory"}
        assert cut_off[-1][0] == "error"
        detail = (
            "corrupted is out of rotation: its files have changed since they were loaded first, or can't be read any more; "
        )
        assert cut_off[-1][1]["detail"].startswith(detail)
        assert cut_off[-1][1]["detail"] == waiting == refused(client, sudoku("corrupted"))
        assert str(tmp_path) not in cut_off[-1][1]["detail"]
        assert other == alone
        assert statuses(client) == {"corrupted": "out_of_rotation", "nqueens-8": "serving"}
        assert client.get("/health/ready").status_code == 200
        assert server.gauge("gram_engine_restarts_total") == 1


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no limit for another process")
def test_a_request_that_the_memory_does_not_hold_is_told_so_and_the_engine_goes_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # a tile's activations are larger: asked of the system each time
    with serving_models(checkpoint, flags=("--slots", "256")) as (server, client), ThreadPoolExecutor(1) as clients:
        alone = ask(client, queens())
        engine = server.engine()
        before = engine.rlimit(psutil.RLIMIT_AS)
        running = clients.submit(stream, client, queens(num_trajectories=100_000))
        server.wait_past("gram_live_slots", 0)
        engine.rlimit(psutil.RLIMIT_AS, (1 << 20, before[1]))  # it keeps what it has and gets no more
        *_, (name, problem) = running.result()
        assert (name, problem["status"]) == ("error", 503)
        assert problem["detail"].startswith("the memory of the device did not hold a step of nqueens-8; send the request again")
        engine.rlimit(psutil.RLIMIT_AS, before)
        assert ask(client, queens()) == alone
        assert server.engine() == engine
        assert server.gauge("gram_engine_restarts_total") == 0


def test_a_stream_that_outlasts_the_grace_period_ends_with_an_error(checkpoint: Path) -> None:
    with serving_models(checkpoint, flags=("--grace-seconds", "1")) as (server, client), ThreadPoolExecutor(1) as clients:
        running = clients.submit(stream, client, queens(num_trajectories=100_000))
        server.wait_past("gram_live_slots", 0)
        os.kill(server.process.pid, signal.SIGTERM)
        *_, (name, problem) = running.result()
        assert (name, problem["status"]) == ("error", 503)
        assert "stopping" in problem["detail"]
        assert server.process.wait(PATIENCE) == 0
