"""What several tests share."""

from pathlib import Path

from gram.server.engine.engine import Engine
from gram.server.settings import EngineSettings

FIXED_SIZE = ("--slots", "8", "--threads", "1")
"""Flags of a server that measures nothing at its start, steps quickly, and leaves a core to what runs beside it."""


def make_engine(checkpoint: Path, slots: int) -> Engine:
    """An engine in this process."""
    return Engine(EngineSettings(model=[checkpoint], slots=slots, device="cpu"))
