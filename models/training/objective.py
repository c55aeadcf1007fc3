"""The update: cross-entropy under the posterior plus the KL to the prior, and rows on the prior's own states (Sec. 2.2)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gram.models.data_sets import UNSCORED
from gram.models.network import GRAM, Gaussian, State
from gram.models.precision import multiplies_bfloat16
from gram.models.tasks import Task
from gram.models.training.carry import Carry, replace_finished
from gram.models.training.recipe import Stage, TrainingConfig
from gram.models.training.targets import solution_targets


@dataclass(frozen=True)
class Losses:
    """Losses of one update, each a mean over the rows that it concerns. `total` drives the update; the others are logged."""

    total: Tensor
    cross_entropy: Tensor
    kl: Tensor
    halt: Tensor


def dtype_of(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The dtype of the activations in training."""
    bfloat16 = config.dtype == "bfloat16" or (config.dtype == "auto" and multiplies_bfloat16(device))
    return torch.bfloat16 if bfloat16 else torch.float32


def losses(model: GRAM, task: Task, carry: Carry, stage: Stage, config: TrainingConfig, rng: np.random.Generator) -> Losses:
    """Make one supervision step of every row, its last transition with gradients, and replace the carry's state (detached).

    The first `prior_share` of the rows roll out under the prior. They have no KL, and their target is the solution that their
    own decode is nearest to; in their first `prior_free_steps` steps, those with an ambiguous puzzle have no loss at all. The
    others roll out under the posterior, towards the target of their pair.
    """
    replace_finished(carry, model, config, stage, rng)
    state, device = carry.state, carry.state.h.device
    rows = len(carry.step)
    prior_rows = stage.prior_rows(rows)
    target = carry.target[prior_rows:].to(device, copy=True)  # a copy: the carry's own is written before the backward pass
    e_x = model.encode(carry.puzzle.to(device))
    with torch.no_grad():
        for _ in range(config.model.transitions - 1):
            state, _ = _transition(model, state, e_x, target, config.kl_balance)
    state, kl = _transition(model, state, e_x, target, config.kl_balance)
    carry.state = State(state.h.detach(), state.l.detach())

    logits = model.decode(state.h).float()
    open_rows = carry.ambiguous[:prior_rows].nonzero().squeeze(1)
    if len(open_rows):
        choosing = carry.step[open_rows] < stage.balanced_steps
        seen = logits.detach().cpu()[open_rows]
        carry.target[open_rows] = solution_targets(task, carry.puzzle[open_rows], seen, choosing, rng)
    target = carry.target.to(device, copy=True)
    cross_entropy = F.cross_entropy(logits.transpose(1, 2), target, reduction="none", ignore_index=UNSCORED).mean(1)
    free = (torch.arange(rows) < prior_rows) & carry.ambiguous & (carry.step < stage.prior_free_steps)
    cross_entropy = cross_entropy * ~free.to(device)
    carry.step += 1
    halt = logits.new_zeros(())
    if stage.halt_weight and prior_rows:
        halt = _halt_loss(model, task, carry.puzzle[:prior_rows], state.h[:prior_rows], logits[:prior_rows])
    total = cross_entropy.mean() + config.beta * kl.sum() / rows + stage.halt_weight * halt
    return Losses(total, cross_entropy.detach().mean(), kl.detach().mean() if len(kl) else kl.sum(), halt.detach())


def _halt_loss(model: GRAM, task: Task, puzzles: Tensor, h: Tensor, logits: Tensor) -> Tensor:
    """Binary cross-entropy of the halt head against "decoding now is valid" (App. A.1).

    The paper keeps the heads' gradients out of the core. In a model as small as ours, register 0, which the heads read, then
    says almost nothing about validity. This loss makes the core keep track of it there.
    """
    answers = logits.argmax(-1).cpu().numpy()
    valid = [task.check(puzzle, answer) for puzzle, answer in zip(puzzles.numpy(), answers, strict=True)]
    return F.binary_cross_entropy_with_logits(model.read_heads(h).halt, torch.tensor(valid, device=h.device).float())


def _transition(model: GRAM, state: State, e_x: Tensor, target: Tensor, balance: float) -> tuple[State, Tensor]:
    """Make one transition: the last len(target) rows sample from the posterior, the others from the prior.

    Returns the state and the posterior rows' KL, summed over D and averaged over positions.
    """
    u, low = model.propose(state, e_x)
    if model.config.guidance == "none":
        return State(u, low), u.new_zeros(len(target))
    split = len(u) - len(target)
    prior = model.prior(u)
    if not len(target):
        return State(u + prior.sample(), low), u.new_zeros(0)
    posterior = model.read_posterior(u[split:], target)
    eps = torch.cat([Gaussian(prior.mean[:split], prior.log_sigma[:split]).sample(), posterior.sample()])
    return State(u + eps, low), balanced_kl(posterior, Gaussian(prior.mean[split:], prior.log_sigma[split:]), balance)


def balanced_kl(q: Gaussian, p: Gaussian, balance: float) -> Tensor:
    """balance * KL(sg q || p) + (1 - balance) * KL(q || sg p) -> [B]: summed over D, averaged over positions."""
    return balance * _kl(Gaussian(*(x.detach() for x in q)), p) + (1 - balance) * _kl(q, Gaussian(*(x.detach() for x in p)))


def _kl(q: Gaussian, p: Gaussian) -> Tensor:
    q_mean, q_log, p_mean, p_log = (x.float() for x in (*q, *p))
    ratio = (2 * (q_log - p_log)).exp() + ((q_mean - p_mean) * (-p_log).exp()) ** 2
    return (0.5 * (ratio - 1) - (q_log - p_log)).sum(-1).mean(-1)
