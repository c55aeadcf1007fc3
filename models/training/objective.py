"""The update: cross-entropy under the posterior plus the KL to the prior, and rows on the prior's own states (Sec. 2.2)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gram.models.network import GRAM, Gaussian, State
from gram.models.precision import multiplies_bfloat16
from gram.models.tasks import Task
from gram.models.training.recipe import Stage, TrainingConfig


@dataclass
class Carry:
    """The rows in training, each at its own supervision step: what one update hands to the next.

    state (h, l) [B, L, D], on the model's device; puzzle and target [B, N] and step [B], supervision steps that the row has
    made, on the CPU, where the tasks are.
    """

    state: State
    puzzle: Tensor
    target: Tensor
    step: Tensor


@dataclass(frozen=True)
class Losses:
    """Means over the rows they concern: total drives the update, the others are for the log."""

    total: Tensor
    cross_entropy: Tensor
    kl: Tensor
    halt: Tensor


def start(model: GRAM, config: TrainingConfig, rows: int, rng: np.random.Generator) -> Carry:
    """Rows at z_0 with fresh pairs, their steps staggered so that every update sees every depth."""
    steps = config.model.supervision_steps
    empty = torch.zeros(rows, config.model.seq_len, dtype=torch.int64)
    carry = Carry(model.initial_state(rows), empty, empty.clone(), torch.full((rows,), steps))
    _replace_finished(carry, model, config, config.stages[0], rng)
    stage = config.stages[0]
    group = torch.where(torch.arange(rows) < stage.prior_rows(rows), stage.group, 1)
    carry.step = torch.arange(rows) // group % steps
    return carry


def dtype_of(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """The dtype of the activations in training."""
    bfloat16 = config.dtype == "bfloat16" or (config.dtype == "auto" and multiplies_bfloat16(device))
    return torch.bfloat16 if bfloat16 else torch.float32


def losses(model: GRAM, task: Task, carry: Carry, stage: Stage, config: TrainingConfig, rng: np.random.Generator) -> Losses:
    """One supervision step of every row, its last transition with gradients. Replaces the carry's state (detached).

    The first `prior_share` of the rows roll out under the prior: their target is the solution that their own decode
    is nearest to, and they bear no KL. The others roll out under the posterior towards the target of their pair.
    """
    _replace_finished(carry, model, config, stage, rng)
    state, device = carry.state, carry.state.h.device
    rows = len(carry.step)
    prior_rows = stage.prior_rows(rows)
    target = carry.target[prior_rows:].to(device, copy=True)  # the carry's own is written to before the backward pass
    e_x = model.encode(carry.puzzle.to(device))
    with torch.no_grad():
        for _ in range(config.model.transitions - 1):
            state, _ = _transition(model, state, e_x, target, config.kl_balance)
    state, kl = _transition(model, state, e_x, target, config.kl_balance)
    carry.state = State(state.h.detach(), state.l.detach())

    logits = model.decode(state.h).float()
    if prior_rows and not (task.one_solution and config.solves):
        puzzle, seen = carry.puzzle[:prior_rows], logits[:prior_rows].detach().cpu()
        if config.solves or task.boards is not None:
            choosing = carry.step[:prior_rows] < stage.balanced_steps
            carry.target[:prior_rows] = solution_targets(task, puzzle, seen, choosing, rng)
        else:
            boards = [task.nearest_board(row) for row in seen.log_softmax(-1).double().numpy()]
            carry.target[:prior_rows] = torch.from_numpy(np.stack(boards))
    cross_entropy = F.cross_entropy(logits.transpose(1, 2), carry.target.to(device, copy=True), reduction="none").mean(1)
    free = (torch.arange(rows) < prior_rows) & (carry.step < stage.prior_free_steps)
    cross_entropy = cross_entropy * ~free.to(device)
    carry.step += 1
    halt = logits.new_zeros(())
    if stage.halt_weight and prior_rows:
        halt = _halt_loss(model, task, carry.puzzle[:prior_rows], state.h[:prior_rows], logits[:prior_rows])
    total = cross_entropy.mean() + config.beta * kl.sum() / rows + stage.halt_weight * halt
    return Losses(total, cross_entropy.detach().mean(), kl.detach().mean() if len(kl) else kl.sum(), halt.detach())


def _halt_loss(model: GRAM, task: Task, puzzles: Tensor, h: Tensor, logits: Tensor) -> Tensor:
    """Binary cross-entropy of the halt head against "decoding now is valid" (App. A.1).

    The paper keeps the heads' gradients out of the core. In a model as small as ours register 0, which the heads read,
    then tells next to nothing of validity; this makes the core keep account of it there.
    """
    answers = logits.argmax(-1).cpu().numpy()
    valid = [task.check(puzzle, answer) for puzzle, answer in zip(puzzles.numpy(), answers, strict=True)]
    return F.binary_cross_entropy_with_logits(model.read_heads(h).halt, torch.tensor(valid, device=h.device).float())


def _transition(model: GRAM, state: State, e_x: Tensor, target: Tensor, balance: float) -> tuple[State, Tensor]:
    """One transition: the last len(target) rows sample from the posterior, the others from the prior.

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


def solution_targets(task: Task, puzzles: Tensor, logits: Tensor, choosing: Tensor, rng: np.random.Generator) -> Tensor:
    """For each puzzle [B, N] one of its solutions [B, N], by the log-likelihood under logits [B, N, V].

    A row takes its nearest solution, except where `choosing` [B]: those rows of one puzzle are spread over its solutions,
    equally many to each (what is left over at random), so that the whole is as likely as can be. The nearest solution
    alone lets a favourite grow; an even spread is what the prior should learn, since pairs are uniform over solutions.
    """
    targets = torch.empty_like(puzzles)
    log_p = logits.log_softmax(-1)
    groups: dict[tuple[bytes, bool], list[int]] = {}
    for row, (puzzle, free) in enumerate(zip(puzzles.numpy(), choosing.tolist(), strict=True)):
        groups.setdefault((puzzle.tobytes(), free), []).append(row)
    for (_, free), rows in groups.items():
        solutions = torch.from_numpy(task.solutions(puzzles[rows[0]].numpy()))
        # [rows, n]: the log-likelihood of each solution, a product of one-hot rows.
        likelihood = torch.einsum("rnv,snv->rs", log_p[rows], F.one_hot(solutions, logits.shape[-1]).float())
        if free:
            rounds = -(-len(rows) // len(solutions))
            spread = np.concatenate([rng.permutation(len(solutions)) for _ in range(rounds)])[: len(rows)]
            _, chosen = linear_sum_assignment(likelihood[:, spread].numpy(), maximize=True)
            choice = torch.from_numpy(spread[chosen])
        else:
            choice = likelihood.argmax(1)
        targets[rows] = solutions[choice]
    return targets


def _replace_finished(carry: Carry, model: GRAM, config: TrainingConfig, stage: Stage, rng: np.random.Generator) -> None:
    """Rows that have made N_sup steps start again from z_0 with a fresh pair, prior rows in groups with the same one."""
    done = (carry.step >= config.model.supervision_steps).nonzero().squeeze(1)
    if not len(done):
        return
    prior = int((done < stage.prior_rows(len(carry.step))).sum())
    groups = -(-prior // stage.group)
    puzzles, targets = config.sample(rng, groups + len(done) - prior)
    pair = np.concatenate([np.arange(prior) // stage.group, np.arange(groups, len(puzzles))])
    puzzles, targets = puzzles[pair], targets[pair]
    carry.puzzle[done], carry.target[done] = torch.from_numpy(puzzles), torch.from_numpy(targets)
    fresh = model.initial_state(len(done))
    carry.state.h[done], carry.state.l[done] = fresh.h, fresh.l
    carry.step[done] = 0
