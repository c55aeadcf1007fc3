"""What the store keeps, to whom it shows it, and what it refuses, on SQLite and on PostgreSQL."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gram.server.jobs import store as module
from gram.server.jobs.errors import StoreError, StoreFullError, TooManyJobsError, TooManyPuzzlesError
from gram.server.jobs.store import Job, Result, Store, Totals
from gram.server.settings import JobSettings

MODELS = ["nqueens-8"]
Opened = Callable[..., Store]


@pytest.fixture
def opened(address: str) -> Iterator[Opened]:
    """Opens stores on one database, with limits."""
    stores = []

    def open_store(**limits: int) -> Store:
        stores.append(Store(address, JobSettings.model_validate(limits)))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def add(store: Store, count: int = 3, owner: str = "", model: str = "nqueens-8", once: str | None = None) -> Job:
    puzzles = ((line, f'"puzzle {line}"') for line in range(1, count + 1))
    return store.add(owner, "solve", model, "nqueens-8", "{}", 7, puzzles, once)


def solve(store: Store, job: Job, holder: str, *numbers: int) -> bool:
    return store.record(job.id, holder, [Result(number, f'{{"index":{number}}}', number == 1) for number in numbers])


def test_a_job_goes_on_where_the_last_server_was(opened: Opened) -> None:
    store, other = opened(), opened()
    job = add(store)
    assert store.get(job.id, None) == job
    claimed = store.claim("first", MODELS)
    assert claimed
    assert claimed.id == job.id
    assert other.claim("second", MODELS) is None
    assert [puzzle.number for puzzle in store.puzzles(job.id, -1, 10)] == [0, 1, 2]
    assert solve(store, job, "first", 2, 0)
    store.release(job.id, "first")
    assert other.claim("second", MODELS)
    assert other.puzzles(job.id, -1, 10) == [(1, 2, '"puzzle 2"')]
    assert solve(other, job, "second", 1)
    done = store.get(job.id, None)
    assert done
    assert (done.done, done.failed) == (3, 1)
    assert [result.number for result in store.results(job.id, 0, 10)] == [0, 1, 2]
    assert store.claim("first", MODELS) is None


def test_the_lease_of_a_dead_server_runs_out_and_what_it_brings_later_is_not_taken(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    job = add(store)
    monkeypatch.setattr(module, "LEASE_SECONDS", -1.0)
    assert store.claim("dead", MODELS)
    monkeypatch.undo()
    assert store.claim("heir", MODELS)
    assert not solve(store, job, "dead", 0)
    assert solve(store, job, "heir", 0)
    assert solve(store, job, "heir", 0)  # a second result is left out
    kept = store.get(job.id, None)
    assert kept
    assert kept.done == 1


def test_results_end_at_the_first_gap(opened: Opened) -> None:
    store = opened()
    job = add(store, 5)
    store.claim("me", MODELS)
    solve(store, job, "me", 0, 1, 3)
    assert [result.number for result in store.results(job.id, 0, 10)] == [0, 1]
    assert [result.number for result in store.results(job.id, 1, 10)] == [1]
    assert store.results(job.id, 2, 10) == []


def test_a_key_sees_its_own_jobs_and_everybody_is_none(opened: Opened) -> None:
    store = opened()
    mine, other = add(store, owner="alice"), add(store, owner="bob")
    assert store.get(mine.id, "bob") is None
    assert [job.id for job in store.jobs("alice")] == [mine.id]
    assert {job.id for job in store.jobs(None)} == {mine.id, other.id}


def test_the_owner_with_the_fewest_running_jobs_is_next(opened: Opened) -> None:
    store = opened()
    add(store, owner="alice")
    add(store, owner="alice")
    late = add(store, owner="bob")
    store.claim("me", MODELS)
    second = store.claim("me", MODELS)
    assert second
    assert second.id == late.id


def test_only_jobs_of_models_that_answer_are_taken(opened: Opened) -> None:
    store = opened()
    add(store, model="gone")
    assert store.claim("me", MODELS) is None
    assert store.claim("me", []) is None


def test_it_tells_how_long_a_job_has_had_no_server(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    accepted = add(store).updated
    add(store, model="other")
    monkeypatch.setattr(time, "time", lambda: accepted + 100)
    assert store.totals().waiting_seconds == pytest.approx(100)
    for model in (*MODELS, "other"):
        assert store.claim("me", [model])
    assert store.totals().waiting_seconds == 0


def test_the_same_key_accepts_a_job_once(opened: Opened) -> None:
    store = opened(max_jobs=1)
    first = add(store, once="a")
    assert add(store, 2, once="a").puzzles == first.puzzles
    store.delete(first.id)
    assert add(store, 2, once="a").puzzles == 2


def test_what_is_refused_leaves_nothing(opened: Opened) -> None:
    store = opened(max_jobs=1, max_jobs_bytes=45)
    with pytest.raises(TooManyPuzzlesError, match="5 puzzles"):
        add(opened(max_job_puzzles=5), 6)
    with pytest.raises(StoreFullError, match="45 bytes"):
        add(store, 5)
    assert store.totals() == Totals()
    add(store)
    with pytest.raises(TooManyJobsError, match="delete"):
        add(store)


def test_a_full_store_takes_the_results_on_their_way_and_gives_out_no_more(opened: Opened) -> None:
    store = opened(max_jobs_bytes=40)
    job = add(store)
    assert store.claim("me", MODELS)
    store.record(job.id, "me", [Result(0, "x" * 50, False)])
    with pytest.raises(StoreFullError):
        store.puzzles(job.id, 0, 10)
    store.release(job.id, "me")
    assert store.claim("me", MODELS) is None
    assert [result.number for result in store.results(job.id, 0, 10)] == [0]


def test_old_and_deleted_jobs_free_their_room(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    monkeypatch.setattr(module, "_SWEPT", 2)
    job = add(store, 9)
    assert store.claim("me", MODELS)
    store.delete(job.id)
    assert not solve(store, job, "me", 0)
    store.release(job.id, "me")
    assert store.totals() == Totals()
    for _ in range(6):
        store.sweep()
    assert store.puzzles(job.id, -1, 10) == []
    assert add(store)
    opened(job_seconds=10**6).sweep()
    assert len(store.jobs(None)) == 1
    old = opened(job_seconds=1)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    old.sweep()
    assert store.jobs(None) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at " * 40)
    store = Store(str(tmp_path / "notes.txt"), JobSettings())
    with pytest.raises(StoreError, match=r"notes\.txt fails: file is not a database"):
        store.open()
    store.close()


def test_a_broken_connection_is_made_again(postgres: str) -> None:
    store = Store(postgres, JobSettings())
    store.open()
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StoreError, match="PostgreSQL database fails"):
        store.open()
    store.open()
    store.close()


def test_a_full_disk_is_told_apart_from_a_broken_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "jobs.db"), JobSettings())
    kept = add(store)
    store._database.execute("PRAGMA max_page_count = 12")
    with pytest.raises(StoreFullError, match=r"no room in .*jobs\.db: database or disk is full"):
        add(store, 10_000)
    assert [job.id for job in store.jobs(None)] == [kept.id]
    store.close()
