"""What clients get while engines die, hang and run out of memory, on real processes over real sockets."""

import json
import random
import resource
import shutil
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
from gram.server.supervision.blame import MAX_DEATHS
from tests.support import FIXED_SIZE

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
def serving_models(*models: Path, flags: tuple[str, ...] = FIXED_SIZE) -> Iterator[tuple[RunningServer, httpx.Client]]:
    named = [part for model in models for part in ("--model", str(model))]
    with (
        serving(*named, "--max-timeout-seconds", str(10 * PATIENCE), *flags) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        yield server, client


@pytest.fixture(scope="module")
def queens_server(checkpoint: Path) -> Iterator[tuple[RunningServer, httpx.Client]]:
    """A server for the tests after which it still answers: they count the deaths of engines from their own beginning."""
    with serving_models(checkpoint) as served:
        yield served


@pytest.fixture(scope="module")
def impatient(checkpoint: Path) -> Iterator[tuple[RunningServer, httpx.Client]]:
    """A server that replaces an engine after `SILENCE` seconds without a sign of life."""
    with serving_models(checkpoint, flags=(*FIXED_SIZE, "--engine-timeout-seconds", str(SILENCE))) as served:
        yield served


SILENCE = 5
"""An engine looks at its messages between two steps. Steps of 8 rows are much shorter than this, on any machine."""


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


@pytest.mark.parametrize("at_work", [True, False])
def test_an_engine_that_is_stopped_is_replaced(impatient: tuple[RunningServer, httpx.Client], at_work: bool) -> None:
    server, client = impatient
    with ExitStack() as open_streams:
        body = queens(num_trajectories=60)
        alone = ask(client, body)
        engine, deaths = server.engine(), server.gauge("gram_engine_restarts_total")
        if at_work:
            endless = queens(num_trajectories=100_000, stream=True)
            lines = open_streams.enter_context(client.stream("POST", "/v1/solve", json=endless)).iter_lines()
            next(lines)
            server.wait_past("gram_live_slots", 0)
        engine.suspend()
        assert ask(client, body) == alone
        server.wait_until("gram_engine_restarts_total", deaths + 1)
        engine.wait(PATIENCE)


def test_an_idle_engine_and_a_stopped_api_process_are_not_taken_for_a_hang(
    impatient: tuple[RunningServer, httpx.Client],
) -> None:
    server, client = impatient
    assert ask(client, queens())
    deaths = server.gauge("gram_engine_restarts_total")
    api = psutil.Process(server.process.pid)
    api.suspend()
    time.sleep(SILENCE + 2)
    api.resume()
    time.sleep(SILENCE + 2)
    assert ask(client, queens())
    assert server.gauge("gram_engine_restarts_total") == deaths


def test_it_is_ready_exactly_while_an_engine_can_answer(checkpoint: Path, hold: Path) -> None:
    with serving_models(checkpoint) as (server, client):
        hold.touch()
        server.kill_engine()
        assert not server.ready()
        assert client.get("/health/live").status_code == 200
        hold.unlink()
        wait_for(server.ready, "another engine is ready")
        assert ask(client, queens(num_trajectories=1))
        assert server.gauge("gram_engine_restarts_total") == 1


def test_streams_send_each_event_once_and_the_same_however_often_engines_die(
    queens_server: tuple[RunningServer, httpx.Client],
) -> None:
    server, client = queens_server
    bodies = [
        queens(0, num_trajectories=100),
        queens(1, num_trajectories=100, temperature=2, stop=1.0),
        queens(2, num_trajectories=100, temperature=2, max_steps=3),
        queens(3, num_trajectories=60, stream_steps=True),
    ]
    with ThreadPoolExecutor(len(bodies)) as clients:
        undisturbed = [stream(client, body) for body in bodies]
        received: list[list[Event]] = [[] for _ in bodies]
        streams = [clients.submit(stream, client, *each) for each in zip(bodies, received, strict=True)]
        assert kill_at_random_moments(server, client, streams, received) > 1
        for before, answer in zip(undisturbed, streams, strict=True):
            check_agreement(before, answer.result())


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


def kill_at_random_moments(
    server: RunningServer, client: httpx.Client, streams: list[Future[Any]], received: list[list[Event]]
) -> int:
    """Kill engines, each after all open streams have brought a few more events. Returns how many deaths met an open stream.

    There are more deaths than a request, a model or the service survives without an answer between.
    """
    moments, met = random.Random(0), 0
    before = server.gauge("gram_engine_restarts_total")
    for death in range(1, MAX_DEATHS + 2):
        goals = [len(events) + moments.randint(1, 12) for events in received]
        while any(len(r) < goal and not s.done() for r, goal, s in zip(received, goals, streams, strict=True)):
            time.sleep(0.01)
        met += not all(answer.done() for answer in streams)
        server.kill_engine()
        wait_for(server.ready, "another engine is ready")
        assert ask(client, queens(num_trajectories=1))
        assert server.gauge("gram_engine_restarts_total") == before + death
    return met


def test_a_guided_stream_runs_again_from_its_beginning_and_sends_each_event_once(
    queens_server: tuple[RunningServer, httpx.Client],
) -> None:
    server, client = queens_server
    body = queens(1, num_trajectories=60, guidance={"prune": {"keep": 0.7, "steps": [2, 3]}})
    with ThreadPoolExecutor(1) as clients:
        undisturbed = ordered(stream(client, body))
        received: list[Event] = []
        answer = clients.submit(stream, client, body, received)
        for moment in (5, 12):
            wait_for(lambda: len(received) >= moment, "the stream has come so far")  # noqa: B023  # it is called here
            server.kill_engine()
            wait_for(server.ready, "another engine is ready")
        assert ordered(answer.result()) == undisturbed


def test_a_request_that_comes_no_further_between_three_deaths_ends_alone(
    queens_server: tuple[RunningServer, httpx.Client],
) -> None:
    server, client = queens_server
    body = queens(1, num_trajectories=100_000, guidance={"prune": {"keep": 0.5, "steps": [2]}})
    with ThreadPoolExecutor(1) as clients:
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
    flags = ("--engine-timeout-seconds", str(SILENCE), "--slots", "512", "--threads", "1")
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


def test_models_whose_files_are_corrupted_before_a_reload_leave_the_rotation(checkpoint: Path, tmp_path: Path) -> None:
    weights = (checkpoint.with_name("sudoku-4x4") / WEIGHTS_FILE).read_bytes()
    damages = {"flipped": weights[:-1] + bytes([weights[-1] ^ 1]), "truncated": weights[:1000]}
    folders = [shutil.copytree(checkpoint.with_name("sudoku-4x4"), tmp_path / name) for name in damages]
    with serving_models(*folders, checkpoint) as (server, client), ThreadPoolExecutor(5) as clients:
        alone = ask(client, queens(num_trajectories=60))
        endless = [sudoku(name, num_trajectories=50_000) for name in damages]
        streams = [clients.submit(stream, client, body) for body in endless]
        plain = [clients.submit(refused, client, body) for body in endless]
        server.wait_until("gram_active_requests", 4)
        for name in damages:
            assert ask(client, sudoku(name, num_trajectories=1)), "what is in memory serves on"
        other = clients.submit(ask, client, queens(num_trajectories=60))
        for name, damaged in damages.items():
            (tmp_path / name / WEIGHTS_FILE).write_bytes(damaged)
        server.engine().kill()
        for name, cut_off, waiting in zip(damages, streams, plain, strict=True):
            *events, (last, problem) = cut_off.result()
            assert {event for event, _ in events} <= {"trajectory"}
            assert last == "error"
            detail = (
                f"{name} is out of rotation: its files have changed since they were first loaded, or can't be read any more; "
            )
            assert problem["detail"].startswith(detail)
            assert problem["detail"] == waiting.result() == refused(client, sudoku(name))
            assert str(tmp_path) not in problem["detail"]
        assert other.result() == alone
        assert statuses(client) == {"flipped": "out_of_rotation", "truncated": "out_of_rotation", "nqueens-8": "serving"}
        assert client.get("/health/ready").status_code == 200
        assert server.gauge("gram_engine_restarts_total") == 1


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no limit for another process")
def test_a_request_that_the_memory_does_not_hold_is_told_so_and_the_engine_goes_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # a tile's activations are larger: asked of the system each time
    with serving_models(checkpoint) as (server, client), ThreadPoolExecutor(1) as clients:
        alone = ask(client, queens())
        engine = server.engine()
        before = engine.rlimit(psutil.RLIMIT_AS)
        running = clients.submit(stream, client, queens(num_trajectories=100_000))
        server.wait_past("gram_live_slots", 0)
        engine.rlimit(psutil.RLIMIT_AS, (1 << 20, before[1]))  # it keeps what it has and gets no more
        *_, (name, problem) = running.result()
        assert (name, problem["status"]) == ("error", 503)
        assert problem["detail"].startswith("out of device memory while running nqueens-8; send the request again")
        engine.rlimit(psutil.RLIMIT_AS, before)
        assert ask(client, queens()) == alone
        assert server.engine() == engine
        assert server.gauge("gram_engine_restarts_total") == 0
