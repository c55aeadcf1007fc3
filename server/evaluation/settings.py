"""What can be set for `gram eval`. Without torch, so that its --help answers at once."""

from pydantic import Field

from gram.server.sampling.options import Heats
from gram.server.settings import EngineSettings


class EvaluationSettings(EngineSettings):
    """What `gram eval` measures, and how."""

    samples: int = Field(20, ge=1, description="trajectories per puzzle")
    boards: int = Field(10_000, ge=1, description="trajectories from the empty input, of checkpoints that generate")
    temperatures: list[Heats] = Field(
        [1.0],
        min_length=1,
        description="each is evaluated over all held-out puzzles and boards; a list in it is that of each supervision step",
    )
    symmetries: list[bool] = Field(
        [True, False], min_length=1, description="whether each trajectory sees an image of the puzzle: each is evaluated"
    )
    max_steps: int = Field(16, ge=1)
    grid_puzzles: int = Field(50, ge=0, description="so many puzzles of each set are also run without halting")
    grid_depth: int | None = Field(
        None, ge=1, description="supervision steps of those runs, read at 1, 2, 4, ... of them (default: the task's, 32 or 128)"
    )
    seed: int = 0
    puzzles: int | None = Field(None, ge=1, description="only so many puzzles of each set, evenly through it")
    limit: int | None = Field(None, ge=1, description="only this many puzzles of each set, or boards, and nothing is saved")
