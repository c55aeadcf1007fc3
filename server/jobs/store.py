"""The store of the jobs: their puzzles, each with its result once it has one, and who works on them.

A puzzle moves from one table to the other, with its result, in one transaction: so none is run again whose result is there,
and none has two. A server works on a job while it holds its lease, which it renews; when the server dies, the lease runs out,
and any server on the same store goes on with the puzzles that are left.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import NamedTuple, ParamSpec, TypeVar

from gram.models.config import Ability
from gram.server.jobs.database import Database, Row
from gram.server.jobs.errors import StoreFullError, TooManyJobsError, TooManyPuzzlesError
from gram.server.settings import JobSettings

LEASE_SECONDS = 5.0
"""The time for which a server holds a job without renewing it."""
_SWEPT = 2_000
"""The rows that are deleted at a time, so that nothing waits long for it."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS gram_jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, ability TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    options TEXT NOT NULL, seed BIGINT NOT NULL, puzzles BIGINT NOT NULL, done BIGINT NOT NULL, failed BIGINT NOT NULL,
    bytes BIGINT NOT NULL, created DOUBLE PRECISION NOT NULL, updated DOUBLE PRECISION NOT NULL,
    holder TEXT NOT NULL, held_until DOUBLE PRECISION NOT NULL, deleted INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE IF NOT EXISTS gram_puzzles (
    job TEXT NOT NULL, number BIGINT NOT NULL, line BIGINT NOT NULL, puzzle TEXT NOT NULL, PRIMARY KEY (job, number))""",
    """CREATE TABLE IF NOT EXISTS gram_results (
    job TEXT NOT NULL, number BIGINT NOT NULL, result TEXT NOT NULL, PRIMARY KEY (job, number))""",
)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A job as it stands in the store. Times are seconds since 1970."""

    id: str
    owner: str
    """The label of the key that submitted it; empty on a server without keys."""
    ability: Ability
    model: str
    task: str
    options: str
    """The options of each request, as JSON."""
    seed: int
    puzzles: int
    done: int
    failed: int
    bytes: int
    """Of the puzzles that have no result yet, and of the results."""
    created: float
    updated: float
    """When it was accepted, or last worked on."""
    holder: str
    held_until: float

    @property
    def held(self) -> bool:
        """Whether a server works on it."""
        return self.held_until > time.time()


_COLUMNS = ", ".join(field.name for field in fields(Job))


class Puzzle(NamedTuple):
    """A puzzle without a result: its number in the job, from 0, that of its line, and itself as JSON."""

    number: int
    line: int
    puzzle: str


class Result(NamedTuple):
    """The result of a puzzle: a JobResult as JSON, and whether it is an error."""

    number: int
    text: str
    failed: bool


class Totals(NamedTuple):
    """What the store holds: jobs without and with a server that works on them, and bytes; and how long they wait."""

    queued: int = 0
    running: int = 0
    bytes: int = 0
    waiting_seconds: float = 0.0
    """Of the job that has waited longest for a server, since it was accepted or last worked on."""


class Store:
    """All methods but `call` block; `call` runs them, one at a time, in a thread. Raises StoreError if the database fails."""

    def __init__(self, address: str, settings: JobSettings) -> None:
        """Open nothing yet. Raises StoreError if that can't work."""
        self._database = Database(address, _SCHEMA)
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "jobs")

    async def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call one of the other methods without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: method(*args, **kwargs))

    def open(self) -> None:
        """Open the database now, to see whether it works."""
        with self._database.transaction():
            pass

    def close(self) -> None:
        """Close the database, when all calls have ended."""
        self._thread.submit(self._database.close)
        self._thread.shutdown()

    def add(
        self,
        owner: str,
        ability: Ability,
        model: str,
        task: str,
        options: str,
        seed: int,
        puzzles: Iterable[tuple[int, str]],
        once: str | None = None,
    ) -> Job:
        """Accept a job with these puzzles, each the number of its line and JSON: it is kept when this returns.

        With the same `once` of the same owner it is the job that was accepted before. Raises StoreFullError,
        TooManyJobsError or TooManyPuzzlesError, and then nothing is kept.
        """
        name = hashlib.sha256(f"{owner}\n{once}".encode()).hexdigest()[:32] if once else secrets.token_hex(16)
        limits, now = self._settings, time.time()
        with self._database.transaction():
            if known := self._one("WHERE id = ? AND deleted = 0", name):
                return known
            self._forget(name)
            ((jobs,),) = self._execute("SELECT count(*) FROM gram_jobs WHERE owner = ? AND deleted = 0", owner)
            if jobs >= limits.max_jobs:
                raise TooManyJobsError(f"there are {jobs} jobs already, which is the limit; delete one that is done")
            room = limits.max_jobs_bytes - self._bytes()
            count = size = 0

            def rows() -> Iterator[Row]:
                nonlocal count, size
                for line, puzzle in puzzles:
                    size += len(puzzle)
                    if count == limits.max_job_puzzles:
                        raise TooManyPuzzlesError(f"a job may have {count} puzzles; send the others as another job")
                    if size > room:
                        raise _full(limits.max_jobs_bytes)
                    yield name, count, line, puzzle
                    count += 1

            self._database.execute_many("INSERT INTO gram_puzzles VALUES (?, ?, ?, ?)", rows())
            values = (name, owner, ability, model, task, options, seed, count, 0, 0, size, now, now, "", 0.0)
            marks = ", ".join("?" * len(values))
            self._execute(f"INSERT INTO gram_jobs ({_COLUMNS}) VALUES ({marks})", *values)
        return Job(*values)

    def get(self, name: str, owner: str | None) -> Job | None:
        """A job of this owner, or of any (None)."""
        with self._database.transaction():
            return self._one("WHERE id = ? AND deleted = 0 AND owner = coalesce(?, owner)", name, owner)

    def jobs(self, owner: str | None) -> list[Job]:
        """The jobs of this owner, or of all (None), the newest first."""
        with self._database.transaction():
            return self._all("WHERE deleted = 0 AND owner = coalesce(?, owner) ORDER BY created DESC, id", owner)

    def results(self, name: str, first: int, limit: int) -> list[Result]:
        """Results of a job from number `first` on, this many at most, up to the first puzzle that has none."""
        with self._database.transaction():
            rows = self._execute(
                "SELECT number, result FROM gram_results WHERE job = ? AND number >= ? ORDER BY number LIMIT ?",
                name,
                first,
                limit,
            )
        return [Result(number, text, False) for place, (number, text) in enumerate(rows, start=first) if number == place]

    def delete(self, name: str) -> None:
        """Forget a job: nobody sees it any more, and `sweep` frees its room."""
        with self._database.transaction():
            self._execute("UPDATE gram_jobs SET deleted = 1 WHERE id = ?", name)

    def claim(self, holder: str, models: Sequence[str]) -> Job | None:
        """Take the lease of a job that waits for one of these models: the oldest of an owner who has the fewest running.

        There is none while the store is full.
        """
        if not models:
            return None
        now, marks = time.time(), ", ".join("?" * len(models))
        free = f"deleted = 0 AND done < puzzles AND held_until <= ? AND model IN ({marks})"
        running = "(SELECT count(*) FROM gram_jobs other WHERE other.owner = gram_jobs.owner AND other.held_until > ?)"
        chosen = f"SELECT id FROM gram_jobs WHERE {free} ORDER BY {running}, created, id LIMIT 1"
        with self._database.transaction():
            if self._bytes() >= self._settings.max_jobs_bytes:
                return None
            claimed = self._execute(
                f"UPDATE gram_jobs SET holder = ?, held_until = ? WHERE id = ({chosen}) AND held_until <= ? RETURNING id",
                *(holder, now + LEASE_SECONDS, now, *models, now, now),
            )
            return self._one("WHERE id = ?", claimed[0][0]) if claimed else None

    def puzzles(self, name: str, after: int, limit: int) -> list[Puzzle]:
        """Puzzles without a result of a job, from behind this number on. Raises StoreFullError if there is no room for more."""
        with self._database.transaction():
            if self._bytes() >= self._settings.max_jobs_bytes:
                raise _full(self._settings.max_jobs_bytes)
            rows = self._execute(
                "SELECT number, line, puzzle FROM gram_puzzles WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
                name,
                after,
                limit,
            )
        return [Puzzle(*row) for row in rows]

    def record(self, name: str, holder: str, results: Sequence[Result]) -> bool:
        """Keep results, and renew the lease. False, and nothing is kept, if it is not the holder's any more."""
        now = time.time()
        with self._database.transaction():
            held = self._execute(
                "UPDATE gram_jobs SET updated = ?, held_until = ? WHERE id = ? AND holder = ? AND deleted = 0 RETURNING id",
                *(now, now + LEASE_SECONDS, name, holder),
            )
            if not held:
                return False
            for number, text, failed in results:
                taken = self._execute("DELETE FROM gram_puzzles WHERE job = ? AND number = ? RETURNING puzzle", name, number)
                for (puzzle,) in taken:
                    self._execute("INSERT INTO gram_results VALUES (?, ?, ?)", name, number, text)
                    self._execute(
                        "UPDATE gram_jobs SET done = done + 1, failed = failed + ?, bytes = bytes + ? WHERE id = ?",
                        *(int(failed), len(text) - len(puzzle), name),
                    )
        return True

    def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        with self._database.transaction():
            self._execute("UPDATE gram_jobs SET holder = '', held_until = 0 WHERE id = ? AND holder = ?", name, holder)

    def sweep(self) -> None:
        """Delete jobs that are too old, and free some of the room of deleted ones."""
        now = time.time()
        with self._database.transaction():
            self._execute(
                "UPDATE gram_jobs SET deleted = 1 WHERE deleted = 0 AND updated < ? AND held_until <= ?",
                *(now - self._settings.job_seconds, now),
            )
            for (name,) in self._execute("SELECT id FROM gram_jobs WHERE deleted = 1 AND held_until <= ? LIMIT 1", now):
                self._forget(name, _SWEPT)

    def totals(self) -> Totals:
        """What the store holds now."""
        now = time.time()
        with self._database.transaction():
            ((running,),) = self._execute("SELECT count(*) FROM gram_jobs WHERE deleted = 0 AND held_until > ?", now)
            ((open_,),) = self._execute("SELECT count(*) FROM gram_jobs WHERE deleted = 0 AND done < puzzles")
            ((since,),) = self._execute(
                "SELECT min(updated) FROM gram_jobs WHERE deleted = 0 AND done < puzzles AND held_until <= ?", now
            )
            return Totals(max(open_ - running, 0), running, self._bytes(), 0.0 if since is None else max(now - since, 0.0))

    def _forget(self, name: str, rows: int = 2**62) -> None:
        """Delete so many rows of a job, and the job when none is left."""
        left = 0
        for table in ("gram_puzzles", "gram_results"):
            chosen = f"SELECT number FROM {table} WHERE job = ? ORDER BY number LIMIT ?"
            deleted = f"DELETE FROM {table} WHERE job = ? AND number IN ({chosen}) RETURNING 1"
            left += len(self._execute(deleted, name, name, rows))
        if left < rows:
            self._execute("DELETE FROM gram_jobs WHERE id = ?", name)

    def _bytes(self) -> int:
        ((total,),) = self._execute("SELECT coalesce(sum(bytes), 0) FROM gram_jobs WHERE deleted = 0")
        return int(total)

    def _one(self, where: str, *values: object) -> Job | None:
        return next(iter(self._all(where, *values)), None)

    def _all(self, where: str, *values: object) -> list[Job]:
        return [Job(*row) for row in self._execute(f"SELECT {_COLUMNS} FROM gram_jobs {where}", *values)]

    def _execute(self, statement: str, *values: object) -> list[Row]:
        return self._database.execute(statement, *values)


def _full(limit: int) -> StoreFullError:
    return StoreFullError(
        f"the jobs have {limit} bytes, which is the limit; delete those that are done, or wait until they expire"
    )
