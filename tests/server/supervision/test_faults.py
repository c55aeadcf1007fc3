"""What clients get while engines die, hang and run out of memory, on real processes over real sockets."""

import random
import resource
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.servers import PATIENCE, RunningServer, wait_for
from gram.server.supervision.blame import MAX_DEATHS
from tests.server.supervision.support import SILENCE, Answer, Event, ask, ordered, queens, serving_models, statuses, stream
from tests.support import FIXED_SIZE


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
        for path in ("/v2/health/ready", "/v2/models/nqueens-8/ready"):
            assert (client.get(path).status_code, list(client.get(path).json())) == (503, ["error"])
        assert client.get("/health/live").status_code == client.get("/v2/health/live").status_code == 200
        hold.unlink()
        wait_for(server.ready, "another engine is ready")
        assert ask(client, queens(num_trajectories=1))
        assert server.gauge("gram_engine_restarts_total") == 1


def test_streams_send_each_event_once_and_the_same_however_often_engines_die(
    queens_server: tuple[RunningServer, httpx.Client],
) -> None:
    server, client = queens_server
    bodies = [
        queens(0, num_trajectories=60),
        queens(1, num_trajectories=60, temperature=2, stop=1.0),
        queens(2, num_trajectories=60, temperature=2, max_steps=3),
        queens(3, num_trajectories=40, stream_steps=True),
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
        for _ in range(5 * MAX_DEATHS):  # a death between two steps of the request does not count
            server.kill_engine()
            assert ask(client, queens(num_trajectories=1)), "the model brings answers between"
            if answer.done():
                break
        *_, (name, problem) = answer.result(PATIENCE)
        assert (name, problem["status"]) == ("error", 503)
        assert problem["detail"].startswith("3 engines in a row died in the steps of this request")
        assert statuses(client) == {"nqueens-8": "serving"}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no limit for another process")
def test_a_request_that_the_memory_does_not_hold_is_told_so_and_the_engine_goes_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # eight encoded images are larger: asked of the system each time
    with serving_models(checkpoint) as (server, client):
        alone = ask(client, queens())
        engine = server.engine()
        before = engine.rlimit(psutil.RLIMIT_AS)
        engine.rlimit(psutil.RLIMIT_AS, (1 << 20, before[1]))  # it keeps what it has and gets no more
        *_, (name, problem) = stream(client, queens(num_trajectories=100_000))
        assert (name, problem["status"]) == ("error", 503)
        assert problem["detail"].startswith("out of device memory while running nqueens-8; send the request again")
        engine.rlimit(psutil.RLIMIT_AS, before)
        assert ask(client, queens()) == alone
        assert server.engine() == engine
        assert server.gauge("gram_engine_restarts_total") == 0
