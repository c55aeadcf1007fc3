"""Several engines, and models that come and go while the server runs, on real processes over real sockets."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
import torch

from benchmarks.servers import PATIENCE, RunningServer, serving, wait_for
from gram.kernels.cpu.library import computes
from gram.models.config import CONFIG_FILE, WEIGHTS_FILE, CheckpointError
from gram.models.tasks import TASKS
from gram.server.api.keys import Key, digest
from gram.server.catalog import checkpoint_in
from gram.server.engine.messages import Pong, Submit
from gram.server.settings import ServerSettings
from gram.server.supervision.errors import EngineUnavailableError
from gram.server.supervision.fleet import Fleet
from gram.server.supervision.supervisor import Listener

QUEENS = TASKS["nqueens-8"]
ADMIN = {"authorization": "Bearer root"}
BODY: dict[str, Any] = {"model": "nqueens-8", "num_trajectories": 20, "seed": 3}
SLOTS = 8


def body(number: int) -> dict[str, Any]:
    return BODY | {"puzzle": QUEENS.text(QUEENS.held_out[number])}


def ask(client: httpx.Client, number: int) -> dict[str, Any]:
    response = client.post("/v1/solve", json=body(number))
    assert response.status_code == 200, response.text
    return {name: value for name, value in response.json().items() if not name.endswith("_ms")}


@pytest.fixture(scope="module")
def root(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints to load: a good one, a broken one, and a way out."""
    folder = tmp_path_factory.mktemp("root")
    shutil.copytree(checkpoint, folder / "queens")
    (folder / "broken").mkdir()
    shutil.copy(checkpoint / CONFIG_FILE, folder / "broken")
    (folder / "broken" / WEIGHTS_FILE).write_bytes(b"not weights")
    (folder / "outside").symlink_to(checkpoint)
    return folder


@pytest.fixture(scope="module")
def pair(checkpoint: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two engines, whose admin may load models."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    tables = {"root": Key(sha256=digest("root"), admin=True), "alice": Key(sha256=digest("alice"))}
    keys.write_text("\n".join(key.toml(label) for label, key in tables.items()))
    flags = ("--engines", "2", "--threads", "1", "--slots", str(SLOTS), "--models-root", str(root), "--keys-file", str(keys))
    with serving("--model", str(checkpoint), *flags) as running:
        running.wait_until("gram_free_slots", 2 * SLOTS)
        yield running


@pytest.fixture
def client(pair: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=pair.url, timeout=PATIENCE, headers=ADMIN) as session:
        yield session


def test_requests_go_to_the_engine_with_the_least_to_do_and_answers_are_those_of_one(
    client: httpx.Client, pair: RunningServer, server: RunningServer
) -> None:
    before = [sum(engine.cpu_times()[:2]) for engine in pair.engines()]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: ask(client, number), range(16)))
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as one:
        assert answers == [ask(one, number) for number in range(16)]
    assert len(before) == 2
    assert all(sum(engine.cpu_times()[:2]) > seconds for engine, seconds in zip(pair.engines(), before, strict=True))


def test_while_one_engine_is_replaced_the_other_answers_and_nobody_loses_his_answer(
    client: httpx.Client, pair: RunningServer
) -> None:
    expected = [ask(client, number) for number in range(8)]
    victim = pair.engines()[0]
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, client, number) for number in range(8)]
        wait_for(lambda: pair.gauge("gram_active_requests") + sum(a.done() for a in answers) >= 8, "all have been asked")
        victim.kill()
        assert client.get("/health/ready").status_code == 200
        assert [answer.result() for answer in answers] == expected
    wait_for(lambda: pair.gauge("gram_engine_restarts_total") > 0 and len(pair.engines()) == 2, "there are two again")
    assert victim.pid not in [engine.pid for engine in pair.engines()]


def test_a_model_is_loaded_answers_and_is_unloaded(client: httpx.Client) -> None:
    loaded = until_loaded(client, "queens")
    assert (loaded["name"], loaded["task"], loaded["status"]) == ("queens", "nqueens-8", "serving")
    assert [model["name"] for model in client.get("/v1/models").json()] == ["nqueens-8", "queens"]
    assert 'gram_queue_depth{model="queens"}' in client.get("/metrics").text
    with ThreadPoolExecutor(4) as threads:  # so that both engines have one
        again = client.post("/v1/models", json={"name": "queens"})
        assert (again.status_code, "unload it first" in again.json()["detail"]) == (409, True)
        answers = list(threads.map(lambda number: client.post("/v1/solve", json=body(number) | {"model": "queens"}), range(8)))
    assert [answer.json()["candidates"] for answer in answers] == [ask(client, number)["candidates"] for number in range(8)]
    assert client.delete("/v1/models/queens").status_code == 204
    assert [model["name"] for model in client.get("/v1/models").json()] == ["nqueens-8"]
    assert client.post("/v1/solve", json=body(0) | {"model": "queens"}).status_code == 404
    assert 'model="queens"' not in client.get("/metrics").text


def test_unloading_waits_for_the_requests_that_run(client: httpx.Client, pair: RunningServer) -> None:
    until_loaded(client, "queens")
    queens = body(0) | {"model": "queens"}
    with ThreadPoolExecutor(2) as threads:
        with client.stream("POST", "/v1/solve", json=queens | {"num_trajectories": 100_000, "stream": True}) as endless:
            lines = endless.iter_lines()
            next(lines)
            running = threads.submit(client.post, "/v1/solve", json=queens | {"num_trajectories": 60})
            wait_for(lambda: running.done() or pair.gauge("gram_active_requests") == 2, "both have been asked")
            unloading = threads.submit(client.delete, "/v1/models/queens")
            wait_for(lambda: client.post("/v1/solve", json=queens).status_code == 404, "nothing more is asked of it")
            assert not unloading.done()
            assert ask(client, 0)["distinct_valid"] > 0  # the others go on meanwhile
            assert running.result().json()["trajectories"] == 60
        assert unloading.result().status_code == 204


def test_a_model_that_was_loaded_survives_its_engines(client: httpx.Client, pair: RunningServer) -> None:
    until_loaded(client, "queens")
    expected = ask(client, 1)["candidates"]
    for engine in pair.engines():
        engine.kill()
    answer = client.post("/v1/solve", json=body(1) | {"model": "queens"})
    assert answer.json()["candidates"] == expected
    assert client.delete("/v1/models/queens").status_code == 204


def until_loaded(client: httpx.Client, name: str) -> dict[str, Any]:
    """Load a model; an engine may be starting."""
    while (response := client.post("/v1/models", json={"name": name})).status_code == 503:
        time.sleep(0.1)
    assert response.status_code == 201, response.text
    model: dict[str, Any] = response.json()
    return model


@pytest.mark.parametrize("name", ["nowhere", "outside", "", ".", "..", "../queens", "queens/../queens", "/etc", "queens\0"])
def test_no_name_leads_out_of_the_root(client: httpx.Client, name: str) -> None:
    response = client.post("/v1/models", json={"name": name})
    assert (response.status_code, response.json()["errors"][0]["place"]) == (404, "name")


def test_a_broken_checkpoint_is_refused_and_the_others_go_on(client: httpx.Client) -> None:
    while (response := client.post("/v1/models", json={"name": "broken"})).status_code == 503:
        time.sleep(0.1)
    assert (response.status_code, WEIGHTS_FILE in response.json()["detail"]) == (422, True)
    assert ask(client, 0)["distinct_valid"] > 0


def test_only_admins_change_the_models(client: httpx.Client) -> None:
    for headers, status in (({"authorization": "Bearer alice"}, 403), ({"authorization": "Bearer nobody"}, 401)):
        assert client.post("/v1/models", json={"name": "queens"}, headers=headers).status_code == status
        assert client.delete("/v1/models/nqueens-8", headers=headers).status_code == status
    assert client.delete("/v1/models/nowhere").status_code == 404


def test_a_server_without_keys_has_no_admin(server: RunningServer) -> None:
    assert server.post("/v1/models", json={"name": "queens"}).status_code == 403
    assert httpx.delete(f"{server.url}/v1/models/nqueens-8", timeout=PATIENCE).status_code == 403


def test_a_folder_of_checkpoints_stands_for_all_of_them(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert [folder.name for folder in ServerSettings(model=[root, checkpoint]).model] == [
        "broken",
        "outside",
        "queens",
        "nqueens-8",
    ]
    assert ServerSettings(model=[tmp_path]).model == [tmp_path]  # what is wrong with it is said where it is read
    assert checkpoint_in(root, "queens") == root / "queens"


class FleetRun(NamedTuple):
    """A fleet of one engine that runs in the process of the test."""

    fleet: Fleet
    supervision: asyncio.Task[None]
    ready: asyncio.Event
    pongs: asyncio.Queue[Pong]
    restarts: list[int]

    async def answered(self) -> None:
        """Wait until the engine has answered all loads."""
        (supervisor,) = self.fleet._supervisors
        while supervisor._loading:
            await asyncio.sleep(0.05)

    async def in_engine(self) -> set[str]:
        """The models that the engine has now."""
        while not self.pongs.empty():
            self.pongs.get_nowait()
        await self.pongs.get()  # its ping may have been sent before what the engine was told last
        return {*(await self.pongs.get()).lanes}


@asynccontextmanager
async def running_fleet(checkpoint: Path) -> AsyncGenerator[FleetRun]:
    ready, pongs, restarts = asyncio.Event(), asyncio.Queue[Pong](), list[int]()
    listener = Listener(
        on_report=lambda *_: None,
        on_pong=lambda _, pong: pongs.put_nowait(pong),
        on_ready=lambda *_: ready.set(),
        on_restart=lambda: restarts.append(1),
    )
    fleet = Fleet(ServerSettings(model=[checkpoint], device="cpu", slots=8, threads=1), listener)
    supervision = asyncio.create_task(fleet.run())
    try:
        await ready.wait()
        yield FleetRun(fleet, supervision, ready, pongs, restarts)
    finally:
        supervision.cancel()
        await asyncio.wait({supervision})


async def cancelled_load(fleet: Fleet, folder: Path) -> None:
    """Begin a load, and cancel it before the engine has answered: its client is gone."""
    loading = asyncio.create_task(fleet.load(folder))
    await asyncio.sleep(0)  # it has begun
    loading.cancel()
    await asyncio.wait({loading})


def test_a_load_that_is_cancelled_leaves_nothing_behind_and_supervision_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    sudoku, broken = checkpoint.with_name("sudoku-4x4"), tmp_path / "sudoku-4x4"
    shutil.copytree(sudoku, broken)
    (broken / WEIGHTS_FILE).write_bytes(b"not weights")

    async def run() -> None:
        async with running_fleet(checkpoint) as run:
            await cancelled_load(run.fleet, sudoku)
            await run.answered()
            assert await run.in_engine() == {checkpoint.name}

            await cancelled_load(run.fleet, sudoku)
            with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
                await run.fleet.load(broken)
            assert await run.in_engine() == {checkpoint.name}

            await cancelled_load(run.fleet, sudoku)
            await run.fleet.load(sudoku)
            assert await run.in_engine() == {checkpoint.name, sudoku.name}
            job = run.fleet.open(lambda number: Submit(number, sudoku.name, bytes(16), 3, 16, 0, 1.0))
            assert len([trajectory async for trajectory in run.fleet.trajectories(job)]) == 3
            run.fleet.close(job)

            assert not run.supervision.done()
            assert run.restarts == []

    asyncio.run(run())


@pytest.mark.skipif(not computes(torch.float32), reason="PyTorch makes the steps anyway")
def test_an_engine_that_would_step_a_model_otherwise_than_before_does_not_serve_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with running_fleet(checkpoint) as run:
            assert run.fleet.kernels == {checkpoint.name: "AVX-512"}
            run.ready.clear()
            monkeypatch.setenv("GRAM_KERNELS", "torch")
            (engine,) = [child for child in psutil.Process().children() if "gram.server.engine.process" in child.cmdline()]
            engine.kill()
            await run.ready.wait()
            reason = run.fleet.out_of_rotation[checkpoint.name]
            assert "its steps were made by AVX-512 before, and now by PyTorch" in reason

    asyncio.run(run())


def test_a_load_whose_engine_dies_fails_and_can_be_repeated(checkpoint: Path) -> None:
    sudoku = checkpoint.with_name("sudoku-4x4")

    async def run() -> None:
        async with running_fleet(checkpoint) as run:
            run.ready.clear()
            await cancelled_load(run.fleet, sudoku)
            loading = asyncio.create_task(run.fleet.load(sudoku))
            await asyncio.sleep(0)  # it has begun
            (engine,) = [child for child in psutil.Process().children() if "gram.server.engine.process" in child.cmdline()]
            engine.kill()
            with pytest.raises(EngineUnavailableError, match="died while it loaded the model; try again"):
                await loading
            await run.ready.wait()
            assert await run.in_engine() == {checkpoint.name}
            await run.fleet.load(sudoku)
            assert await run.in_engine() == {checkpoint.name, sudoku.name}
            assert not run.supervision.done()
            assert run.restarts == [1]

    asyncio.run(run())
