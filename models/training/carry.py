"""The rows in training: what one update hands to the next, and how finished rows start again."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gram.models.network import GRAM, State
from gram.models.training.recipe import Stage, TrainingConfig


@dataclass
class Carry:
    """B rows in training, each at its own supervision step.

    state: (h, l) [B, L, D], on the model's device. On the CPU, where the tasks are: puzzle and target [B, N]; step [B], the
    supervision steps that a row has made; and ambiguous [B], whether the row's puzzle has more than one solution.
    """

    state: State
    puzzle: Tensor
    target: Tensor
    step: Tensor
    ambiguous: Tensor


def start(model: GRAM, config: TrainingConfig, rows: int, rng: np.random.Generator) -> Carry:
    """Rows at z_0 with fresh pairs. Their steps are staggered, so that every update sees every depth."""
    steps = config.model.supervision_steps
    empty = torch.zeros(rows, config.model.seq_len, dtype=torch.int64)
    carry = Carry(
        model.initial_state(rows), empty, empty.clone(), torch.full((rows,), steps), torch.zeros(rows, dtype=torch.bool)
    )
    replace_finished(carry, model, config, config.stages[0], rng)
    stage = config.stages[0]
    group = torch.where(torch.arange(rows) < stage.prior_rows(rows), stage.group, 1)
    carry.step = torch.arange(rows) // group % steps
    return carry


def replace_finished(carry: Carry, model: GRAM, config: TrainingConfig, stage: Stage, rng: np.random.Generator) -> None:
    """Start rows that have made N_sup steps again from z_0, with a fresh pair; a group of prior rows gets the same one."""
    done = (carry.step >= config.model.supervision_steps).nonzero().squeeze(1)
    if not len(done):
        return
    prior = int((done < stage.prior_rows(len(carry.step))).sum())
    groups = -(-prior // stage.group)
    drawn = []
    if prior:
        drawn.append(config.sample(rng, groups))
    if prior < len(done):
        drawn.append(config.sample_posterior(rng, len(done) - prior))
    puzzles, targets = (np.concatenate(part) for part in zip(*drawn, strict=True))
    pair = np.concatenate([np.arange(prior) // stage.group, np.arange(groups, len(puzzles))])
    puzzles, targets = puzzles[pair], targets[pair]
    carry.puzzle[done], carry.target[done] = torch.from_numpy(puzzles), torch.from_numpy(targets)
    carry.ambiguous[done] = torch.from_numpy(config.source.is_ambiguous(puzzles))
    fresh = model.initial_state(len(done))
    carry.state.h[done], carry.state.l[done] = fresh.h, fresh.l
    carry.step[done] = 0
