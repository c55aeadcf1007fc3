"""The clients, against a real server; and against a small one of sockets that answers what it is told to."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from benchmarks.servers import PATIENCE, RunningServer, free_port, serving, wait_for
from gram import AsyncClient, Client, GramError
from gram.models.tasks import TASKS
from gram.server.client.options import GenerateOptions, SolveOptions
from gram.server.sampling.answers import Event, PrunedEvent, SolveResponse, StartEvent, StepEvent, TrajectoryEvent
from gram.server.sampling.options import Guidance, Pruning
from gram.server.sampling.requests import GenerateRequest, SolveRequest
from tests.support import FIXED_SIZE

QUEENS: dict[str, Any] = {"task": "nqueens-8", "num_trajectories": 6, "seed": 5}
BOARDS: dict[str, Any] = {"task": "nqueens-8", "num_samples": 6, "seed": 5}
GUIDED: dict[str, Any] = QUEENS | {"num_trajectories": 20, "guidance": {"prune": {"keep": 0.5, "steps": [2, 3]}}}
ENDLESS: dict[str, Any] = QUEENS | {"num_trajectories": 100_000}


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def awaited(url: str, ask: Callable[[AsyncClient], Awaitable[Any]], **settings: Any) -> Any:
    """What comes of a call to an AsyncClient."""

    async def run() -> Any:
        async with AsyncClient(url, **settings) as client:
            return await ask(client)

    return asyncio.run(run())


async def collected(client: AsyncClient, puzzle: object, **options: Any) -> list[Event]:
    async with client.solve_stream(puzzle, **options) as events:
        return [event async for event in events]


def untimed(response: Event) -> dict[str, Any]:
    return response.model_dump(exclude={"queue_ms", "compute_ms"})


def test_both_kinds_get_the_answer_of_the_server(client: Client, server: RunningServer) -> None:
    answered = server.post("/v1/solve", json=QUEENS | {"puzzle": "g7 a4"})
    expected = untimed(SolveResponse.model_validate_json(answered.content))
    assert untimed(client.solve("g7 a4", **QUEENS)) == expected
    assert untimed(awaited(server.url, lambda client: client.solve({"queens": [[1, 6], [4, 0]]}, **QUEENS))) == expected


def test_both_kinds_generate(client: Client, server: RunningServer) -> None:
    boards = client.generate(**BOARDS)
    assert boards.distinct_valid
    assert untimed(awaited(server.url, lambda client: client.generate(**BOARDS))) == untimed(boards)
    with client.generate_stream(**BOARDS) as events:
        *trajectories, last = events
    assert [type(event) for event in trajectories] == [TrajectoryEvent] * 6
    assert untimed(last) == untimed(boards)


def test_a_stream_brings_each_event_in_its_type_and_ends_with_the_answer(client: Client, server: RunningServer) -> None:
    with client.solve_stream("g7", stream_steps=True, **GUIDED) as events:
        received = list(events)
    start, *between, last = received
    assert isinstance(start, StartEvent)
    assert start.num_trajectories == 20
    assert {type(event) for event in between} == {StepEvent, PrunedEvent, TrajectoryEvent}
    assert isinstance(last, SolveResponse)
    assert sum(isinstance(event, PrunedEvent) for event in between) == last.pruned > 0
    assert untimed(last) == untimed(client.solve("g7", **GUIDED))
    again = awaited(server.url, lambda client: collected(client, "g7", stream_steps=True, **GUIDED))
    assert untimed(again[-1]) == untimed(last)
    assert {type(event) for event in again} == {type(event) for event in received}


def test_models_and_tasks_are_typed(client: Client, server: RunningServer) -> None:
    assert {"nqueens-8", "sudoku-9x9"} <= {model.name for model in client.models()}
    assert [task.name for task in client.tasks()] == list(TASKS)
    assert awaited(server.url, lambda client: client.models()) == client.models()
    assert awaited(server.url, lambda client: client.tasks()) == client.tasks()


@pytest.mark.parametrize(
    ("puzzle", "options", "status", "cause", "place"),
    [
        ("g7 h8", {}, 422, "invalid", "puzzle"),
        ("g7", {"num_trajectories": 0}, 422, "invalid", "num_trajectories"),
        ("g7", {"colour": "red"}, 422, "invalid", "colour"),
        ("g7", {"task": "chess"}, 404, "not_found", "task"),
        ("g7" * 50_000, {}, 413, "too_large", "body"),
    ],
)
def test_a_refusal_is_an_error_with_the_servers_problem(
    client: Client, server: RunningServer, puzzle: str, options: dict[str, Any], status: int, cause: str, place: str
) -> None:
    asked: list[Callable[[], Any]] = [
        lambda: client.solve(puzzle, **QUEENS | options),
        lambda: client.solve_stream(puzzle, **QUEENS | options).__enter__(),
        lambda: awaited(server.url, lambda client: client.solve(puzzle, **QUEENS | options)),
        lambda: awaited(server.url, lambda client: collected(client, puzzle, **QUEENS | options)),
    ]
    for ask in asked:
        with pytest.raises(GramError, match=f"{server.url} answered {status}: ") as caught:
            ask()
        problem = caught.value.problem
        assert problem is not None
        assert (caught.value.status, problem.status, problem.cause) == (status, status, cause)
        assert problem.request_id
        assert problem.detail in str(caught.value)
        assert [error.place for error in problem.errors] == [place]


def test_an_error_in_a_stream_is_raised_where_it_comes(client: Client, server: RunningServer) -> None:
    unmeasured = QUEENS | {"task": "nqueens-10"}  # of the other model the rate may be known, by which this would be refused
    with server.engine_stopped(), client.solve_stream("g7", timeout_seconds=0.001, stream_steps=True, **unmeasured) as events:
        assert isinstance(next(events), StartEvent)
        with pytest.raises(GramError, match="answered 504") as caught:
            list(events)
    assert caught.value.problem
    assert caught.value.problem.cause == "deadline"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid", "localhost:8000", "http://[", "nonsense"])
def test_where_no_server_is_the_error_says_so(url: str) -> None:
    with pytest.raises(GramError, match=r"does not answer: .") as caught, Client(url, max_retries=0) as client:
        client.models()
    assert caught.value.problem is None
    with pytest.raises(GramError, match=r"does not answer: ."):
        awaited(url, lambda client: client.models(), max_retries=0)


def test_leaving_the_context_of_a_stream_frees_its_slots(client: Client, server: RunningServer) -> None:
    with client.solve_stream("g7", stream_steps=True, **ENDLESS) as events:
        assert any(isinstance(event, TrajectoryEvent) for event in events)
        assert server.gauge("gram_active_requests") == 1
    server.wait_until("gram_active_requests", 0)

    async def leave(client: AsyncClient) -> None:
        async with client.solve_stream("g7", stream_steps=True, **ENDLESS) as events:
            async for event in events:
                if isinstance(event, TrajectoryEvent):
                    break
            assert server.gauge("gram_active_requests") == 1

    awaited(server.url, leave)
    server.wait_until("gram_active_requests", 0)
    client.solve("g7", **QUEENS)  # the gauge follows the engine's next step
    server.wait_until("gram_live_slots", 0)


def test_cancelling_a_call_cancels_its_request(server: RunningServer) -> None:
    async def cancel(client: AsyncClient) -> None:
        call = asyncio.create_task(client.solve("g7", **ENDLESS))
        await asyncio.to_thread(server.wait_until, "gram_active_requests", 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(server.wait_until, "gram_active_requests", 0)

    awaited(server.url, cancel)


def test_a_time_out_cancels_the_request_too(server: RunningServer) -> None:
    with Client(server.url, timeout=0.5) as client, pytest.raises(GramError, match=r"nothing came within 0.5 s"):
        client.solve("g7", **ENDLESS)
    server.wait_until("gram_active_requests", 0)


def test_what_a_full_server_refuses_is_asked_again_until_there_is_room(checkpoint: Path) -> None:
    with (
        serving(
            "--model", str(checkpoint), *FIXED_SIZE, "--max-queued", "10", "--engine-timeout-seconds", str(PATIENCE)
        ) as server,
        Client(server.url, max_retries=100) as client,
        ThreadPoolExecutor(2) as others,
    ):
        # No rate is known of an engine that brings nothing: each refusal says "in a second".
        with server.engine_stopped(), client.solve_stream("g7", stream_steps=True, **ENDLESS) as events:
            assert isinstance(next(events), StartEvent)
            with pytest.raises(GramError) as caught, Client(server.url, max_retries=0) as impatient:
                impatient.solve("g7", **QUEENS)
            assert caught.value.status == 429
            assert caught.value.retry_after
            waiting = others.submit(client.solve, "g7", **QUEENS)
            awaiting = others.submit(awaited, server.url, lambda client: client.solve("g7", **QUEENS), max_retries=100)
            refused = 'gram_errors_total{cause="overloaded"}'
            wait_for(lambda: server.gauge(refused) > 2, "both have been refused")
        assert untimed(waiting.result()) == untimed(awaiting.result()) == untimed(client.solve("g7", **QUEENS))


def test_arrays_and_tensors_are_puzzles_and_what_is_none_is_a_gram_error(server: RunningServer) -> None:
    board = np.zeros((8, 8))
    board[1, 6] = board[4, 0] = 1
    with Client(server.url) as client:
        answer = untimed(client.solve("g7 a4", **QUEENS))
        for puzzle in (board, board == 1, torch.tensor(board), list(board), answer["puzzle"]):
            assert untimed(client.solve(puzzle, **QUEENS)) == answer
        for wrong, message in ((object(), "no part of a request is of the type object"), (board + 1, r"2 is not 0 or 1")):
            with pytest.raises(GramError, match=message):
                client.solve(wrong, **QUEENS)


def test_a_proxy_of_the_environment_does_not_stand_between_a_client_and_its_own_machine(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        with Client(url, max_retries=0) as client:
            assert client.models()
    there = Client("http://puzzles.example", max_retries=0)
    with pytest.raises(GramError, match=r"does not answer through the proxy http://127\.0\.0\.1:"), there as client:
        client.models()


Told = tuple[int, dict[str, str], bytes]
"""A status, headers and a body."""


class Script(ThreadingHTTPServer):
    """Answers one told thing after the other, and the last one from then on."""

    daemon_threads = True

    def __init__(self, *told: Told) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.told = told
        self.requests: list[tuple[float, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.asked = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Scripted(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        number = len(self.server.requests)
        self.server.requests.append((time.monotonic(), dict(self.headers)))
        self.server.asked.set()
        status, headers, body = self.server.told[min(number, len(self.server.told) - 1)]
        self.server.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def script(*told: Told) -> Iterator[Script]:
    with Script(*told) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


def problem(status: int, **headers: str) -> Told:
    body = {"title": "", "status": status, "detail": "in a while", "cause": "overloaded"}
    return status, {"content-type": "application/problem+json"} | headers, json.dumps(body).encode()


def lines(*events: tuple[str, object]) -> bytes:
    return b"".join(json.dumps({"event": name, "data": data}).encode() + b"\n" for name, data in events)


NO_MODELS: Told = (200, {}, b"[]")
ANSWER: dict[str, Any] = {
    "model": "m", "task": "t", "puzzle": {"text": "", "grid": []}, "seed": 1, "candidates": [], "complete": True,
    "trajectories": 0, "dropped": [], "pruned": 0, "distinct_valid": 0, "steps_run": 0, "queue_ms": 0, "compute_ms": 0,
}  # fmt: skip
STEP = {"text": "", "grid": [], "trajectory": 0, "steps": 1, "score": 0.5}


@pytest.mark.parametrize("status", [429, 503])
def test_not_now_is_asked_again_after_the_time_that_the_server_names(status: int) -> None:
    def pause(ask: Callable[[str], object]) -> float:
        with script(problem(status, **{"retry-after": "1"}), NO_MODELS) as server:
            assert ask(server.url) == []
            (first, _), (second, _) = server.requests
            return second - first

    asked = (lambda url: Client(url).models(), lambda url: awaited(url, lambda client: client.models()))
    with ThreadPoolExecutor(len(asked)) as clients:
        assert all(seconds >= 1 for seconds in clients.map(pause, asked))


def test_a_server_that_never_has_time_is_asked_so_often_and_no_more() -> None:
    def attempts(ask: Callable[[str], object]) -> int:
        with script(problem(503)) as server, pytest.raises(GramError, match="answered 503: in a while"):
            ask(server.url)
        return len(server.requests)

    asked: list[Callable[[str], object]] = [
        lambda url: Client(url, max_retries=2).models(),
        lambda url: awaited(url, lambda client: client.models(), max_retries=2),
        lambda url: Client(url, max_retries=2).solve_stream("p").__enter__(),
        lambda url: awaited(url, lambda client: collected(client, "p"), max_retries=2),
    ]
    with ThreadPoolExecutor(len(asked)) as clients:
        assert list(clients.map(attempts, asked)) == [3, 3, 3, 3]


def test_a_pause_that_would_pass_the_time_out_is_not_made() -> None:
    with script(problem(429, **{"retry-after": "3600"})) as server:
        with pytest.raises(GramError) as caught:
            Client(server.url, timeout=PATIENCE).models()
        assert caught.value.retry_after == 3600
        assert len(server.requests) == 1


def test_a_pause_of_the_async_client_can_be_cancelled() -> None:
    async def cancel(client: AsyncClient) -> None:
        call = asyncio.create_task(client.models())
        await asyncio.to_thread(server.asked.wait)
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with script(problem(429, **{"retry-after": "3600"})) as server:
        awaited(server.url, cancel, timeout=None)
        assert len(server.requests) == 1


@pytest.mark.parametrize("told", [problem(422), problem(500), problem(404), (502, {}, b"<html>bad gateway"), (302, {}, b"")])
def test_anything_else_is_not_asked_again(told: Told) -> None:
    with script(told, NO_MODELS) as server:
        with pytest.raises(GramError, match=f"answered {told[0]}: ") as caught:
            Client(server.url).models()
        assert caught.value.status == told[0]
        assert (caught.value.problem is None) == (told[0] in (502, 302))
        assert len(server.requests) == 1


def test_an_answer_of_something_else_is_an_error() -> None:
    for body in (b"hello", b"{}", b"[1]"):
        with script((200, {}, body)) as server, Client(server.url) as client:
            with pytest.raises(GramError, match="does not understand"):
                client.models()
            with pytest.raises(GramError, match="does not understand"), client.solve_stream("p") as events:
                list(events)


def test_a_server_that_comes_up_is_found() -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as others, Client(f"http://127.0.0.1:{port}", max_retries=20) as client:
        asking = others.submit(client.models)
        time.sleep(0.5)
        server = Script.__new__(Script)
        ThreadingHTTPServer.__init__(server, ("127.0.0.1", port), Scripted)
        server.told, server.requests, server.bodies, server.asked = (NO_MODELS,), [], [], threading.Event()
        with server:
            threading.Thread(target=server.serve_forever).start()
            assert asking.result() == []
            server.shutdown()


def test_a_500_that_is_not_the_servers_own_comes_of_a_proxy_and_is_asked_again() -> None:
    lost: Told = (500, {"content-type": "text/plain"}, b"Internal Server Error")
    with script(lost, lost, NO_MODELS) as server:
        assert Client(server.url).models() == []
        assert len(server.requests) == 3


def test_a_stream_that_breaks_off_goes_on_where_it_was_with_the_same_seed() -> None:
    again = [STEP | {"steps": steps} for steps in (1, 2, 3)]
    begun = lines(("step", again[0]), ("news", {"of": "a later version"}))
    not_now = lines(("error", json.loads(problem(503)[2])))
    cut = {"content-length": "1000000", "connection": "close"}
    told: tuple[Told, ...] = (
        problem(503),
        (200, {}, not_now),
        (200, cut, begun),
        (200, {}, lines(("step", again[1])) + not_now),
        (200, {}, lines(*(("step", step) for step in again), ("result", ANSWER))),
    )
    for options, seed in (({}, None), ({"seed": 7}, 7)):
        for ask in (streamed, lambda url, **options: awaited(url, lambda client: collected(client, "p", **options))):
            with script(*told) as server:
                *steps, result = ask(server.url, **options)
                assert [step.steps for step in steps if isinstance(step, StepEvent)] == [1, 2, 3]
                assert isinstance(result, SolveResponse)
                seeds = {json.loads(body)["seed"] for body in server.bodies}
                assert len(server.bodies) == len(told)
                assert len(seeds) == 1
                assert seed in {None, *seeds}


def test_a_stream_that_ends_without_a_result_is_an_error() -> None:
    with script((200, {}, lines(("step", STEP)))) as server, pytest.raises(GramError, match="without a result"):
        streamed(server.url)
    assert len(server.requests) == 1


def streamed(url: str, **options: Any) -> list[Event]:
    with Client(url) as client, client.solve_stream("p", **options) as events:
        return list(events)


def test_the_key_is_sent_that_is_given_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAM_API_KEY", "from-outside")
    with script(NO_MODELS) as server:
        Client(server.url).models()
        Client(server.url, api_key="given").models()
        assert [headers["authorization"] for _, headers in server.requests] == ["Bearer from-outside", "Bearer given"]


def test_the_client_imports_neither_torch_nor_the_server() -> None:
    code = (
        "import sys; from gram import AsyncClient, Client\n"
        "sys.exit(bool({'torch', 'fastapi', 'starlette', 'uvicorn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("options", "request_type"), [(SolveOptions, SolveRequest), (GenerateOptions, GenerateRequest)])
def test_the_options_of_a_request_are_the_keywords_of_the_client(options: type, request_type: type[BaseModel]) -> None:
    parameters = {"puzzle", "task", "model", "stream", "stream_steps"}  # of the methods themselves
    fields = {field.alias or name for name, field in request_type.model_fields.items()}
    assert options.__annotations__.keys() == fields - parameters


def test_every_keyword_is_taken_in_all_its_types(client: Client) -> None:
    plain = client.solve(
        "g7 a4", task="nqueens-8", num_trajectories=4, max_steps=8, seed=None, temperature=1.5, symmetries=False, select="lprm",
        stop="all", top=None, guidance="none", timeout_seconds=None,
    )  # fmt: skip
    assert plain.trajectories == 4
    schedule: tuple[float, ...] = (2.0, 0.0)
    pruned = client.generate(
        model="nqueens-8", num_samples=4, seed=5, temperature=schedule, select="majority", stop=1.0, top=1,
        guidance={"prune": {"keep": 0.5, "steps": (2, 3)}}, timeout_seconds=600.0,
    )  # fmt: skip
    assert (pruned.seed, len(pruned.candidates)) == (5, 1)
    guidance = Guidance(prune=Pruning(keep=0.5, steps=(2, 3)))
    assert client.solve("g7 a4", task="nqueens-8", num_trajectories=20, seed=5, guidance=guidance).pruned > 0


def test_wrong_options_are_errors_to_a_type_checker_and_refused_by_the_server(client: Client) -> None:
    """mypy, which checks the tests too, would complain of a comment here that it does not need."""
    with pytest.raises(GramError, match="not an option of this request"):
        client.solve("g7 a4", task="nqueens-8", num_trajectory=3)  # type: ignore[call-arg]
    with pytest.raises(GramError, match="max_steps"):
        client.generate(task="nqueens-8", max_steps="many")  # type: ignore[arg-type]
    with pytest.raises(GramError, match="select"):
        awaited(client._url, lambda c: c.solve("g7 a4", task="nqueens-8", select="best"))  # type: ignore[arg-type]


def test_a_name_that_gram_does_not_have_is_an_error_to_a_type_checker_too() -> None:
    with pytest.raises(ImportError, match="Clent"):
        from gram import Clent  # type: ignore[attr-defined]  # noqa: F401
