"""GRAM: a server for recursive reasoning models, its clients, the network and its tasks.

    from gram import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.solve("g7 a4", task="nqueens-8").candidates[0].text)

What is named here is public. It is imported when it is first used, so that a client never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "gram.server.client.async_client",
    "Client": "gram.server.client.client",
    "GRAM": "gram.models.network",
    "GramError": "gram.server.client.errors",
    "PrunedEvent": "gram.server.sampling.answers",
    "PuzzleError": "gram.models.tasks",
    "SolveResponse": "gram.server.sampling.answers",
    "StartEvent": "gram.server.sampling.answers",
    "StepEvent": "gram.server.sampling.answers",
    "TASKS": "gram.models.tasks",
    "TrajectoryEvent": "gram.server.sampling.answers",
    "load_checkpoint": "gram.models.checkpoint",
}

if TYPE_CHECKING:
    from gram.models.checkpoint import load_checkpoint
    from gram.models.network import GRAM
    from gram.models.tasks import TASKS, PuzzleError
    from gram.server.client.async_client import AsyncClient
    from gram.server.client.client import Client
    from gram.server.client.errors import GramError
    from gram.server.sampling.answers import PrunedEvent, SolveResponse, StartEvent, StepEvent, TrajectoryEvent

__all__ = [
    "GRAM",
    "TASKS",
    "AsyncClient",
    "Client",
    "GramError",
    "PrunedEvent",
    "PuzzleError",
    "SolveResponse",
    "StartEvent",
    "StepEvent",
    "TrajectoryEvent",
    "load_checkpoint",
]


if not TYPE_CHECKING:  # a type checker that sees this function takes every name for an attribute of the module

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
