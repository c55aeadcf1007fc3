"""The targets of rows that roll out under the prior: which of a puzzle's solutions each of them is trained towards."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gram.models.tasks import Task


def solution_targets(task: Task, puzzles: Tensor, logits: Tensor, choosing: Tensor, rng: np.random.Generator) -> Tensor:
    """Choose one solution [B, N] of each puzzle [B, N], by the log-likelihood under the rows' logits [B, N, V].

    A row takes its nearest solution, unless it is `choosing` [B]. The choosing rows of one puzzle are spread over its
    solutions, equally many to each (the remainder at random), so that the total likelihood is largest. Nearest solutions alone
    let a favourite grow; the prior should learn an even spread, since pairs are uniform over solutions.
    """
    log_p = logits.log_softmax(-1)
    targets = torch.empty_like(puzzles)
    groups: dict[tuple[bytes, bool], list[int]] = {}
    for row, (puzzle, free) in enumerate(zip(puzzles.numpy(), choosing.tolist(), strict=True)):
        groups.setdefault((puzzle.tobytes(), free), []).append(row)
    for (_, free), rows in groups.items():
        puzzle = puzzles[rows[0]].numpy()
        listed = task.listed(puzzle)
        if listed is None:
            for row in rows:
                targets[row] = torch.from_numpy(task.nearest_solution(puzzle, log_p[row].double().numpy()))
            continue
        solutions = torch.from_numpy(listed)
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
