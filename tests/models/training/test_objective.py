from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from gram.models.config import GuidanceKind, ModelConfig
from gram.models.network import GRAM, Gaussian, State
from gram.models.tasks import TASKS, Tokens
from gram.models.tasks.nqueens import NQueens
from gram.models.training.carry import Carry, start
from gram.models.training.objective import Losses, balanced_kl, losses
from gram.models.training.recipe import TrainingConfig
from gram.models.training.targets import solution_targets

Build = Callable[..., GRAM]
Recipe = Callable[..., TrainingConfig]
TASK = TASKS["nqueens-8"]
CORNER, OTHER = TASK.parse("a8"), TASK.parse("h8")
SHAPE = (3, 5, 7)


def gaussian(seed: int) -> Gaussian:
    mean, log_sigma = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Gaussian(mean.requires_grad_(), log_sigma.mul(0.5).requires_grad_())


def torch_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """What the paper charges: per position, all channels together."""
    return kl_divergence(*(Normal(g.mean, g.log_sigma.exp()) for g in (q, p))).sum(-1).mean(-1)


def update(model: GRAM, config: TrainingConfig, carry: Carry | None = None) -> tuple[Losses, Carry]:
    """One update's losses, on the config's first stage."""
    rng = np.random.default_rng(0)
    carry = start(model, config, config.batch_size, rng) if carry is None else carry
    return losses(model, TASK, carry, config.stages[0], config, rng), carry


def pull_on_rows(model: GRAM, config: TrainingConfig, ambiguous: list[bool] | None = None) -> Tensor:
    """For each row, whether the update's loss depends on its state [B]. `ambiguous`: what to take the puzzles for."""
    carry = start(model, config, config.batch_size, np.random.default_rng(0))
    if ambiguous:
        carry.ambiguous = torch.tensor(ambiguous)
    h = carry.state.h.requires_grad_()
    update(model, config, carry)[0].total.backward()  # type: ignore[no-untyped-call]
    return torch.zeros(len(h), dtype=torch.bool) if h.grad is None else h.grad.flatten(1).any(1)


# --- the KL


def test_the_kl_is_torch_s_whatever_the_balance() -> None:
    q, p = gaussian(0), gaussian(1)
    for balance in (0.0, 0.3, 0.8, 1.0):
        torch.testing.assert_close(balanced_kl(q, p, balance), torch_kl(q, p), rtol=1e-5, atol=1e-5)


def test_the_kl_of_a_gaussian_to_itself_is_zero() -> None:
    assert balanced_kl(gaussian(0), gaussian(0), 0.8).abs().max() < 1e-5


def test_the_prior_gets_four_fifths_of_the_kl_s_gradient_and_the_posterior_a_fifth() -> None:
    q, p = gaussian(0), gaussian(1)
    whole = torch.autograd.grad(torch_kl(q, p).sum(), [*q, *p])
    balanced = torch.autograd.grad(balanced_kl(q, p, 0.8).sum(), [*q, *p])
    for share, expected, gradient in zip((0.2, 0.2, 0.8, 0.8), whole, balanced, strict=True):
        torch.testing.assert_close(gradient, share * expected, rtol=1e-4, atol=1e-6)


# --- the targets of prior rows


def targets(puzzles: Tokens, logits: Tensor, *, choosing: bool = False, seed: int = 0) -> Tokens:
    rows = torch.full((len(puzzles),), choosing)
    return solution_targets(TASK, torch.from_numpy(puzzles), logits.detach(), rows, np.random.default_rng(seed)).numpy()


@given(rows=st.integers(1, 12), given_queens=st.sampled_from(["", "a8", "g7 a4", "d8"]), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_rows_that_choose_are_spread_evenly_over_their_puzzle_s_solutions(rows: int, given_queens: str, seed: int) -> None:
    puzzle = TASK.parse(given_queens or {"queens": []})
    favourite = TASK.solutions(puzzle)[0]
    logits = 9.0 * torch.nn.functional.one_hot(torch.from_numpy(np.stack([favourite] * rows)), TASK.vocab_size)
    chosen = Counter(target.tobytes() for target in targets(np.stack([puzzle] * rows), logits, choosing=True, seed=seed))
    solutions = TASK.solutions(puzzle)
    assert set(chosen) <= {solution.tobytes() for solution in solutions}
    assert set(chosen.values()) <= {rows // len(solutions), rows // len(solutions) + 1}
    assert chosen.total() == rows


def test_rows_that_choose_get_the_likeliest_of_the_even_spreads() -> None:
    puzzle = TASK.parse("a8")
    solutions = TASK.solutions(puzzle)
    likes = [2, 0, 3, 1]
    logits = torch.nn.functional.one_hot(torch.from_numpy(solutions[likes]), TASK.vocab_size).float()
    assert np.array_equal(targets(np.stack([puzzle] * 4), logits, choosing=True), solutions[likes])


def test_the_rows_of_one_puzzle_choose_among_themselves_alone() -> None:
    choosing, settled = np.stack([CORNER] * 4), np.stack([OTHER] * 4)
    logits = torch.zeros(8, TASK.seq_len, TASK.vocab_size)
    rows = torch.arange(8) < 4
    puzzles = torch.from_numpy(np.concatenate([choosing, settled]))
    chosen = solution_targets(TASK, puzzles, logits, rows, np.random.default_rng(0)).numpy()
    assert len(np.unique(chosen[:4], axis=0)) == 4
    assert len(np.unique(chosen[4:], axis=0)) == 1, "equally likely, so all take the first"


def test_prior_rows_start_in_groups_on_one_puzzle(random_model: Build, recipe: Recipe) -> None:
    config = recipe(batch_size=24, prior_share=0.5, group=4)
    model = random_model(config.model)
    carry = start(model, config, config.batch_size, np.random.default_rng(0))
    for first in (0, 4, 8):
        assert (carry.puzzle[first : first + 4] == carry.puzzle[first]).all()
    assert len({puzzle.tobytes() for puzzle in carry.puzzle.numpy()}) > 3 + 6


def test_the_nearest_solution_is_the_likeliest_of_the_puzzle_s_own() -> None:
    puzzles, _ = TASK.sample(np.random.default_rng(0), 40)
    logits = 3 * torch.randn(len(puzzles), TASK.seq_len, TASK.vocab_size, generator=torch.Generator().manual_seed(0))
    nearest = targets(puzzles, logits)
    for puzzle, row, chosen in zip(puzzles, logits.double().log_softmax(-1).numpy(), nearest, strict=True):
        solutions = TASK.solutions(puzzle)
        likelihood = [sum(row[square, symbol] for square, symbol in enumerate(solution)) for solution in solutions]
        assert np.array_equal(chosen, solutions[int(np.argmax(likelihood))])


def test_a_decode_that_is_a_solution_is_its_own_nearest() -> None:
    puzzles, answers = TASK.sample(np.random.default_rng(1), 40)
    logits = 10.0 * torch.nn.functional.one_hot(torch.from_numpy(answers), TASK.vocab_size)
    assert np.array_equal(targets(puzzles, logits), answers)


# --- the update


@pytest.mark.parametrize("guidance", ["full", "noise_only", "none"])
@pytest.mark.parametrize("prior_share", [0.0, 0.5, 1.0])
def test_the_losses_are_finite_and_reach_what_they_train(
    tiny: ModelConfig, random_model: Build, recipe: Recipe, guidance: GuidanceKind, prior_share: float
) -> None:
    config = recipe(model=tiny.model_copy(update={"guidance": guidance}), prior_share=prior_share)
    model = random_model(config.model).requires_grad_(True)
    result, _ = update(model, config)
    result.total.backward()  # type: ignore[no-untyped-call]
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    idle = {"heads.weight", "heads.bias"}
    if prior_share == 1:
        idle |= {name for name, _ in model.named_parameters() if name.startswith(("posterior.", "target_embedding"))}
    assert {name for name, _ in model.named_parameters()} - reached == idle
    assert result.total.isfinite()
    assert (result.kl > 0) == (guidance != "none" and prior_share < 1)


def test_the_total_is_the_cross_entropy_and_beta_times_the_kl(random_model: Build, recipe: Recipe) -> None:
    for beta in (0.0, 1.0, 2.5):
        config = recipe(beta=beta)
        torch.manual_seed(0)
        result, _ = update(random_model(config.model), config)
        torch.testing.assert_close(result.total, result.cross_entropy + beta * result.kl)


def test_each_update_moves_every_row_one_step_and_drops_the_graph(random_model: Build, recipe: Recipe) -> None:
    config = recipe(batch_size=7)
    model = random_model(config.model).requires_grad_(True)
    _, carry = update(model, config)
    assert carry.step.tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert not any(half.requires_grad for half in carry.state)
    before = carry.puzzle.clone()
    update(model, config, carry)
    assert carry.step.tolist() == [2, 3, 1, 2, 3, 1, 2]
    changed = (before != carry.puzzle).any(1)
    assert not changed[[0, 1, 3, 4, 6]].any()
    assert changed[[2, 5]].any(), "rows at their full depth start on another puzzle"


def test_a_finished_row_starts_again_from_z_0(tiny: ModelConfig, random_model: Build, recipe: Recipe) -> None:
    config = recipe(model=tiny.model_copy(update={"guidance": "none"}))
    model = random_model(config.model)
    _, carry = update(model, config)
    carry.step[:] = torch.tensor([3, 1, 3, 1, 3, 1])
    carry.state = State(torch.full_like(carry.state.h, torch.nan), carry.state.l)
    update(model, config, carry)
    assert carry.state.h[0::2].isfinite().all()
    assert carry.state.h[1::2].isnan().all()


def test_posterior_rows_keep_their_target_and_prior_rows_take_the_nearest_solution(random_model: Build, recipe: Recipe) -> None:
    config = recipe(prior_share=0.5)
    model = random_model(config.model)
    carry = start(model, config, config.batch_size, np.random.default_rng(0))
    pairs = carry.target.clone()
    update(model, config, carry)
    nearest = torch.from_numpy(targets(carry.puzzle[:3].numpy(), model.decode(carry.state.h[:3])))
    assert torch.equal(carry.target[:3], nearest)
    assert torch.equal(carry.target[3:], pairs[3:])


def test_prior_rows_with_too_many_solutions_to_list_take_a_near_one(
    tiny: ModelConfig, random_model: Build, recipe: Recipe
) -> None:
    task = TASKS["sudoku-6x6"]
    shape = tiny.model_copy(update={"vocab_size": task.vocab_size, "seq_len": task.seq_len})
    config = recipe(task=task.name, generates=True, model=shape, prior_share=0.5)
    model, rng = random_model(shape), np.random.default_rng(0)
    carry = start(model, config, config.batch_size, rng)
    carry.puzzle[:3], carry.ambiguous[:3] = torch.from_numpy(task.test_sets["0-36 clues"][:3]), True
    losses(model, task, carry, config.stages[0], config, rng)
    log_p = model.decode(carry.state.h[:3]).log_softmax(-1).double().detach().numpy()
    nearest = [task.nearest_solution(*pair) for pair in zip(carry.puzzle[:3].numpy(), log_p, strict=True)]
    assert np.array_equal(carry.target[:3].numpy(), nearest)


def test_rows_that_choose_are_spread_over_the_shortest_paths_of_a_maze_and_take_the_nearest_of_too_many() -> None:
    task = TASKS["maze-8x8"]
    few = task.parse("/".join(["S.######", "...#####", "#.G#####", *["########"] * 5]))
    many = task.parse("/".join(["S.......", *["........"] * 6, ".......G"]))
    rows, logits = np.repeat([few, many], 4, axis=0), torch.randn(8, task.seq_len, task.vocab_size)
    rng = np.random.default_rng(0)
    chosen = solution_targets(task, torch.from_numpy(rows), logits, torch.ones(8, dtype=torch.bool), rng).numpy()
    assert task.count_solutions(few) == 4
    assert len(np.unique(chosen[:4], axis=0)) == 4
    log_p = logits.log_softmax(-1).double().numpy()
    assert np.array_equal(chosen[4:], [task.nearest_solution(many, row) for row in log_p[4:]])


def test_rows_under_the_posterior_have_puzzles_with_several_solutions_unless_the_recipe_has_none(recipe: Recipe) -> None:
    task = TASKS["sudoku-4x4"]
    rng = np.random.default_rng(0)
    config = recipe(task=task.name, generates=True)
    assert set(task.is_ambiguous(config.sample(rng, 200)[0]).tolist()) == {False, True}
    assert task.is_ambiguous(config.sample_posterior(rng, 200)[0]).all()
    config = recipe(task=task.name, one_solution=True)
    assert not task.is_ambiguous(config.sample(rng, 200)[0]).any()
    assert not task.is_ambiguous(config.sample_posterior(rng, 200)[0]).any()


def test_prior_rows_with_ambiguous_puzzles_bear_no_loss_in_their_free_steps(
    tiny: ModelConfig, random_model: Build, recipe: Recipe
) -> None:
    shallow = tiny.model_copy(update={"transitions": 1})  # so that the gradient reaches the state handed over
    model = random_model(shallow)

    def pulled(free: int, *, second: bool = True) -> list[bool]:
        """Of six rows, three of them prior rows, that have made 0, 1, 2, 0, 1, 2 steps. `second`: whether it is ambiguous."""
        config = recipe(model=shallow, prior_share=0.5, prior_free_steps=free, beta=0)
        rows: list[bool] = pull_on_rows(model, config, [True, second, True, True, True, True]).tolist()
        return rows

    assert pulled(0) == [True] * 6
    assert pulled(1) == [False, True, True, True, True, True]
    assert pulled(2) == [False, False, True, True, True, True]
    assert pulled(3) == [False, False, False, True, True, True]
    assert pulled(3, second=False) == [False, True, False, True, True, True]


class RightByPuzzle(NQueens):
    """8 queens, but any answer is right for the puzzles without a queen in their first row, and wrong for the others."""

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        return bool(puzzle[:8].sum() == 0) and answer.shape == puzzle.shape


def test_the_halt_head_learns_on_prior_rows_whether_the_decode_is_valid(random_model: Build, recipe: Recipe) -> None:
    config = recipe(prior_share=0.5, halt_weight=0.3, batch_size=24)
    model = random_model(config.model).requires_grad_(True)
    task, rng = RightByPuzzle(8, paper={}), np.random.default_rng(0)
    carry = start(model, config, config.batch_size, rng)
    result = losses(model, task, carry, config.stages[0], config, rng)

    halt = model.read_heads(carry.state.h[:12]).halt.detach()
    valid = torch.tensor([task.check(puzzle, puzzle) for puzzle in carry.puzzle[:12].numpy()])
    assert 0 < valid.sum() < len(valid)
    expected = -torch.where(valid, halt.sigmoid().log(), (-halt).sigmoid().log()).mean()
    torch.testing.assert_close(result.halt, expected)
    torch.testing.assert_close(result.total, result.cross_entropy + 0.5 * result.kl + 0.3 * result.halt)

    result.total.backward()  # type: ignore[no-untyped-call]
    gradient = model.heads.weight.grad
    assert gradient is not None
    assert gradient.any(1).tolist() == [True, False], "the LPRM, the second head, is fitted later"


def test_posterior_rows_teach_the_halt_head_nothing(random_model: Build, recipe: Recipe) -> None:
    config = recipe(halt_weight=0.3)
    result, _ = update(random_model(config.model), config)
    assert result.halt == 0
    torch.testing.assert_close(result.total, result.cross_entropy + result.kl)


def test_only_the_last_transition_of_a_step_carries_gradients(random_model: Build, recipe: Recipe) -> None:
    config = recipe()
    assert config.model.transitions == 2
    assert not pull_on_rows(random_model(config.model).requires_grad_(True), config).any()


def test_the_target_leads_posterior_rows_and_never_prior_rows(random_model: Build, recipe: Recipe, tiny: ModelConfig) -> None:
    model = random_model(tiny)

    def states(prior_share: float, target_shift: int) -> Tensor:
        config = recipe(prior_share=prior_share)
        carry = start(model, config, config.batch_size, np.random.default_rng(0))
        carry.target = (carry.target + target_shift) % 3
        torch.manual_seed(0)
        return update(model, config, carry)[1].state.h

    assert not torch.equal(states(0.0, 0), states(0.0, 1))
    assert torch.equal(states(1.0, 0), states(1.0, 1))
