"""First weights for tasks on a square grid: position mixers that begin as filters over a cell and the four cells beside it."""

import torch
from torch import Tensor

from gram.models.layers import PositionMixer
from gram.models.network import GRAM

_RANDOM_SHARE = 0.2
"""What is left of the usual random weights, so that cells can come to differ."""


@torch.no_grad()
def see_neighbours(model: GRAM) -> None:
    """Let the position mixers of a new model begin as filters, the same for every cell, and let all cells begin alike.

    The mixers' hidden units are shared out among the cells, a few filters for each: mixer_dim is a multiple of seq_len, and
    that is a square. The position embeddings begin small, and z_0 is the same in every cell. All weights stay free in training.
    """
    config, first = model.config, model.config.num_registers
    steps = _steps(config.seq_len)
    filters = config.mixer_dim // config.seq_len
    for mixer in (module for module in model.modules() if isinstance(module, PositionMixer)):
        gate_up, down = mixer.swiglu.gate_up.weight, mixer.swiglu.down.weight
        gate_up.mul_(_RANDOM_SHARE)
        down[first:] *= _RANDOM_SHARE
        gate_up[:, first:] += torch.cat([_filter(steps) for _ in range(2 * filters)]).to(gate_up.device)
        down[first:] += torch.cat([_filter(steps).T for _ in range(filters)], dim=1).to(down.device) * filters**-0.5
    model.position[first:] *= _RANDOM_SHARE
    for z in (model.initial_h, model.initial_l):
        z[first:] = z[first].clone()


def _steps(cells: int) -> Tensor:
    """Which cell [N, N] is the cell itself, and which is above, below, left and right of it: 0 or 1 [5, N, N]."""
    size = round(cells**0.5)
    row, column = torch.arange(cells) // size, torch.arange(cells) % size
    down, right = row[None] - row[:, None], column[None] - column[:, None]
    sides = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    return torch.stack([((down == r) & (right == c)).float() for r, c in sides])


def _filter(steps: Tensor) -> Tensor:
    """Random weights for the five steps, of norm 1, the same for every cell [N, N]."""
    weights = torch.randn(len(steps))
    return torch.einsum("s,sij->ij", weights / weights.norm(), steps)
