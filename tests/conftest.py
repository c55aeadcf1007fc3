"""Fixtures: the bundled model and a server of it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from benchmarks.servers import RunningServer, serving
from gram.server.catalog import bundled_models

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before kernels.gpu is imported: triton.jit reads it

# The tests run in several processes. With more threads than cores, those of OpenMP mostly wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that the tests start
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="gram-tests-")  # where their servers keep jobs

SLOWEST = (
    "test_cluster.py",
    "test_faults.py",
    "test_rotation.py",
    "test_adding_a_task.py",
    "test_playground.py",
    "test_limits.py",
    "test_api.py",
    "test_jobs.py",
    "test_fleet.py",
    "test_snippets.py",
    "test_importing.py",
    "test_distributed.py",
    "test_observability.py",
    "test_bench.py",
    "test_batch.py",
    "test_client.py",
)
"""The files that take longest, mostly waiting: they begin first, so that no process is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


# On a machine that has other work, an example takes as long as it takes. Few are enough: every run draws others.
settings.register_profile("any machine", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("any machine"), max_examples=10_000)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The bundled 8-queens weights."""
    return next(folder for folder in bundled_models() if folder.name == "nqueens-8")


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While there is a file of this name, an engine that starts comes no further."""
    file = tmp_path / "hold"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        f"while 'gram.server.engine.process' in sys.orig_argv and os.path.exists({str(file)!r}):\n"
        "    time.sleep(0.05)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return file


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
