"""The database of the jobs: SQLite, or PostgreSQL where a URL says so. Both take the same SQL."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gram.server.jobs.errors import StoreError, StoreFullError

POSTGRES = ("postgresql://", "postgres://")
"""What the address of a PostgreSQL database begins with. Anything else is a file."""
_CONNECT_SECONDS = 5
_BUSY_SECONDS = 10.0
_SCHEMA_LOCK = 0x6772616D
_FULL = {"53100", "53400"}
"""PostgreSQL's states of a full disk and of a limit that is exceeded."""
_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG}

Row = tuple[Any, ...]


class Database:
    """A connection, which is opened when it is needed and again after an error. One thread at a time may use it."""

    def __init__(self, address: str, schema: Iterable[str]) -> None:
        """`address`: a file, or a URL of PostgreSQL. `schema`: statements that make the tables unless they are there."""
        self.name = "the PostgreSQL database" if address.startswith(POSTGRES) else address
        self._address = address
        self._schema = schema
        self._connection: Any = None
        self._failures: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
        if self._remote:
            try:
                import psycopg
            except ModuleNotFoundError as error:
                raise StoreError("jobs in PostgreSQL need psycopg: pip install 'psycopg[binary]'") from error
            self._failures = (psycopg.Error, OSError)

    @property
    def _remote(self) -> bool:
        return self._address.startswith(POSTGRES)

    def execute(self, statement: str, *values: object) -> list[Row]:
        """Run a statement, with `?` for each value, and return its rows. Raises StoreError."""
        cursor = self._open().execute(self._spelled(statement), values)
        return cursor.fetchall() if cursor.description else []

    def execute_many(self, statement: str, rows: Iterable[Row]) -> None:
        """Run a statement for each of the rows, which are taken one at a time."""
        self._open().cursor().executemany(self._spelled(statement), rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements of the context, or none of them. What is committed stays. Raises StoreError."""
        try:
            self._open().execute("BEGIN" if self._remote else "BEGIN IMMEDIATE")
            yield
            self._open().execute("COMMIT")
        except BaseException as error:
            self._roll_back(broken=isinstance(error, self._failures))
            if isinstance(error, self._failures):
                raise self._told(error) from error
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _open(self) -> Any:
        if self._connection is None:
            self._connection = self._connect()
            if self._remote:  # of servers that start together, one makes the tables
                self._connection.execute(f"SELECT pg_advisory_lock({_SCHEMA_LOCK})")
            for statement in self._schema:
                self._connection.execute(statement)
            if self._remote:
                self._connection.execute(f"SELECT pg_advisory_unlock({_SCHEMA_LOCK})")
        return self._connection

    def _connect(self) -> Any:
        if self._remote:
            import psycopg

            return psycopg.connect(self._address, autocommit=True, connect_timeout=_CONNECT_SECONDS)
        Path(self._address).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._address, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what is committed survives a loss of power, too
        return connection

    def _roll_back(self, *, broken: bool) -> None:
        """Undo the transaction; after an error of the database on a new connection, by closing this one."""
        try:
            if self._connection is not None and not broken:
                self._connection.execute("ROLLBACK")
                return
            self.close()
        except self._failures:
            self._connection = None

    def _spelled(self, statement: str) -> str:
        return statement.replace("?", "%s") if self._remote else statement

    def _told(self, error: BaseException) -> StoreError:
        full = getattr(error, "sqlstate", None) in _FULL or getattr(error, "sqlite_errorcode", None) in _SQLITE_FULL
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if full:
            return StoreFullError(f"no room in {self.name}: {reason}")
        return StoreError(f"{self.name} fails: {reason}")
