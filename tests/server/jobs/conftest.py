"""The databases that the store is tested on: SQLite, and a real PostgreSQL where there is one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import PATIENCE, wait_for


def _programs() -> Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL of our own, on a Unix socket."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: the extra jobs")
    programs = _programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL")
    folder = tmp_path_factory.mktemp("postgres")
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user:
        for path in (folder, *folder.parents[:3]):
            path.chmod(path.stat().st_mode | 0o011)
        shutil.chown(folder, user)
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "gram", "-A", "trust", "--no-sync"],
        user=user,
        check=True,
        capture_output=True,
        cwd="/",
    )
    options = ["-D", str(data), "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([str(programs / "postgres"), *options], user=user, stdout=log, stderr=log, cwd="/")
    try:
        status = data / "postmaster.pid"  # the socket is there before the server is
        wait_for(lambda: status.exists() and "ready" in status.read_text(), "PostgreSQL is ready")
        yield f"postgresql://gram@/postgres?host={folder}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "jobs.db")
    url: str = request.getfixturevalue("postgres")
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS gram_jobs, gram_puzzles, gram_results")
    return url
