"""Fixtures: the bundled model and a server of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from server.settings import bundled_models
from tests.support import RunningServer, serving

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before kernels.gpu is imported: triton.jit reads it


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The bundled 8-queens weights."""
    return next(folder for folder in bundled_models() if folder.name == "nqueens-8")


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
