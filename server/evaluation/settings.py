"""The settings of `gram eval`. Without torch, so that its --help answers at once."""

from pydantic import Field

from gram.server.sampling.options import Heats
from gram.server.settings import EngineSettings


class EvaluationSettings(EngineSettings):
    """What `gram eval` measures, and how."""

    samples: int = Field(20, ge=1, description="trajectories per puzzle")
    boards: int = Field(10_000, ge=1, description="boards to generate from the empty input, for checkpoints that generate")
    temperatures: list[Heats] = Field(
        [1.0],
        min_length=1,
        description="temperatures to evaluate; an inner list has one for each supervision step",
    )
    symmetries: list[bool] = Field([True, False], min_length=1, description="evaluate with symmetries, without, or both")
    max_steps: int = Field(16, ge=1, description="supervision steps after which a trajectory ends if it has not halted")
    grid_puzzles: int = Field(50, ge=0, description="puzzles of each set that are also run without halting")
    grid_depth: int | None = Field(
        None,
        ge=1,
        description="supervision steps of the runs without halting, evaluated after 1, 2, 4, ... (default: 32, or 128 for 9x9)",
    )
    seed: int = Field(0, description="seed of the first puzzle; each further one has the next seed")
    puzzles: int | None = Field(None, ge=1, description="evaluate only this many puzzles of each set, spread evenly over it")
    limit: int | None = Field(
        None, ge=1, description="evaluate only the first puzzles of each set, and this many boards, and save nothing"
    )
