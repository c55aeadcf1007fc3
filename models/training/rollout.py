"""Rollouts of the prior for training: all rows to the same depth, without halting."""

import torch
from torch import Tensor

from gram.kernels.noise import NoiseKey
from gram.models.network import GRAM


@torch.no_grad()
def rollout(model: GRAM, puzzles: Tensor, steps: int, seed: int, temperature: Tensor | None = None) -> list[Tensor]:
    """h [B, L, D] after each of `steps` supervision steps under the prior; row i is trajectory i of the seed."""
    rows, device = len(puzzles), model.initial_h.device
    e_x = model.encode(puzzles.to(device))
    state = model.initial_state(rows)
    seeds, index = torch.full((rows,), seed, device=device), torch.arange(rows, device=device)
    temperature = torch.ones(rows, device=device) if temperature is None else temperature.to(device)
    states = []
    for step in range(steps):
        transition = torch.full((rows,), step * model.config.transitions, device=device)
        state = model.supervision_step(state, e_x, NoiseKey(seeds, index, transition, temperature))
        states.append(state.h)
    return states
