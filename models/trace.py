"""What a model computes after each supervision step, for comparing it with other code."""

import torch
from torch import Tensor
from tqdm import tqdm

from gram.kernels.noise import NoiseKey
from gram.models.network import GRAM, State

ROWS = 32
"""Rows that are stepped together."""


@torch.inference_mode()
def trace(model: GRAM, puzzles: Tensor, steps: int, *, seed: int = 0, states: bool = False) -> dict[str, Tensor]:
    """Step the puzzles [n, N] without halting. Row i is trajectory 0 of seed + i.

    Returns "logits" [steps, n, N, V], "halt" and "value" [steps, n], the logits of the heads, and with `states` "h" and "l"
    [steps, n, L, D]: all float32, on the CPU.
    """
    starts = tqdm(range(0, len(puzzles), ROWS), unit=f" {ROWS} puzzles", disable=None, delay=2)
    parts = [_trace(model, puzzles[start : start + ROWS], steps, seed + start, states) for start in starts]
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


def _trace(model: GRAM, puzzles: Tensor, steps: int, seed: int, states: bool) -> dict[str, Tensor]:
    rows, device = len(puzzles), puzzles.device
    zeros = torch.zeros(rows, dtype=torch.int64, device=device)
    seeds, temperature = torch.arange(seed, seed + rows, device=device), torch.ones(rows, device=device)
    no_noise = torch.zeros(rows, 2, device=device)
    e_x, state = model.encode(puzzles), model.initial_state(rows)
    made = []
    for step in range(steps):
        key = NoiseKey(seeds, zeros, zeros + step * model.config.transitions, temperature)
        state = State(*model.advance(state, e_x, key, no_noise))
        halt, value = model.read_heads(state.h)
        shown = {"logits": model.decode(state.h), "halt": halt, "value": value}
        made.append(shown | (state._asdict() if states else {}))
    return {name: torch.stack([shown[name].float().cpu() for shown in made]) for name in made[0]}
