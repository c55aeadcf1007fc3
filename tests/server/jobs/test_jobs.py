"""Jobs on real servers: they outlive a killed one, run behind other requests, and are read as they grow."""

import asyncio
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.servers import PATIENCE, RunningServer, serving, wait_for
from gram import AsyncClient, Client, GramError
from gram.models.tasks import TASKS
from gram.server.api.keys import Key, digest
from gram.server.client.options import SolveOptions
from gram.server.jobs.store import Job, Store
from gram.server.settings import JobSettings
from tests.server.cli.support import gram
from tests.support import FIXED_SIZE

TASK = TASKS["nqueens-8"]
PUZZLES = [TASK.text(puzzle) for puzzle in TASK.held_out[:200]]
QUICK: dict[str, Any] = {"task": TASK.name, "num_trajectories": 1, "max_steps": 4, "seed": 11}
ENDLESS: dict[str, Any] = {"task": TASK.name, "puzzle": "g7", "num_trajectories": 100_000, "halt": "never", "seed": 1}


def lines(puzzles: list[str]) -> bytes:
    return b"".join(json.dumps(puzzle).encode() + b"\n" for puzzle in puzzles)


def untimed(answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if not name.endswith("_ms")}


def submit(server: RunningServer, content: bytes, content_type: str = "application/x-ndjson", **query: Any) -> str:
    told = server.post("/v1/jobs", content=content, params=query, headers={"content-type": content_type})
    assert told.status_code == 202, told.text
    assert told.headers["location"] == f"/v1/jobs/{told.json()['id']}"
    return str(told.json()["id"])


def results(server: RunningServer, job: str, **query: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.get(f"/v1/jobs/{job}/results", params=query).text.splitlines()]


def finished(server: RunningServer, job: str) -> list[dict[str, Any]]:
    wait_for(lambda: server.get(f"/v1/jobs/{job}").json()["state"] == "done", "the job is done")
    return results(server, job)


@pytest.fixture(scope="module")
def survived(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Job]]:
    """A server that goes on where another was killed, and a job that the other had begun."""
    file = str(tmp_path_factory.mktemp("jobs") / "jobs.db")
    flags = ("--model", str(checkpoint), *FIXED_SIZE, "--jobs", file)
    with serving(*flags) as first:
        job = submit(first, lines(PUZZLES), **QUICK)
        wait_for(lambda: first.get(f"/v1/jobs/{job}").json()["done"] >= 20, "a part of the job is done")
        first.process.kill()
        first.process.wait(PATIENCE)
    store = Store(file, JobSettings())
    left = store.get(job, None)
    store.close()
    assert left
    with serving(*flags) as second:
        yield second, left


@pytest.fixture
def server(survived: tuple[RunningServer, Job]) -> RunningServer:
    return survived[0]


def test_a_job_survives_its_server_and_no_puzzle_is_lost_or_answered_twice(survived: tuple[RunningServer, Job]) -> None:
    server, job = survived
    assert "jobs.db" not in server.get("/server_info").text  # of a database, it would have the password
    assert 20 <= job.done < len(PUZZLES)
    told = finished(server, job.id)
    assert [result["index"] for result in told] == [*range(len(PUZZLES))]
    assert server.gauge("gram_job_puzzles_total") == len(PUZZLES) - job.done
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        for result in told[::10]:
            body = {**QUICK, "puzzle": PUZZLES[result["index"]], "seed": 11 + result["index"]}
            assert untimed(result["answer"]) == untimed(client.post("/v1/solve", json=body).json())


def test_results_are_ranged(survived: tuple[RunningServer, Job]) -> None:
    server, job = survived
    whole = finished(server, job.id)
    assert results(server, job.id, limit=150) == whole[:150]
    assert results(server, job.id, **{"from": 50, "limit": 120}) == whole[50:170]
    assert results(server, job.id, **{"from": 10**9}) == []


def test_deleting_a_job_frees_its_slots_and_until_then_it_shows_its_ranking(server: RunningServer) -> None:
    job = submit(server, json.dumps(ENDLESS).encode(), "application/json")
    wait_for(lambda: bool((server.get(f"/v1/jobs/{job}").json()["partial"] or {}).get("candidates")), "a ranking")
    shown = server.get(f"/v1/jobs/{job}").json()
    assert (shown["state"], shown["puzzles"], shown["done"], shown["partial"]["complete"]) == ("running", 1, 0, False)
    assert len(shown["partial"]["candidates"]) <= 20
    # What others ask goes first, though the job has the whole rest of the slots.
    solved = server.post("/v1/solve", json=QUICK | {"puzzle": "g7", "timeout_seconds": 60})
    assert solved.json()["complete"]
    assert server.gauge("gram_jobs") == 1
    assert httpx.delete(f"{server.url}/v1/jobs/{job}", timeout=PATIENCE).status_code == 204
    assert server.get(f"/v1/jobs/{job}").status_code == 404
    server.wait_until("gram_live_slots", 0)
    server.wait_until("gram_jobs", 0)


@pytest.mark.parametrize("kind", ["text", "csv.gz", "npy", "ndjson"])
def test_a_file_is_read_as_gram_solve_reads_it(server: RunningServer, kind: str) -> None:
    boards, array = PUZZLES[:3], io.BytesIO()
    flat = [board.replace("\n", "") for board in boards]
    np.save(array, TASK.held_out[:3].astype(np.uint8))
    content = {
        "text": "\n".join(flat).encode(),
        "csv.gz": gzip.compress("\n".join(["id,puzzle", *(f"{i},{board}" for i, board in enumerate(flat))]).encode()),
        "npy": array.getvalue(),
        "ndjson": lines(boards),
    }[kind]
    told = finished(server, submit(server, content, "application/x-www-form-urlencoded", **QUICK))
    first = 2 if kind == "csv.gz" else 1
    assert [(result["index"], result["line"]) for result in told] == [(i, first + i) for i in range(3)]
    assert [result["answer"]["puzzle"]["text"] for result in told] == boards
    assert [result["answer"]["seed"] for result in told] == [11 + first - 1 + i for i in range(3)]


def test_a_wrong_puzzle_is_answered_by_its_error(server: RunningServer) -> None:
    job = submit(server, lines([PUZZLES[0], "z9", "a1 b2"]), **QUICK)
    good, unread, attacked = finished(server, job)
    assert good["error"] is None
    assert (unread["answer"], unread["error"]["status"], attacked["error"]["cause"]) == (None, 422, "invalid")
    assert server.get(f"/v1/jobs/{job}").json()["failed"] == 2


def test_a_job_makes_boards(server: RunningServer) -> None:
    body = {"task": TASK.name, "num_samples": 3, "max_steps": 4, "seed": 5}
    (told,) = finished(server, submit(server, json.dumps(body).encode(), "application/json"))
    assert untimed(told["answer"]) == untimed(server.post("/v1/generate", json=body).json())


@pytest.mark.parametrize(
    ("content_type", "body", "query", "status", "detail"),
    [
        ("application/json", b"{", {}, 400, "not JSON"),
        ("application/json", b'{"puzzle": "a1 b2", "task": "nqueens-8"}', {}, 422, "attacks"),
        ("application/json", b'{"puzzle": "a1", "stream": true}', {}, 422, "stream: a job has no deadline and no stream"),
        ("application/json", b'{"puzzle": "a1", "seed": -1}', {}, 422, "seed"),
        ("application/json", b"[1]", {}, 422, "body"),
        ("application/json", b" " * 70_000, {}, 413, "as NDJSON"),
        ("text/plain", b"a1\n", {"task": "chess"}, 404, "chess"),
        ("text/plain", b"a1\n", {"model": "gone"}, 404, "gone"),
        ("text/plain", b"a1\n", {"num_trajectories": "many"}, 422, "num_trajectories"),
        ("text/plain", b"a1\n", {"speed": "9"}, 422, "speed: not an option"),
        ("text/plain", b"a1\n", {"num_trajectories": "1000000"}, 422, "100000 at most"),
        ("text/plain", b"a1\n", {"puzzle": "a1"}, 422, "in the body"),
        (
            "text/csv",
            b"puzzle,id\na1,1\n" + b'"' + b"x" * 200_000 + b'"\n',
            {"task": "nqueens-8"},
            422,
            "it, line 3: field larger",
        ),
        ("text/plain", b"", {"task": "nqueens-8"}, 422, "no puzzle"),
        ("text/plain", b"\x1f\x8bbroken", {"task": "nqueens-8"}, 422, "can't be read"),
        ("text/plain", b"\x93NUMPY\x01", {"task": "nqueens-8"}, 422, "it is no array"),
    ],
)
def test_what_can_not_be_a_job_is_refused(
    server: RunningServer, content_type: str, body: bytes, query: dict[str, str], status: int, detail: str
) -> None:
    told = server.post("/v1/jobs", content=body, params=query, headers={"content-type": content_type})
    assert (told.status_code, told.headers["content-type"]) == (status, "application/problem+json"), told.text
    assert detail in told.json()["detail"]


def test_the_clients_and_the_command_line_speak_of_jobs(server: RunningServer, tmp_path: Path) -> None:
    options: SolveOptions = {"num_trajectories": 1, "max_steps": 4, "seed": 11}
    with Client(server.url) as client:
        job = client.submit(PUZZLES[:3], task=TASK.name, **options)
        told = finished(server, job.id)
        assert [result.model_dump() for result in client.job_results(job.id)] == told
        assert client.job(job.id).state == "done"
        made = client.submit_generate(task=TASK.name, num_samples=1, max_steps=1)
        assert {made.id, job.id} <= {each.id for each in client.jobs()}

    async def asynchronously() -> list[dict[str, Any]]:
        async with AsyncClient(server.url) as client:
            again = await client.submit(lines(PUZZLES[:3]), task=TASK.name, **options)
            while (await client.job(again.id)).state != "done":
                await asyncio.sleep(0.05)
            read = [result.model_dump() async for result in client.job_results(again.id)]
            await client.delete_job(again.id)
            with pytest.raises(GramError, match="404"):
                await client.job(again.id)
            return read

    assert [untimed(each["answer"]) for each in asyncio.run(asynchronously())] == [untimed(each["answer"]) for each in told]
    (tmp_path / "puzzles.txt").write_text("\n".join(board.replace("\n", "") for board in PUZZLES[:3]))
    there = ("--url", server.url)
    flags = ("--task", TASK.name, "--num-trajectories", "1", "--max-steps", "4", "--seed", "11")
    named = gram("jobs", "submit", str(tmp_path / "puzzles.txt"), *flags, *there).stdout.strip()
    read = gram("jobs", "results", named, "--wait", *there).stdout.splitlines()
    assert [untimed(json.loads(line)["answer"]) for line in read] == [untimed(each["answer"]) for each in told]
    assert f"{named}  done  3/3" in gram("jobs", "list", *there).stdout
    gram("jobs", "cancel", named, *there)
    gone = gram("jobs", "show", named, *there)
    assert gone.returncode == 1
    assert "there is no job" in gone.stderr


@pytest.fixture(scope="module")
def keyed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two keys and little room."""
    folder = tmp_path_factory.mktemp("keyed")
    entries = [Key(sha256=digest(name)).toml(name) for name in ("alice", "bob")]
    (folder / "keys.toml").write_text("\n".join(entries) + "\n")
    flags = ("--keys-file", str(folder / "keys.toml"), "--jobs", str(folder / "jobs.db"))
    limits = ("--max-jobs", "2", "--max-job-puzzles", "5", "--max-jobs-bytes", "2000", "--max-upload-bytes", "3000")
    with serving("--model", str(checkpoint), *FIXED_SIZE, *flags, *limits) as running:
        yield running


def test_keys_and_limits(keyed: RunningServer) -> None:
    def ask(method: str, path: str, key: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.request(method, f"{keyed.url}/v1/jobs{path}", headers=headers, timeout=PATIENCE, **options)

    def add(key: str, content: bytes, **query: Any) -> httpx.Response:
        return ask("POST", "", key, content=content, params={"task": TASK.name, "num_trajectories": 1} | query)

    assert keyed.get("/v1/jobs").status_code == 401
    mine = add("alice", b"g7\n").json()["id"]
    for method, path in (("GET", ""), ("GET", "/results"), ("DELETE", "")):
        assert ask(method, f"/{mine}{path}", "bob").status_code == 404
    assert ask("GET", "", "bob").json() == []
    assert [job["id"] for job in ask("GET", "", "alice").json()] == [mine]

    assert add("bob", b"g7\n" * 6).status_code == 413
    assert add("bob", b"g7\n" * 2000).status_code == 413
    assert "3000 bytes" in add("bob", gzip.compress(b"g7\n" * 2000)).json()["detail"]
    full = add("bob", (b'"g7' + b" " * 1100 + b'"\n') * 2)
    assert (full.status_code, full.json()["cause"]) == (507, "job_store")
    assert ask("GET", "", "bob").json() == []

    # Results on their way are kept in a full store, too.
    long = add("bob", b"g7\n" * 5, num_trajectories=40, max_steps=4).json()["id"]
    wait_for(lambda: keyed.gauge("gram_job_store_bytes") >= 2000, "the store is full")
    assert add("bob", b"g7\n").status_code == 507
    assert ask("GET", f"/{long}", "bob").json()["done"]
    assert ask("DELETE", f"/{mine}", "alice").status_code == 204
    assert ask("DELETE", f"/{long}", "bob").status_code == 204
    again = [add("alice", b"g7\n").status_code for _ in range(3)]
    assert again == [202, 202, 429]


def test_a_file_that_can_not_be_a_store_stops_the_server(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    told = gram("serve", "--model", str(checkpoint), "--port", "0", "--jobs", str(tmp_path / "notes.txt"))
    assert told.returncode == 1
    assert "notes.txt fails: file is not a database; name another file" in told.stderr
