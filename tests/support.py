"""What several tests share."""

from pathlib import Path

from gram.server.engine.engine import Engine
from gram.server.settings import EngineSettings


def make_engine(checkpoint: Path, slots: int) -> Engine:
    """An engine in this process."""
    return Engine(EngineSettings(model=[checkpoint], slots=slots, device="cpu"))
