"""First weights for tasks on a square grid."""

import pytest
import torch

from gram.models.config import ModelConfig
from gram.models.layers import PositionMixer
from gram.models.network import GRAM
from gram.models.training.grid import see_neighbours


@pytest.fixture
def model() -> GRAM:
    config = ModelConfig(vocab_size=5, seq_len=25, dim=8, num_layers=2, mixer_dim=50, mlp_dim=16, guidance_dim=8)
    model = GRAM(config)
    see_neighbours(model)
    return model


def test_a_cell_hears_most_from_the_cells_beside_it(model: GRAM) -> None:
    for mixer in (module for module in model.modules() if isinstance(module, PositionMixer)):
        read = mixer.swiglu.gate_up.weight.detach()[:25, model.config.num_registers :].abs()
        centre = 2 * 5 + 2
        beside = read[centre, [centre, centre - 5, centre + 5, centre - 1, centre + 1]]
        others = [cell for cell in range(25) if abs(cell // 5 - 2) + abs(cell % 5 - 2) > 1]
        assert beside.norm() > 0.8
        assert read[centre, others].square().mean().sqrt() < 0.08


def test_all_cells_begin_alike_and_nearly_so_do_their_filters(model: GRAM) -> None:
    first = model.config.num_registers
    assert torch.equal(model.initial_h[first], model.initial_h[-1])
    assert torch.equal(model.initial_l[first], model.initial_l[-1])
    mixer = next(module for module in model.modules() if isinstance(module, PositionMixer))
    weights = mixer.swiglu.gate_up.weight.detach()[:25, first:]
    inner = [r * 5 + c for r in (1, 2, 3) for c in (1, 2, 3)]
    for step in (0, -5, 5, -1, 1):
        of_step = torch.stack([weights[cell, cell + step] for cell in inner])
        assert of_step.std() < 0.1
