"""The halt head and the LPRM, fitted on rollouts of the prior against the task's checker (App. A.1, A.2), core frozen.

The posterior is nearly always right. On its states the heads would learn to halt at once, and to score everything with 1.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from gram.models.network import GRAM
from gram.models.tasks import Task, Tokens
from gram.models.training.recipe import HeadsStage
from gram.models.training.rollout import rollout

Sample = Callable[[np.random.Generator, int], tuple[Tokens, Tokens]]
"""Draws training pairs [count, N]."""
_ROWS = 64
_SEED = 0x6EAD5
_L2 = 1e-4


def fit_heads(model: GRAM, task: Task, sample: Sample, stage: HeadsStage) -> None:
    """Fit both heads in place, on puzzles that `sample` draws.

    The halt head learns whether decoding now is valid. Wrong answers are weighted by `caution`, since halting too early costs
    an answer and halting too late costs a step. Then each rollout has a halt, and the LPRM learns, at every step up to there,
    whether the trajectory's final answer is valid: r of Eq. 14 is 1 or 0, by logistic regression.
    """
    features, valid = _rollouts(model, task, sample, stage)  # [steps, rows, D], [steps, rows]
    centre, scale = features.mean((0, 1)), features.std((0, 1)) + 1e-6
    features = (features - centre) / scale
    ready = valid * (torch.arange(stage.steps) >= stage.least_steps - 1)[:, None]
    halt = _logistic(features.flatten(0, 1), ready.flatten(), stage.iterations, negative_weight=stage.caution)

    halted = features @ halt[:-1] + halt[-1] > 0
    halted[-1] = True
    last = halted.int().argmax(0)  # the first step at which the rollout halts
    reward = valid.gather(0, last[None])[0]
    reached = torch.arange(stage.steps)[:, None] <= last
    value = _logistic(features[reached], reward.expand_as(reached)[reached], stage.iterations)

    for row, weights in enumerate((halt, value)):
        unscaled = weights[:-1] / scale
        model.heads.weight.data[row] = unscaled
        assert model.heads.bias is not None
        model.heads.bias.data[row] = weights[-1] - unscaled @ centre


def _rollouts(model: GRAM, task: Task, sample: Sample, stage: HeadsStage) -> tuple[Tensor, Tensor]:
    """The heads' input after each step, float32 [steps, rows, D], and whether decoding there is valid [steps, rows]."""
    rng = np.random.default_rng(_SEED)
    features, valid = [], []
    for batch in tqdm(range(-(-stage.puzzles // _ROWS)), desc="rollouts for the heads", unit="batch"):
        puzzles, _ = sample(rng, _ROWS)
        temperature = torch.from_numpy(rng.uniform(1, stage.max_temperature, _ROWS)).float()
        states = rollout(model, torch.from_numpy(puzzles), stage.steps, seed=_SEED + batch, temperature=temperature)
        features.append(torch.stack([h[:, 0].float().cpu() for h in states]))
        answers = [model.decode(h).argmax(-1).cpu().numpy() for h in states]
        valid.append(torch.tensor([[task.check(p, a) for p, a in zip(puzzles, step, strict=True)] for step in answers]))
    return torch.cat(features, 1), torch.cat(valid, 1).float()


def _logistic(x: Tensor, y: Tensor, iterations: int, negative_weight: float = 1.0) -> Tensor:
    """Logistic regression of y [n] on x [n, D] with a little L2. Returns the weights and, last, the bias [D + 1]."""
    importance = torch.where(y > 0, 1.0, negative_weight)
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(x @ weights[:-1] + weights[-1], y, weight=importance)
        penalised = fit + _L2 * weights[:-1].square().sum()
        penalised.backward()  # type: ignore[no-untyped-call]
        return penalised

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()
