"""Training on a data set folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from gram.models.checkpoint import load_checkpoint
from gram.models.config import read_config
from gram.models.tasks import Plain, task_of
from gram.models.training.labelled import Labelled
from gram.models.training.recipe import DATA_RECIPE, ConfigError, TrainingConfig, load_training_config
from gram.models.training.trainer import Trainer, train
from tests.support import write_data_set

RNG = np.random.default_rng(0)
PUZZLES = np.unique(RNG.integers(5, size=(200, 6)), axis=0)
ANSWERS = PUZZLES[:, ::-1]
MODEL = "dim = 16\nnum_layers = 1\nmixer_dim = 16\nmlp_dim = 16\nguidance_dim = 16\nnum_registers = 2\nsupervision_steps = 3\n"
RECIPE = """batch_size = 8
[heads]
puzzles = 64
steps = 2
iterations = 5
[model]
{model}guidance = "{guidance}"
[[stages]]
name = "only"
updates = {updates}
lr = 1e-2
warmup = 3
prior_share = {prior_share}
halt_weight = 0.05
"""


def config(folder: Path, guidance: str = "none", prior_share: float = 1.0, updates: int = 4) -> TrainingConfig:
    recipe = folder.parent / "train.toml"
    recipe.write_text(RECIPE.format(model=MODEL, guidance=guidance, prior_share=prior_share, updates=updates))
    return load_training_config(recipe, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data_set(tmp_path / "flips" / "train", PUZZLES, ANSWERS, 5)
    return tmp_path / "flips"


def test_the_data_set_names_the_task_and_gives_its_sizes(folder: Path) -> None:
    read = config(folder)
    assert (read.task, read.model.seq_len, read.model.vocab_size) == ("flips", 6, 5)
    assert task_of(read.checkpoint) == Plain("flips", 6, 5)


def test_pairs_are_rows_and_an_answer_is_right_if_it_is_the_label(folder: Path) -> None:
    task = Labelled.open(folder, "flips")
    puzzles, answers = task.sample(np.random.default_rng(1), 50)
    assert np.array_equal(puzzles[:, ::-1], answers)
    assert len(np.unique(puzzles, axis=0)) > 25
    assert all(map(task.check, puzzles, answers))
    assert not task.check(puzzles[0], (answers[0] + 1) % 5)
    assert not task.is_ambiguous(puzzles).any()
    assert task.solutions(PUZZLES[7]).tolist() == [ANSWERS[7].tolist()]


def test_several_labels_of_a_puzzle_are_its_solutions(tmp_path: Path) -> None:
    puzzles = np.concatenate([PUZZLES, PUZZLES[:2], PUZZLES[:1]])
    answers = np.concatenate([ANSWERS, (ANSWERS[:1] + 1) % 5, ANSWERS[1:2], (ANSWERS[:1] + 2) % 5])
    task = Labelled.open(write_data_set(tmp_path / "train", puzzles, answers, 5), "several")
    assert task.is_ambiguous(PUZZLES[:3]).tolist() == [True, False, False]
    assert {s.tobytes() for s in task.solutions(PUZZLES[0])} == {((ANSWERS[0] + i) % 5).tobytes() for i in range(3)}
    assert task.check(PUZZLES[0], (ANSWERS[0] + 2) % 5)


def test_a_cell_that_is_not_scored_may_hold_any_symbol(tmp_path: Path) -> None:
    answers = ANSWERS.copy()
    answers[:, 0] = -1
    task = Labelled.open(write_data_set(tmp_path / "train", PUZZLES, answers, 5), "open")
    assert all(task.check(PUZZLES[0], np.array([symbol, *answers[0, 1:]])) for symbol in range(5))


@pytest.mark.parametrize(("guidance", "prior_share"), [("none", 1.0), ("none", 0.0), ("full", 0.0), ("full", 0.5)], ids=str)
def test_a_short_run_writes_a_checkpoint_of_a_task_without_code(
    guidance: str, prior_share: float, folder: Path, tmp_path: Path
) -> None:
    import torch

    train(config(folder, guidance, prior_share), tmp_path / "out")
    written = read_config(tmp_path / "out")
    assert (written.task, written.checked) == ("flips", False)
    load_checkpoint(tmp_path / "out", torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("prior_share", [0.0, 0.5])
def test_a_gram_learns_from_several_labels(prior_share: float, tmp_path: Path) -> None:
    write_data_set(tmp_path / "two" / "train", np.concatenate([PUZZLES] * 2), np.concatenate([ANSWERS, PUZZLES]), 5)
    trainer = Trainer.create(config(tmp_path / "two", "full", prior_share))
    trainer.run(tmp_path / "out")
    assert trainer.carry.ambiguous.any()


def test_a_model_learns_the_cells_that_are_scored(tmp_path: Path) -> None:
    answers = np.where(np.arange(6) == 0, PUZZLES, -1)
    write_data_set(tmp_path / "open" / "train", PUZZLES, answers, 5)
    trainer = Trainer.create(config(tmp_path / "open", updates=150))
    trainer.run(tmp_path / "out")
    assert trainer.prior_accuracy(trainer.config.source) > 0.5


def test_the_default_recipe_fits_any_data_set(folder: Path) -> None:
    read = load_training_config(DATA_RECIPE, folder)
    assert (read.task, read.model.guidance) == ("flips", "none")


def test_a_registered_task_may_be_trained_on_a_data_set(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "train", np.zeros((2, 16), int), np.ones((2, 16), int), 5).parent
    recipe = tmp_path / "train.toml"
    recipe.write_text('task = "sudoku-4x4"\n[model]\ndim = 16\n[[stages]]\nname = "only"\nupdates = 1\nlr = 1e-3\n')
    read = load_training_config(recipe, folder)
    assert (read.checkpoint.task, read.checkpoint.checked) == ("sudoku-4x4", True)
    assert isinstance(read.source, Labelled)


def test_what_can_not_be_trained_on_is_refused(folder: Path, tmp_path: Path) -> None:
    answers = ANSWERS.copy()
    answers[3, 3] = -1
    write_data_set(tmp_path / "open" / "train", PUZZLES, answers, 5)
    with pytest.raises(ConfigError, match=r"all__labels\.npy has cells that are not scored \(0\), but the posterior"):
        config(tmp_path / "open", "full")
    write_data_set(tmp_path / "blind" / "train", PUZZLES, None, 5)
    with pytest.raises(ConfigError, match=r"all__labels\.npy is missing"):
        config(tmp_path / "blind")
    with pytest.raises(ConfigError, match=r"is no data set: neither it nor train/ in it has dataset\.json"):
        config(tmp_path / "nowhere")
    about = folder / "train" / "dataset.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"vocab_size": 5}))
    with pytest.raises(ConfigError, match=r"row \d+, cell \d: 5 is no symbol; write 1 to 4"):
        config(folder)
