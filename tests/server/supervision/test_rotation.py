"""What clients get of a model that kills or holds its engines: it leaves the rotation, and the others go on."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import torch

from benchmarks.servers import PATIENCE, wait_for
from gram.models.checkpoint import save_checkpoint
from gram.models.config import WEIGHTS_FILE, CheckpointConfig, ModelConfig
from gram.models.network import GRAM
from tests.server.supervision.support import (
    QUEENS,
    SILENCE,
    ask,
    queens,
    refused,
    serving_models,
    statuses,
    stream,
    sudoku,
)

TINY = ModelConfig(
    vocab_size=QUEENS.vocab_size, seq_len=64, dim=8, num_layers=1, mixer_dim=8, mlp_dim=8, guidance_dim=8, num_registers=1
)


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


def test_a_model_whose_steps_kill_engines_leaves_the_rotation_and_the_others_go_on(checkpoint: Path, crashing: Path) -> None:
    sudoku_4x4 = checkpoint.with_name("sudoku-4x4")
    body = queens(model="crashing")
    with (
        serving_models(crashing, checkpoint, sudoku_4x4) as (server, client),
        ThreadPoolExecutor(8) as clients,
    ):
        assert ask(client, queens(model=None, task="nqueens-8", puzzle={"queens": []}))["model"] == "crashing"
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
        assert statuses(client) == {"crashing": "out_of_rotation", "nqueens-8": "serving", "sudoku-4x4": "serving"}
        assert ask(client, queens(model=None, task="nqueens-8"))["model"] == "nqueens-8"
        assert server.gauge("gram_engine_restarts_total") == 3


def test_deaths_count_though_no_client_waits_for_them_and_a_service_without_a_model_left_ends(crashing: Path) -> None:
    with serving_models(crashing) as (server, client):
        while server.process.poll() is None:
            with suppress(httpx.TransportError):
                client.post("/v1/solve", json=queens(model="crashing"), timeout=httpx.Timeout(PATIENCE, read=0.5))
        assert server.process.returncode == 1


def test_a_model_whose_step_does_not_end_leaves_the_rotation(checkpoint: Path, endless: Path) -> None:
    flags = ("--engine-timeout-seconds", str(SILENCE), "--slots", "512", "--threads", "1")
    with serving_models(checkpoint, endless, flags=flags) as (server, client), ThreadPoolExecutor(2) as clients:
        alone = ask(client, queens())
        hanging = clients.submit(refused, client, queens(model="endless", num_trajectories=512))
        other = clients.submit(ask, client, queens())
        assert "endless is out of rotation: 3 engines in a row died in its steps" in hanging.result()
        assert other.result() == alone
        assert server.gauge("gram_engine_restarts_total") == 3


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
        assert client.get("/v2/models/nqueens-8/ready").status_code == 200
        assert "flipped is out of rotation" in client.get("/v2/models/flipped/ready").json()["error"]
        assert server.gauge("gram_engine_restarts_total") == 1
