from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor

from gram.models.checkpoint import load_checkpoint
from gram.models.config import ModelConfig
from gram.models.tasks import TASKS
from gram.models.training.objective import Losses
from gram.models.training.recipe import ConfigError, Stage, TrainingConfig
from gram.models.training.trainer import LOG_FOLDER, RESUME_FILE, Trainer, learning_rate, train

Recipe = Callable[..., TrainingConfig]
UPDATES = 12


@pytest.fixture(scope="module")
def two_stages(recipe: Recipe) -> TrainingConfig:
    """A recipe of both kinds of stage, in bfloat16 as real ones are."""
    posterior = Stage(name="posterior", updates=7, lr=1e-2, warmup=3)
    prior = Stage(name="prior", updates=UPDATES - 7, lr=5e-3, warmup=1, prior_share=0.5, prior_free_steps=1)
    return recipe(stages=[posterior, prior], dtype="bfloat16")


@pytest.fixture(scope="module")
def uninterrupted(two_stages: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """All that the resume file of a run from start to end holds."""
    folder = tmp_path_factory.mktemp("whole")
    Trainer.create(two_stages).run(folder)
    return load_file(folder / RESUME_FILE)


def advance(trainer: Trainer, updates: int) -> list[Losses]:
    """Train for a while, as if killed then."""
    return [trainer._step(TASKS[trainer.config.task], *trainer._stage()) for _ in range(updates)]


# --- the schedule


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.05), (200, 0.05), (1, 0.0), (10, 1.0)])
def test_the_learning_rate_warms_up_to_lr_and_ends_at_its_final_share(warmup: int, final: float) -> None:
    stage = Stage(name="only", updates=1000, lr=0.02, warmup=warmup, final_lr=final)
    rates = [learning_rate(stage, position) for position in range(1001)]
    assert rates[max(0, warmup - 1)] == pytest.approx(0.02)
    assert rates[warmup] == pytest.approx(0.02)
    assert rates[:warmup] == pytest.approx([0.02 * (i + 1) / warmup for i in range(warmup)])
    middle = (warmup + 1000) // 2
    assert rates[middle] == pytest.approx(0.02 * (1 + final) / 2, rel=0.01)
    assert rates[1000] == pytest.approx(0.02 * final, abs=1e-12)
    assert all(later <= earlier for earlier, later in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_a_stage_shorter_than_its_warm_up_never_exceeds_lr() -> None:
    stage = Stage(name="only", updates=5, lr=0.02, warmup=10)
    assert [learning_rate(stage, i) for i in range(5)] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.010])


# --- the run


def test_a_short_run_lowers_the_loss(recipe: Recipe) -> None:
    trainer = Trainer.create(recipe(updates=80, batch_size=16))
    course = [float(result.cross_entropy) for result in advance(trainer, 80)]
    assert fmean(course[-10:]) < 0.6 * fmean(course[:10])


def test_two_runs_of_a_recipe_agree_and_another_seed_differs(recipe: Recipe) -> None:
    def weights(seed: int) -> Tensor:
        trainer = Trainer.create(recipe(seed=seed))
        advance(trainer, 3)
        return trainer.model.decoder.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_stages_follow_one_another(two_stages: TrainingConfig) -> None:
    trainer = Trainer.create(two_stages)
    seen = []
    for _ in range(UPDATES):
        stage, position = trainer._stage()
        seen.append((stage.name, position))
        advance(trainer, 1)
    assert seen == [*(("posterior", i) for i in range(7)), *(("prior", i) for i in range(UPDATES - 7))]
    with pytest.raises(ValueError, match="complete"):
        advance(trainer, 1)


def test_an_update_moves_the_weights_but_neither_z_0_nor_the_heads(recipe: Recipe) -> None:
    trainer = Trainer.create(recipe())
    before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    advance(trainer, 1)
    after = trainer.model.state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} >= {"initial_h", "initial_l", "heads.weight"}
    assert not torch.equal(before["decoder.weight"], after["decoder.weight"])


def test_a_run_can_be_watched_in_tensorboard(recipe: Recipe, tmp_path: Path) -> None:
    Trainer.create(recipe(updates=20)).run(tmp_path)
    events = EventAccumulator(str(tmp_path / LOG_FOLDER)).Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "cross_entropy", "kl", "halt", "prior_accuracy"}
    assert [event.step for event in events.Scalars("cross_entropy")] == [10, 20]


def test_the_average_lags_behind_the_weights_and_is_what_is_kept(recipe: Recipe) -> None:
    trainer = Trainer.create(recipe())
    first = trainer.model.decoder.weight.detach().clone()
    advance(trainer, 1)
    kept = trainer.averaged()
    expected = first.lerp(trainer.model.decoder.weight.detach(), 1 - 2 / 11)  # the decay warms up: (1 + n) / (10 + n)
    torch.testing.assert_close(kept.decoder.weight, expected)
    assert torch.equal(kept.initial_h, trainer.model.initial_h)
    assert not kept.decoder.weight.requires_grad


def test_the_probe_of_accuracy_leaves_the_run_as_it_was(recipe: Recipe) -> None:
    def weights(probes: int) -> Tensor:
        trainer = Trainer.create(recipe())
        for _ in range(3):
            for _ in range(probes):
                assert 0 <= trainer.prior_accuracy(TASKS["nqueens-8"]) <= 1
            advance(trainer, 1)
        return trainer.model.decoder.weight

    assert torch.equal(weights(0), weights(2))


# --- resuming


@pytest.mark.parametrize("killed_at", [0, 1, UPDATES // 2, 7, 8, UPDATES])
def test_a_run_resumed_after_a_kill_ends_bit_for_bit_where_an_uninterrupted_one_does(
    two_stages: TrainingConfig, uninterrupted: dict[str, Tensor], tmp_path: Path, killed_at: int
) -> None:
    killed = Trainer.create(two_stages)
    advance(killed, killed_at)
    killed.save(tmp_path)
    torch.manual_seed(1234)
    resumed = Trainer.create(two_stages)
    torch.manual_seed(5678)  # the file, not the process, decides what is drawn next
    resumed.resume(tmp_path)
    assert resumed.update == killed_at
    resumed.run(tmp_path)
    ended = load_file(tmp_path / RESUME_FILE)
    assert ended.keys() == uninterrupted.keys()
    assert [name for name in ended if not torch.equal(ended[name], uninterrupted[name])] == []


def test_a_save_that_dies_half_way_leaves_the_file_before_it(two_stages: TrainingConfig, tmp_path: Path) -> None:
    trainer = Trainer.create(two_stages)
    trainer.save(tmp_path)
    whole = (tmp_path / RESUME_FILE).read_bytes()
    (tmp_path / (RESUME_FILE + ".partial")).write_bytes(whole[:100])
    trainer.resume(tmp_path)
    trainer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RESUME_FILE]


@pytest.mark.parametrize("change", [{"seed": 1}, {"beta": 0.5}, {"batch_size": 12}, {"updates": 11}, {"lr": 2e-2}])
def test_a_run_of_another_recipe_is_not_resumed(recipe: Recipe, tmp_path: Path, change: dict[str, float]) -> None:
    Trainer.create(recipe()).save(tmp_path)
    other = Trainer.create(recipe(**change))
    before = other.model.decoder.weight.detach().clone()
    with pytest.raises(ConfigError, match=r"training\.safetensors was written by another recipe"):
        other.resume(tmp_path)
    assert torch.equal(other.model.decoder.weight, before)
    assert other.update == 0


def test_the_dtype_is_the_machines_and_a_run_goes_on_with_another(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    begun = Trainer.create(recipe(dtype="auto"))
    assert begun.carry.state.h.dtype == torch.bfloat16
    advance(begun, 1)
    begun.save(tmp_path)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    resumed = Trainer.create(recipe(dtype="auto"))
    resumed.resume(tmp_path)
    assert resumed.carry.state.h.dtype == torch.float32
    advance(resumed, 1)
    assert resumed.update == 2


def test_stages_to_come_may_change_and_those_begun_may_not(two_stages: TrainingConfig, tmp_path: Path) -> None:
    begun, to_come = two_stages.stages
    longer = to_come.model_copy(update={"updates": 9})
    killed = Trainer.create(two_stages)
    advance(killed, 7)
    killed.save(tmp_path)
    Trainer.create(two_stages.model_copy(update={"stages": [begun, longer, to_come]})).resume(tmp_path)
    with pytest.raises(ConfigError, match="another recipe"):
        Trainer.create(two_stages.model_copy(update={"stages": [longer, to_come]})).resume(tmp_path)
    advance(killed, 1)
    killed.save(tmp_path)
    with pytest.raises(ConfigError, match="another recipe"):
        Trainer.create(two_stages.model_copy(update={"stages": [begun, longer]})).resume(tmp_path)


def test_a_finished_run_goes_on_with_a_further_stage(two_stages: TrainingConfig, tmp_path: Path) -> None:
    Trainer.create(two_stages).run(tmp_path)
    extended = two_stages.model_copy(update={"stages": [*two_stages.stages, two_stages.stages[1]]})
    resumed = Trainer.create(extended)
    resumed.resume(tmp_path)
    assert (resumed.update, resumed._stage()) == (UPDATES, (two_stages.stages[1], 0))


def test_training_ends_in_a_checkpoint_and_going_on_from_its_end_gives_the_same(
    recipe: Recipe, tiny: ModelConfig, tmp_path: Path
) -> None:
    config = recipe(updates=4)
    train(config, tmp_path)
    model = load_checkpoint(tmp_path, torch.device("cpu"), torch.float32)
    assert model.config == tiny
    assert model.heads.weight.any(), "the heads are fitted"
    written = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    train(config, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == written


def test_the_average_is_taken_without_moving_the_random_state(recipe: Callable[..., TrainingConfig]) -> None:
    trainer = Trainer.create(recipe())
    before = torch.get_rng_state()
    model = trainer.averaged()
    trainer.prior_accuracy(TASKS["nqueens-8"])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.state_dict().keys() == trainer.model.state_dict().keys()
    assert all(torch.equal(tensor, trainer.average[name]) for name, tensor in model.named_parameters())
    assert not any(tensor.requires_grad for tensor in model.parameters())
    assert all(tensor.requires_grad for tensor in trainer.model.parameters())


# --- beginning with a checkpoint


@pytest.fixture
def begun_with(recipe: Recipe, tmp_path: Path) -> Path:
    """The folder of a trained checkpoint."""
    train(recipe(updates=2, seed=1), tmp_path / "begun_with")
    return tmp_path / "begun_with"


def test_a_run_begins_with_the_weights_of_a_checkpoint_and_with_the_posterior_as_the_prior(
    recipe: Recipe, begun_with: Path
) -> None:
    trainer = Trainer.create(recipe())
    trainer.take_weights(begun_with)
    served = load_checkpoint(begun_with, torch.device("cpu"), torch.float32)
    assert torch.equal(trainer.model.decoder.weight, served.decoder.weight)
    [losses] = advance(trainer, 1)
    assert float(losses.kl) == pytest.approx(0, abs=1e-6)


def test_a_gram_begins_with_the_weights_of_a_trm_and_with_a_prior_and_a_posterior_of_its_own(
    recipe: Recipe, tiny: ModelConfig, tmp_path: Path
) -> None:
    train(recipe(updates=2, seed=1, model=tiny.model_copy(update={"guidance": "none"})), tmp_path)
    trainer = Trainer.create(recipe())
    fresh = {name: weights.clone() for name, weights in trainer.model.prior.state_dict().items()}
    trainer.take_weights(tmp_path)
    served = load_checkpoint(tmp_path, torch.device("cpu"), torch.float32)
    assert torch.equal(trainer.model.decoder.weight, served.decoder.weight)
    assert all(torch.equal(weights, fresh[name]) for name, weights in trainer.model.prior.state_dict().items())
    [losses] = advance(trainer, 1)
    assert float(losses.kl) == pytest.approx(0, abs=1e-6)


def test_weights_of_another_size_are_refused(recipe: Recipe, tiny: ModelConfig, begun_with: Path) -> None:
    wider = tiny.model_copy(update={"mlp_dim": 2 * tiny.mlp_dim})
    with pytest.raises(ConfigError, match="can't begin with"):
        Trainer.create(recipe(model=wider)).take_weights(begun_with)


@pytest.mark.parametrize("killed_at", [1, 3])
def test_at_its_end_a_stage_goes_back_a_share_of_the_way_to_where_the_run_began(
    recipe: Recipe, begun_with: Path, tmp_path: Path, killed_at: int
) -> None:
    def run(share: float) -> Trainer:
        stages = [Stage(name="only", updates=3, lr=1e-2, warmup=0, start_share=share)]
        killed = Trainer.create(recipe(stages=stages))
        killed.take_weights(begun_with)
        advance(killed, killed_at)
        killed.save(tmp_path)
        resumed = Trainer.create(recipe(stages=stages))
        resumed.resume(tmp_path)
        advance(resumed, 3 - killed_at)
        return resumed

    began = load_checkpoint(begun_with, torch.device("cpu"), torch.float32).state_dict()
    moved, back = run(0.0), run(0.25)
    for name in moved.average.keys() & began.keys():
        torch.testing.assert_close(back.average[name], moved.average[name].lerp(began[name], 0.25))
    assert all(torch.equal(weights, back.average[name]) for name, weights in back.model.named_parameters())


def test_a_recipe_that_goes_back_needs_a_checkpoint_to_begin_with(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--start"):
        train(recipe(updates=1, start_share=0.3), tmp_path)
