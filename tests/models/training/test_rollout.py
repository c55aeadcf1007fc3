from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gram.kernels.noise import NoiseKey
from gram.models.config import ModelConfig
from gram.models.network import GRAM
from gram.models.training.rollout import rollout

Build = Callable[..., GRAM]
ROWS = 4


@pytest.fixture
def puzzles(tiny: ModelConfig) -> Tensor:
    return torch.randint(tiny.vocab_size, (ROWS, tiny.seq_len), generator=torch.Generator().manual_seed(0))


def test_rows_are_trajectories_of_one_seed_as_they_are_served(tiny: ModelConfig, puzzles: Tensor, random_model: Build) -> None:
    model = random_model(tiny)
    states = rollout(model, puzzles, 3, seed=9)
    state, e_x = model.initial_state(1), model.encode(puzzles[2:3])
    for step, expected in enumerate(states):
        seed, index, transition = (torch.tensor([n]) for n in (9, 2, step * tiny.transitions))
        state = model.supervision_step(state, e_x, NoiseKey(seed, index, transition, torch.ones(1)))
        torch.testing.assert_close(state.h[0], expected[2], rtol=1e-4, atol=1e-5)


def test_a_deeper_rollout_goes_on_from_a_shallow_one(tiny: ModelConfig, puzzles: Tensor, random_model: Build) -> None:
    model = random_model(tiny)
    shallow, deep = (rollout(model, puzzles, steps, seed=1) for steps in (2, 4))
    assert len(deep) == 4
    assert all(torch.equal(a, b) for a, b in zip(shallow, deep[:2], strict=True))


def test_each_row_has_its_own_temperature(tiny: ModelConfig, puzzles: Tensor, random_model: Build) -> None:
    model = random_model(tiny)
    cold, mixed = (
        rollout(model, puzzles, 1, seed=1, temperature=t)[0] for t in (torch.zeros(ROWS), torch.tensor([0.0, 0, 2, 2]))
    )
    assert torch.equal(cold[:2], mixed[:2])
    assert (cold[2:] != mixed[2:]).flatten(1).any(1).all()
