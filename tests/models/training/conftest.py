from collections.abc import Callable
from typing import Any

import pytest

from gram.models.config import ModelConfig
from gram.models.training.recipe import HeadsStage, Stage, TrainingConfig


@pytest.fixture(scope="session")
def recipe(tiny: ModelConfig) -> Callable[..., TrainingConfig]:
    """Builds the recipe of a tiny model; names of one stage's settings go to the stage, others to the recipe."""

    def build(**changes: Any) -> TrainingConfig:
        of_stage = {name: changes.pop(name) for name in list(changes) if name in Stage.model_fields}
        stage = Stage(**{"name": "only", "updates": 10, "lr": 1e-2, "warmup": 0, **of_stage})
        heads = HeadsStage(puzzles=64, steps=3, iterations=20)
        settings = {"task": "nqueens-8", "model": tiny, "stages": [stage], "heads": heads, "batch_size": 6, "dtype": "float32"}
        return TrainingConfig.model_validate(settings | changes)

    return build
