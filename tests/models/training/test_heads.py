from collections.abc import Callable
from functools import cached_property

import numpy as np
import pytest
import torch
from pydantic import JsonValue
from torch import Tensor

from gram.models.config import ModelConfig
from gram.models.network import GRAM, Heads
from gram.models.tasks import TASKS, Task, Tokens
from gram.models.training.heads import _logistic, fit_heads
from gram.models.training.recipe import HeadsStage
from gram.models.training.rollout import rollout

Build = Callable[..., GRAM]
STAGE = HeadsStage(puzzles=256, steps=3, max_temperature=2.0, iterations=100, caution=1.0)


class Toy(Task):
    """A task whose puzzles are all 1 or all 2, with a checker to choose; by default any answer is right, for the 2s alone."""

    name, title = "toy", "Tells 1 from 2."
    formats: list[str] = []
    examples: list[JsonValue] = []
    seq_len, vocab_size = 64, 3
    paper: dict[str, float] = {}

    def __init__(self, right: Callable[[Tokens, Tokens], bool] = lambda puzzle, _: bool(puzzle[0] == 2)) -> None:
        self.right = right

    def parse(self, puzzle: object) -> Tokens:
        raise NotImplementedError

    def text(self, tokens: Tokens) -> str:
        return str(tokens)

    def grid(self, tokens: Tokens) -> list[list[int]]:
        return [tokens.tolist()]

    def check(self, puzzle: Tokens, answer: Tokens) -> bool:
        return self.right(puzzle, answer)

    def solutions(self, puzzle: Tokens) -> Tokens:
        return puzzle[None]

    def sample(self, rng: np.random.Generator, count: int) -> tuple[Tokens, Tokens]:
        puzzles = rng.integers(1, 3, (count, 1)).repeat(self.seq_len, axis=1)
        return puzzles, puzzles

    @cached_property
    def held_out(self) -> Tokens:
        return np.stack([np.full(self.seq_len, 1), np.full(self.seq_len, 2)])


def test_fitting_changes_the_heads_alone(tiny: ModelConfig, random_model: Build) -> None:
    model = random_model(tiny)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    fit_heads(model, TASKS["nqueens-8"], TASKS["nqueens-8"].sample, STAGE)
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"heads.weight", "heads.bias"}


def test_a_model_that_never_solves_anything_learns_not_to_halt_and_to_score_low(tiny: ModelConfig, random_model: Build) -> None:
    model = random_model(tiny)
    fit_heads(model, TASKS["nqueens-8"], TASKS["nqueens-8"].sample, STAGE)
    puzzles, _ = TASKS["nqueens-8"].sample(np.random.default_rng(5), 32)
    for h in rollout(model, torch.from_numpy(puzzles), 3, seed=5):
        heads = model.read_heads(h)
        assert (heads.halt.sigmoid() < 0.1).all()
        assert (heads.value.sigmoid() < 0.1).all()


def test_the_heads_tell_right_from_wrong_where_the_state_does(tiny: ModelConfig, random_model: Build) -> None:
    model, task = random_model(tiny), Toy()
    fit_heads(model, task, task.sample, STAGE)
    puzzles, _ = task.sample(np.random.default_rng(5), 200)
    right = torch.from_numpy(puzzles[:, 0] == 2)
    states = rollout(model, torch.from_numpy(puzzles), 3, seed=5)
    for h in states:
        halt, _ = model.read_heads(h)
        assert ((halt > 0) == right).float().mean() > 0.95
    # Right trajectories halt at once, so that the value is fitted on their first step alone.
    assert ((model.read_heads(states[0]).value > 0) == right).float().mean() > 0.95


def test_the_value_foretells_the_answer_at_the_halt_and_not_the_present_one(tiny: ModelConfig, random_model: Build) -> None:
    model = random_model(tiny.model_copy(update={"guidance": "none"}))
    puzzles = torch.from_numpy(Toy().held_out)
    states = rollout(model, puzzles, 3, seed=0)
    at_first = model.decode(states[0]).argmax(-1).numpy()
    # All are wrong after one step and right after more.
    task = Toy(lambda _, answer: not (answer == at_first).all(1).any())
    fit_heads(model, task, task.sample, STAGE)
    first, second, _ = (model.read_heads(h) for h in states)
    assert (first.halt < 0).all()
    assert (second.halt > 0).all()
    assert (first.value.sigmoid() > 0.9).all()


def test_no_halt_comes_before_the_least_steps_though_the_answer_is_right(tiny: ModelConfig, random_model: Build) -> None:
    model = random_model(tiny.model_copy(update={"guidance": "none"}))
    task = Toy(lambda _puzzle, _answer: True)
    for least_steps in (1, 2, 3):
        fit_heads(model, task, task.sample, STAGE.model_copy(update={"least_steps": least_steps}))
        states = rollout(model, torch.from_numpy(task.held_out), 3, seed=0)
        halts = [bool((model.read_heads(h).halt > 0).all()) for h in states]
        assert halts == [step >= least_steps for step in (1, 2, 3)]


def test_caution_trades_late_halts_for_wrong_ones(tiny: ModelConfig, random_model: Build) -> None:
    task = Toy()
    puzzles, _ = task.sample(np.random.default_rng(5), 200)
    right = torch.from_numpy(puzzles[:, 0] == 2)

    def halted(caution: float) -> tuple[int, int]:
        """How many wrong and right rows halt at the first step, where the state does not yet tell all."""
        model = random_model(tiny)
        fit_heads(model, task, task.sample, STAGE.model_copy(update={"caution": caution}))
        halts = (
            model.read_heads(rollout(model, torch.from_numpy(puzzles), 1, seed=5, temperature=torch.full((200,), 3.0))[0]).halt
            > 0
        )
        return int(halts[~right].sum()), int(halts[right].sum())

    (rash_wrong, rash_right), (careful_wrong, careful_right) = halted(0.1), halted(10.0)
    assert careful_wrong < rash_wrong
    assert careful_right < rash_right


def test_fitting_repeats(tiny: ModelConfig, random_model: Build) -> None:
    def fitted() -> Heads:
        model = random_model(tiny)
        fit_heads(model, Toy(), Toy().sample, STAGE)
        return model.read_heads(torch.ones(1, tiny.length, tiny.dim))

    assert all(torch.equal(a, b) for a, b in zip(fitted(), fitted(), strict=True))


@pytest.fixture
def features() -> Tensor:
    return torch.randn(400, 8, generator=torch.Generator().manual_seed(0))


def test_logistic_regression_separates_what_a_plane_separates(features: Tensor) -> None:
    labels = (features @ torch.linspace(-1, 1, 8) > 0.5).float()
    weights = _logistic(features, labels, iterations=100)
    assert ((features @ weights[:-1] + weights[-1] > 0) == labels.bool()).float().mean() > 0.99


def test_logistic_regression_is_calibrated(features: Tensor) -> None:
    truth = torch.sigmoid(features[:, 0] - 1)
    labels = torch.bernoulli(truth, generator=torch.Generator().manual_seed(1))
    weights = _logistic(features, labels, iterations=100)
    chance = torch.sigmoid(features @ weights[:-1] + weights[-1])
    assert abs(chance.mean() - labels.mean()) < 1e-3
    assert (chance - truth).abs().mean() < 0.08


def test_weighting_the_negatives_by_two_is_seeing_each_of_them_twice(features: Tensor) -> None:
    labels = (features[:, 0] + torch.randn(400, generator=torch.Generator().manual_seed(1)) > 0).float()
    twice = torch.cat([features, features[labels == 0]])
    seen_twice = _logistic(twice, torch.cat([labels, labels[labels == 0]]), iterations=200)
    weighted = _logistic(features, labels, iterations=200, negative_weight=2.0)
    torch.testing.assert_close(weighted, seen_twice, rtol=0.02, atol=0.01)
